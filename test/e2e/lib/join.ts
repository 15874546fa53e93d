import { createPrivateKey } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";

import { renderKubeconfig } from "../../../src/api/kubeconfig-write.ts";
import { certificate, newPrivateKey, privateKeyPEM } from "../../../src/lib/x509.ts";
import type { Machine } from "./machine.ts";

const directory = "/etc/remora";
const hourMs = 3_600_000;

/**
 * Makes credentials for a node as an administrator would who has the cluster's certificate authority, and returns the
 * arguments of `remora run` that use them.
 */
export async function credentialsFor(machine: Machine, server: Machine): Promise<string[]> {
  const pki = server.path("/var/lib/remora/control-plane/pki");
  const [caPEM, caKey] = await Promise.all([
    readFile(`${pki}/ca.crt`, "utf8"),
    readFile(`${pki}/ca.key`, "utf8"),
  ]);
  const issuer = { name: { commonName: "remora-ca" }, privateKey: createPrivateKey(caKey) };
  const validity = { notBefore: Date.now() - hourMs, notAfter: Date.now() + 24 * hourMs };
  const put = async (name: string, text: string): Promise<string> => {
    await mkdir(machine.path(directory), { recursive: true });
    await writeFile(machine.path(`${directory}/${name}`), text, { mode: 0o600 });
    return `${directory}/${name}`;
  };
  const kubeconfig = async (name: string, user: string, groups: string[]): Promise<string> => {
    const key = newPrivateKey();
    const subject = { commonName: user, organizations: groups };
    const text = await renderKubeconfig({
      name: "remora",
      server: `https://${server.address}:6443`,
      caPEM,
      clientCertPEM: certificate({ subject, usages: ["client"], ...validity }, key, issuer),
      clientKeyPEM: privateKeyPEM(key),
    });
    return put(`${name}.kubeconfig`, text);
  };
  const user = `system:node:${machine.name}`;
  const servingKey = newPrivateKey();
  const serving = certificate(
    {
      subject: { commonName: user, organizations: ["system:nodes"] },
      alternativeNames: [machine.name, machine.address],
      usages: ["server"],
      ...validity,
    },
    servingKey,
    issuer,
  );
  return [
    ["--kubeconfig", await kubeconfig("node", user, ["system:nodes"])],
    ["--proxy-kubeconfig", await kubeconfig("proxy", "system:kube-proxy", [])],
    ["--tls-cert-file", await put("kubelet.crt", serving)],
    ["--tls-private-key-file", await put("kubelet.key", privateKeyPEM(servingKey))],
    ["--cluster-cidr", "10.244.0.0/16"],
    ["--cluster-dns", "10.96.0.10"],
  ].flat();
}

import { join } from "node:path";

import { fileKubeconfig } from "../api/kubeconfig-files.ts";
import { renderKubeconfig } from "../api/kubeconfig-write.ts";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import type { ControlPlaneFiles } from "./control-plane.ts";
import type { KeyPair, PKI } from "./pki/ensure-pki.ts";

/** Writes the kubeconfigs of the administrator, the node and the proxy into the data directory. */
export async function writeKubeconfigs(
  dataDir: string,
  server: string,
  pki: PKI,
): Promise<Pick<ControlPlaneFiles, "adminKubeconfig" | "nodeKubeconfig" | "proxyKubeconfig">> {
  const write = async (file: string, text: string): Promise<string> => {
    const path = join(dataDir, file);
    await writeFileAtomic(path, text, 0o600);
    return path;
  };
  // The agent's name the files, because they are renewed under way; people copy the administrator's.
  const ofFiles = ({ certFile, keyFile }: KeyPair): string =>
    fileKubeconfig({
      cluster: { server, ca: { kind: "file", path: pki.caFile }, insecureSkipTLSVerify: false },
      clientCertificate: certFile,
      clientKey: keyFile,
    });
  const admin = await renderKubeconfig({
    name: "remora",
    server,
    caPEM: pki.caPEM,
    clientCertPEM: pki.admin.certPEM,
    clientKeyPEM: pki.admin.keyPEM,
  });
  return {
    adminKubeconfig: await write("admin.conf", admin),
    nodeKubeconfig: await write("node.conf", ofFiles(pki.node)),
    proxyKubeconfig: await write("proxy.conf", ofFiles(pki.proxy)),
  };
}

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { proxyDefaults } from "../../../src/config/agent-config.ts";
import type { AgentConfig } from "../../../src/config/types.ts";

/** A configuration that touches nothing outside `rootDir`. */
export function agentConfig(rootDir: string, more: Partial<AgentConfig> = {}): AgentConfig {
  return {
    nodeName: "n1",
    nodeIPs: [],
    nodeLabels: {},
    registerWithTaints: [],
    rootDir,
    podLogsDir: join(rootDir, "pods"),
    containerLogsDir: join(rootDir, "containers"),
    kubeconfig: "",
    proxyKubeconfig: "",
    dockerSocket: "",
    bindAddress: "127.0.0.1",
    kubeletPort: 0,
    kubeletHealthzPort: 0,
    proxyHealthzPort: 0,
    proxyMetricsPort: 0,
    clientCAFile: "",
    tlsCertFile: "",
    tlsPrivateKeyFile: "",
    podCIDRs: [],
    clusterCIDRs: [],
    clusterDNS: [],
    clusterDomain: "cluster.local",
    resolvConf: "",
    maxPods: 110,
    podPidsLimit: -1,
    cgroupRoot: "/",
    cgroupsPerQOS: true,
    containerLogMaxBytes: 1,
    containerLogMaxFiles: 5,
    imagePullProgressDeadlineMs: 1,
    serializeImagePulls: true,
    nodeStatusUpdateFrequencyMs: 10_000,
    nodeStatusReportFrequencyMs: 300_000,
    nodeLeaseDurationSeconds: 40,
    nodeStatusMaxImages: 50,
    kubeReserved: {},
    systemReserved: {},
    evictionHard: {},
    allowedUnsafeSysctls: [],
    enableDebuggingHandlers: true,
    proxy: proxyDefaults,
    ...more,
  };
}

export interface TestPki {
  readonly directory: string;
  /** PEM file of the CA. */
  readonly ca: string;
  /** Makes a certificate; returns the paths of certificate and key. */
  issue(name: string, subject: string): { readonly cert: string; readonly key: string };
  read(path: string): Buffer;
  remove(): void;
}

function openssl(...args: string[]): void {
  execFileSync("openssl", args, { stdio: "ignore" });
}

function newKey(path: string): void {
  openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path);
}

/** A certificate authority in a temporary directory. */
export function testPki(): TestPki {
  const directory = mkdtempSync(join(tmpdir(), "remora-pki-"));
  const file = (name: string): string => join(directory, name);
  newKey(file("ca.key"));
  openssl(
    "req",
    "-x509",
    "-new",
    "-key",
    file("ca.key"),
    "-subj",
    "/CN=ca",
    "-days",
    "2",
    "-out",
    file("ca.crt"),
  );
  return {
    directory,
    ca: file("ca.crt"),
    issue: (name, subject) => {
      const [cert, key, request] = [file(`${name}.crt`), file(`${name}.key`), file(`${name}.csr`)];
      newKey(key);
      openssl("req", "-new", "-key", key, "-subj", subject, "-out", request);
      writeFileSync(file("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
      openssl(
        "x509",
        "-req",
        "-in",
        request,
        "-CA",
        file("ca.crt"),
        "-CAkey",
        file("ca.key"),
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        file("ext"),
        "-out",
        cert,
      );
      return { cert, key };
    },
    read: (path) => readFileSync(path),
    remove: () => {
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

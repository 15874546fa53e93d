import type { KubeconfigCluster, PemSource } from "./kubeconfig-types.ts";

/** What a kubeconfig of a program consists of, whose certificates others renew. */
export interface KubeconfigFiles {
  readonly cluster: Pick<
    KubeconfigCluster,
    "server" | "ca" | "tlsServerName" | "insecureSkipTLSVerify"
  >;
  readonly clientCertificate: string;
  readonly clientKey: string;
}

function authority(ca: PemSource | undefined): object {
  if (ca === undefined) return {};
  return ca.kind === "file"
    ? { "certificate-authority": ca.path }
    : { "certificate-authority-data": Buffer.from(ca.pem).toString("base64") };
}

/**
 * Text of a kubeconfig that names the files of certificate and key instead of holding them, so that renewed ones are
 * found without a restart. Its entries have the names that the kubelet writes.
 */
export function fileKubeconfig({ cluster, clientCertificate, clientKey }: KubeconfigFiles): string {
  const { server, ca, tlsServerName, insecureSkipTLSVerify } = cluster;
  const fields = {
    server,
    ...authority(ca),
    ...(tlsServerName === undefined ? {} : { "tls-server-name": tlsServerName }),
    ...(insecureSkipTLSVerify ? { "insecure-skip-tls-verify": true } : {}),
  };
  const context = { cluster: "default-cluster", namespace: "default", user: "default-auth" };
  const user = { "client-certificate": clientCertificate, "client-key": clientKey };
  // JSON is YAML.
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "default-cluster", cluster: fields }],
    contexts: [{ name: "default-context", context }],
    "current-context": "default-context",
    users: [{ name: "default-auth", user }],
  };
  return `${JSON.stringify(config, undefined, 2)}\n`;
}

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import type { KubeconfigCluster } from "../../api/kubeconfig-types.ts";

/** What stays of a cluster when its kubeconfig is written anew. */
export type ClusterAccess = Pick<
  KubeconfigCluster,
  "server" | "ca" | "tlsServerName" | "insecureSkipTLSVerify"
>;

function clusterFields({
  server,
  ca,
  tlsServerName,
  insecureSkipTLSVerify,
}: ClusterAccess): object {
  return {
    server,
    ...(ca?.kind === "file" ? { "certificate-authority": ca.path } : {}),
    ...(ca?.kind === "data"
      ? { "certificate-authority-data": Buffer.from(ca.pem).toString("base64") }
      : {}),
    ...(tlsServerName === undefined ? {} : { "tls-server-name": tlsServerName }),
    ...(insecureSkipTLSVerify ? { "insecure-skip-tls-verify": true } : {}),
  };
}

/**
 * Writes a kubeconfig of a node, readable by root only. Its certificate is named, not embedded, so that a renewed one is
 * found without a restart.
 *
 * @param pairPath File with certificate and key.
 */
export async function writeNodeKubeconfig(
  path: string,
  cluster: ClusterAccess,
  pairPath: string,
): Promise<void> {
  // JSON is YAML. The names are those that the kubelet writes.
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "default-cluster", cluster: clusterFields(cluster) }],
    contexts: [
      {
        name: "default-context",
        context: { cluster: "default-cluster", namespace: "default", user: "default-auth" },
      },
    ],
    "current-context": "default-context",
    users: [
      { name: "default-auth", user: { "client-certificate": pairPath, "client-key": pairPath } },
    ],
  };
  await writeFileAtomic(path, `${JSON.stringify(config, undefined, 2)}\n`, 0o600);
}

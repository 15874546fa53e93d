import { fileKubeconfig, type KubeconfigFiles } from "../../api/kubeconfig-files.ts";
import { writeFileAtomic } from "../../lib/atomic-file.ts";

/**
 * Writes a kubeconfig of a node, readable by root only.
 *
 * @param pairPath File with certificate and key.
 */
export async function writeNodeKubeconfig(
  path: string,
  cluster: KubeconfigFiles["cluster"],
  pairPath: string,
): Promise<void> {
  const text = fileKubeconfig({ cluster, clientCertificate: pairPath, clientKey: pairPath });
  await writeFileAtomic(path, text, 0o600);
}

import { join } from "node:path";

import { readIfThere } from "../../lib/read-if-there.ts";
import { PairStore } from "../certificates/pair-store.ts";

/** Where a node that joined keeps what it got. */
export interface CredentialPaths {
  readonly directory: string;
  /** CA of the cluster. */
  readonly ca: string;
  readonly kubeconfig: string;
  /** What the cluster's ConfigMaps said last. */
  readonly clusterConfiguration: string;
  /** Certificate and key with which the node comes to the API server. */
  readonly client: PairStore;
}

/** @param directory Where certificates are kept; default `pki` below `rootDir`. */
export function credentialPaths(
  rootDir: string,
  directory = join(rootDir, "pki"),
): CredentialPaths {
  return {
    directory,
    ca: join(directory, "ca.crt"),
    kubeconfig: join(rootDir, "joined.kubeconfig"),
    clusterConfiguration: join(rootDir, "cluster-configuration.json"),
    client: new PairStore(directory, "kubelet-client"),
  };
}

/**
 * All files that an agent's certificates and joining leave, for whoever removes them.
 *
 * @param certDir Where certificates were kept. Others may keep theirs there too: a CA in it is ours only after joining.
 */
export async function joinedFiles(rootDir: string, certDir?: string): Promise<string[]> {
  const paths = credentialPaths(rootDir, certDir);
  const { directory, ca, client, kubeconfig, clusterConfiguration } = paths;
  const server = new PairStore(directory, "kubelet-server");
  return [
    kubeconfig,
    join(rootDir, "rotated.kubeconfig"),
    clusterConfiguration,
    ...(certDir === undefined || (await readIfThere(kubeconfig)) !== undefined ? [ca] : []),
    ...(await client.ownFiles()),
    ...(await server.ownFiles()),
  ];
}

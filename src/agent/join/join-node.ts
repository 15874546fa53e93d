import { readFile } from "node:fs/promises";

import { mayDo } from "../../api/access-review.ts";
import { createHttpClient, type HttpClient } from "../../api/http-client.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import type { BootstrapToken } from "../../api/bootstrap-token.ts";
import { writeFileAtomic } from "../../lib/atomic-file.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { type ClientRotation, clientRotation } from "../certificates/client-rotation.ts";
import { type ClusterConfiguration, fetchClusterConfiguration } from "./cluster-configuration.ts";
import { type CredentialPaths, credentialPaths } from "./credential-files.ts";
import { renewedAuthority } from "./discovery.ts";
import { connectWithToken, joinCluster, parseServer } from "./join-cluster.ts";
import { parseHashes } from "./ca-hash.ts";

export interface JoinNodeOptions {
  /** `--join` */
  readonly server: string;
  /**
   * Reads the token, at the start and when the certificate has expired under way.
   *
   * @throws {SetupError} when it is malformed.
   */
  readonly token: () => Promise<BootstrapToken | undefined>;
  /** `--ca-hash` */
  readonly caHashes: readonly string[];
  readonly skipCAVerification: boolean;
  readonly rootDir: string;
  /** Where certificates are kept; default `pki` below `rootDir`. */
  readonly certDir?: string;
  readonly nodeName: string;
  /** KubeletConfiguration `rotateCertificates`; undefined = what the cluster says. */
  readonly rotate?: boolean;
  /** The proxy half has credentials of its own. */
  readonly ownProxyCredentials: boolean;
  readonly userAgent: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly patienceMs?: number;
}

/** What a machine that has joined runs with. */
export interface JoinedNode {
  readonly kubeconfig: string;
  readonly cluster: ClusterConfiguration;
  /** Undefined when the certificate is not to be renewed. */
  readonly rotation: ClientRotation | undefined;
  /** Ends the connections of `rotation`. */
  close(): Promise<void>;
}

/** Says at once which binding is missing, instead of leaving it to the proxy's retries. */
async function warnOfMissingRights(
  client: HttpClient,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const attributes = { verb: "list", group: "discovery.k8s.io", resource: "endpointslices" };
  try {
    if ((await mayDo(client, attributes, { deadlineMs: 5000, signal })) !== false) return;
    logger.log("warn", "this node may not read EndpointSlices, so Services will not work on it", {
      remedy:
        "kubectl create clusterrolebinding remora:node-proxier --clusterrole=system:node-proxier --group=system:nodes (or give --proxy-kubeconfig)",
    });
  } catch (error) {
    signal.throwIfAborted();
    logger.log("debug", "own rights not checked", { error: errorMessage(error) });
  }
}

/** An authority lives long and is renewed with the same key; who still has the old certificate takes the new one. */
async function refreshAuthority(
  options: JoinNodeOptions & { readonly paths: CredentialPaths },
  signal: AbortSignal,
): Promise<void> {
  const { paths, logger } = options;
  try {
    const held = await readFile(paths.ca, "utf8");
    const renewed = await renewedAuthority({ ...options, patienceMs: 0 }, held, signal);
    if (renewed === undefined) return;
    await writeFileAtomic(paths.ca, renewed);
    logger.log("info", "the cluster's CA was renewed");
  } catch (error) {
    signal.throwIfAborted();
    logger.log("debug", "the cluster's CA not looked at", { error: errorMessage(error) });
  }
}

/**
 * Makes this machine a node of the cluster at `server`, or finds that it is one already.
 *
 * @throws {SetupError} one sentence with the remedy.
 */
export async function joinNode(options: JoinNodeOptions, signal: AbortSignal): Promise<JoinedNode> {
  const { rootDir, nodeName, userAgent, clock, logger, random } = options;
  const paths = credentialPaths(rootDir, options.certDir);
  const server = parseServer(options.server);
  const caHashes = parseHashes(options.caHashes);
  const joining = { ...options, server, caHashes, paths };
  await joinCluster({ ...joining, token: await options.token() }, signal);
  const kubeconfig = await loadKubeconfig(paths.kubeconfig);
  const client = createHttpClient({ kubeconfig, userAgent, clock, logger });
  try {
    const cluster = await fetchClusterConfiguration(
      { client, clock, logger },
      paths.clusterConfiguration,
      signal,
    );
    await refreshAuthority(joining, signal);
    if (!options.ownProxyCredentials) await warnOfMissingRights(client, logger, signal);
    const rotates = options.rotate ?? cluster.rotateCertificates;
    const rotation = clientRotation({
      nodeName,
      store: paths.client,
      client,
      onIssued: (inner) => refreshAuthority(joining, inner),
      bootstrap: async () => connectWithToken({ ...joining, token: await options.token() }),
      clock,
      logger: logger.child({ component: "certificates" }),
      random,
    });
    return {
      kubeconfig: paths.kubeconfig,
      cluster,
      rotation: rotates ? rotation : undefined,
      close: () => client.close(),
    };
  } catch (error) {
    await client.close();
    throw error;
  }
}

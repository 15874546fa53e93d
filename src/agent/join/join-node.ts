import { readFile } from "node:fs/promises";

import { createHttpClient, type HttpClient } from "../../api/http-client.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import type { BootstrapToken } from "../../api/bootstrap-token.ts";
import { writeFileAtomic } from "../../lib/atomic-file.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import { isRecord } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";
import { ensureServingCertificate } from "../serving-certificate.ts";
import type { Runner } from "../supervise.ts";
import { type ClusterConfiguration, fetchClusterConfiguration } from "./cluster-configuration.ts";
import { type CredentialPaths, credentialPaths, readPair } from "./credential-files.ts";
import { joinCluster, parseServer } from "./join-cluster.ts";
import { parseHashes } from "./ca-hash.ts";
import { certificateRenewal } from "./renewal.ts";

export interface JoinNodeOptions {
  /** `--join` */
  readonly server: string;
  readonly token: BootstrapToken | undefined;
  /** `--ca-hash` */
  readonly caHashes: readonly string[];
  readonly skipCAVerification: boolean;
  readonly rootDir: string;
  readonly nodeName: string;
  readonly nodeIPs: readonly string[];
  /** The node brings its own certificate for port 10250. */
  readonly ownServingCertificate: boolean;
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
  /** Certificate and key of port 10250 in one file; undefined where the cluster issues none. */
  readonly servingFile: string | undefined;
  /** Renews the certificates; runs beside the agent. */
  readonly renewal: Runner;
  /** Ends the connections of `renewal`. */
  close(): Promise<void>;
}

/** A self-signed pair to begin with, until the cluster has issued one. */
async function ensureServingPair(
  { rootDir, nodeName, nodeIPs, clock }: JoinNodeOptions,
  paths: CredentialPaths,
): Promise<void> {
  const pair = await readPair(paths.server).catch(() => undefined);
  if (pair !== undefined && pair.certificate.validToDate.getTime() > clock.now()) return;
  const files = await ensureServingCertificate(rootDir, [nodeName, ...nodeIPs], clock.now());
  const [certificate, key] = await Promise.all([
    readFile(files.certFile, "utf8"),
    readFile(files.keyFile, "utf8"),
  ]);
  await writeFileAtomic(paths.server, `${certificate.trimEnd()}\n${key}`, 0o600);
}

/** Says at once which binding is missing, instead of leaving it to the proxy's retries. */
async function warnOfMissingRights(
  client: HttpClient,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const attributes = { verb: "list", group: "discovery.k8s.io", resource: "endpointslices" };
  try {
    const answer = await client.request({
      method: "POST",
      path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
      body: {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SelfSubjectAccessReview",
        spec: { resourceAttributes: attributes },
      },
      deadlineMs: 5000,
      signal,
    });
    const status = isRecord(answer) ? answer["status"] : undefined;
    if (!isRecord(status) || status["allowed"] === true) return;
    logger.log("warn", "this node may not read EndpointSlices, so Services will not work on it", {
      remedy:
        "kubectl create clusterrolebinding remora:node-proxier --clusterrole=system:node-proxier --group=system:nodes (or give --proxy-kubeconfig)",
    });
  } catch (error) {
    signal.throwIfAborted();
    logger.log("debug", "own rights not checked", { error: errorMessage(error) });
  }
}

/**
 * Makes this machine a node of the cluster at `server`, or finds that it is one already.
 *
 * @throws {SetupError} one sentence with the remedy.
 */
export async function joinNode(options: JoinNodeOptions, signal: AbortSignal): Promise<JoinedNode> {
  const { rootDir, nodeName, userAgent, clock, logger, random } = options;
  const paths = credentialPaths(rootDir);
  const server = parseServer(options.server);
  const caHashes = parseHashes(options.caHashes);
  await joinCluster({ ...options, server, caHashes, paths }, signal);
  const kubeconfig = await loadKubeconfig(paths.kubeconfig);
  const client = createHttpClient({ kubeconfig, userAgent, clock, logger });
  try {
    const cluster = await fetchClusterConfiguration(
      { client, clock, logger },
      paths.clusterConfiguration,
      signal,
    );
    if (!options.ownProxyCredentials) await warnOfMissingRights(client, logger, signal);
    const serving = cluster.serverTLSBootstrap && !options.ownServingCertificate;
    if (serving) await ensureServingPair(options, paths);
    return {
      kubeconfig: paths.kubeconfig,
      cluster,
      servingFile: serving ? paths.server : undefined,
      renewal: certificateRenewal({
        client,
        nodeName,
        paths,
        clock,
        logger: logger.child({ component: "certificates" }),
        random,
        rotateClient: cluster.rotateCertificates,
        serving,
      }),
      close: () => client.close(),
    };
  } catch (error) {
    await client.close();
    throw error;
  }
}

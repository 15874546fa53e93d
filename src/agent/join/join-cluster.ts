import type { X509Certificate } from "node:crypto";

import type { BootstrapToken } from "../../api/bootstrap-token.ts";
import { isForbidden, isNotFound } from "../../api/errors.ts";
import { createHttpClient, type HttpClient } from "../../api/http-client.ts";
import type { Kubeconfig } from "../../api/kubeconfig-types.ts";
import { getObject } from "../../api/objects.ts";
import { NODES } from "../../api/resources.ts";
import { writeFileAtomic } from "../../lib/atomic-file.ts";
import type { Clock } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import { type Logger, silentLogger } from "../../lib/log.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import { privateKeyPEM } from "../../lib/x509.ts";
import { writeNodeKubeconfig } from "../certificates/node-kubeconfig.ts";
import type { CredentialPair } from "../certificates/pair-store.ts";
import {
  clientWish,
  nodeUser,
  requestCertificate,
  RequestRefusedError,
} from "../certificates/request-certificate.ts";
import type { RequestClient } from "../certificates/rotation.ts";
import { commonName, isExpired } from "../certificates/validity.ts";
import { clockSentence, explainedRefusal } from "./api-failure.ts";
import { certificatesIn, publicKeyHash } from "./ca-hash.ts";
import type { CredentialPaths } from "./credential-files.ts";
import { discoverAuthority } from "./discovery.ts";

export interface JoinOptions {
  /** `https://HOST:PORT` */
  readonly server: string;
  readonly nodeName: string;
  /** Undefined is fine for a machine that has joined before. */
  readonly token: BootstrapToken | undefined;
  /** `sha256:HEX` */
  readonly caHashes: readonly string[];
  /** Trust a CA that only the token vouches for. */
  readonly skipCAVerification: boolean;
  readonly paths: CredentialPaths;
  readonly userAgent: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long a server that does not answer is asked again, milliseconds. */
  readonly patienceMs?: number;
}

/**
 * Reads `--join`.
 *
 * @throws {SetupError} unless it is an https URL, or HOST:PORT, without a path.
 */
export function parseServer(text: string): string {
  const url = URL.parse(text.includes("://") ? text : `https://${text}`);
  const plain =
    url?.protocol === "https:" && url.pathname === "/" && url.username === "" && url.search === "";
  if (url === null || !plain) {
    throw new SetupError(
      `--join ${text}: must be the address of the API server, such as https://10.0.0.1:6443`,
    );
  }
  return url.origin;
}

/** The certificate of an earlier start when it is still this node's in this cluster. */
async function earlierPair(options: JoinOptions): Promise<CredentialPair | undefined> {
  const { paths, nodeName, caHashes, clock, logger, token } = options;
  const [pair, caPEM] = await Promise.all([paths.client.read(), readIfThere(paths.ca)]);
  if (pair === undefined || caPEM === undefined) return undefined;
  const authorities = certificatesIn(caPEM);
  if (
    caHashes.length > 0 &&
    !authorities.map(publicKeyHash).some((hash) => caHashes.includes(hash))
  ) {
    throw new SetupError(
      `this machine has joined another cluster than the one --ca-hash names: remove it from there (remora down), or delete ${paths.directory} to join anew`,
    );
  }
  const owner = commonName(pair.certificate);
  if (owner !== nodeUser(nodeName)) {
    throw new SetupError(
      `this machine has joined as ${owner.replace(nodeUser(""), "")}, not as ${nodeName}: give --hostname-override, or delete ${paths.client.currentPath} to join anew`,
    );
  }
  if (!isExpired(pair.certificate, clock.now())) return pair;
  if (token === undefined) {
    throw new SetupError(
      `the certificate of node ${nodeName} expired at ${pair.certificate.validToDate.toISOString()}: start with a new token ("remora token create" on the control plane's machine) to get another`,
    );
  }
  logger.log("warn", "client certificate has expired, joining anew", { node: nodeName });
  return undefined;
}

function tokenKubeconfig(
  server: string,
  caPEM: string,
  { id, secret }: BootstrapToken,
): Kubeconfig {
  return {
    path: "(bootstrap)",
    context: "bootstrap",
    namespace: "default",
    cluster: {
      name: "bootstrap",
      server,
      ca: { kind: "data", pem: caPEM },
      insecureSkipTLSVerify: false,
    },
    user: { name: "bootstrap", token: `${id}.${secret}` },
  };
}

/** What an answer means to somebody who came with a token. */
function explained(
  error: unknown,
  { server, clock }: Pick<JoinOptions, "server" | "clock">,
): unknown {
  const remedy = 'make a new one with "remora token create"';
  return explainedRefusal(error, { server, what: "the token", remedy }, clock.now());
}

/**
 * A client that comes with the token to a cluster whose CA this machine has, for a certificate that expired under way.
 *
 * @throws {SetupError} the CA is gone, or there is no token.
 */
export async function connectWithToken(
  options: Omit<JoinOptions, "caHashes" | "skipCAVerification">,
): Promise<RequestClient> {
  const { server, token, nodeName, paths, userAgent, clock } = options;
  const caPEM = await readIfThere(paths.ca);
  if (token === undefined || caPEM === undefined) {
    throw new SetupError(
      `the certificate of node ${nodeName} has expired: start again with a new token ("remora token create" on the control plane's machine makes one), or write one into the --token-file that the agent was started with`,
    );
  }
  const kubeconfig = tokenKubeconfig(server, caPEM, token);
  const client = createHttpClient({ kubeconfig, userAgent, clock, logger: silentLogger });
  return {
    client,
    explain: (error) => explained(error, options),
    close: () => client.close(),
  };
}

/** Two machines under one name would fight over one Node; kubeadm refuses a Node that is Ready, too. */
async function refuseLiveNamesake(
  client: HttpClient,
  { nodeName, logger }: JoinOptions,
  signal: AbortSignal,
): Promise<void> {
  try {
    const node = await getObject(client, NODES, { name: nodeName }, { signal, deadlineMs: 10_000 });
    const ready = (node.status?.conditions ?? []).some(
      ({ type, status }) => type === "Ready" && status === "True",
    );
    if (ready) {
      throw new SetupError(
        `the cluster has a node ${nodeName} that is Ready: give this machine another name with --hostname-override, or delete that node first (kubectl delete node ${nodeName})`,
      );
    }
    logger.log("warn", "a Node of this name exists and is not Ready: this machine becomes it", {
      node: nodeName,
    });
  } catch (error) {
    if (isNotFound(error)) return;
    if (!isForbidden(error)) throw error;
    logger.log("info", "the token may not look for a node of the same name", { node: nodeName });
  }
}

/** Comes with the token and leaves with a certificate. */
async function bootstrap(
  options: JoinOptions,
  token: BootstrapToken,
  signal: AbortSignal,
): Promise<void> {
  const { server, nodeName, paths, userAgent, clock, logger } = options;
  if (options.caHashes.length === 0 && !options.skipCAVerification) {
    throw new SetupError(
      'give --ca-hash, which "remora token create" prints: without it, whoever has the token can pose as the cluster (--unsafe-skip-ca-verification accepts that)',
    );
  }
  const caPEM = await discoverAuthority({ ...options, token }, signal);
  logger.log("info", "cluster found", {
    server,
    caHash: certificatesIn(caPEM).map(publicKeyHash).join(","),
  });
  const kubeconfig = tokenKubeconfig(server, caPEM, token);
  const client = createHttpClient({ kubeconfig, userAgent, clock, logger: silentLogger });
  try {
    await refuseLiveNamesake(client, options, signal);
    const key = await paths.client.nextKey();
    const wish = clientWish(nodeName);
    const pem = await requestCertificate({ client, clock, logger }, key, wish, signal);
    await writeFileAtomic(paths.ca, caPEM);
    await paths.client.write(`${pem.trimEnd()}\n${privateKeyPEM(key)}`, clock.now());
    await paths.client.dropNextKey();
    logger.log("info", "client certificate issued", { node: nodeName });
  } catch (error) {
    signal.throwIfAborted();
    // A request that was denied stays denied; the next start asks anew.
    if (error instanceof RequestRefusedError) await paths.client.dropNextKey();
    throw explained(error, options);
  } finally {
    await client.close();
  }
}

function checkClock(certificate: X509Certificate, options: JoinOptions): void {
  const now = options.clock.now();
  if (certificate.validFromDate.getTime() <= now) return;
  throw new SetupError(clockSentence("the certificate that the cluster issued", now));
}

/**
 * Makes sure that this machine has a certificate as node `nodeName` of the cluster at `server`, and a kubeconfig with it.
 * A machine that has one from an earlier start needs neither token nor server.
 *
 * @throws {SetupError} one sentence with the remedy.
 */
export async function joinCluster(options: JoinOptions, signal: AbortSignal): Promise<void> {
  const { token, paths } = options;
  let pair = await earlierPair(options);
  if (pair === undefined) {
    if (token === undefined) {
      throw new SetupError(
        'this machine has not joined yet: give a token with --token-file, REMORA_TOKEN or --token ("remora token create" on the control plane\'s machine makes one)',
      );
    }
    await bootstrap(options, token, signal);
    pair = await paths.client.read();
  }
  if (pair !== undefined) checkClock(pair.certificate, options);
  const cluster = {
    server: options.server,
    ca: { kind: "file", path: paths.ca } as const,
    insecureSkipTLSVerify: false,
  };
  await writeNodeKubeconfig(paths.kubeconfig, cluster, paths.client.currentPath);
}

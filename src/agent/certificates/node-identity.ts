import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { createHttpClient, type HttpClient } from "../../api/http-client.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import type { Kubeconfig, PemSource } from "../../api/kubeconfig-types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorCode, errorMessage, SetupError } from "../../lib/errors.ts";
import { type Logger, silentLogger } from "../../lib/log.ts";
import { privateKeyPEM } from "../../lib/x509.ts";
import { pemText } from "../pem.ts";
import { explainedRefusal } from "../join/api-failure.ts";
import { certificatesIn } from "../join/ca-hash.ts";
import { type ClientRotation, clientRotation } from "./client-rotation.ts";
import { writeNodeKubeconfig } from "./node-kubeconfig.ts";
import { type CredentialPair, PairStore, parsePair } from "./pair-store.ts";
import {
  clientWish,
  nodeUser,
  requestCertificate,
  RequestRefusedError,
} from "./request-certificate.ts";
import type { RequestClient } from "./rotation.ts";
import { commonName, isExpired } from "./validity.ts";

export interface NodeIdentityOptions {
  readonly nodeName: string;
  /** `--kubeconfig`; written when the certificate comes by `bootstrapKubeconfig`. */
  readonly kubeconfig: string;
  /** `--bootstrap-kubeconfig` */
  readonly bootstrapKubeconfig?: string;
  /** KubeletConfiguration `rotateCertificates`; undefined = only what came by bootstrap. */
  readonly rotate?: boolean;
  readonly rootDir: string;
  /** Where certificates are kept. */
  readonly certDir: string;
  readonly userAgent: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
}

/** With what the agent comes to the API server. */
export interface NodeIdentity {
  /** The kubeconfig to use: the given one, or one that names renewed certificates in its place. */
  readonly kubeconfig: string;
  /** Undefined when nobody wants the certificate renewed, or there is none. */
  readonly rotation: ClientRotation | undefined;
  /** Ends the connections of `rotation`. */
  close(): Promise<void>;
}

const bootstrapRemedy =
  "put a new one there (kubeadm token create, or remora token create, makes the token for it)";

/** Certificate and key of a kubeconfig's user; undefined when it proves itself otherwise. */
async function userPair({ user }: Kubeconfig): Promise<CredentialPair | undefined> {
  const { clientCertificate, clientKey } = user;
  if (clientCertificate === undefined || clientKey === undefined) return undefined;
  const [certificate, key] = await Promise.all([pemText(clientCertificate), pemText(clientKey)]);
  return parsePair(certificate, key);
}

function expiryOf(pair: CredentialPair): string {
  return pair.certificate.validToDate.toISOString();
}

/** Why the kubeconfig does not do any more, so that a bootstrap is needed; undefined when it does. */
async function kubeconfigProblem(path: string, now: number): Promise<string | undefined> {
  try {
    const pair = await userPair(await loadKubeconfig(path));
    if (pair === undefined) return "it has no client certificate";
    const ended = certificatesIn(pair.pem).some((certificate) => isExpired(certificate, now));
    return ended ? `its certificate expired at ${expiryOf(pair)}` : undefined;
  } catch (error) {
    return errorMessage(error);
  }
}

async function bootstrapClient(
  options: NodeIdentityOptions,
  path: string,
): Promise<{ readonly kubeconfig: Kubeconfig; readonly client: HttpClient }> {
  const { userAgent, clock } = options;
  const kubeconfig = await loadKubeconfig(path);
  return {
    kubeconfig,
    client: createHttpClient({ kubeconfig, userAgent, clock, logger: silentLogger }),
  };
}

function explain(kubeconfig: Kubeconfig, clock: Clock): (error: unknown) => unknown {
  const first = {
    server: kubeconfig.cluster.server,
    what: `what is in ${kubeconfig.path}`,
    remedy: bootstrapRemedy,
  };
  return (error) => explainedRefusal(error, first, clock.now());
}

/** Whether a good certificate of this node in this cluster lies in the store, and only its kubeconfig was lost. */
async function isHeld(
  { nodeName, clock }: NodeIdentityOptions,
  store: PairStore,
  { cluster }: Kubeconfig,
): Promise<boolean> {
  const held = await store.read().catch(() => undefined);
  if (held === undefined || cluster.ca === undefined) return false;
  const { certificate } = held;
  if (isExpired(certificate, clock.now()) || commonName(certificate) !== nodeUser(nodeName))
    return false;
  const authorities = certificatesIn(await pemText(cluster.ca));
  return authorities.some((each) => certificate.verify(each.publicKey));
}

/** Asks for the first certificate, or for one in the place of an expired one, and writes the kubeconfig with it. */
async function bootstrap(
  options: NodeIdentityOptions,
  path: string,
  store: PairStore,
  signal: AbortSignal,
): Promise<void> {
  const { nodeName, clock, logger } = options;
  const { kubeconfig, client } = await bootstrapClient(options, path);
  try {
    if (await isHeld(options, store, kubeconfig)) {
      logger.log("info", "client certificate is still good", { node: nodeName });
      await writeNodeKubeconfig(options.kubeconfig, kubeconfig.cluster, store.currentPath);
      return;
    }
    const key = await store.nextKey();
    const wish = clientWish(nodeName);
    const pem = await requestCertificate({ client, clock, logger }, key, wish, signal);
    await store.write(`${pem.trimEnd()}\n${privateKeyPEM(key)}`, clock.now());
    await store.dropNextKey();
    logger.log("info", "client certificate issued", { node: nodeName });
  } catch (error) {
    signal.throwIfAborted();
    // A request that was denied stays denied; the next start asks anew.
    if (error instanceof RequestRefusedError) await store.dropNextKey();
    throw explain(kubeconfig, clock)(error);
  } finally {
    await client.close();
  }
  await writeNodeKubeconfig(options.kubeconfig, kubeconfig.cluster, store.currentPath);
}

function isFileOf(source: PemSource | undefined, store: PairStore): boolean {
  return source?.kind === "file" && source.path === store.currentPath;
}

/**
 * Lets a kubeconfig that has its certificate elsewhere take part in renewal: the certificate goes into the store, unless
 * that has a newer one, and a kubeconfig that names it goes beside the agent's state.
 */
async function adopt(
  options: NodeIdentityOptions,
  given: Kubeconfig,
  pair: CredentialPair,
  store: PairStore,
): Promise<string> {
  const { user, cluster } = given;
  if (isFileOf(user.clientCertificate, store) && isFileOf(user.clientKey, store)) {
    return options.kubeconfig;
  }
  const held = await store.read().catch(() => undefined);
  const isNewer =
    held === undefined || held.certificate.validFromDate < pair.certificate.validFromDate;
  if (isNewer) await store.write(pair.pem, options.clock.now());
  const path = join(options.rootDir, "rotated.kubeconfig");
  await writeNodeKubeconfig(path, cluster, store.currentPath);
  return path;
}

function checkPair(pair: CredentialPair, options: NodeIdentityOptions): void {
  const { kubeconfig, nodeName, clock } = options;
  if (isExpired(pair.certificate, clock.now())) {
    throw new SetupError(
      `the certificate in ${kubeconfig} expired at ${expiryOf(pair)}: give a kubeconfig with a new one, or --bootstrap-kubeconfig with a token with which the node gets one`,
    );
  }
  const owner = commonName(pair.certificate);
  if (owner.startsWith(nodeUser("")) && owner !== nodeUser(nodeName)) {
    throw new SetupError(
      `the certificate in ${kubeconfig} is that of node ${owner.slice(nodeUser("").length)}, not of ${nodeName}: give --hostname-override, or the kubeconfig of ${nodeName}`,
    );
  }
}

/** For a certificate that expired while the agent ran. */
async function connectAgain(
  options: NodeIdentityOptions,
  path: string | undefined,
): Promise<RequestClient> {
  const { kubeconfig, nodeName, clock } = options;
  const expired = `the certificate of node ${nodeName} has expired`;
  if (path === undefined) {
    throw new SetupError(
      `${expired}: put a kubeconfig with a new one at ${kubeconfig} and start again, or start with --bootstrap-kubeconfig`,
    );
  }
  try {
    const { kubeconfig: found, client } = await bootstrapClient(options, path);
    return { client, explain: explain(found, clock), close: () => client.close() };
  } catch (error) {
    throw new SetupError(`${expired}, and ${errorMessage(error)}; ${bootstrapRemedy}`, {
      cause: error,
    });
  }
}

async function isMissing(path: string): Promise<boolean> {
  return readFile(path).then(
    () => false,
    (error: unknown) => errorCode(error) === "ENOENT",
  );
}

/**
 * Makes sure that the node has a certificate for the API server, the way a kubelet does: from `kubeconfig`; where that is
 * missing, damaged or expired, from the cluster, asked with `bootstrapKubeconfig` (KEP-266, TLS bootstrap).
 *
 * @throws {SetupError} one sentence with the remedy.
 */
export async function openNodeIdentity(
  options: NodeIdentityOptions,
  signal: AbortSignal,
): Promise<NodeIdentity> {
  const { kubeconfig: path, bootstrapKubeconfig, nodeName, clock, logger, random } = options;
  const store = new PairStore(options.certDir, "kubelet-client");
  if (bootstrapKubeconfig !== undefined) {
    const problem = await kubeconfigProblem(path, clock.now());
    if (problem !== undefined) {
      if (!(await isMissing(path))) {
        logger.log("warn", "kubeconfig does not do any more, asking for another certificate", {
          kubeconfig: path,
          why: problem,
        });
      }
      await bootstrap(options, bootstrapKubeconfig, store, signal);
    }
  }
  const given = await loadKubeconfig(path);
  const pair = await userPair(given);
  const none = { kubeconfig: path, rotation: undefined, close: () => Promise.resolve() };
  if (pair === undefined) {
    if (options.rotate === true) {
      logger.log("warn", "nothing to renew: the kubeconfig has no client certificate", {
        kubeconfig: path,
      });
    }
    return none;
  }
  if (!(options.rotate ?? bootstrapKubeconfig !== undefined)) {
    checkPair(pair, options);
    return none;
  }
  const kubeconfig = await adopt(options, given, pair, store);
  // What was renewed counts, not what the kubeconfig once began with.
  checkPair((await store.read()) ?? pair, options);
  const client = createHttpClient({
    kubeconfig: await loadKubeconfig(kubeconfig),
    userAgent: options.userAgent,
    clock,
    logger: silentLogger,
  });
  return {
    kubeconfig,
    rotation: clientRotation({
      nodeName,
      store,
      client,
      bootstrap: () => connectAgain(options, bootstrapKubeconfig),
      clock,
      logger,
      random,
    }),
    close: () => client.close(),
  };
}

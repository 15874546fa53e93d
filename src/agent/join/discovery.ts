import {
  type BootstrapToken,
  clusterInfo,
  clusterInfoKey,
  isSignedWith,
  signaturePrefix,
} from "../../api/bootstrap-token.ts";
import { ApiError } from "../../api/errors.ts";
import { createHttpClient } from "../../api/http-client.ts";
import type { Kubeconfig } from "../../api/kubeconfig-types.ts";
import { getObject } from "../../api/objects.ts";
import { CONFIG_MAPS } from "../../api/resources.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import { type Logger, silentLogger } from "../../lib/log.ts";
import { connectionFailure, clockSentence, isTransient } from "./api-failure.ts";
import { certificatesIn, publicKeyHash } from "./ca-hash.ts";
import { clusterInfoName, readClusterInfo } from "./cluster-info.ts";

export interface DiscoveryOptions {
  /** `https://HOST:PORT` */
  readonly server: string;
  readonly token: BootstrapToken;
  /** `sha256:HEX` of acceptable authorities; empty = trust whoever knows the token. */
  readonly caHashes: readonly string[];
  readonly userAgent: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long a server that does not answer is asked again, milliseconds; default 30 000. */
  readonly patienceMs?: number;
}

const retryMs = 1000;
const defaultPatienceMs = 30_000;
/** The signature of a new token follows it within a moment. */
const signaturePatienceMs = 10_000;

/** A kubeconfig without anybody's name in it. */
function anonymousKubeconfig(server: string, caPEM: string | undefined): Kubeconfig {
  return {
    path: "(discovery)",
    context: "discovery",
    namespace: "default",
    cluster: {
      name: "discovery",
      server,
      insecureSkipTLSVerify: caPEM === undefined,
      ...(caPEM === undefined ? {} : { ca: { kind: "data", pem: caPEM } }),
    },
    user: { name: "" },
  };
}

type Data = Readonly<Record<string, string>>;

function refusal(error: unknown, server: string): SetupError | undefined {
  if (!(error instanceof ApiError)) return undefined;
  if (error.status === 401 || error.status === 403) {
    return new SetupError(
      `${server} does not show newcomers ${clusterInfoName}: the cluster does not take machines by token; give --kubeconfig instead of --join`,
      { cause: error },
    );
  }
  if (error.status === 404) {
    return new SetupError(
      `${server} has no ConfigMap ${clusterInfoName}: the cluster is not set up to take machines by token; give --kubeconfig instead of --join`,
      { cause: error },
    );
  }
  return undefined;
}

/** How to get to a server that may be nobody's yet. */
type Access = Omit<DiscoveryOptions, "caHashes" | "token">;

/** Reads cluster-info, with TLS verified against `caPEM` when there is one. */
async function fetchClusterInfo(
  options: Access,
  caPEM: string | undefined,
  signal: AbortSignal,
): Promise<Data> {
  const { server, userAgent, clock, logger } = options;
  // The sentences here say it all; the client's own lines about an outage would say it again.
  const client = createHttpClient({
    kubeconfig: anonymousKubeconfig(server, caPEM),
    userAgent,
    clock,
    logger: silentLogger,
  });
  const giveUpAt = clock.monotonic() + (options.patienceMs ?? defaultPatienceMs);
  try {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const found = await getObject(client, CONFIG_MAPS, clusterInfo, {
          signal,
          deadlineMs: 10_000,
        });
        return found.data ?? {};
      } catch (error) {
        signal.throwIfAborted();
        if (!isTransient(error) || clock.monotonic() + retryMs > giveUpAt) {
          throw refusal(error, server) ?? connectionFailure(error, server, clock.now()) ?? error;
        }
        if (attempt === 1)
          logger.log("warn", "waiting for the API server", { server, error: errorMessage(error) });
        await clock.sleep(retryMs, signal);
      }
    }
  } finally {
    await client.close();
  }
}

/** cluster-info with a signature of this token in it, which may come a moment after the token. */
async function fetchSignedClusterInfo(
  options: DiscoveryOptions,
  signal: AbortSignal,
): Promise<string> {
  const { server, token, clock } = options;
  const giveUpAt =
    clock.monotonic() + Math.min(options.patienceMs ?? signaturePatienceMs, signaturePatienceMs);
  for (;;) {
    const data = await fetchClusterInfo(options, undefined, signal);
    const content = data[clusterInfoKey];
    const signature = data[`${signaturePrefix}${token.id}`];
    if (content === undefined || content === "") {
      throw new SetupError(
        `${server} has no ${clusterInfoKey} in ${clusterInfoName}: the cluster is not set up to take machines by token; give --kubeconfig instead of --join`,
      );
    }
    if (signature !== undefined) {
      if (isSignedWith(signature, content, token)) return content;
      throw new SetupError(
        `the token's secret does not fit what ${server} has signed with token ${token.id}: the token is mistyped, or somebody else answers there; make a new one with "remora token create"`,
      );
    }
    if (clock.monotonic() + retryMs > giveUpAt) {
      throw new SetupError(
        `${server} does not know token ${token.id}: it has expired or is mistyped; make a new one with "remora token create"`,
      );
    }
    await clock.sleep(retryMs, signal);
  }
}

function checkAuthority(pem: string, options: DiscoveryOptions): void {
  const { server, caHashes, clock } = options;
  const certificates = certificatesIn(pem);
  const hashes = certificates.map(publicKeyHash);
  if (caHashes.length > 0 && !hashes.some((hash) => caHashes.includes(hash))) {
    throw new SetupError(
      `the CA of ${server} has the hash ${hashes.join(", ")}, which --ca-hash does not name: it is another cluster, or somebody else answers there; compare with "remora token create" on the control plane's machine`,
    );
  }
  const now = clock.now();
  const valid = certificates.some(
    ({ validFromDate, validToDate }) =>
      validFromDate.getTime() <= now && now <= validToDate.getTime(),
  );
  if (!valid) throw new SetupError(clockSentence(`the CA of ${server}`, now));
}

/**
 * Learns the cluster's CA from a server that nobody trusts yet, as `kubeadm join` does: reads kube-public/cluster-info
 * without checking TLS, checks that it is signed with the token and that the CA in it is one of `caHashes`, then reads it
 * again over TLS verified with that CA.
 *
 * @returns The CA, PEM.
 * @throws {SetupError} one sentence with the remedy.
 */
export async function discoverAuthority(
  options: DiscoveryOptions,
  signal: AbortSignal,
): Promise<string> {
  const content = await fetchSignedClusterInfo(options, signal);
  const { caPEM } = await readClusterInfo(content);
  checkAuthority(caPEM, options);
  const again = await fetchClusterInfo(options, caPEM, signal);
  if (again[clusterInfoKey] !== content) {
    throw new SetupError(
      `${options.server} showed another cluster over verified TLS than before: somebody is in between, or the cluster has just changed; try again`,
    );
  }
  return caPEM;
}

/**
 * The authority as the cluster shows it over TLS that is verified with the one we have, when it is a renewed certificate
 * for the same keys; undefined when it is the same, or another, which somebody has to trust anew.
 */
export async function renewedAuthority(
  options: Access,
  caPEM: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const data = await fetchClusterInfo(options, caPEM, signal);
  const { caPEM: shown } = await readClusterInfo(data[clusterInfoKey] ?? "");
  if (shown === caPEM) return undefined;
  const known = new Set(certificatesIn(caPEM).map(publicKeyHash));
  const sameKeys = certificatesIn(shown).every((each) => known.has(publicKeyHash(each)));
  const ends = (pem: string): number =>
    Math.max(...certificatesIn(pem).map(({ validToDate }) => validToDate.getTime()));
  return sameKeys && ends(shown) > ends(caPEM) ? shown : undefined;
}

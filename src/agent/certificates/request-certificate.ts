import { createHash, type KeyObject, X509Certificate } from "node:crypto";

import type { ApiClient } from "../../api/client.ts";
import { ApiError, isAlreadyExists, isNotFound } from "../../api/errors.ts";
import { parseStored, type Stored } from "../../api/object.ts";
import { createObject, getObject } from "../../api/objects.ts";
import { collectionPath } from "../../api/resource.ts";
import { CERTIFICATE_SIGNING_REQUESTS } from "../../api/resources.ts";
import type { CertificateSigningRequest } from "../../api/types.gen.ts";
import { parseWatchEvent } from "../../api/watch-event.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { certificationRequest } from "../../lib/pkcs10.ts";
import { publicKeyInfo } from "../../lib/x509.ts";
import { isTransient } from "../join/api-failure.ts";
import { isExpired, retryDelayMs, type WantedNames } from "./validity.ts";

type Csr = Stored<CertificateSigningRequest>;

/** What a node asks a certificate for; `alternativeNames` is empty for a client certificate. */
export interface CertificateWish extends WantedNames {
  readonly signerName: string;
  readonly usages: NonNullable<CertificateSigningRequest["spec"]["usages"]>;
}

export interface RequestDeps {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Milliseconds until the wait for an approval is given up; default: it is not. */
  readonly patienceMs?: number;
}

/** The request was denied or failed: asking again with the same key is of no use. */
export class RequestRefusedError extends SetupError {}

/** Nobody has approved or signed the request yet; the same key finds it again. */
export class NotIssuedError extends SetupError {
  override readonly retryable = true;
}

/** Identity of a node, and thereby subject of all its certificates. */
export function nodeUser(nodeName: string): string {
  return `system:node:${nodeName}`;
}

/** Signer and usages of the certificate with which a node comes to the API server. */
export function clientWish(nodeName: string): CertificateWish {
  return {
    signerName: "kubernetes.io/kube-apiserver-client-kubelet",
    // Key encipherment is for RSA keys; ours are EC.
    usages: ["digital signature", "client auth"],
    commonName: nodeUser(nodeName),
    alternativeNames: [],
  };
}

/** Signer and usages of the certificate of port 10250. */
export function servingWish(
  nodeName: string,
  alternativeNames: readonly string[],
): CertificateWish {
  return {
    signerName: "kubernetes.io/kubelet-serving",
    usages: ["digital signature", "server auth"],
    commonName: nodeUser(nodeName),
    alternativeNames,
  };
}

/** The same wish with the same key has the same name: a restart finds the request that it made before. */
export function requestName(key: KeyObject, wish: CertificateWish): string {
  const digest = createHash("sha256").update(publicKeyInfo(key)).update(JSON.stringify(wish));
  return `node-csr-${digest.digest("hex").slice(0, 40)}`;
}

/** When it is first said that a request waits for approval, and how often after that. */
const remindMs = { first: 60_000, again: 15 * 60_000 };
const watchSeconds = 60;
const pauseMs = 250;

async function ensureRequest(
  { client }: RequestDeps,
  key: KeyObject,
  wish: CertificateWish,
  signal: AbortSignal,
): Promise<Csr> {
  const name = requestName(key, wish);
  try {
    return await getObject(client, CERTIFICATE_SIGNING_REQUESTS, { name }, { signal });
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  const pem = certificationRequest(key, {
    subject: { commonName: wish.commonName, organizations: ["system:nodes"] },
    alternativeNames: wish.alternativeNames,
  });
  const object: CertificateSigningRequest = {
    metadata: { name },
    spec: {
      request: Buffer.from(pem).toString("base64"),
      signerName: wish.signerName,
      usages: wish.usages,
    },
  };
  try {
    return await createObject(client, CERTIFICATE_SIGNING_REQUESTS, object, { signal });
  } catch (error) {
    // An answer that was lost on its way: the request is there.
    if (!isAlreadyExists(error)) throw error;
    return getObject(client, CERTIFICATE_SIGNING_REQUESTS, { name }, { signal });
  }
}

/**
 * The certificate, when it is there.
 *
 * @throws {RequestRefusedError} when there will be none.
 */
function certificateOf(csr: Csr): string | undefined {
  const { name } = csr.metadata;
  for (const { type, reason = "", message = "" } of csr.status?.conditions ?? []) {
    if (type !== "Denied" && type !== "Failed") continue;
    const words = type === "Denied" ? "was denied" : "failed";
    const why = [reason, message].filter((text) => text !== "").join(": ");
    throw new RequestRefusedError(
      `certificate request ${name} ${words}${why === "" ? "" : ` (${why})`}: ask the cluster's administrator, then start again`,
    );
  }
  const certificate = csr.status?.certificate ?? "";
  return certificate === "" ? undefined : Buffer.from(certificate, "base64").toString("utf8");
}

/** Follows one request until it has changed, or a minute is over. */
async function watchForCertificate(
  { client }: RequestDeps,
  csr: Csr,
  signal: AbortSignal,
): Promise<string | undefined> {
  const stop = new AbortController();
  try {
    const events = client.watch({
      path: collectionPath(CERTIFICATE_SIGNING_REQUESTS),
      query: {
        fieldSelector: `metadata.name=${csr.metadata.name}`,
        resourceVersion: csr.metadata.resourceVersion,
        timeoutSeconds: watchSeconds,
      },
      stallMs: watchSeconds * 1500,
      signal: AbortSignal.any([signal, stop.signal]),
    });
    for await (const value of events) {
      const event = parseWatchEvent(value);
      if (event.type === "ERROR" || event.type === "DELETED") return undefined;
      if (event.type === "BOOKMARK") continue;
      const certificate = certificateOf(parseStored<CertificateSigningRequest>(event.object));
      if (certificate !== undefined) return certificate;
    }
    return undefined;
  } finally {
    stop.abort();
  }
}

/** @throws {RequestRefusedError} when what was issued is of no use: of another key, or from a time long gone. */
function checkIssued(name: string, pem: string, key: KeyObject, now: number): string {
  let problem: string | undefined;
  try {
    const certificate = new X509Certificate(pem);
    if (!certificate.checkPrivateKey(key)) problem = "is for another key";
    else if (isExpired(certificate, now)) problem = `expired at ${certificate.validTo}`;
  } catch (error) {
    problem = `cannot be read (${errorMessage(error)})`;
  }
  if (problem === undefined) return pem;
  throw new RequestRefusedError(`the certificate of request ${name} ${problem}`);
}

/**
 * Asks the cluster for a certificate for `key` and waits until it is issued.
 *
 * @returns PEM.
 * @throws {RequestRefusedError} it was denied, cannot be signed, or what was issued is of no use; {@link NotIssuedError}
 *   after `patienceMs`; {@link ApiError} 401 and 403.
 */
export async function requestCertificate(
  deps: RequestDeps,
  key: KeyObject,
  wish: CertificateWish,
  signal: AbortSignal,
): Promise<string> {
  const { clock, logger } = deps;
  const started = clock.monotonic();
  const giveUpAt = started + (deps.patienceMs ?? Number.POSITIVE_INFINITY);
  let remindAt = started + remindMs.first;
  let failures = 0;
  for (;;) {
    let last: unknown;
    try {
      const csr = await ensureRequest(deps, key, wish, signal);
      const pem = certificateOf(csr) ?? (await watchForCertificate(deps, csr, signal));
      if (pem !== undefined) return checkIssued(csr.metadata.name, pem, key, clock.now());
      failures = 0;
      if (clock.monotonic() >= remindAt) {
        remindAt = clock.monotonic() + remindMs.again;
        logger.log("warn", "certificate request waits for approval", {
          approve: `kubectl certificate approve ${csr.metadata.name}`,
          signer: wish.signerName,
        });
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!isTransient(error) && !isLostWatch(error)) throw error;
      logger.log(failures > 0 ? "debug" : "warn", "certificate not issued yet, will retry", {
        error: errorMessage(error),
      });
      failures += 1;
      last = error;
    }
    if (clock.monotonic() >= giveUpAt) {
      const name = requestName(key, wish);
      const why =
        last === undefined
          ? `nobody has approved it: kubectl certificate approve ${name}`
          : errorMessage(last);
      throw new NotIssuedError(`certificate request ${name} is not issued yet (${why})`, {
        cause: last,
      });
    }
    // A server that ends watches at once must not be asked in a circle.
    await clock.sleep(failures === 0 ? pauseMs : retryDelayMs(failures, 0), signal);
  }
}

/** 410: the request is older than what the server keeps for watches. */
function isLostWatch(error: unknown): boolean {
  return error instanceof ApiError && error.status === 410;
}

import type { X509Certificate } from "node:crypto";

import type { ApiClient } from "../../api/client.ts";
import { isNotFound } from "../../api/errors.ts";
import { getObject } from "../../api/objects.ts";
import { NODES } from "../../api/resources.ts";
import { canonicalIP, ipFamily } from "../../lib/cidr.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Runner } from "../supervise.ts";
import {
  type CredentialPaths,
  dropNextKey,
  ensureDirectory,
  nextKey,
  readPair,
  renewalTime,
  writePair,
} from "./credential-files.ts";
import {
  type CertificateWish,
  clientWish,
  requestCertificate,
  RequestRefusedError,
  servingWish,
} from "./request-certificate.ts";

export interface RenewalOptions {
  readonly client: ApiClient;
  readonly nodeName: string;
  readonly paths: CredentialPaths;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Renews the client certificate. */
  readonly rotateClient: boolean;
  /** Asks for the serving certificate and renews it. */
  readonly serving: boolean;
}

const minuteMs = 60_000;
/** How often a certificate is compared with what it should be; addresses of a node change rarely. */
const checkMs = 10 * minuteMs;
const retryMs = 5000;
/** A person has to look before asking again makes sense. */
const refusedRetryMs = 10 * minuteMs;

/** Names and addresses in a certificate, in one comparable form. */
function namesOf(certificate: X509Certificate): Set<string> {
  const entries = (certificate.subjectAltName ?? "").split(", ").filter((entry) => entry !== "");
  return new Set(
    entries.map((entry) => {
      const value = entry.slice(entry.indexOf(":") + 1);
      return ipFamily(value) === undefined ? value : canonicalIP(value);
    }),
  );
}

/** Names and addresses of the Node object: what others call this machine, and all that a cluster vouches for. */
async function nodeNames(
  client: ApiClient,
  nodeName: string,
  signal: AbortSignal,
): Promise<string[]> {
  try {
    const node = await getObject(client, NODES, { name: nodeName }, { signal });
    const names = (node.status?.addresses ?? []).map(({ address }) =>
      ipFamily(address) === undefined ? address : canonicalIP(address),
    );
    return [...new Set(names)].toSorted();
  } catch (error) {
    if (isNotFound(error)) return [];
    throw error;
  }
}

class Renewal {
  readonly #options: RenewalOptions;
  /** Share of the renewal window, drawn once so that each look comes to the same time. */
  readonly #spread: number;

  constructor(options: RenewalOptions) {
    this.#options = options;
    this.#spread = options.random();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { rotateClient, serving } = this.#options;
    await Promise.all([
      ...(rotateClient ? [this.#repeat("client", () => this.#client(signal), signal)] : []),
      ...(serving ? [this.#repeat("serving", () => this.#serving(signal), signal)] : []),
    ]);
    if (signal.aborted) return;
    // Nothing to renew: the part lives as long as the agent all the same.
    await this.#options.clock.sleep(Number.MAX_SAFE_INTEGER, signal).catch(() => undefined);
  }

  /** `step` tells in how many milliseconds to look again. */
  async #repeat(which: string, step: () => Promise<number>, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    let told = "";
    while (!signal.aborted) {
      let waitMs = retryMs;
      try {
        waitMs = await step();
        told = "";
      } catch (error) {
        if (signal.aborted) return;
        const message = errorMessage(error);
        logger.log(message === told ? "debug" : "warn", "certificate not renewed, will retry", {
          certificate: which,
          error: message,
        });
        told = message;
        if (error instanceof RequestRefusedError) waitMs = refusedRetryMs;
      }
      await clock.sleep(waitMs, signal).catch(() => undefined);
    }
  }

  #isDue(certificate: X509Certificate): boolean {
    return this.#options.clock.now() >= renewalTime(certificate, this.#spread);
  }

  /** Until the next look: soon enough not to miss the time of renewal. */
  #pause(certificate: X509Certificate): number {
    const left = renewalTime(certificate, this.#spread) - this.#options.clock.now();
    return Math.min(Math.max(left, 1000), checkMs);
  }

  async #client(signal: AbortSignal): Promise<number> {
    const { paths, nodeName } = this.#options;
    const pair = await readPair(paths.client);
    if (pair === undefined) throw new Error(`${paths.client} is gone`);
    if (!this.#isDue(pair.certificate)) return this.#pause(pair.certificate);
    await this.#renew(paths.client, clientWish(nodeName), signal);
    return 0;
  }

  async #serving(signal: AbortSignal): Promise<number> {
    const { client, paths, nodeName } = this.#options;
    const names = await nodeNames(client, nodeName, signal);
    // The node has not registered yet.
    if (names.length === 0) return 1000;
    // A damaged pair is replaced like one that is not there.
    const pair = await readPair(paths.server).catch(() => undefined);
    const held = pair?.certificate;
    // Issued by another than itself: what stands there before is self-signed.
    const issued = held !== undefined && held.issuer !== held.subject;
    const present = held === undefined ? new Set() : namesOf(held);
    const fits = names.every((name) => present.has(name)) && present.size === names.length;
    if (held !== undefined && issued && fits && !this.#isDue(held)) return this.#pause(held);
    await this.#renew(paths.server, servingWish(nodeName, names), signal);
    return 0;
  }

  async #renew(path: string, wish: CertificateWish, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    await ensureDirectory(this.#options.paths);
    const key = await nextKey(path);
    try {
      const certificate = await requestCertificate(this.#options, key, wish, signal);
      await writePair(path, certificate, key);
    } catch (error) {
      if (error instanceof RequestRefusedError) await dropNextKey(path);
      throw error;
    }
    await dropNextKey(path);
    const pair = await readPair(path);
    logger.log("info", "certificate issued", {
      signer: wish.signerName,
      expires: pair?.certificate.validTo,
      now: new Date(clock.now()).toISOString(),
    });
  }
}

/**
 * Keeps the certificates of a node that joined: asks for the serving certificate once the node has addresses, and renews
 * both at 70 to 90 % of their lives. The API client and the node's server read the files again by themselves.
 */
export function certificateRenewal(options: RenewalOptions): Runner {
  const renewal = new Renewal(options);
  return { name: "certificates", run: (signal) => renewal.run(signal) };
}

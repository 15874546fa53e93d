import type { ApiClient } from "../../api/client.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { privateKeyPEM } from "../../lib/x509.ts";
import type { CredentialPair, PairStore } from "./pair-store.ts";
import {
  type CertificateWish,
  NotIssuedError,
  requestCertificate,
  RequestRefusedError,
} from "./request-certificate.ts";
import type { RotationMetrics } from "./rotation-metrics.ts";
import {
  isExpired,
  renewalTime,
  retryDelayMs,
  type RotationReason,
  rotationReason,
} from "./validity.ts";
import { Wake } from "./wake.ts";

/** A client with which one certificate is asked for. */
export interface RequestClient {
  readonly client: ApiClient;
  /** What a failure means to somebody who came with these credentials. */
  readonly explain?: (error: unknown) => unknown;
  /** Ends its connections, where they are only for this. */
  close(): Promise<void>;
}

export interface RotationOptions {
  /** For log lines. */
  readonly certificate: "client" | "serving";
  readonly store: PairStore;
  /** What to ask for at this moment; undefined while that is not known. */
  readonly wish: () => CertificateWish | undefined;
  /** Calls `listener` when `wish` may have changed. Returns the function that ends it. */
  readonly onWishChange?: (listener: () => void) => () => void;
  /**
   * With whom to ask, given the pair that is still good.
   *
   * @throws {SetupError} one sentence with the remedy, when there is nobody to ask with.
   */
  readonly connect: (current: CredentialPair | undefined) => Promise<RequestClient>;
  /** Whether a damaged pair counts as none; else a person has to look at it. */
  readonly replacesDamaged?: boolean;
  /** Calls `listener` when a server that was away answers again. */
  readonly onReturn?: (listener: () => void) => () => void;
  /** Called when another pair is the current one. */
  readonly onIssued?: (pair: CredentialPair, signal: AbortSignal) => Promise<void> | void;
  readonly metrics: RotationMetrics;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
}

/**
 * How often the wall clock is compared with the time of renewal: a machine that was suspended has slept through its
 * timers, and its clock may have been set.
 */
const lookMs = 60_000;
/** An approval takes a person; after this long the wait counts as a failure and the request is looked at again. */
const patienceMs = 15 * 60_000;
/** Somebody has to look before asking again makes sense. */
const refusedRetryMs = 10 * 60_000;
/** How often the same failure is said. */
const repeatMs = 6 * 3_600_000;
/** So that certificates that live shorter than clocks differ do not make a circle. */
const leastLifeMs = 10_000;

/** Keeps one certificate good: asks for it where there is none, and again at 70 to 90 % of its life. */
export class CertificateRotation {
  readonly #options: RotationOptions;
  readonly #wake = new Wake();
  /** Of the certificate with this fingerprint. */
  #deadline: { readonly of: string; readonly at: number } | undefined;
  /** Milliseconds since the epoch. */
  #lastIssued = Number.NEGATIVE_INFINITY;
  /** What was wanted at the last look, as JSON. */
  #lastWish: string | undefined;
  #failures = 0;
  #told = { message: "", at: 0 };

  constructor(options: RotationOptions) {
    this.#options = options;
  }

  /** Resolves when `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, onReturn, onWishChange, wish } = this.#options;
    const wake = (): void => this.#wake.wake();
    const wakeIfOther = (): void => {
      // A heartbeat of the node must not cut a pause short.
      if (JSON.stringify(wish()) !== this.#lastWish) wake();
    };
    const ends = [onWishChange?.(wakeIfOther), onReturn?.(wake)];
    try {
      while (!signal.aborted) {
        const pauseMs = await this.#step(signal);
        if (pauseMs > 0) await this.#wake.wait(clock, pauseMs, signal);
      }
    } finally {
      for (const end of ends) end?.();
    }
  }

  /** @returns Milliseconds until the next one. */
  async #step(signal: AbortSignal): Promise<number> {
    const { metrics, random } = this.#options;
    try {
      const pauseMs = await this.#look(signal);
      this.#failures = 0;
      this.#told = { message: "", at: 0 };
      return pauseMs;
    } catch (error) {
      if (signal.aborted) return 0;
      this.#failures += 1;
      metrics.failed();
      this.#tell(error);
      if (error instanceof RequestRefusedError) return refusedRetryMs;
      // The wait for an approval was long enough; the request is still there.
      return error instanceof NotIssuedError ? 0 : retryDelayMs(this.#failures, random());
    }
  }

  async #look(signal: AbortSignal): Promise<number> {
    const { store, clock, metrics, replacesDamaged, wish } = this.#options;
    const pair = await store.read().catch((error: unknown) => {
      if (replacesDamaged === true && error instanceof SetupError) return undefined;
      throw error;
    });
    metrics.use(pair?.certificate);
    const wanted = wish();
    this.#lastWish = JSON.stringify(wanted);
    if (wanted === undefined) return lookMs;
    const now = clock.now();
    const deadline = pair === undefined ? now : this.#deadlineOf(pair);
    const why = rotationReason(pair?.certificate, wanted, { deadline, now });
    if (why === undefined) return Math.min(lookMs, deadline - now);
    await this.#rotate(pair, wanted, why, signal);
    return 0;
  }

  #deadlineOf({ certificate }: CredentialPair): number {
    const { fingerprint256 } = certificate;
    if (this.#deadline?.of !== fingerprint256) {
      const at = Math.max(
        renewalTime(certificate, this.#options.random()),
        this.#lastIssued + leastLifeMs,
      );
      this.#deadline = { of: fingerprint256, at };
    }
    return this.#deadline.at;
  }

  async #rotate(
    old: CredentialPair | undefined,
    wanted: CertificateWish,
    why: RotationReason,
    signal: AbortSignal,
  ): Promise<void> {
    const { certificate, store, clock, logger, connect, metrics, onIssued } = this.#options;
    const good = old === undefined || isExpired(old.certificate, clock.now()) ? undefined : old;
    logger.log("info", "certificate wanted", { certificate, why });
    const connection = await connect(good);
    try {
      const pem = await this.#request(connection.client, wanted, signal);
      if (pem === undefined) return;
      await store.write(pem, clock.now());
      await store.dropNextKey();
    } catch (error) {
      throw connection.explain?.(error) ?? error;
    } finally {
      await connection.close();
    }
    this.#lastIssued = clock.now();
    const pair = await store.read();
    if (pair === undefined) return;
    if (old !== undefined) metrics.replaced(old.certificate, clock.now());
    metrics.use(pair.certificate);
    logger.log("info", "certificate issued", {
      certificate,
      signer: wanted.signerName,
      expires: pair.certificate.validToDate.toISOString(),
    });
    await onIssued?.(pair, signal);
  }

  /** @returns Certificate and key in PEM; undefined when something else is wanted meanwhile. */
  async #request(
    client: ApiClient,
    wanted: CertificateWish,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { store, wish, onWishChange, clock, logger } = this.#options;
    const key = await store.nextKey();
    const changed = new AbortController();
    const check = (): void => {
      if (JSON.stringify(wish()) !== JSON.stringify(wanted)) changed.abort();
    };
    const end = onWishChange?.(check);
    check();
    try {
      const deps = { client, clock, logger, patienceMs };
      const inner = AbortSignal.any([signal, changed.signal]);
      const pem = await requestCertificate(deps, key, wanted, inner);
      return `${pem.trimEnd()}\n${privateKeyPEM(key)}`;
    } catch (error) {
      if (isAbort(error) && changed.signal.aborted && !signal.aborted) return undefined;
      if (error instanceof RequestRefusedError) await store.dropNextKey();
      throw error;
    } finally {
      end?.();
    }
  }

  /** Retries are no news, but what goes on for long is said again. */
  #tell(error: unknown): void {
    const { certificate, clock, logger } = this.#options;
    const message = errorMessage(error);
    const now = clock.monotonic();
    const known = this.#told.message === message && now - this.#told.at < repeatMs;
    if (!known) this.#told = { message, at: now };
    logger.log(known ? "debug" : "warn", "certificate not renewed, will retry", {
      certificate,
      error: message,
    });
  }
}

import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { PKI } from "./ensure-pki.ts";

/** The certificates that are in use. */
export interface CurrentPKI {
  current(): PKI;
  /** Calls `listener` after others came into use. Returns the function that ends it. */
  onChange(listener: () => void): () => void;
}

export interface RenewalOptions {
  readonly first: PKI;
  /** Renews what is due and returns everything. */
  readonly ensure: () => Promise<PKI>;
  /** Puts others into use. */
  readonly use: (pki: PKI) => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * How often the wall clock is compared with the time of renewal: a laptop sleeps through its timers, and may have been
 * asleep for longer than a certificate lives.
 */
const lookMs = 60_000;
/** How often the same failure is said. */
const repeatMs = 6 * 3_600_000;

/** Keeps a control plane's certificates good for as long as it runs. */
export class PKIRenewal implements CurrentPKI {
  readonly #options: RenewalOptions;
  readonly #listeners = new Set<() => void>();
  #current: PKI;
  #told = { message: "", at: 0 };
  /** Somebody asked for other certificates and has not got them yet. */
  #wanted = false;
  #renewing: Promise<void> = Promise.resolve();

  constructor(options: RenewalOptions) {
    this.#options = options;
    this.#current = options.first;
  }

  current(): PKI {
    return this.#current;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!signal.aborted) {
      const { renewAt, validFrom } = this.#current;
      const now = clock.now();
      // A clock that was ahead when they were made, and is right by now, leaves certificates of the future.
      if (this.#wanted || now >= renewAt || now < validFrom) await this.#renewNext();
      await clock.sleep(lookMs, signal).catch(() => undefined);
    }
  }

  /**
   * Makes those anew that are for other names than before: this machine has other addresses. Resolves when they are in
   * use, or it failed; then it is tried again. Never rejects.
   */
  async refresh(): Promise<void> {
    this.#wanted = true;
    await this.#renewNext();
  }

  /** One at a time: they write the same files. */
  #renewNext(): Promise<void> {
    this.#renewing = this.#renewing.then(() => this.#renew());
    return this.#renewing;
  }

  async #renew(): Promise<void> {
    const { ensure, use, logger } = this.#options;
    const wanted = this.#wanted;
    this.#wanted = false;
    try {
      const renewed = await ensure();
      await use(renewed);
      const isOther = renewed.apiServer.certPEM !== this.#current.apiServer.certPEM;
      this.#current = renewed;
      this.#told = { message: "", at: 0 };
      logger.log(isOther ? "info" : "debug", "certificates renewed", {
        next: new Date(renewed.renewAt).toISOString(),
      });
      for (const listener of this.#listeners) listener();
    } catch (error) {
      this.#wanted ||= wanted;
      this.#tell(errorMessage(error));
    }
  }

  /** Retries are no news, but what goes on for long is said again. */
  #tell(error: string): void {
    const { clock, logger } = this.#options;
    const now = clock.monotonic();
    const known = this.#told.message === error && now - this.#told.at < repeatMs;
    if (!known) this.#told = { message: error, at: now };
    logger.log(known ? "debug" : "error", "certificates not renewed, will retry", { error });
  }
}

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
      if (clock.now() >= this.#current.renewAt) await this.#renew();
      await clock.sleep(lookMs, signal).catch(() => undefined);
    }
  }

  async #renew(): Promise<void> {
    const { ensure, use, logger } = this.#options;
    try {
      const renewed = await ensure();
      await use(renewed);
      this.#current = renewed;
      this.#told = { message: "", at: 0 };
      logger.log("info", "certificates renewed", {
        next: new Date(renewed.renewAt).toISOString(),
      });
      for (const listener of this.#listeners) listener();
    } catch (error) {
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

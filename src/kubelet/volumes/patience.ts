import type { Clock } from "../../lib/clock.ts";

interface Waiting {
  /** Monotonic milliseconds. */
  readonly due: number;
  readonly wake: () => void;
}

/** Tells those who wait when they have waited long enough, with one timer for all of them: most have long gone by then. */
export class Patience {
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  readonly #ms: number;
  /** Oldest first. */
  readonly #waiting = new Set<Waiting>();
  #watching: Promise<void> | undefined;

  /** @param options.ms How long everybody waits. */
  constructor(options: {
    readonly clock: Clock;
    readonly signal: AbortSignal;
    readonly ms: number;
  }) {
    this.#clock = options.clock;
    this.#signal = options.signal;
    this.#ms = options.ms;
  }

  /** `tired` resolves after the time, or when `signal` aborts. Call `cancel` when it is of no interest any more. */
  wait(signal: AbortSignal): { readonly tired: Promise<void>; readonly cancel: () => void } {
    const { promise: tired, resolve } = Promise.withResolvers<void>();
    const wake = (): void => resolve();
    const waiting = { due: this.#clock.monotonic() + this.#ms, wake };
    this.#waiting.add(waiting);
    signal.addEventListener("abort", wake, { once: true });
    this.#watching ??= this.#watch();
    const cancel = (): void => {
      this.#waiting.delete(waiting);
      signal.removeEventListener("abort", wake);
    };
    return { tired, cancel };
  }

  /** Resolves when no timer is left. Call after everything's signal has aborted. */
  async idle(): Promise<void> {
    await this.#watching;
  }

  async #watch(): Promise<void> {
    try {
      for (;;) {
        const [first] = this.#waiting;
        if (first === undefined) break;
        await this.#clock.sleep(first.due - this.#clock.monotonic(), this.#signal);
        const now = this.#clock.monotonic();
        for (const { due, wake } of this.#waiting) if (due <= now) wake();
        for (const waiting of this.#waiting) if (waiting.due <= now) this.#waiting.delete(waiting);
      }
    } catch {
      // Everything ends.
      for (const { wake } of this.#waiting) wake();
    } finally {
      this.#watching = undefined;
    }
  }
}

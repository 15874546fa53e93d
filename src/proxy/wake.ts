import type { Clock } from "../lib/clock.ts";
import { isAbort } from "../lib/errors.ts";

/** A flag that one loop waits for. Setting it twice before the loop looks is once. */
export class Wake {
  #set = false;
  #resolve: (() => void) | undefined;

  set(): void {
    this.#set = true;
    this.#resolve?.();
    this.#resolve = undefined;
  }

  /** Sets the flag later, unless `signal` aborts first. */
  async setAfter(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
    try {
      await clock.sleep(ms, signal);
      this.set();
    } catch (error) {
      if (!isAbort(error)) throw error;
    }
  }

  /** Resolves when the flag is set, and clears it. Rejects with the signal's reason. */
  async wait(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.#set) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const onAbort = (): void => {
        reject(signal.reason instanceof Error ? signal.reason : new Error("aborted"));
      };
      this.#resolve = resolve;
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        await promise;
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    }
    this.#set = false;
  }
}

/** What `promise` resolves to, unless `signal` aborts first. */
export async function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => {
    reject(new DOMException("The operation was aborted", "AbortError"));
  };
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

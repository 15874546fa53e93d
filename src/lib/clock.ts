import { setTimeout as delay } from "node:timers/promises";

/** Time as an argument, so that every wait can be tested without waiting. */
export interface Clock {
  /** Wall clock, milliseconds since the epoch. For timestamps only: it may step. */
  now(): number;
  /** Milliseconds of a clock that never steps. For durations and deadlines. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: async (ms, signal) => {
    // setTimeout overflows to 1 ms above 2^31 - 1.
    await delay(Math.min(Math.max(ms, 0), 2_147_483_647), undefined, { signal });
  },
};

/** A signal that aborts with `signal` or after `ms`, whichever comes first. */
export function deadline(signal: AbortSignal, ms: number): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(ms)]);
}

/**
 * Does `work` with such a signal. For what is done often: the timer ends with the work, whereas those of
 * {@link deadline} go off long after it, each with an error that nobody sees.
 */
export async function within<T>(
  signal: AbortSignal,
  ms: number,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const limited = new AbortController();
  const onAbort = (): void => limited.abort(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(() => {
    limited.abort(new DOMException("The operation was aborted due to timeout", "TimeoutError"));
  }, ms);
  timer.unref();
  try {
    return await work(limited.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

/** The reason for what ends because it is not needed any more. One for all: making an error is not cheap. */
export const notNeeded = new DOMException("not needed any more", "AbortError");

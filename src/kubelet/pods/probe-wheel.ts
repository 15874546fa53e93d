import type { Clock } from "../../lib/clock.ts";
import { isAbort } from "../../lib/errors.ts";

export interface ProbeWheelOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Jobs due within the same tick run together at its end: late, never early. Milliseconds. */
  readonly tickMs: number;
}

interface Job {
  readonly due: number;
  readonly run: () => void;
}

/**
 * Many jobs on one timer: it sleeps until the earliest is due and then runs all of that tick, so that a node with
 * hundreds of probes wakes up a few times a second at most.
 */
export class ProbeWheel {
  readonly #options: ProbeWheelOptions;
  readonly #jobs = new Map<string, Job>();
  #sleepingUntil = Infinity;
  #sleep: AbortController | undefined;
  #turning: Promise<void> = Promise.resolve();

  constructor(options: ProbeWheelOptions) {
    this.#options = options;
  }

  /** Runs `run` in `ms`, at once for 0; replaces what was set under the same key. `run` must not throw. */
  set(key: string, ms: number, run: () => void): void {
    const { clock, signal, tickMs } = this.#options;
    if (signal.aborted) return;
    const now = clock.monotonic();
    const due = ms <= 0 ? now : Math.ceil((now + ms) / tickMs) * tickMs;
    this.#jobs.set(key, { due, run });
    if (due >= this.#sleepingUntil) return;
    this.#sleep?.abort();
    this.#turning = this.#turn(due);
  }

  /** Nothing happens under this key any more. */
  clear(key: string): void {
    this.#jobs.delete(key);
  }

  /** Resolves when the timer is not set any more; after the signal has aborted. */
  async idle(): Promise<void> {
    await this.#turning;
  }

  async #turn(due: number): Promise<void> {
    const { clock, signal } = this.#options;
    const sleep = new AbortController();
    this.#sleep = sleep;
    this.#sleepingUntil = due;
    try {
      const stop = AbortSignal.any([signal, sleep.signal]);
      for (let next = due; next < Infinity; next = this.#runDue()) {
        this.#sleepingUntil = next;
        await clock.sleep(Math.max(next - clock.monotonic(), 0), stop);
        // Somebody has set the timer anew between the end of the sleep and this line.
        stop.throwIfAborted();
      }
      this.#sleepingUntil = Infinity;
    } catch (error) {
      if (!isAbort(error)) throw error;
    }
  }

  /** Returns when the next one is due; Infinity when there is none. */
  #runDue(): number {
    const now = this.#options.clock.monotonic();
    // What they set meanwhile is not due before this round is over: the timer is set from here.
    this.#sleepingUntil = -Infinity;
    for (const [key, job] of this.#jobs) {
      if (job.due > now || this.#jobs.get(key) !== job) continue;
      this.#jobs.delete(key);
      job.run();
    }
    let next = Infinity;
    for (const { due } of this.#jobs.values()) next = Math.min(next, due);
    return next;
  }
}

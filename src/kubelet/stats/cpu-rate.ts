/** A reading of a counter. */
export interface CpuReading {
  /** Milliseconds since the epoch. */
  readonly timeMs: number;
  readonly cpuNs: number;
}

/** A window is at least so long: shorter ones show the scheduler's ticks. */
const windowMs = 10_000;

/**
 * CPU use over the last window, from a counter that is read now and then. The window is 10 to 20 s with frequent readers,
 * the time between two readings with rare ones, and before the second reading the whole life so far.
 */
export class CpuRate {
  readonly #startMs: number | undefined;
  /** Where the window begins. */
  #from: CpuReading | undefined;
  /** Where the next one will. */
  #next: CpuReading | undefined;

  /** @param startMs When the counter was zero, milliseconds since the epoch; undefined when nobody knows. */
  constructor(startMs: number | undefined) {
    this.#startMs = startMs;
  }

  /** Takes in a reading; returns nanoseconds of CPU time per second, undefined when there is nothing to compare with. */
  note(now: CpuReading): number | undefined {
    const { cpuNs, timeMs } = now;
    const next = this.#next;
    if (next === undefined || cpuNs < next.cpuNs || timeMs < next.timeMs) {
      // The first one; or a clock or a counter that went back, which makes what was known worthless.
      this.#from =
        next === undefined && this.#startMs !== undefined
          ? { timeMs: Math.min(this.#startMs, timeMs), cpuNs: 0 }
          : now;
      this.#next = now;
    } else if (timeMs - next.timeMs >= windowMs) {
      this.#from = next;
      this.#next = now;
    }
    const from = this.#from ?? now;
    const elapsedMs = timeMs - from.timeMs;
    return elapsedMs <= 0 ? undefined : Math.round(((cpuNs - from.cpuNs) / elapsedMs) * 1000);
  }
}

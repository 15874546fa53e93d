interface Point {
  readonly timeMs: number;
  readonly cpuNs: number;
}

interface Track {
  /** Where the window begins. */
  from: Point;
  /** Where the next one will. */
  next: Point;
}

/** A window is at least so long: shorter ones show the scheduler's ticks. */
const windowMs = 10_000;

/**
 * CPU use over the last window, from counters that are read now and then. The window is 10 to 20 s with frequent
 * readers, the time between two readings with rare ones, and before the second reading the whole life so far.
 */
export class CpuRates {
  readonly #tracks = new Map<string, Track>();

  /**
   * Takes in a reading and returns nanoseconds of CPU time per second.
   *
   * @param key What it is of; another run of the same container has another key.
   * @param startMs When the counter was zero, milliseconds since the epoch; undefined when nobody knows.
   */
  note(key: string, { cpuNs, timeMs }: Point, startMs: number | undefined): number | undefined {
    const now = { cpuNs, timeMs };
    let track = this.#tracks.get(key);
    // A counter that went back belongs to something new of the same name.
    if (track === undefined || cpuNs < track.next.cpuNs || timeMs < track.next.timeMs) {
      const from = startMs === undefined ? now : { timeMs: Math.min(startMs, timeMs), cpuNs: 0 };
      track = { from, next: now };
      this.#tracks.set(key, track);
    } else if (timeMs - track.next.timeMs >= windowMs) {
      track.from = track.next;
      track.next = now;
    }
    const { from } = track;
    const elapsedMs = timeMs - from.timeMs;
    return elapsedMs <= 0 ? undefined : Math.round(((cpuNs - from.cpuNs) / elapsedMs) * 1000);
  }

  /** Forgets what is not among these. */
  keepOnly(keys: ReadonlySet<string>): void {
    for (const key of this.#tracks.keys()) if (!keys.has(key)) this.#tracks.delete(key);
  }
}

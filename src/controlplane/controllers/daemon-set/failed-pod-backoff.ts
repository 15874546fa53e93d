const baseMs = 1000;
const maxMs = 15 * 60 * 1000;

interface Entry {
  readonly delayMs: number;
  /** When the last failed pod was deleted, ms. */
  readonly since: number;
}

/**
 * How long a failed pod stays before it is replaced: 1 s, 2 s, 4 s, ... 15 min per DaemonSet, generation and node. A
 * node that refuses pods would otherwise be sent one after the other.
 */
export class FailedPodBackoff {
  readonly #entries = new Map<string, Entry>();

  /** Milliseconds until the next failed pod may go; 0 lets it go and counts it. */
  next(key: string, now: number): number {
    const entry = this.#entries.get(key);
    const age = entry === undefined ? Infinity : now - entry.since;
    if (entry !== undefined && age < entry.delayMs) return entry.delayMs - age;
    const fresh = entry === undefined || age > 2 * maxMs;
    const delayMs = fresh ? baseMs : Math.min(entry.delayMs * 2, maxMs);
    this.#entries.set(key, { delayMs, since: now });
    return 0;
  }

  /** Drops what belongs to a DaemonSet that is gone. */
  forget(uid: string): void {
    for (const key of this.#entries.keys()) {
      if (key.startsWith(`${uid}/`)) this.#entries.delete(key);
    }
  }
}

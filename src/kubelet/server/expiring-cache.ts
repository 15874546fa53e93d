import { createHash } from "node:crypto";

import type { Clock } from "../../lib/clock.ts";

const maxEntries = 1024;

/** Answers by key, each for its own time. Keys may be secrets: only their digests are kept. */
export class ExpiringCache<T> {
  readonly #clock: Clock;
  readonly #entries = new Map<string, { readonly value: T; readonly until: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The kept answer, or that of `ask`, kept for `ttlMs` of it. What `ask` throws is not kept. */
  async get(key: string, ask: () => Promise<T>, ttlMs: (value: T) => number): Promise<T> {
    const digest = createHash("sha256").update(key).digest("base64");
    const known = this.#entries.get(digest);
    if (known !== undefined && known.until > this.#clock.monotonic()) return known.value;
    const value = await ask();
    this.#entries.delete(digest);
    this.#entries.set(digest, { value, until: this.#clock.monotonic() + ttlMs(value) });
    // A map keeps insertion order, so the first key is the oldest answer.
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > maxEntries && oldest !== undefined) this.#entries.delete(oldest);
    return value;
  }
}

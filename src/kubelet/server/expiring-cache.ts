import { createHmac, randomBytes } from "node:crypto";

import type { Clock } from "../../lib/clock.ts";

const maxEntries = 4096;

/**
 * Answers by key, each for its own time, the least used ones forgotten first. Keys may be secrets: only digests under a
 * key of this cache's own are kept. Who asks for what is being asked already waits for that answer.
 */
export class ExpiringCache<T> {
  readonly #clock: Clock;
  readonly #secret = randomBytes(32);
  readonly #entries = new Map<string, { readonly value: T; readonly until: number }>();
  readonly #asking = new Map<string, SharedCall<T>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How many answers are kept, outdated ones included. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * The kept answer, or that of `ask`, kept for `ttlMs` of it; 0 keeps nothing. What `ask` throws is not kept. Its
   * signal aborts when nobody waits any more.
   */
  async get(
    key: string,
    ask: (signal: AbortSignal) => Promise<T>,
    ttlMs: (value: T) => number,
    signal: AbortSignal,
  ): Promise<T> {
    const digest = createHmac("sha256", this.#secret).update(key).digest("base64");
    const known = this.#entries.get(digest);
    if (known !== undefined) {
      this.#entries.delete(digest);
      if (known.until > this.#clock.monotonic()) {
        // A map keeps insertion order, so what stands last was used last.
        this.#entries.set(digest, known);
        return known.value;
      }
    }
    let call = this.#asking.get(digest);
    if (call === undefined) {
      const own: SharedCall<T> = new SharedCall(
        async (inner) => {
          const value = await ask(inner);
          this.#keep(digest, value, ttlMs(value));
          return value;
        },
        () => {
          if (this.#asking.get(digest) === own) this.#asking.delete(digest);
        },
      );
      call = own;
      this.#asking.set(digest, call);
    }
    return call.join(signal);
  }

  #keep(digest: string, value: T, ttlMs: number): void {
    if (ttlMs <= 0) return;
    this.#entries.set(digest, { value, until: this.#clock.monotonic() + ttlMs });
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > maxEntries && oldest !== undefined) this.#entries.delete(oldest);
  }
}

/** One call that several wait for; it is aborted when the last of them leaves. */
class SharedCall<T> {
  readonly #stop = new AbortController();
  readonly #answer: Promise<T>;
  readonly #over: () => void;
  #waiting = 0;

  constructor(call: (signal: AbortSignal) => Promise<T>, over: () => void) {
    this.#over = over;
    this.#answer = call(this.#stop.signal).finally(over);
    // When it fails after all have left, nobody else listens.
    this.#answer.catch(() => undefined);
  }

  async join(signal: AbortSignal): Promise<T> {
    const left = Promise.withResolvers<never>();
    const leave = (): void => {
      left.reject(signal.reason);
    };
    this.#waiting += 1;
    signal.addEventListener("abort", leave, { once: true });
    if (signal.aborted) leave();
    try {
      return await Promise.race([this.#answer, left.promise]);
    } finally {
      signal.removeEventListener("abort", leave);
      this.#waiting -= 1;
      if (this.#waiting === 0) {
        this.#over();
        this.#stop.abort();
      }
    }
  }
}

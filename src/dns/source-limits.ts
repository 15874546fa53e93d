export interface SourceLimitsOptions {
  /** Questions that one address may ask in a second, for as long as it likes. */
  readonly perSecond: number;
  /** Questions at once after a time of rest. */
  readonly burst: number;
  /** Addresses that are counted one by one; beyond them all others share one count. */
  readonly most: number;
}

/**
 * 10 000 a second from one pod are 1250 names a second looked up through the search path, without any cache, for ever:
 * no program means to do that, and a small machine still has time for the others. A replica of CoreDNS is full with as
 * much from all pods together.
 */
export const defaultSourceLimits: SourceLimitsOptions = {
  perSecond: 10_000,
  burst: 10_000,
  most: 4096,
};

interface Bucket {
  tokens: number;
  /** Monotonic milliseconds when `tokens` was right. */
  at: number;
}

/** Counts what each address asks, so that one that asks without end leaves room for the others. */
export class SourceLimits {
  readonly #options: SourceLimitsOptions;
  readonly #buckets = new Map<string, Bucket>();
  /** Of all that find no place in the table. */
  readonly #others: Bucket;
  #sweptAt = -Infinity;

  constructor(options: SourceLimitsOptions) {
    this.#options = options;
    this.#others = { tokens: options.burst, at: -Infinity };
  }

  /** Whether `source` may ask one more. @param now Monotonic milliseconds. */
  take(source: string, now: number): boolean {
    const bucket = this.#buckets.get(source) ?? this.#newBucket(source, now);
    this.#refill(bucket, now);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  get size(): number {
    return this.#buckets.size;
  }

  #refill(bucket: Bucket, now: number): void {
    const { perSecond, burst } = this.#options;
    bucket.tokens = Math.min(burst, bucket.tokens + ((now - bucket.at) * perSecond) / 1000);
    bucket.at = now;
  }

  #newBucket(source: string, now: number): Bucket {
    const { burst, most } = this.#options;
    if (this.#buckets.size >= most) this.#sweep(now);
    if (this.#buckets.size >= most) return this.#others;
    const bucket = { tokens: burst, at: now };
    this.#buckets.set(source, bucket);
    return bucket;
  }

  /** Forgets those that have been at rest: a full count says nothing. Once a second, for it costs the whole table. */
  #sweep(now: number): void {
    if (now - this.#sweptAt < 1000) return;
    this.#sweptAt = now;
    for (const [source, bucket] of this.#buckets) {
      this.#refill(bucket, now);
      if (bucket.tokens >= this.#options.burst) this.#buckets.delete(source);
    }
  }
}

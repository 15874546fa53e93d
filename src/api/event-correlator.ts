import type { Clock } from "../lib/clock.ts";

/** An event on its way to the server: what correlation looks at. */
export interface DraftEvent {
  /** Everything that says who reports about which object, without reason and message. */
  readonly subject: string;
  /** As `subject`, plus the field path. */
  readonly place: string;
  readonly type: string;
  readonly reason: string;
  readonly message: string;
  readonly name: string;
  /** RFC 3339. */
  readonly timestamp: string;
}

/** What to send for a draft. */
export interface CorrelatedEvent {
  /** Under which {@link EventCorrelator.written} remembers it. */
  readonly key: string;
  readonly name: string;
  readonly message: string;
  readonly count: number;
  readonly firstTimestamp: string;
  readonly lastTimestamp: string;
}

const cacheSize = 4096;
const similarBeforeAggregation = 10;
const aggregationMs = 600_000;
const spamBurst = 25;
const spamRefillMs = 300_000;

/** A map that forgets what was not used for longest. */
class LeastRecentlyUsed<V> {
  readonly #entries = new Map<string, V>();

  get(key: string): V | undefined {
    const value = this.#entries.get(key);
    if (value !== undefined) this.set(key, value);
    return value;
  }

  set(key: string, value: V): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size <= cacheSize) return;
    const [oldest] = this.#entries.keys();
    if (oldest !== undefined) this.#entries.delete(oldest);
  }
}

/** Permission to do something `burst` times at once, and once more per `refillMs`. */
export class TokenBucket {
  readonly #burst: number;
  readonly #refillMs: number;
  readonly #clock: Clock;
  #tokens: number;
  #filledAt: number;

  constructor(burst: number, refillMs: number, clock: Clock) {
    this.#burst = burst;
    this.#refillMs = refillMs;
    this.#clock = clock;
    this.#tokens = burst;
    this.#filledAt = clock.monotonic();
  }

  tryTake(): boolean {
    const now = this.#clock.monotonic();
    const gained = (now - this.#filledAt) / this.#refillMs;
    this.#tokens = Math.min(this.#burst, this.#tokens + gained);
    this.#filledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}

interface Similar {
  readonly messages: Set<string>;
  last: number;
}

interface Observed {
  readonly name: string;
  readonly count: number;
  readonly firstTimestamp: string;
}

/**
 * Counts, combines and limits events as client-go does: the same event again raises a counter; the tenth similar one
 * (all but the message equal) within ten minutes is combined with those that follow; beyond 25 events per object one
 * passes each five minutes.
 */
export class EventCorrelator {
  readonly #clock: Clock;
  readonly #similar = new LeastRecentlyUsed<Similar>();
  readonly #observed = new LeastRecentlyUsed<Observed>();
  readonly #buckets = new LeastRecentlyUsed<TokenBucket>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** What to send, or undefined when the event is one too many. */
  correlate(draft: DraftEvent): CorrelatedEvent | undefined {
    const combined = this.#isOneOfMany(draft);
    const key = combined
      ? [draft.subject, draft.type, draft.reason].join("\0")
      : [draft.place, draft.type, draft.reason, draft.message].join("\0");
    const before = this.#observed.get(key);
    const event: CorrelatedEvent = {
      key,
      name: before?.name ?? draft.name,
      message: combined ? `(combined from similar events): ${draft.message}` : draft.message,
      count: (before?.count ?? 0) + 1,
      firstTimestamp: before?.firstTimestamp ?? draft.timestamp,
      lastTimestamp: draft.timestamp,
    };
    this.written(event);
    return this.#passes(draft) ? event : undefined;
  }

  /** Remembers how an event stands on the server, after it was sent under another name or count. */
  written({ key, name, count, firstTimestamp }: CorrelatedEvent): void {
    this.#observed.set(key, { name, count, firstTimestamp });
  }

  #isOneOfMany(draft: DraftEvent): boolean {
    const key = [draft.subject, draft.type, draft.reason].join("\0");
    const now = this.#clock.monotonic();
    let similar = this.#similar.get(key);
    if (similar === undefined || now - similar.last > aggregationMs) {
      similar = { messages: new Set(), last: now };
      this.#similar.set(key, similar);
    }
    similar.messages.add(draft.message);
    similar.last = now;
    if (similar.messages.size < similarBeforeAggregation) return false;
    // The set need not grow any further.
    const [any] = similar.messages;
    if (any !== undefined) similar.messages.delete(any);
    return true;
  }

  #passes(draft: DraftEvent): boolean {
    const key = `${draft.subject}\0${draft.type}`;
    let bucket = this.#buckets.get(key);
    if (bucket === undefined) {
      bucket = new TokenBucket(spamBurst, spamRefillMs, this.#clock);
      this.#buckets.set(key, bucket);
    }
    return bucket.tryTake();
  }
}

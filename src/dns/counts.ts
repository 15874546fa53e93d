import { exponentialBounds } from "../lib/metrics-text.ts";
import type { ForwardEvent } from "./forward-event.ts";

const places = {
  udp: 0,
  tcp: 1,
  known: 2,
  limited: 3,
  dropped: 4,
  forwarded: 5,
  cacheSuccess: 6,
  cacheDenial: 7,
  cacheMiss: 8,
  rejected: 9,
  stray: 10,
  probeFailed: 11,
} as const;
const firstRcode = Object.keys(places).length;
const rcodeCount = 16;
/** Upper bounds of how long servers upstream took, in seconds: those of CoreDNS. */
export const upstreamBounds: readonly number[] = exponentialBounds(0.000_25, 2, 16);
const firstBucket = firstRcode + rcodeCount;
const sumAt = firstBucket + upstreamBounds.length;
const valueCount = sumAt + 2;

/** What is counted one by one. */
export type Counted = keyof typeof places;

/** What the name server has counted since the agent began. */
export interface NameServerCounts {
  /** Questions, by transport. */
  readonly udp: number;
  readonly tcp: number;
  /** Of these: answered with the bytes of an earlier reply. */
  readonly known: number;
  /** Of these: not answered because their source asked more than it may. */
  readonly limited: number;
  /** Of these: not answered because they were no questions. */
  readonly dropped: number;
  /** Replies that were sent; the index is the rcode (RFC 1035, 4.1.1). */
  readonly replies: readonly number[];
  /** What happened on the way outside, as `ForwardEvent` says. */
  readonly forward: Readonly<Record<ForwardEvent, number>>;
  /** Answers of servers upstream: how many took no longer than each of {@link upstreamBounds} and longer than the one before. */
  readonly upstream: {
    readonly buckets: readonly number[];
    readonly seconds: number;
    readonly count: number;
  };
}

/** Counters in memory that threads share: they outlive the thread that counts, and reading them asks nobody. */
export class SharedCounts {
  readonly buffer: SharedArrayBuffer;
  readonly #values: Float64Array;

  /** @param buffer Of another thread's; without it all begin at zero. */
  constructor(buffer = new SharedArrayBuffer(valueCount * Float64Array.BYTES_PER_ELEMENT)) {
    this.buffer = buffer;
    this.#values = new Float64Array(buffer);
  }

  add(what: Counted): void {
    this.#increase(places[what]);
  }

  /** @param reply A whole message. */
  addReply(reply: Buffer): void {
    this.#increase(firstRcode + ((reply[3] ?? 0) & 0xf));
  }

  /** A server upstream answered after so long. */
  addUpstream(seconds: number): void {
    const bucket = upstreamBounds.findIndex((bound) => seconds <= bound);
    if (bucket >= 0) this.#increase(firstBucket + bucket);
    this.#increase(sumAt, seconds);
    this.#increase(sumAt + 1);
  }

  #increase(index: number, by = 1): void {
    this.#values[index] = (this.#values[index] ?? 0) + by;
  }

  read(): NameServerCounts {
    const at = (what: Counted): number => this.#values[places[what]] ?? 0;
    return {
      udp: at("udp"),
      tcp: at("tcp"),
      known: at("known"),
      limited: at("limited"),
      dropped: at("dropped"),
      replies: [...this.#values.subarray(firstRcode, firstBucket)],
      forward: {
        forwarded: at("forwarded"),
        cacheSuccess: at("cacheSuccess"),
        cacheDenial: at("cacheDenial"),
        cacheMiss: at("cacheMiss"),
        rejected: at("rejected"),
        stray: at("stray"),
        probeFailed: at("probeFailed"),
      },
      upstream: {
        buckets: [...this.#values.subarray(firstBucket, sumAt)],
        seconds: this.#values[sumAt] ?? 0,
        count: this.#values[sumAt + 1] ?? 0,
      },
    };
  }
}

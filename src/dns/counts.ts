const places = { udp: 0, tcp: 1, known: 2, limited: 3, dropped: 4 } as const;
const firstRcode = Object.keys(places).length;
const rcodeCount = 16;

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
}

/** Counters in memory that threads share: they outlive the thread that counts, and reading them asks nobody. */
export class SharedCounts {
  readonly buffer: SharedArrayBuffer;
  readonly #values: Float64Array;

  /** @param buffer Of another thread's; without it all begin at zero. */
  constructor(
    buffer = new SharedArrayBuffer((firstRcode + rcodeCount) * Float64Array.BYTES_PER_ELEMENT),
  ) {
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

  #increase(index: number): void {
    this.#values[index] = (this.#values[index] ?? 0) + 1;
  }

  read(): NameServerCounts {
    const at = (what: Counted): number => this.#values[places[what]] ?? 0;
    return {
      udp: at("udp"),
      tcp: at("tcp"),
      known: at("known"),
      limited: at("limited"),
      dropped: at("dropped"),
      replies: [...this.#values.subarray(firstRcode)],
    };
  }
}

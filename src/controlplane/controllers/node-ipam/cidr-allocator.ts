import type { Cidr } from "../../../lib/cidr.ts";
import { formatCidr, parseCidr } from "../../../lib/cidr.ts";

/** Hands out equal parts of one network, going round, so that a freed one rests before it is used again. */
export class CidrAllocator {
  readonly #cluster: Cidr;
  readonly #prefix: number;
  readonly #count: number;
  readonly #used = new Set<number>();
  #next = 0;

  /** @param prefix Length of each part, for example 24. */
  constructor(cluster: Cidr, prefix: number) {
    this.#cluster = cluster;
    this.#prefix = prefix;
    // More nodes than this are out of reach of this control plane anyway.
    this.#count = 2 ** Math.min(Math.max(prefix - cluster.prefix, 0), 20);
  }

  /** Marks what a node already has. Networks outside of ours are nobody's business and ignored. */
  occupy(cidr: string): void {
    for (const index of this.#indexes(cidr)) this.#used.add(index);
  }

  release(cidr: string): void {
    for (const index of this.#indexes(cidr)) this.#used.delete(index);
  }

  /** The next free part, marked as used; undefined when there is none. */
  allocate(): string | undefined {
    for (let tried = 0; tried < this.#count; tried += 1) {
      const index = (this.#next + tried) % this.#count;
      if (this.#used.has(index)) continue;
      this.#used.add(index);
      this.#next = (index + 1) % this.#count;
      return formatCidr({
        family: this.#cluster.family,
        base: this.#cluster.base + BigInt(index) * this.#partSize(),
        prefix: this.#prefix,
      });
    }
    return undefined;
  }

  #partSize(): bigint {
    return 1n << BigInt((this.#cluster.family === "IPv4" ? 32 : 128) - this.#prefix);
  }

  /** All parts that `text` overlaps. */
  #indexes(text: string): readonly number[] {
    const cidr = parseCidr(text);
    if (cidr.family !== this.#cluster.family) return [];
    const bits = BigInt(cidr.family === "IPv4" ? 32 : 128);
    const last = cidr.base + (1n << (bits - BigInt(cidr.prefix))) - 1n;
    const from = (cidr.base - this.#cluster.base) / this.#partSize();
    const to = (last - this.#cluster.base) / this.#partSize();
    if (last < this.#cluster.base || from >= BigInt(this.#count)) return [];
    const indexes: number[] = [];
    const start = Number(from < 0n ? 0n : from);
    const end = Number(to < BigInt(this.#count) ? to : BigInt(this.#count - 1));
    for (let index = start; index <= end; index += 1) indexes.push(index);
    return indexes;
  }
}

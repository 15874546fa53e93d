import {
  cidrAddress,
  cidrContains,
  cidrSize,
  formatCidr,
  parseIP,
  type Cidr,
} from "../../lib/cidr.ts";

/** Why an address or a port could not be taken; `message` is the API's text. */
export type Refusal = { readonly kind: "refused"; readonly message: string };
export type Taken<T> = { readonly kind: "taken"; readonly value: T } | Refusal;

/** A number in [0, bound). */
export type RandomInt = (bound: number) => number;

function refused(message: string): Refusal {
  return { kind: "refused", message };
}

/**
 * Offsets below this are left for addresses that users pick (KEP-3070): min(max(16, size/16), 256), none in tiny ranges.
 */
export function staticBandSize(size: number): number {
  const wanted = Math.min(Math.max(16, Math.floor(size / 16)), 256);
  return wanted >= size ? 0 : wanted;
}

/** A random free number in [from, to), searched upwards from a random start; undefined when all are taken. */
function pick(
  from: number,
  to: number,
  isFree: (candidate: number) => boolean,
  randomInt: RandomInt,
): number | undefined {
  const span = to - from;
  if (span <= 0) return undefined;
  const start = randomInt(span);
  for (let step = 0; step < span; step += 1) {
    const candidate = from + ((start + step) % span);
    if (isFree(candidate)) return candidate;
  }
  return undefined;
}

/** The cluster IPs of one range. State lives in memory and is rebuilt from the stored Services at start. */
export class AddressAllocator {
  readonly #cidr: Cidr;
  readonly #randomInt: RandomInt;
  readonly #taken = new Set<bigint>();
  /** Usable addresses: without the network address, and the broadcast address for IPv4. */
  readonly #usable: bigint;
  /** Those of them that are given to whoever asks for none; of a large range the first ones. */
  readonly #size: number;

  constructor(cidr: Cidr, randomInt: RandomInt) {
    this.#cidr = cidr;
    this.#randomInt = randomInt;
    const all = cidrSize(cidr);
    this.#usable = cidr.family === "IPv4" ? all - 2n : all - 1n;
    this.#size = Number(this.#usable > 65_536n ? 65_536n : this.#usable);
  }

  get family(): Cidr["family"] {
    return this.#cidr.family;
  }

  has(address: string): boolean {
    return this.#taken.has(parseIP(address));
  }

  /** Marks an address without any check: for rebuilding from the store. */
  restore(address: string): void {
    this.#taken.add(parseIP(address));
  }

  release(address: string): void {
    this.#taken.delete(parseIP(address));
  }

  /** Takes the address a user asked for. */
  take(address: string): Taken<string> {
    if (!cidrContains(this.#cidr, address)) {
      return refused(
        `failed to allocate IP ${address}: the provided IP (${address}) is not in the valid range. The range of valid IPs is ${formatCidr(this.#cidr)}`,
      );
    }
    const value = parseIP(address);
    const offset = value - this.#cidr.base;
    if (offset === 0n || offset > this.#usable) {
      return refused(
        `failed to allocate IP ${address}: the provided IP (${address}) is not in the valid range. The range of valid IPs is ${formatCidr(this.#cidr)}`,
      );
    }
    if (this.#taken.has(value)) {
      return refused(`failed to allocate IP ${address}: provided IP is already allocated`);
    }
    this.#taken.add(value);
    return { kind: "taken", value: address };
  }

  /** Takes a free address: from the upper band while it has one, then from the lower. */
  next(): Taken<string> {
    const band = staticBandSize(this.#size);
    const isFree = (offset: number): boolean => !this.#taken.has(this.#cidr.base + BigInt(offset));
    const offset =
      pick(band + 1, this.#size + 1, isFree, this.#randomInt) ??
      pick(1, band + 1, isFree, this.#randomInt);
    if (offset === undefined) return refused("failed to allocate a serviceIP: range is full");
    this.#taken.add(this.#cidr.base + BigInt(offset));
    return { kind: "taken", value: cidrAddress(this.#cidr, offset) };
  }
}

/** The node ports of one range, both ends included. */
export class PortAllocator {
  readonly #first: number;
  readonly #last: number;
  readonly #randomInt: RandomInt;
  readonly #taken = new Set<number>();

  constructor(range: { readonly first: number; readonly last: number }, randomInt: RandomInt) {
    this.#first = range.first;
    this.#last = range.last;
    this.#randomInt = randomInt;
  }

  has(port: number): boolean {
    return this.#taken.has(port);
  }

  restore(port: number): void {
    this.#taken.add(port);
  }

  release(port: number): void {
    this.#taken.delete(port);
  }

  take(port: number): Taken<number> {
    if (port < this.#first || port > this.#last) {
      return refused(
        `provided port is not in the valid range. The range of valid ports is ${this.#first}-${this.#last}`,
      );
    }
    if (this.#taken.has(port)) return refused("provided port is already allocated");
    this.#taken.add(port);
    return { kind: "taken", value: port };
  }

  next(): Taken<number> {
    const size = this.#last - this.#first + 1;
    const band = size < 16 ? 0 : Math.min(Math.max(16, Math.floor(size / 32)), 128);
    const isFree = (port: number): boolean => !this.#taken.has(port);
    const port =
      pick(this.#first + band, this.#last + 1, isFree, this.#randomInt) ??
      pick(this.#first, this.#first + band, isFree, this.#randomInt);
    if (port === undefined) {
      return refused("failed to allocate a nodePort: range is full");
    }
    this.#taken.add(port);
    return { kind: "taken", value: port };
  }
}

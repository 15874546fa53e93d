import { isIPv4, isIPv6 } from "node:net";

import { ParseError } from "./errors.ts";

export type IPFamily = "IPv4" | "IPv6";

/** An IP network. `base` is the network address as a number (32 or 128 bits), host bits zero. */
export interface Cidr {
  readonly family: IPFamily;
  readonly base: bigint;
  readonly prefix: number;
}

/** The family of an address in text form, or undefined when it is not one. */
export function ipFamily(address: string): IPFamily | undefined {
  if (isIPv4(address)) return "IPv4";
  if (isIPv6(address) && !address.includes("%")) return "IPv6";
  return undefined;
}

/** Address width in bits. */
export function familyBits(family: IPFamily): 32 | 128 {
  return family === "IPv4" ? 32 : 128;
}

/** @throws {ParseError} when `address` is neither IPv4 nor IPv6 text. */
export function parseIP(address: string, path = "address"): bigint {
  const family = ipFamily(address);
  if (family === undefined) throw new ParseError(path, "an IP address");
  if (family === "IPv4") {
    return address.split(".").reduce((value, part) => (value << 8n) | BigInt(part), 0n);
  }
  return parseIPv6(address);
}

function parseIPv6(address: string): bigint {
  const lastColon = address.lastIndexOf(":");
  const tail = address.slice(lastColon + 1);
  let text = address;
  if (tail.includes(".")) {
    const v4 = parseIP(tail);
    text = `${address.slice(0, lastColon + 1)}${(v4 >> 16n).toString(16)}:${(v4 & 0xffffn).toString(16)}`;
  }
  const [left = "", right] = text.split("::");
  const head = left === "" ? [] : left.split(":");
  const rest = right === undefined || right === "" ? [] : right.split(":");
  const zeros = right === undefined ? 0 : 8 - head.length - rest.length;
  const groups = [...head, ...Array.from({ length: zeros }, () => "0"), ...rest];
  return groups.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n);
}

/** Canonical text: dotted quad, or RFC 5952. */
export function formatIP(value: bigint, family: IPFamily): string {
  if (family === "IPv4") {
    return [24n, 16n, 8n, 0n].map((shift) => String((value >> shift) & 255n)).join(".");
  }
  const groups = Array.from({ length: 8 }, (_, i) =>
    Number((value >> BigInt(112 - 16 * i)) & 0xffffn),
  );
  let bestStart = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start += 1) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length += 1;
    if (length > bestLength) [bestStart, bestLength] = [start, length];
  }
  const hex = groups.map((group) => group.toString(16));
  if (bestStart < 0) return hex.join(":");
  return `${hex.slice(0, bestStart).join(":")}::${hex.slice(bestStart + bestLength).join(":")}`;
}

/** Canonical text of an address in any accepted spelling. */
export function canonicalIP(address: string, path = "address"): string {
  // Strict: no leading zeros, no shorter forms. So there is only one spelling.
  if (isIPv4(address)) return address;
  const value = parseIP(address, path);
  return formatIP(value, "IPv6");
}

/** @throws {ParseError} unless `text` is `address/prefix`. Host bits are cleared. */
export function parseCidr(text: string, path = "cidr"): Cidr {
  const [address = "", length = "", extra] = text.split("/");
  const family = ipFamily(address);
  const prefix = Number(length);
  if (
    family === undefined ||
    extra !== undefined ||
    !/^\d{1,3}$/.test(length) ||
    prefix > familyBits(family)
  ) {
    throw new ParseError(path, "a CIDR such as 10.244.0.0/24");
  }
  const hostBits = BigInt(familyBits(family) - prefix);
  return { family, base: (parseIP(address) >> hostBits) << hostBits, prefix };
}

/** Whether `text` is `address/prefix`. */
export function isCidr(text: string): boolean {
  try {
    parseCidr(text);
    return true;
  } catch {
    return false;
  }
}

export function formatCidr(cidr: Cidr): string {
  return `${formatIP(cidr.base, cidr.family)}/${cidr.prefix}`;
}

/** Number of addresses in the network, network and broadcast address included. */
export function cidrSize(cidr: Cidr): bigint {
  return 1n << BigInt(familyBits(cidr.family) - cidr.prefix);
}

/** Whether the address (text) lies in the network; false for the other family. */
export function cidrContains(cidr: Cidr, address: string): boolean {
  if (ipFamily(address) !== cidr.family) return false;
  const value = parseIP(address);
  return value >= cidr.base && value < cidr.base + cidrSize(cidr);
}

/** The `index`-th address of the network, 0 being the network address. */
export function cidrAddress(cidr: Cidr, index: bigint | number): string {
  return formatIP(cidr.base + BigInt(index), cidr.family);
}

import { formatIP, ipFamily } from "../lib/cidr.ts";

/** Letters, digits, `-` and `_` in labels of at most 63, 253 in all. Names with other bytes are never ours. */
export function isHostName(text: string): boolean {
  return text.length <= 253 && /^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$/i.test(text);
}

/** The address of a name below in-addr.arpa or ip6.arpa; undefined for any other name. Takes lower case. */
export function reverseAddress(name: string): string | undefined {
  if (name.endsWith(".in-addr.arpa")) {
    const bytes = name.slice(0, -".in-addr.arpa".length).split(".").toReversed();
    const text = bytes.join(".");
    return bytes.length === 4 && ipFamily(text) === "IPv4" ? text : undefined;
  }
  if (!name.endsWith(".ip6.arpa")) return undefined;
  const nibbles = name.slice(0, -".ip6.arpa".length).split(".").toReversed();
  if (nibbles.length !== 32 || nibbles.some((nibble) => !/^[0-9a-f]$/.test(nibble)))
    return undefined;
  return formatIP(BigInt(`0x${nibbles.join("")}`), "IPv6");
}

/** The label that stands for an address: 10-1-2-3, or 2001-db8--1. */
export function dashedIP(ip: string): string {
  if (!ip.includes(":")) return ip.replaceAll(".", "-");
  // No label begins or ends with a dash (RFC 1123).
  const text = ip.startsWith(":") ? `0${ip}` : ip;
  return `${text}${text.endsWith(":") ? "0" : ""}`.replaceAll(":", "-");
}

/** The address that a label stands for, in any spelling of {@link dashedIP}; undefined when it is none. */
export function undashedIP(label: string): string | undefined {
  const four = label.replaceAll("-", ".");
  if (ipFamily(four) !== undefined) return four;
  const six = label.replaceAll("-", ":");
  return ipFamily(six) === undefined ? undefined : six;
}

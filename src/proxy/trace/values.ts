import {
  canonicalIP,
  type Cidr,
  cidrContains,
  ipFamily,
  parseCidr,
  parseIP,
} from "../../lib/cidr.ts";

const protocolNumbers: ReadonlyMap<string, string> = new Map([
  ["1", "icmp"],
  ["6", "tcp"],
  ["17", "udp"],
  ["58", "icmpv6"],
  ["ipv6-icmp", "icmpv6"],
  ["132", "sctp"],
]);

/** A protocol by its name, whatever it is written as. */
export function protocolName(text: string): string {
  return protocolNumbers.get(text) ?? text;
}

/** A number in decimal or after `0x`; undefined when it is none. */
export function numberOf(text: string): number | undefined {
  return /^(?:0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : undefined;
}

/** One spelling for every value, so that equal values are equal texts. */
export function canonicalValue(text: string): string {
  if (text.includes(":")) return ipFamily(text) === undefined ? text : canonicalIP(text);
  if (text.startsWith("0x")) return String(numberOf(text) ?? text);
  return text;
}

function cidrOf(text: string): Cidr | undefined {
  try {
    return parseCidr(text);
  } catch {
    return undefined;
  }
}

/** Whether the text means more than one value. */
export function isInterval(text: string): boolean {
  return (
    text.endsWith("*") ||
    cidrOf(text) !== undefined ||
    /^\d+-\d+$/.test(text) ||
    rangeOf(text) !== undefined
  );
}

function rangeOf(text: string): readonly [string, string] | undefined {
  const [from = "", to = "", ...rest] = text.split("-");
  if (rest.length > 0 || ipFamily(from) === undefined) return undefined;
  return ipFamily(to) === ipFamily(from) ? [from, to] : undefined;
}

/** Whether a value is what a text means: a value, a network, a range `a-b`, or the beginning of a name `veth*`. */
export function valueTest(text: string): (value: string) => boolean {
  const cidr = cidrOf(text);
  if (cidr !== undefined)
    return (value) => ipFamily(value) !== undefined && cidrContains(cidr, value);
  if (text.endsWith("*")) return (value) => value.startsWith(text.slice(0, -1));
  const addresses = rangeOf(text);
  if (addresses !== undefined) {
    const [from, to] = [parseIP(addresses[0]), parseIP(addresses[1])];
    return (value) =>
      ipFamily(value) === ipFamily(addresses[0]) && parseIP(value) >= from && parseIP(value) <= to;
  }
  if (/^\d+-\d+$/.test(text)) {
    const [from = 0, to = 0] = text.split("-").map(Number);
    return (value) => Number(value) >= from && Number(value) <= to;
  }
  const wanted = canonicalValue(text);
  return (value) => value === wanted;
}

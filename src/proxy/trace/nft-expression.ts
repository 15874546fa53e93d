import { numberOf, valueTest } from "./values.ts";
import type { Flow } from "./flow.ts";
import { canonicalKey, NftContainer, parseElements } from "./nft-container.ts";
import type { NftReader } from "./nft-words.ts";

/** A value of the packet; undefined when the packet has no such thing, and then the rule does not match. */
export type NftValue = ((flow: Flow) => string | undefined) & {
  /** One of so many, by chance. */
  readonly draws?: number;
};

/** Finds the sets and maps of the rule's table. */
export type FindContainer = (name: string) => NftContainer | undefined;

const bitOperations: ReadonlyMap<string, (a: number, b: number) => number> = new Map([
  ["and", (a, b) => a & b],
  ["&", (a, b) => a & b],
  ["or", (a, b) => a | b],
  ["|", (a, b) => a | b],
  ["xor", (a, b) => a ^ b],
  ["^", (a, b) => a ^ b],
]);

function header(reader: NftReader, family: "IPv4" | "IPv6"): NftValue {
  const field = reader.next();
  const ofFamily =
    (read: (flow: Flow) => string): NftValue =>
    (flow) =>
      flow.packet.family === family ? read(flow) : undefined;
  switch (field) {
    case "saddr":
      return ofFamily((flow) => flow.source);
    case "daddr":
      return ofFamily((flow) => flow.destination);
    case "protocol":
    case "nexthdr":
      return ofFamily((flow) => flow.packet.protocol);
    default:
      throw reader.unknown();
  }
}

function port(reader: NftReader, protocol: string): NftValue {
  const field = reader.next();
  if (field !== "dport" && field !== "sport") throw reader.unknown();
  return (flow) => {
    if (protocol !== "th" && flow.packet.protocol !== protocol) return undefined;
    return String(field === "dport" ? flow.destinationPort : flow.sourcePort);
  };
}

function meta(reader: NftReader): NftValue | undefined {
  if (reader.take("l4proto")) return (flow) => flow.packet.protocol;
  if (reader.take("mark")) return (flow) => String(flow.mark);
  if (reader.take("nfproto")) return (flow) => flow.packet.family.toLowerCase();
  // Where there is no interface, its name is empty.
  if (reader.take("iifname")) return (flow) => flow.inInterface;
  if (reader.take("oifname")) return outInterface;
  return undefined;
}

function outInterface(flow: Flow): string {
  if (flow.hook === "prerouting" || flow.hook === "input") return "";
  return flow.knownOutInterface();
}

function conntrack(reader: NftReader): NftValue {
  if (reader.take("state")) return (flow) => flow.state;
  if (reader.take("mark")) return (flow) => String(flow.ctMark);
  if (reader.take("status"))
    return (flow) =>
      [...(flow.translated ? ["dnat"] : []), ...(flow.masqueraded ? ["snat"] : [])].join(",");
  throw reader.unknown();
}

function addressType(reader: NftReader): NftValue {
  const field = reader.next();
  if ((field !== "daddr" && field !== "saddr") || !reader.take("type")) throw reader.unknown();
  return (flow) => flow.host.addressType(field === "daddr" ? flow.destination : flow.source);
}

function chance(reader: NftReader): NftValue {
  // How far a counter (`inc`) has come is not known: it may be anywhere.
  const mode = reader.next();
  const count = reader.take("mod") ? numberOf(reader.next()) : undefined;
  if ((mode !== "random" && mode !== "inc") || count === undefined || count < 1)
    throw reader.unknown();
  const offset = reader.take("offset") ? Number(reader.next()) : 0;
  const branches = Array.from({ length: count }, (_, outcome) => ({ weight: 1 / count, outcome }));
  const draw: NftValue = (flow) => {
    if (flow.drawn !== undefined) return String(flow.drawn + offset);
    const drawn = flow.choose(() => branches);
    if (count > 1) flow.results.push(`${drawn} of ${count} by chance`);
    return String(drawn + offset);
  };
  return Object.assign(draw, { draws: count });
}

/** Packets that are traced are never ICMP. */
function icmp(reader: NftReader): NftValue {
  reader.next();
  if (!["type", "code"].includes(reader.next())) throw reader.unknown();
  return () => undefined;
}

function primary(reader: NftReader): NftValue | undefined {
  const start = reader.peek();
  switch (start) {
    case "ip":
    case "ip6":
      reader.next();
      return header(reader, start === "ip" ? "IPv4" : "IPv6");
    case "th":
    case "tcp":
    case "udp":
    case "sctp":
      reader.next();
      return port(reader, start);
    case "meta":
      reader.next();
      return meta(reader);
    case "ct":
      reader.next();
      return conntrack(reader);
    case "fib":
      reader.next();
      return addressType(reader);
    case "numgen":
      reader.next();
      return chance(reader);
    case "icmp":
    case "icmpv6":
      return icmp(reader);
    default:
      return meta(reader);
  }
}

function withBits(reader: NftReader, value: NftValue): NftValue {
  const operation = bitOperations.get(reader.peek());
  if (operation === undefined) return value;
  reader.next();
  const operand = numberOf(reader.next());
  if (operand === undefined) throw reader.unknown();
  return withBits(reader, (flow) => {
    const text = value(flow);
    // Marks are unsigned.
    return text === undefined ? undefined : String(operation(Number(text), operand) >>> 0);
  });
}

/**
 * Reads a value or a concatenation of values.
 *
 * @throws {UnknownRuleError}
 */
export function parseNftValue(reader: NftReader): NftValue {
  const parts: NftValue[] = [];
  do {
    const first = primary(reader);
    if (first === undefined) throw reader.unknown();
    parts.push(withBits(reader, first));
  } while (reader.take("."));
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) return only;
  const joined: NftValue = (flow) => {
    const values: string[] = [];
    for (const part of parts) {
      const value = part(flow);
      if (value === undefined) return undefined;
      values.push(value);
    }
    return values.join(" . ");
  };
  const chances = parts.flatMap(({ draws }) => (draws === undefined ? [] : [draws]));
  const [draws] = chances;
  return draws === undefined || chances.length > 1 ? joined : Object.assign(joined, { draws });
}

/**
 * Reads `@name` or `{ ... }`.
 *
 * @throws {UnknownRuleError}
 */
export function parseContainer(reader: NftReader, find: FindContainer): () => NftContainer {
  if (reader.peek() === "{") {
    const own = new NftContainer("map", "{ ... }");
    for (const [key, value] of parseElements(reader.braces())) own.add(key, value);
    return () => own;
  }
  const name = reader.peek();
  if (!name.startsWith("@")) throw reader.unknown();
  reader.next();
  const error = reader.unknown();
  return () => {
    const found = find(name.slice(1));
    if (found === undefined) throw error;
    return found;
  };
}

/**
 * Reads what a value is compared with.
 *
 * @throws {UnknownRuleError}
 */
export function parseNftMatch(
  reader: NftReader,
  value: NftValue,
  find: FindContainer,
): (flow: Flow) => boolean {
  const negated = reader.take("!=");
  if (!negated) reader.take("==");
  const test = parseTest(reader, find);
  return (flow) => {
    const found = value(flow);
    return found !== undefined && test(found) !== negated;
  };
}

function parseTest(reader: NftReader, find: FindContainer): (value: string) => boolean {
  if (reader.peek() === "{" || reader.peek().startsWith("@")) {
    const container = parseContainer(reader, find);
    return (value) => container().lookUp(value) !== undefined;
  }
  const concatenation = [operand(reader)];
  while (reader.take(".")) concatenation.push(operand(reader));
  if (concatenation.length > 1) {
    const wanted = canonicalKey(concatenation.join(" . "));
    return (value) => value === wanted;
  }
  const listed = [...concatenation];
  while (reader.take(",")) listed.push(operand(reader));
  const tests = listed.map(valueTest);
  // Conntrack's status may be several at once.
  return (value) => value.split(",").some((one) => tests.some((test) => test(one)));
}

function operand(reader: NftReader): string {
  if (/^([{};,@].*|)$/.test(reader.peek())) throw reader.unknown();
  return reader.next().replaceAll('"', "");
}

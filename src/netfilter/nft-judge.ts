import { isRecord, optionalNumber, optionalString } from "../lib/guard.ts";
import {
  type Action,
  addressMatches,
  all,
  deviceMatches,
  type Fate,
  judge,
  type JudgedRule,
  not,
  type PacketSketch,
  some,
  type Truth,
} from "./packet-sketch.ts";

/** A chain of nftables that the kernel calls for packets which are forwarded or for the node. */
export interface BaseChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook: "forward" | "input";
  readonly policy: "accept" | "drop";
}

function itemsOf(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  const items: unknown = isRecord(value) ? value["nftables"] : undefined;
  return Array.isArray(items) ? items.filter(isRecord) : [];
}

/** Reads the chains that can drop packets out of `nft -j list chains` or `nft -j list table`. */
export function parseBaseChains(value: unknown): readonly BaseChain[] {
  return itemsOf(value).flatMap((item): BaseChain[] => {
    const chain = item["chain"];
    if (!isRecord(chain) || chain["type"] !== "filter") return [];
    const { family, hook, name, policy, table } = chain;
    if (hook !== "forward" && hook !== "input") return [];
    if (typeof family !== "string" || !["ip", "ip6", "inet"].includes(family)) return [];
    if (typeof name !== "string" || typeof table !== "string") return [];
    return [{ family, hook, name, table, policy: policy === "drop" ? "drop" : "accept" }];
  });
}

/** What the packet has where an expression looks: words, a number, or undefined when a sketch does not tell. */
type Value = string | number | readonly string[] | undefined;

/** The packet has no such header: the rule does not apply, however it compares. */
const absent = Symbol("absent");

function metaValue(packet: PacketSketch, key: string): Value {
  switch (key) {
    case "iifname":
    case "iif":
      return packet.inDevice;
    case "oifname":
    case "oif":
      return packet.outDevice ?? "";
    case "l4proto":
      return packet.protocol;
    case "nfproto":
      return packet.family === "IPv4" ? "ipv4" : "ipv6";
    case "protocol":
      return packet.family === "IPv4" ? "ip" : "ip6";
    default:
      return undefined;
  }
}

function payloadValue(packet: PacketSketch, protocol: string, field: string): Value | symbol {
  const own = packet.family === "IPv4" ? "ip" : "ip6";
  if (protocol === "ip" || protocol === "ip6") {
    if (protocol !== own) return absent;
    if (field === "saddr") return packet.source;
    if (field === "daddr") return packet.destination;
    return field === "protocol" || field === "nexthdr" ? packet.protocol : undefined;
  }
  if (protocol !== "th" && protocol !== packet.protocol) return absent;
  return field === "dport" ? packet.port : undefined;
}

function ctValue(packet: PacketSketch, key: string): Value {
  if (key === "state") return ["new"];
  if (key === "status") return packet.translated ? ["dnat"] : [];
  return undefined;
}

function valueOf(left: unknown, packet: PacketSketch): Value | symbol {
  if (!isRecord(left)) return undefined;
  const { ct, fib, meta, payload } = left;
  if (isRecord(meta)) return metaValue(packet, optionalString(meta["key"]) ?? "");
  if (isRecord(payload)) {
    return payloadValue(
      packet,
      optionalString(payload["protocol"]) ?? "",
      optionalString(payload["field"]) ?? "",
    );
  }
  if (isRecord(ct)) return ctValue(packet, optionalString(ct["key"]) ?? "");
  if (isRecord(fib) && fib["result"] === "type") {
    const flags: unknown = fib["flags"];
    const only = Array.isArray(flags) ? flags.join(" ") : flags;
    if (only === "daddr") return packet.hook === "input" ? "local" : "unicast";
  }
  return undefined;
}

function within(value: string | number, range: readonly unknown[]): Truth {
  const [low, high] = range;
  if (typeof value !== "number" || typeof low !== "number" || typeof high !== "number") {
    return undefined;
  }
  return value >= low && value <= high;
}

/** Whether the packet's value is one expression of a rule or element of a set. */
function equals(value: Value, right: unknown): Truth {
  if (value === undefined) return undefined;
  if (Array.isArray(value)) {
    return typeof right === "string" ? value.includes(right) : undefined;
  }
  if (typeof value !== "string" && typeof value !== "number") return undefined;
  if (typeof right === "number") return value === right;
  if (typeof right === "string") return textEquals(value, right);
  if (!isRecord(right)) return undefined;
  const { elem, prefix, range } = right;
  if (isRecord(elem)) return equals(value, elem["val"]);
  if (Array.isArray(range)) return within(value, range);
  if (isRecord(prefix) && typeof value === "string") {
    const length = optionalNumber(prefix["len"]);
    return addressMatches(value, `${String(prefix["addr"])}/${String(length)}`);
  }
  return undefined;
}

const services: ReadonlyMap<string, number> = new Map([
  ["ssh", 22],
  ["domain", 53],
  ["http", 80],
  ["https", 443],
]);

function textEquals(value: string | number, right: string): Truth {
  if (typeof value === "number") {
    const port = services.get(right);
    return port === undefined ? undefined : value === port;
  }
  if (right.endsWith("*")) return deviceMatches(value, right, "*");
  return value === right || (addressMatches(value, right) ?? false);
}

/** Sets by name. */
type Sets = ReadonlyMap<string, readonly unknown[]>;

function membersOf(right: unknown, sets: Sets): readonly unknown[] | undefined {
  const members: unknown = isRecord(right) ? right["set"] : right;
  if (Array.isArray(members)) return members.map((member: unknown) => member);
  if (typeof right === "string" && right.startsWith("@")) return sets.get(right.slice(1));
  return undefined;
}

function matchApplies(match: Record<string, unknown>, packet: PacketSketch, sets: Sets): Truth {
  const { left, op, right } = match;
  const value = valueOf(left, packet);
  if (value === absent) return false;
  if (typeof value === "symbol") return undefined;
  if (typeof right === "string" && right.startsWith("@") && membersOf(right, sets) === undefined) {
    return undefined;
  }
  const members = membersOf(right, sets) ?? [right];
  const found = some(members.map((member) => equals(value, member)));
  if (op === "==" || op === "in") return found;
  return op === "!=" ? not(found) : undefined;
}

const verdicts = ["accept", "drop", "reject", "return", "jump", "goto", "continue"] as const;

function actionOf(statement: Readonly<Record<string, unknown>>): Action | undefined {
  const verdict = verdicts.find((name) => name in statement);
  if (verdict === undefined) return undefined;
  if (verdict === "reject") return { kind: "drop" };
  if (verdict === "continue") return { kind: "go-on" };
  if (verdict === "jump" || verdict === "goto") {
    const target = statement[verdict];
    const chain = isRecord(target) ? optionalString(target["target"]) : undefined;
    return chain === undefined ? { kind: "unclear" } : { kind: verdict, chain };
  }
  return { kind: verdict };
}

/** One rule per element of a verdict map. */
function mapRules(
  vmap: Record<string, unknown>,
  before: Truth,
  packet: PacketSketch,
  { sets, text }: { readonly sets: Sets; readonly text: string },
): readonly JudgedRule[] {
  const value = valueOf(vmap["key"], packet);
  const members = membersOf(vmap["data"], sets);
  if (value === absent) return [];
  if (members === undefined) {
    return [{ applies: all([before, undefined]), action: { kind: "unclear" }, text }];
  }
  return members.flatMap((member): JudgedRule[] => {
    if (!Array.isArray(member) || !isRecord(member[1])) return [];
    const hit = typeof value === "symbol" ? undefined : equals(value, member[0]);
    const action = actionOf(member[1]) ?? { kind: "unclear" };
    return [{ applies: all([before, hit]), action, text }];
  });
}

/** Statements that neither choose packets nor decide. */
const quiet = new Set(["counter", "log", "comment", "mangle", "ct helper", "meter", "notrack"]);

function readRule(
  rule: Record<string, unknown>,
  packet: PacketSketch,
  sets: Sets,
): readonly JudgedRule[] {
  const text = `handle ${String(rule["handle"])}`;
  const statements: unknown = rule["expr"];
  let applies: Truth = true;
  for (const statement of Array.isArray(statements) ? statements : []) {
    if (!isRecord(statement)) continue;
    const action = actionOf(statement);
    if (action !== undefined) return [{ applies, action, text }];
    const { match, queue, vmap } = statement;
    if (isRecord(vmap)) return mapRules(vmap, applies, packet, { sets, text });
    if (queue !== undefined) return [{ applies, action: { kind: "unclear" }, text }];
    if (isRecord(match)) applies = all([applies, matchApplies(match, packet, sets)]);
    else if ("xt" in statement) {
      // A match or a target of iptables: which, and what of it, nft does not say.
      return [{ applies: all([applies, undefined]), action: { kind: "unclear" }, text }];
    } else if (!Object.keys(statement).every((key) => quiet.has(key))) {
      applies = all([applies, undefined]);
    }
  }
  return [];
}

/**
 * What one table, as `nft -j list table` prints it, does with a packet where the kernel calls `chain`. Pure.
 *
 * @returns `by` is `policy`, or `handle N` of the rule.
 */
export function judgeNft(listing: unknown, chain: BaseChain, packet: PacketSketch): Fate {
  const sets = new Map<string, readonly unknown[]>();
  const rules = new Map<string, JudgedRule[]>();
  const items = itemsOf(listing);
  for (const item of items) {
    const set = item["set"] ?? item["map"];
    if (!isRecord(set)) continue;
    const elements: unknown = set["elem"];
    sets.set(optionalString(set["name"]) ?? "", Array.isArray(elements) ? elements : []);
  }
  for (const { rule } of items) {
    if (!isRecord(rule)) continue;
    const name = optionalString(rule["chain"]) ?? "";
    const own = rules.get(name) ?? [];
    own.push(...readRule(rule, packet, sets));
    rules.set(name, own);
  }
  return judge(chain.name, chain.policy, (name) => rules.get(name) ?? []);
}

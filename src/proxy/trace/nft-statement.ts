import type { Branch, Flow, Verdict } from "./flow.ts";
import type { NftContainer } from "./nft-container.ts";
import {
  type FindContainer,
  type NftValue,
  parseContainer,
  parseNftMatch,
  parseNftValue,
} from "./nft-expression.ts";
import { targetOf } from "./nat-target.ts";
import { NftReader } from "./nft-words.ts";
import { numberOf } from "./values.ts";

/** What a statement does: goes on to the next (`undefined`), leaves the rule (`break`), or decides. */
export type Outcome = Verdict | "break" | undefined;

export type NftStatement = (flow: Flow) => Outcome;

const plainVerdicts: ReadonlyMap<string, Verdict> = new Map([
  ["accept", { kind: "accept" }],
  ["drop", { kind: "drop" }],
  ["return", { kind: "return" }],
  ["continue", { kind: "none" }],
]);

/** Reads a verdict such as `drop` or `goto c2`; undefined when it is none. */
export function parseVerdict(text: string): Verdict | undefined {
  const [word = "", chain] = text.split(" ");
  if ((word === "jump" || word === "goto") && chain !== undefined) return { kind: word, chain };
  return chain === undefined ? plainVerdicts.get(word) : undefined;
}

function jump(reader: NftReader): NftStatement {
  const kind = reader.next() === "jump" ? "jump" : "goto";
  const chain = reader.next();
  if (chain === "") throw reader.unknown();
  return () => ({ kind, chain });
}

const icmpCodes = new Set([
  "port-unreachable",
  "host-unreachable",
  "net-unreachable",
  "admin-prohibited",
  "addr-unreachable",
  "no-route",
]);

function reject(reader: NftReader): NftStatement {
  reader.expect("reject");
  if (!reader.take("with")) return () => ({ kind: "reject", how: "icmp" });
  if (reader.take("tcp", "reset")) {
    // Implies that it is TCP: listings leave the match away.
    return (flow) =>
      flow.packet.protocol === "tcp" ? { kind: "reject", how: "tcp-reset" } : "break";
  }
  if (!["icmp", "icmpv6", "icmpx"].includes(reader.next())) throw reader.unknown();
  reader.take("type");
  if (!icmpCodes.has(reader.next())) throw reader.unknown();
  return () => ({ kind: "reject", how: "icmp" });
}

const natFlags = new Set(["fully-random", "random", "persistent"]);

function takeFlags(reader: NftReader): void {
  while (natFlags.has(reader.peek())) {
    reader.next();
    reader.take(",");
  }
}

function masquerade(reader: NftReader): NftStatement {
  reader.expect("masquerade");
  takeFlags(reader);
  return (flow) => {
    flow.masquerade();
    return { kind: "accept" };
  };
}

function dnat(reader: NftReader, find: FindContainer): NftStatement {
  reader.expect("dnat");
  if (["ip", "ip6"].includes(reader.peek())) reader.next();
  // Old listings leave `addr . port` away; what the map holds tells as well.
  if (reader.take("addr")) {
    reader.expect(".");
    reader.expect("port");
  }
  reader.expect("to");
  const place = natTarget(reader, find);
  takeFlags(reader);
  return (flow) => {
    const text = place(flow);
    if (text === undefined) return "break";
    const { ip, port } = targetOf(text);
    flow.translateTo(ip, port);
    return { kind: "accept" };
  };
}

function natTarget(reader: NftReader, find: FindContainer): NftValue {
  if (/^[\d[]/.test(reader.peek()) || (/^[\da-f]*:/.test(reader.peek()) && !reader.done)) {
    const ip = reader.next();
    const text = reader.take(".") ? `${ip} . ${reader.next()}` : ip;
    return () => text;
  }
  const key = parseNftValue(reader);
  reader.expect("map");
  const container = parseContainer(reader, find);
  return (flow) => {
    const { found, results } =
      key.draws === undefined
        ? lookUp(flow, key, container())
        : flow.choose(() => allDraws(flow, key, key.draws ?? 1, container()));
    flow.results.push(...results);
    return found;
  };
}

/** What a map has for a packet, and what is told of that. */
interface LookUp {
  readonly found: string | undefined;
  readonly results: readonly string[];
}

function lookUp(flow: Flow, key: NftValue, container: NftContainer): LookUp {
  const asked = key(flow);
  const found = asked === undefined ? undefined : container.lookUp(asked);
  return { found, results: [`${asked ?? "nothing"} -> ${found ?? "not in the map"}`] };
}

/** All draws that find nothing are one branch: what follows is the same for each of them. */
function allDraws(
  flow: Flow,
  key: NftValue,
  draws: number,
  container: NftContainer,
): readonly Branch<LookUp>[] {
  const branches: Branch<LookUp>[] = [];
  for (let drawn = 0; drawn < draws; drawn += 1) {
    flow.drawn = drawn;
    const { found, results } = lookUp(flow, key, container);
    if (found === undefined) continue;
    const told = draws === 1 ? results : [`${drawn} of ${draws} by chance`, ...results];
    branches.push({ weight: 1 / draws, outcome: { found, results: told } });
  }
  flow.drawn = undefined;
  const missed = draws - branches.length;
  if (missed === 0) return branches;
  const results = [`one of ${draws} by chance -> not in the map`];
  return [...branches, { weight: missed / draws, outcome: { found: undefined, results } }];
}

function verdictMap(reader: NftReader, key: NftValue, find: FindContainer): NftStatement {
  const container = parseContainer(reader, find);
  return (flow) => {
    const asked = key(flow);
    const found = asked === undefined ? undefined : container().lookUp(asked);
    if (found === undefined) return "break";
    flow.results.push(`-> ${found}`);
    const verdict = parseVerdict(found);
    if (verdict === undefined) throw reader.unknown();
    return verdict;
  };
}

/** `update @clients { ip saddr timeout 3h }`. */
function update(reader: NftReader, find: FindContainer): NftStatement {
  reader.next();
  const name = reader.peek();
  const container = parseContainer(reader, find);
  const inner = new NftReader(reader.braces());
  const key = parseNftValue(inner);
  if (inner.take("timeout")) inner.next();
  if (!inner.done) throw inner.unknown();
  return (flow) => {
    const value = key(flow);
    if (value === undefined) return "break";
    flow.remembered.push({ container: container().name, key: value });
    flow.results.push(`remembers ${value} in ${name.slice(1)}`);
    return undefined;
  };
}

function counter(reader: NftReader): NftStatement {
  reader.expect("counter");
  if (reader.take("packets")) {
    reader.next();
    reader.expect("bytes");
    reader.next();
  }
  return () => undefined;
}

/** `meta mark set ...` and `ct mark set ...`; undefined when it is no such statement. */
function setMark(reader: NftReader): NftStatement | undefined {
  const start = [
    ["meta", "mark", "set"],
    ["mark", "set"],
    ["ct", "mark", "set"],
  ].find((words) => reader.take(...words));
  if (start === undefined) return undefined;
  const literal = numberOf(reader.peek());
  const value = literal === undefined ? parseNftValue(reader) : (): string => String(literal);
  if (literal !== undefined) reader.next();
  return (flow) => {
    const mark = value(flow);
    if (mark === undefined) return "break";
    if (start[0] === "ct") flow.ctMark = Number(mark);
    else flow.mark = Number(mark);
    return undefined;
  };
}

/**
 * Reads one statement of a rule.
 *
 * @throws {UnknownRuleError}
 */
export function parseNftStatement(reader: NftReader, find: FindContainer): NftStatement {
  reader.begin();
  const verdict = plainVerdicts.get(reader.peek());
  if (verdict !== undefined) {
    reader.next();
    return () => verdict;
  }
  switch (reader.peek()) {
    case "jump":
    case "goto":
      return jump(reader);
    case "reject":
      return reject(reader);
    case "masquerade":
      return masquerade(reader);
    case "dnat":
      return dnat(reader, find);
    case "update":
    case "add":
      return update(reader, find);
    case "counter":
      return counter(reader);
    default:
      break;
  }
  const marking = setMark(reader);
  if (marking !== undefined) return marking;
  const value = parseNftValue(reader);
  if (reader.take("vmap")) return verdictMap(reader, value, find);
  const matches = parseNftMatch(reader, value, find);
  return (flow) => (matches(flow) ? undefined : "break");
}

import { ipFamily, parseIP } from "../../lib/cidr.ts";
import type { Flow } from "./flow.ts";
import type { IptablesReader } from "./iptables-words.ts";
import { canonicalValue, numberOf, protocolName, valueTest } from "./values.ts";

export type IptablesMatch = (flow: Flow) => boolean;

/** What matches look into that packets leave behind. */
export interface IptablesMemory {
  /** Seconds since an address was last seen, by list and address. */
  readonly recent: ReadonlyMap<string, ReadonlyMap<string, number>>;
  /** Members of ipsets, in ipset's spelling. */
  readonly sets: ReadonlyMap<string, readonly string[]>;
}

/** Reads the arguments of one option. */
type Option = (reader: IptablesReader, memory: IptablesMemory) => IptablesMatch;

/** Modules whose options are understood; the options themselves say what is matched. */
export const knownModules = new Set([
  "addrtype",
  "comment",
  "conntrack",
  "icmp",
  "icmp6",
  "iprange",
  "mark",
  "multiport",
  "nfacct",
  "recent",
  "sctp",
  "set",
  "state",
  "statistic",
  "tcp",
  "udp",
]);

function address(read: (flow: Flow) => string): Option {
  return (reader) => {
    const tests = reader
      .next()
      .split(",")
      .map((text) => {
        const known = ipFamily(text) === undefined ? withPrefix(text) : canonicalValue(text);
        if (known === undefined) throw reader.unknown();
        return valueTest(known);
      });
    return (flow) => tests.some((test) => test(read(flow)));
  };
}

/** `10.0.0.0/255.0.0.0` as `10.0.0.0/8`; masks with holes are not understood. */
function withPrefix(text: string): string | undefined {
  const [ip = "", mask = ""] = text.split("/");
  if (ipFamily(mask) !== "IPv4") return text;
  const bits = parseIP(mask).toString(2).padStart(32, "0");
  return /^1*0*$/.test(bits) ? `${ip}/${bits.replaceAll("0", "").length}` : undefined;
}

function nameTest(pattern: string): (name: string) => boolean {
  const prefix = pattern.endsWith("+") ? pattern.slice(0, -1) : undefined;
  return (name) => (prefix === undefined ? name === pattern : name.startsWith(prefix));
}

function inInterface(reader: IptablesReader): IptablesMatch {
  const test = nameTest(reader.next());
  return (flow) => test(flow.inInterface);
}

function outInterface(reader: IptablesReader): IptablesMatch {
  const test = nameTest(reader.next());
  return (flow) => test(flow.knownOutInterface());
}

function ports(read: (flow: Flow) => readonly number[]): Option {
  return (reader) => {
    const tests = reader
      .next()
      .split(",")
      .map((text) => valueTest(text.replace(":", "-")));
    return (flow) => read(flow).some((port) => tests.some((test) => test(String(port))));
  };
}

function protocol(reader: IptablesReader): IptablesMatch {
  const wanted = protocolName(reader.next());
  return ({ packet }) => wanted === "all" || packet.protocol === wanted;
}

function mark(read: (flow: Flow) => number): Option {
  return (reader) => {
    const [value = "", mask = "0xffffffff"] = reader.next().split("/");
    const [wanted, bits] = [numberOf(value), numberOf(mask)];
    if (wanted === undefined || bits === undefined) throw reader.unknown();
    return (flow) => (read(flow) & bits) >>> 0 === wanted >>> 0;
  };
}

const flowStates = new Set([
  "NEW",
  "ESTABLISHED",
  "RELATED",
  "INVALID",
  "UNTRACKED",
  "DNAT",
  "SNAT",
]);

function state(reader: IptablesReader): IptablesMatch {
  const wanted = new Set(reader.next().split(","));
  if (![...wanted].every((one) => flowStates.has(one))) throw reader.unknown();
  return (flow) =>
    wanted.has(flow.state.toUpperCase()) ||
    (wanted.has("DNAT") && flow.translated) ||
    (wanted.has("SNAT") && flow.masqueraded);
}

function addressType(read: (flow: Flow) => string): Option {
  return (reader) => {
    const wanted = new Set(reader.next().toLowerCase().split(","));
    return (flow) => wanted.has(flow.host.addressType(read(flow)));
  };
}

/** `--mode random --probability 0.5` or `--mode nth --every 2 --packet 0`. */
function chance(reader: IptablesReader): IptablesMatch {
  const mode = reader.next();
  let probability: number | undefined;
  if (mode === "random" && reader.take("--probability")) probability = Number(reader.next());
  // How far a counter has come is not known.
  if (mode === "nth" && reader.take("--every")) {
    probability = 1 / Number(reader.next());
    if (reader.take("--packet")) reader.next();
  }
  if (probability === undefined || !(probability >= 0 && probability <= 1)) throw reader.unknown();
  const branches = [
    { weight: probability, outcome: true },
    { weight: 1 - probability, outcome: false },
  ];
  return (flow) => flow.choose(() => branches);
}

const recentFlags = new Set(["--reap", "--rsource", "--rttl"]);

/** Options of the module `recent` come in any order and belong together. */
function recent(first: string, reader: IptablesReader, memory: IptablesMemory): IptablesMatch {
  let name = "DEFAULT";
  let verb = "";
  let seconds = Infinity;
  for (let option = first; option !== ""; option = nextRecent(reader)) {
    if (option === "--name") name = reader.next();
    else if (option === "--seconds") seconds = Number(reader.next());
    else if (option === "--mask") reader.next();
    else if (!recentFlags.has(option)) verb = option;
  }
  if (verb === "--set") {
    return (flow) => {
      flow.remembered.push({ container: name, key: flow.source });
      flow.results.push(`remembers ${flow.source} in ${name}`);
      return true;
    };
  }
  if (verb !== "--rcheck" && verb !== "--update") throw reader.unknown();
  return (flow) => (memory.recent.get(name)?.get(flow.source) ?? Infinity) <= seconds;
}

const recentOptions = new Set([
  ...recentFlags,
  "--name",
  "--seconds",
  "--mask",
  "--set",
  "--rcheck",
  "--update",
]);

function nextRecent(reader: IptablesReader): string {
  return recentOptions.has(reader.peek()) ? reader.next() : "";
}

/** `--match-set NAME src,dst`: what of the packet is looked up stands behind the name. */
function ipset(reader: IptablesReader, memory: IptablesMemory): IptablesMatch {
  const members = memory.sets.get(reader.next());
  const parts = reader.next().split(",");
  if (members === undefined || parts.length > 3) throw reader.unknown();
  return (flow) =>
    members.some((member) => {
      const wanted = member.split(",");
      return wanted.every((text, at) => partMatches(text, parts[at] ?? "", at, flow));
    });
}

function partMatches(text: string, direction: string, at: number, flow: Flow): boolean {
  const [ip, port] =
    direction === "src" ? [flow.source, flow.sourcePort] : [flow.destination, flow.destinationPort];
  const [, proto, wanted] = /^(?:(\w+):)?(\d+(?:-\d+)?)$/.exec(text) ?? [];
  if (at > 0 && wanted !== undefined) {
    return (
      (proto === undefined || proto === flow.packet.protocol) && valueTest(wanted)(String(port))
    );
  }
  return valueTest(text)(ip);
}

const source = (flow: Flow): string => flow.source;
const destination = (flow: Flow): string => flow.destination;
const sourcePort = (flow: Flow): readonly number[] => [flow.sourcePort];
const destinationPort = (flow: Flow): readonly number[] => [flow.destinationPort];

const always =
  (words: number): Option =>
  (reader) => {
    for (let left = words; left > 0; left -= 1) reader.next();
    return () => true;
  };

/** Packets that are traced are never ICMP. */
const never: Option = (reader) => {
  reader.next();
  return () => false;
};

const options: ReadonlyMap<string, Option> = new Map<string, Option>([
  ["-s", address(source)],
  ["-d", address(destination)],
  ["--src-range", address(source)],
  ["--dst-range", address(destination)],
  ["-p", protocol],
  ["-i", inInterface],
  ["-o", outInterface],
  ["--sport", ports(sourcePort)],
  ["--sports", ports(sourcePort)],
  ["--dport", ports(destinationPort)],
  ["--dports", ports(destinationPort)],
  ["--ports", ports((flow) => [flow.sourcePort, flow.destinationPort])],
  ["--mark", mark((flow) => flow.mark)],
  ["--ctstate", state],
  ["--state", state],
  ["--ctstatus", state],
  ["--src-type", addressType(source)],
  ["--dst-type", addressType(destination)],
  ["--icmp-type", never],
  ["--icmpv6-type", never],
  ["--mode", chance],
  ["--match-set", ipset],
  ["--comment", always(1)],
  ["--nfacct-name", always(1)],
]);

/**
 * Reads one match.
 *
 * @throws {UnknownRuleError}
 */
export function parseIptablesMatch(reader: IptablesReader, memory: IptablesMemory): IptablesMatch {
  reader.begin();
  const negated = reader.take("!");
  const option = reader.next();
  if (option === "-m") {
    if (!knownModules.has(reader.next()) || negated) throw reader.unknown();
    return () => true;
  }
  const read = recentOptions.has(option)
    ? recent.bind(undefined, option)
    : (options.get(option) ?? undefined);
  if (read === undefined) throw reader.unknown();
  const match = read(reader, memory);
  return negated ? (flow) => !match(flow) : match;
}

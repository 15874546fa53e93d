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

/** Words of a line of `iptables-save`; comments and log prefixes are quoted. */
function words(line: string): readonly string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(
    ([, quoted, plain]) => quoted ?? plain ?? "",
  );
}

const protocolNames: ReadonlyMap<string, string> = new Map([
  ["6", "tcp"],
  ["17", "udp"],
]);

function protocolMatches(packet: PacketSketch, text: string): boolean {
  return text === "all" || (protocolNames.get(text) ?? text) === packet.protocol;
}

function portMatches(port: number, text: string): Truth {
  return some(
    text.split(",").map((part) => {
      const [low, high = low] = part.split(":");
      if (low === undefined || high === undefined) return undefined;
      return port >= Number(low === "" ? 0 : low) && port <= Number(high === "" ? 65_535 : high);
    }),
  );
}

function stateMatches(packet: PacketSketch, text: string): boolean {
  return text
    .split(",")
    .some((state) => state === "NEW" || (state === "DNAT" && packet.translated));
}

function destinationTypeMatches(packet: PacketSketch, text: string): boolean {
  return text === (packet.hook === "input" ? "LOCAL" : "UNICAST");
}

/** What one option says of a packet; those that take no part in the decision are true. */
const options: Readonly<Record<string, (packet: PacketSketch, value: string) => Truth>> = {
  "-s": ({ source }, value) => addressMatches(source, value),
  "-d": ({ destination }, value) => addressMatches(destination, value),
  "-i": ({ inDevice }, value) => deviceMatches(inDevice, value, "+"),
  "-o": ({ outDevice }, value) => deviceMatches(outDevice, value, "+"),
  "-p": protocolMatches,
  "-m": () => true,
  "--comment": () => true,
  "--dport": ({ port }, value) => portMatches(port, value),
  "--dports": ({ port }, value) => portMatches(port, value),
  "--ctstate": stateMatches,
  "--state": stateMatches,
  "--dst-type": destinationTypeMatches,
  "--src-type": (_packet, value) => value === "UNICAST",
};

const quiet = new Set(["LOG", "NFLOG", "ULOG", "AUDIT", "TRACE", "COUNTER"]);

function actionOf(target: string, goes: boolean, chains: ReadonlySet<string>): Action {
  if (target === "ACCEPT") return { kind: "accept" };
  if (target === "DROP" || target === "REJECT" || target === "TARPIT") return { kind: "drop" };
  if (target === "RETURN") return { kind: "return" };
  if (target === "" || quiet.has(target)) return { kind: "go-on" };
  if (chains.has(target)) return { kind: goes ? "goto" : "jump", chain: target };
  // Marks: none of ours can be matched on behind it, and a sketch has none.
  if (/MARK$|^(CT|TCPMSS|TOS|DSCP|CLASSIFY|SET)$/.test(target)) return { kind: "go-on" };
  return { kind: "unclear" };
}

function judgeRule(
  line: string,
  packet: PacketSketch,
  chains: ReadonlySet<string>,
): { readonly chain: string; readonly rule: JudgedRule } | undefined {
  const [add, chain, ...rest] = words(line);
  if (add !== "-A" || chain === undefined) return undefined;
  const truths: Truth[] = [];
  let target = "";
  let goes = false;
  for (let at = 0; at < rest.length; at += 1) {
    const negated = rest[at] === "!";
    if (negated) at += 1;
    const option = rest[at] ?? "";
    if (option === "-j" || option === "-g") {
      target = rest[at + 1] ?? "";
      goes = option === "-g";
      // What follows belongs to the target.
      break;
    }
    const read = options[option];
    if (read === undefined) {
      truths.push(undefined);
      while (at + 1 < rest.length && !/^(-|!$)/.test(rest[at + 1] ?? "")) at += 1;
      continue;
    }
    at += 1;
    const truth = read(packet, rest[at] ?? "");
    truths.push(negated ? not(truth) : truth);
  }
  return {
    chain,
    rule: { applies: all(truths), action: actionOf(target, goes, chains), text: line.trim() },
  };
}

/** What iptables' filter table, as `iptables-save` prints it, does with a packet. Pure. */
export function judgeIptables(listing: string, packet: PacketSketch): Fate {
  const lines = listing.split("\n");
  const chains = new Set<string>();
  const policies = new Map<string, string>();
  for (const line of lines) {
    const [, name, policy] = /^:(\S+) (\S+)/.exec(line) ?? [];
    if (name === undefined || policy === undefined) continue;
    chains.add(name);
    policies.set(name, policy);
  }
  const rules = new Map<string, JudgedRule[]>();
  for (const line of lines) {
    const judged = judgeRule(line, packet, chains);
    if (judged === undefined) continue;
    const own = rules.get(judged.chain) ?? [];
    own.push(judged.rule);
    rules.set(judged.chain, own);
  }
  const base = packet.hook === "input" ? "INPUT" : "FORWARD";
  return judge(
    base,
    policies.get(base) === "DROP" ? "drop" : "accept",
    (chain) => rules.get(chain) ?? [],
  );
}

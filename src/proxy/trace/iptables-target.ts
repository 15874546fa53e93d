import type { Flow, Verdict } from "./flow.ts";
import type { IptablesReader } from "./iptables-words.ts";
import { targetOf } from "./nat-target.ts";
import { numberOf } from "./values.ts";

export type IptablesTarget = (flow: Flow) => Verdict;

const none: Verdict = { kind: "none" };

const verdicts: ReadonlyMap<string, Verdict> = new Map<string, Verdict>([
  ["ACCEPT", { kind: "accept" }],
  ["DROP", { kind: "drop" }],
  ["RETURN", { kind: "return" }],
]);

const rejections = new Set([
  "icmp-net-unreachable",
  "icmp-host-unreachable",
  "icmp-port-unreachable",
  "icmp-proto-unreachable",
  "icmp-net-prohibited",
  "icmp-host-prohibited",
  "icmp-admin-prohibited",
  "icmp6-no-route",
  "icmp6-adm-prohibited",
  "icmp6-addr-unreachable",
  "icmp6-port-unreachable",
]);

function reject(reader: IptablesReader): IptablesTarget {
  const how = reader.take("--reject-with") ? reader.next() : "icmp-port-unreachable";
  if (how === "tcp-reset") return () => ({ kind: "reject", how });
  if (!rejections.has(how)) throw reader.unknown();
  return () => ({ kind: "reject", how: "icmp" });
}

const natFlags = new Set(["--random", "--random-fully", "--persistent"]);

function takeFlags(reader: IptablesReader): void {
  while (natFlags.has(reader.peek())) reader.next();
}

function dnat(reader: IptablesReader): IptablesTarget {
  if (!reader.take("--to-destination")) throw reader.unknown();
  const { ip, port } = targetOf(reader.next());
  takeFlags(reader);
  return (flow) => {
    flow.translateTo(ip, port);
    return { kind: "accept" };
  };
}

function newSource(reader: IptablesReader): IptablesTarget {
  if (reader.take("--to-source")) reader.next();
  takeFlags(reader);
  return (flow) => {
    flow.masquerade();
    return { kind: "accept" };
  };
}

const markOptions: ReadonlyMap<string, (old: number, value: number, mask: number) => number> =
  new Map([
    ["--or-mark", (old, value) => old | value],
    ["--and-mark", (old, value) => old & value],
    ["--xor-mark", (old, value) => old ^ value],
    ["--set-xmark", (old, value, mask) => (old & ~mask) ^ value],
    ["--set-mark", (old, value, mask) => (old & ~mask) | value],
  ]);

function setMark(reader: IptablesReader): IptablesTarget {
  const change = markOptions.get(reader.next());
  const [value = "", mask = "0xffffffff"] = reader.next().split("/");
  const [bits, where] = [numberOf(value), numberOf(mask)];
  if (change === undefined || bits === undefined || where === undefined) throw reader.unknown();
  return (flow) => {
    flow.mark = change(flow.mark, bits, where) >>> 0;
    return none;
  };
}

/** Only tells others about the packet. */
function log(reader: IptablesReader): IptablesTarget {
  while (!reader.done) reader.next();
  return () => none;
}

const targets: ReadonlyMap<string, (reader: IptablesReader) => IptablesTarget> = new Map([
  ["REJECT", reject],
  ["DNAT", dnat],
  ["SNAT", newSource],
  ["MASQUERADE", newSource],
  ["MARK", setMark],
  ["LOG", log],
  ["NFLOG", log],
]);

/** Targets of the system that are in capitals like chains' names often are. */
const notUnderstood = new Set([
  "AUDIT",
  "CHECKSUM",
  "CLASSIFY",
  "CONNMARK",
  "CT",
  "DSCP",
  "ECN",
  "HL",
  "MIRROR",
  "NETMAP",
  "NFQUEUE",
  "NOTRACK",
  "QUEUE",
  "REDIRECT",
  "SECMARK",
  "CONNSECMARK",
  "SET",
  "SYNPROXY",
  "TCPMSS",
  "TEE",
  "TOS",
  "TPROXY",
  "TRACE",
  "TTL",
  "ULOG",
]);

/**
 * Reads what stands behind `-j` or `-g`.
 *
 * @throws {UnknownRuleError}
 */
export function parseIptablesTarget(reader: IptablesReader, kind: "jump" | "goto"): IptablesTarget {
  const name = reader.next();
  const verdict = verdicts.get(name);
  if (verdict !== undefined) return () => verdict;
  const target = targets.get(name);
  if (target !== undefined) return target(reader);
  if (notUnderstood.has(name)) throw reader.unknown();
  return () => ({ kind, chain: name });
}

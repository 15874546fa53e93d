import { canonicalIP, type IPFamily } from "../../lib/cidr.ts";
import { isRecord } from "../../lib/guard.ts";
import type { NftTable } from "../../netfilter/transaction.ts";
import { type FlowTarget, hostPort } from "./flows.ts";

/**
 * Counting packets of a Service while somebody looks. Rules that count always cost memory for every address and time at
 * every load, so there are none; instead a table of its own counts for as long as the command runs. It looks at what
 * conntrack says of a packet, so it counts each packet of each flow, whichever mode the Service rules are written in.
 */

/** Packets and bytes of one target by endpoint and direction. */
export interface PacketCount {
  readonly target: FlowTarget;
  /** `address:port` of who answers; the target itself for what was not translated. */
  readonly endpoint: string;
  /** From clients: first packets of flows included. */
  readonly asked: { readonly packets: number; readonly bytes: number };
  readonly answered: { readonly packets: number; readonly bytes: number };
}

const sets = ["asked", "answered"] as const;

/**
 * The transaction that starts counting. Packets are counted where they leave the machine or reach a program on it, so
 * those that rules refuse are not; `arrived` counts what clients send before anything is decided.
 */
export function countingText(
  table: NftTable,
  family: IPFamily,
  targets: readonly FlowTarget[],
): string {
  const at = `${table.family} ${table.name}`;
  const address = family === "IPv4" ? "ipv4_addr" : "ipv6_addr";
  const ip = family === "IPv4" ? "ip" : "ip6";
  const target = `meta l4proto . ct original ${ip} daddr . ct original proto-dst`;
  const tuple = `inet_proto . ${address} . inet_service`;
  const elements = targets.map(({ ip: vip, port, protocol }) => `${protocol} . ${vip} . ${port}`);
  // nft knows the type of `proto-dst` behind a match of one protocol only.
  const each = [...new Set(targets.map(({ protocol }) => protocol))];
  const matches = (before: string): readonly string[] =>
    each.map((protocol) => `${before}meta l4proto ${protocol} ${target} @targets ct direction`);
  const count = (chain: string, before: string): string[] =>
    sets.flatMap((set) => {
      const direction = set === "asked" ? "original" : "reply";
      const key = `${target} . ct reply ${ip} saddr . ct reply proto-src`;
      return matches(before).map(
        (match) => `add rule ${at} ${chain} ${match} ${direction} update @${set} { ${key} }`,
      );
    });
  const arrive = (chain: string, before: string): readonly string[] =>
    matches(before).map(
      (match) => `add rule ${at} ${chain} ${match} original update @arrived { ${target} }`,
    );
  return `${[
    `add table ${at}`,
    `add set ${at} targets { type ${tuple} ; elements = { ${elements.join(", ")} } ; }`,
    `add set ${at} arrived { type ${tuple} ; flags dynamic ; size 65535 ; counter ; }`,
    ...sets.map(
      (set) =>
        `add set ${at} ${set} { type ${tuple} . ${address} . inet_service ; flags dynamic ; size 65535 ; counter ; }`,
    ),
    // Behind conntrack (-200), in front of everything that decides.
    `add chain ${at} in { type filter hook prerouting priority -180 ; }`,
    `add chain ${at} made { type filter hook output priority -180 ; }`,
    `add chain ${at} out { type filter hook postrouting priority 300 ; }`,
    `add chain ${at} here { type filter hook input priority 300 ; }`,
    ...arrive("in", 'iifname != "lo" '),
    ...arrive("made", ""),
    ...count("out", ""),
    // What the node sends itself was counted on its way out.
    ...count("here", 'iifname != "lo" '),
  ].join("\n")}\n`;
}

/** The transaction that ends it. */
export function countingEnd(table: NftTable): string {
  return `delete table ${table.family} ${table.name}\n`;
}

/** What `nft -j list table` of such a table says. */
export function parseCounts(listing: unknown): {
  readonly arrived: readonly { readonly target: FlowTarget; readonly packets: number }[];
  readonly counts: readonly PacketCount[];
} {
  const found = new Map<string, PacketCount>();
  for (const set of sets) {
    for (const { key, packets, bytes } of elementsOf(listing, set)) {
      const target = targetOf(key);
      const endpoint = hostPort(canonicalIP(key[3] ?? ""), key[4] ?? "");
      const id = `${key.slice(0, 3).join(" ")} ${endpoint}`;
      const known = found.get(id) ?? { target, endpoint, asked: nothing, answered: nothing };
      found.set(id, { ...known, [set]: { packets, bytes } });
    }
  }
  return {
    arrived: elementsOf(listing, "arrived").map(({ key, packets }) => ({
      target: targetOf(key),
      packets,
    })),
    counts: [...found].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, count]) => count),
  };
}

const nothing = { packets: 0, bytes: 0 };

function targetOf([protocol = "", ip = "", port = ""]: readonly string[]): FlowTarget {
  return { protocol, ip: canonicalIP(ip), port: Number(port) };
}

interface CountedElement {
  readonly key: readonly string[];
  readonly packets: number;
  readonly bytes: number;
}

function elementsOf(listing: unknown, name: string): readonly CountedElement[] {
  const items = isRecord(listing) && Array.isArray(listing["nftables"]) ? listing["nftables"] : [];
  const set = items
    .filter(isRecord)
    .find((item) => isRecord(item["set"]) && item["set"]["name"] === name)?.["set"];
  const elements: readonly unknown[] =
    isRecord(set) && Array.isArray(set["elem"]) ? set["elem"] : [];
  return elements.flatMap((element) => {
    const elem = isRecord(element) ? element["elem"] : undefined;
    if (!isRecord(elem) || !isRecord(elem["val"])) return [];
    const { concat } = elem["val"];
    const counter = elem["counter"];
    if (!Array.isArray(concat) || !isRecord(counter)) return [];
    const key = concat.map(String);
    return [{ key, packets: Number(counter["packets"]), bytes: Number(counter["bytes"]) }];
  });
}

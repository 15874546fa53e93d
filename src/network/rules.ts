import { createHash } from "node:crypto";

import { formatCidr, type IPFamily, ipFamily } from "../lib/cidr.ts";
import { NftError } from "../netfilter/errors.ts";
import type { Deletion } from "../netfilter/monitor.ts";
import { applyNft } from "../netfilter/nft.ts";
import {
  type NftElement,
  type NftOp,
  type NftRule,
  type NftTable,
  renderTransaction,
} from "../netfilter/transaction.ts";
import { type HostPortMapping, podsOf } from "./host-ports.ts";
import { loopbackOf, networksKept, type NodeRules, type RuleContext } from "./node-rules.ts";
import { NodeTable } from "./node-table.ts";

export function networkTable(family: IPFamily, name: string): NftTable {
  return { family: family === "IPv4" ? "ip" : "ip6", name };
}

const byAddress = "hostports";
const byPort = "hostports-any";
const hairpin = "hairpin";
const transports = "meta l4proto { tcp, udp, sctp }";

type Elements = ReadonlyMap<string, ReadonlyMap<string, string>>;

/** What host ports put into our containers: by container, key to value. */
function hostPortElements(mappings: readonly HostPortMapping[]): Elements {
  const addresses = new Map<string, string>();
  const ports = new Map<string, string>();
  for (const { address, protocol, hostPort, podIP, containerPort } of mappings) {
    const tail = `${protocol.toLowerCase()} . ${hostPort}`;
    const value = `${podIP} . ${containerPort}`;
    if (address === "") ports.set(tail, value);
    else addresses.set(`${address} . ${tail}`, value);
  }
  return new Map([
    [byAddress, addresses],
    [byPort, ports],
    [hairpin, new Map(podsOf(mappings).map((ip) => [`${ip} . ${ip}`, ""]))],
  ]);
}

/** The tag says what the rule is: listings of rule bodies are not exact on old nft. */
function rule(text: string): NftRule {
  return { text, tag: createHash("sha256").update(text).digest("hex").slice(0, 8) };
}

export const defaultTableName = "remora-network";

/** Chains of ours in iptables' tables: what accepts forwarded traffic, and all rules where there is no nft. */
const ownChain = /^REMORA-/;
const iptablesTables = new Set(["nat", "filter", "mangle"]);

/**
 * Whether a deletion that the kernel reported may have damaged our rules, so that `ensureNode` should look. Elements
 * are left out: they come and go with the host ports of pods.
 */
export function damagesNetwork(
  deletion: Deletion | "unwatched",
  tableName: string = defaultTableName,
): boolean {
  if (deletion === "unwatched") return true;
  const { kind, name, table } = deletion;
  if (kind === "element") return false;
  if (table === tableName) return true;
  return iptablesTables.has(table) && (kind === "table" || ownChain.test(name));
}

/**
 * The whole table of one family as one transaction that replaces whatever stood there. Established flows are not
 * touched by it: conntrack holds them.
 */
export function renderNetwork(context: RuleContext, mappings: readonly HostPortMapping[]): NftOp[] {
  const ip = context.family === "IPv4" ? "ip" : "ip6";
  const address = context.family === "IPv4" ? "ipv4_addr" : "ipv6_addr";
  const loopback = loopbackOf(context.family);
  const redirect = context.family === "IPv4" ? "icmp type redirect" : "icmpv6 type nd-redirect";
  const add = (chain: string, text: string): NftOp => ({ op: "add-rule", chain, rule: rule(text) });
  return [
    { op: "drop-table" },
    { op: "add-table" },
    {
      op: "add-container",
      container: {
        kind: "map",
        name: byAddress,
        spec: `typeof ${ip} daddr . meta l4proto . th dport : ${ip} daddr . th dport`,
      },
    },
    {
      op: "add-container",
      container: {
        kind: "map",
        name: byPort,
        spec: `typeof meta l4proto . th dport : ${ip} daddr . th dport`,
      },
    },
    {
      op: "add-container",
      container: { kind: "set", name: hairpin, spec: `type ${address} . ${address}` },
    },
    { op: "add-chain", chain: "host-ports" },
    { op: "add-chain", chain: "leaving" },
    ...baseChains,
    // What somebody next to the node sends to 127.0.0.1 would otherwise get past the kernel's check of it, which comes
    // after the translation.
    add("prerouting", `${ip} daddr ${loopback} return`),
    // Only on the node's own addresses: else a pod could take the traffic to any address of the world for itself.
    add("prerouting", "fib daddr type local jump host-ports"),
    // IPv6 has no route_localnet: answers to ::1 do not come through. So it is refused, instead of never answered.
    ...(context.family === "IPv6" ? [add("output", `ip6 saddr ${loopback} return`)] : []),
    add("output", "fib daddr type local jump host-ports"),
    ...exceptions(context).map((text) => add("host-ports", text)),
    add(
      "host-ports",
      `${transports} dnat ${ip} addr . port to ${ip} daddr . meta l4proto . th dport map @${byAddress}`,
    ),
    // Services of the node itself have the other addresses of the loopback, such as its name server on 127.0.0.53.
    ...(context.family === "IPv4"
      ? [add("host-ports", `ip daddr ${loopback} ip daddr != 127.0.0.1 return`)]
      : []),
    add(
      "host-ports",
      `${transports} dnat ${ip} addr . port to meta l4proto . th dport map @${byPort}`,
    ),
    // route_localnet lets host ports answer on 127.0.0.1; without this a pod could reach the node's loopback with it.
    add("guard", `iifname "${context.bridge}" ${ip} daddr ${loopback} drop`),
    // Pods reach each other through the node on purpose, so "there is a shorter way" would be wrong advice.
    add("local-out", `oifname "${context.bridge}" ${redirect} drop`),
    ...(context.family === "IPv4"
      ? [
          add(
            "postrouting",
            `oifname "${context.bridge}" ip saddr ${loopback} masquerade fully-random`,
          ),
        ]
      : []),
    add(
      "postrouting",
      `ct status dnat ${ip} saddr . ${ip} daddr @${hairpin} masquerade fully-random`,
    ),
    add("postrouting", `${ip} saddr ${formatCidr(context.podCIDR)} jump leaving`),
    // One rule per network and not one set: the networks may overlap.
    ...networksKept(context).map((network) => add("leaving", `${ip} daddr ${network} return`)),
    add("leaving", "masquerade fully-random"),
    ...differences(new Map(), hostPortElements(mappings)),
  ];
}

/** Services are dispatched at -101, what Docker publishes at -100. */
const baseChains: readonly NftOp[] = [
  {
    op: "add-chain",
    chain: "prerouting",
    hook: { type: "nat", hook: "prerouting", priority: -99 },
  },
  { op: "add-chain", chain: "output", hook: { type: "nat", hook: "output", priority: -99 } },
  {
    op: "add-chain",
    chain: "postrouting",
    hook: { type: "nat", hook: "postrouting", priority: 100 },
  },
  {
    op: "add-chain",
    chain: "guard",
    hook: { type: "filter", hook: "prerouting", priority: -300 },
  },
  { op: "add-chain", chain: "local-out", hook: { type: "filter", hook: "output", priority: 0 } },
];

function exceptions({ family, localAddresses = [] }: RuleContext): readonly string[] {
  const own = localAddresses.filter((ip) => ipFamily(ip) === family);
  return own.map((ip) => `${family === "IPv4" ? "ip" : "ip6"} daddr ${ip} return`);
}

/** What is to be done to containers that hold `from`, so that they hold `to`. */
function differences(from: Elements, to: Elements): NftOp[] {
  const gone: NftOp[] = [];
  const come: NftOp[] = [];
  for (const [container, wanted] of to) {
    const had = from.get(container) ?? new Map<string, string>();
    const keys = [...had].flatMap(([key, value]) => (wanted.get(key) === value ? [] : [key]));
    const elements = [...wanted].flatMap(([key, value]): NftElement[] =>
      had.get(key) === value ? [] : [{ key, value }],
    );
    if (keys.length > 0) gone.push({ op: "delete-elements", container, keys });
    if (elements.length > 0) come.push({ op: "add-elements", container, elements });
  }
  return [...gone, ...come];
}

/** {@link NodeRules} as one nftables table. */
export class NftablesNodeRules implements NodeRules {
  readonly #at: NftTable;
  readonly #table: NodeTable;

  constructor(family: IPFamily, tableName: string) {
    this.#at = networkTable(family, tableName);
    this.#table = new NodeTable(this.#at);
  }

  ensure(
    context: RuleContext,
    mappings: readonly HostPortMapping[],
    signal: AbortSignal,
  ): Promise<boolean> {
    return this.#table.ensure(renderNetwork(context, mappings), signal);
  }

  async change(
    from: readonly HostPortMapping[],
    to: readonly HostPortMapping[],
    signal: AbortSignal,
  ): Promise<boolean> {
    const ops = differences(hostPortElements(from), hostPortElements(to));
    try {
      await applyNft(renderTransaction(this.#at, ops), signal);
      return true;
    } catch (error) {
      if (!(error instanceof NftError)) throw error;
      return false;
    }
  }

  async remove(signal: AbortSignal): Promise<void> {
    await applyNft(renderTransaction(this.#at, [{ op: "drop-table" }]), signal);
  }
}

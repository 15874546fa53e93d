import { createHash } from "node:crypto";

import { type Cidr, type IPFamily, canonicalIP, formatCidr, ipFamily } from "../lib/cidr.ts";
import type { Deletion } from "../netfilter/monitor.ts";
import type { NftElement, NftOp, NftRule, NftTable } from "../netfilter/transaction.ts";
import type { Lease } from "./leases.ts";

/** What the rules of one family depend on. */
export interface RuleContext {
  readonly family: IPFamily;
  readonly bridge: string;
  /** The node's own pod network of this family. */
  readonly podCIDR: Cidr;
  /** Networks that pods reach under their own address. */
  readonly clusterCIDRs: readonly Cidr[];
}

export function networkTable(family: IPFamily, name: string): NftTable {
  return { family: family === "IPv4" ? "ip" : "ip6", name };
}

const any = "any";
const byAddress = "hostports";
const byPort = "hostports-any";
const hairpin = "hairpin";
const transports = "meta l4proto { tcp, udp, sctp }";

/** Elements that one lease's host ports put into our containers. */
export function hostPortElements(
  family: IPFamily,
  lease: Lease,
): readonly { readonly container: string; readonly element: NftElement }[] {
  const ip = lease.ips.find((candidate) => ipFamily(candidate) === family);
  if (ip === undefined) return [];
  const out: { container: string; element: NftElement }[] = [];
  for (const port of lease.hostPorts) {
    const tail = `${port.protocol.toLowerCase()} . ${port.hostPort}`;
    const value = `${ip} . ${port.containerPort}`;
    const scope = hostPortScope(port.hostIP, family);
    if (scope === undefined) continue;
    if (scope === any) {
      out.push({ container: byPort, element: { key: tail, value } });
    } else {
      out.push({ container: byAddress, element: { key: `${scope} . ${tail}`, value } });
    }
  }
  if (out.length > 0) {
    out.push({ container: hairpin, element: { key: `${ip} . ${ip}`, value: "" } });
  }
  return out;
}

/** The address a host port is bound to, `any`, or undefined when it does not concern this family. */
function hostPortScope(hostIP: string, family: IPFamily): string | undefined {
  if (hostIP === "" || (hostIP === "0.0.0.0" && family === "IPv4")) return any;
  if (hostIP === "::") return family === "IPv6" ? any : undefined;
  return ipFamily(hostIP) === family ? canonicalIP(hostIP) : undefined;
}

/** The tag says what the rule is: listings of rule bodies are not exact on old nft. */
function rule(text: string): NftRule {
  return { text, tag: createHash("sha256").update(text).digest("hex").slice(0, 8) };
}

export const defaultTableName = "remora-network";

/**
 * Whether a deletion that the kernel reported may have damaged our table, so that `ensureNode` should look. Elements
 * are left out: they come and go with the host ports of pods.
 */
export function damagesNetwork(
  deletion: Deletion | "unwatched",
  tableName: string = defaultTableName,
): boolean {
  return deletion === "unwatched" || (deletion.table === tableName && deletion.kind !== "element");
}

/**
 * The whole table of one family as one transaction that replaces whatever stood there. Established flows are not
 * touched by it: conntrack holds them.
 */
export function renderNetwork(context: RuleContext, leases: Iterable<Lease>): NftOp[] {
  const ip = context.family === "IPv4" ? "ip" : "ip6";
  const address = context.family === "IPv4" ? "ipv4_addr" : "ipv6_addr";
  const direct = [
    formatCidr(context.podCIDR),
    ...context.clusterCIDRs.map(formatCidr),
    context.family === "IPv4" ? "224.0.0.0/4" : "ff00::/8",
  ];
  const loopback = context.family === "IPv4" ? "127.0.0.0/8" : "::1";
  const redirect = context.family === "IPv4" ? "icmp type redirect" : "icmpv6 type nd-redirect";
  const dnatByAddress = `${transports} dnat ${ip} addr . port to ${ip} daddr . meta l4proto . th dport map @${byAddress}`;
  const dnatByPort = `fib daddr type local ${transports} dnat ${ip} addr . port to meta l4proto . th dport map @${byPort}`;
  const ops: NftOp[] = [
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
    // Services are dispatched at -101, what Docker publishes at -100.
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
    { op: "add-rule", chain: "prerouting", rule: rule(dnatByAddress) },
    { op: "add-rule", chain: "prerouting", rule: rule(dnatByPort) },
    { op: "add-rule", chain: "output", rule: rule(dnatByAddress) },
    { op: "add-rule", chain: "output", rule: rule(dnatByPort) },
    // route_localnet lets host ports answer on 127.0.0.1; without this a pod could reach the node's loopback with it.
    {
      op: "add-rule",
      chain: "guard",
      rule: rule(`iifname "${context.bridge}" ${ip} daddr ${loopback} drop`),
    },
    // Pods reach each other through the node on purpose, so "there is a shorter way" would be wrong advice.
    {
      op: "add-rule",
      chain: "local-out",
      rule: rule(`oifname "${context.bridge}" ${redirect} drop`),
    },
    {
      op: "add-rule",
      chain: "postrouting",
      rule: rule(`oifname "${context.bridge}" ${ip} saddr ${loopback} masquerade fully-random`),
    },
    {
      op: "add-rule",
      chain: "postrouting",
      rule: rule(`ct status dnat ${ip} saddr . ${ip} daddr @${hairpin} masquerade fully-random`),
    },
    { op: "add-chain", chain: "leaving" },
    {
      op: "add-rule",
      chain: "postrouting",
      rule: rule(`${ip} saddr ${formatCidr(context.podCIDR)} jump leaving`),
    },
    // One rule per network and not one set: the networks may overlap.
    ...[...new Set(direct)].map((network): NftOp => ({
      op: "add-rule",
      chain: "leaving",
      rule: rule(`${ip} daddr ${network} return`),
    })),
    { op: "add-rule", chain: "leaving", rule: rule("masquerade fully-random") },
  ];
  ops.push(...allHostPorts(context.family, leases));
  return ops;
}

/** Elements of all leases. Of two that claim one port the later has it: one key twice would refuse the whole table. */
function allHostPorts(family: IPFamily, leases: Iterable<Lease>): NftOp[] {
  const byContainer = new Map<string, Map<string, NftElement>>();
  for (const lease of leases) {
    for (const { container, element } of hostPortElements(family, lease)) {
      const elements = byContainer.get(container) ?? new Map<string, NftElement>();
      elements.set(element.key, element);
      byContainer.set(container, elements);
    }
  }
  return [...byContainer].map(([container, elements]) => ({
    op: "add-elements",
    container,
    elements: [...elements.values()],
  }));
}

/** Whether another lease claims a host port of this one, so that taking its elements away would harm the other. */
export function sharesHostPort(family: IPFamily, lease: Lease, others: readonly Lease[]): boolean {
  const keys = new Set(hostPortElements(family, lease).map(({ element }) => element.key));
  return others.some((other) =>
    hostPortElements(family, other).some(({ element }) => keys.has(element.key)),
  );
}

/** Adds one lease's host ports to a table that {@link renderNetwork} made. */
export function addHostPorts(family: IPFamily, lease: Lease): NftOp[] {
  return hostPortElements(family, lease).map(({ container, element }) => ({
    op: "add-elements",
    container,
    elements: [element],
  }));
}

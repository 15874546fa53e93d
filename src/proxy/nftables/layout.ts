import type { NftContainer, NftHook } from "../../netfilter/transaction.ts";
import type { RulesContext } from "../backend.ts";
import type { ChainClaim, Claims, ElementClaim } from "../diff.ts";
import { backendID } from "../placement.ts";
import type { Frontend, PlannedPort } from "../plan.ts";
import { shortHash } from "../rule-tag.ts";
import type { Backend, Protocol } from "../types.ts";
import type { TableLayout } from "./desired-table.ts";

/** A table without this chain was written by another version and is replaced as a whole. */
export const layoutChain = "layout-v2";

/**
 * How often a packet draws among all slots before it takes one of the first half, which are never empty. At the worst,
 * with one endpoint more than half, one packet of 1024 comes to that: a tenth of a percent off an equal share.
 */
const draws = 10;

const protocols: readonly Protocol[] = ["tcp", "udp", "sctp"];

/** The layout of one family's table. */
export function serviceLayout(context: RulesContext): TableLayout {
  const shared = new Map<string, ChainClaim>();
  return {
    fixed: fixedClaims(context),
    claims: (plan) => portClaims(plan, context, shared),
    slots: endpointSlots,
  };
}

function ipWord(context: RulesContext): "ip" | "ip6" {
  return context.family === "IPv4" ? "ip" : "ip6";
}

/** What tells pods of this node: a match for each way to be one; with `!=`, matches that all others meet. */
function podMatches(context: RulesContext, not: "" | "!= " = ""): readonly string[] {
  const { local } = context;
  switch (local.kind) {
    case "none":
      return [];
    case "cidrs":
      return local.cidrs.map((cidr) => `${ipWord(context)} saddr ${not}${cidr}`);
    case "interface":
      return [`iifname ${not}"${local.name}"`];
    case "interface-prefix":
      return [`iifname ${not}"${local.prefix}*"`];
  }
}

/** Matches what goes to a ClusterIP and needs a new source address; undefined: nothing does. */
function masqueradeMatch(context: RulesContext): string | undefined {
  const toClusterIP = `${ipWord(context)} daddr @cluster-ips`;
  if (context.masqueradeAll) return toClusterIP;
  // What the node itself sends came in by no interface, and so is no pod's.
  const others = podMatches(context, "!= ");
  return others.length === 0 ? undefined : [toClusterIP, ...others].join(" ");
}

function markRule(context: RulesContext): string {
  return `meta mark set meta mark or 0x${context.mark.toString(16)}`;
}

function base(name: string, hook: NftHook, rules: readonly string[]): ChainClaim {
  return { name, hook, rules };
}

/** Base chains and containers. */
export function fixedClaims(context: RulesContext): Claims {
  const ip = ipWord(context);
  const address = context.family === "IPv4" ? "ipv4_addr" : "ipv6_addr";
  const mark = `0x${context.mark.toString(16)}`;
  const toVIP = `${ip} daddr . meta l4proto . th dport`;
  const toNode = nodePortMatch(context);
  const masquerade = masqueradeMatch(context);
  // Silence: the rules of a Service that is just being made may be a moment behind its address, and a client that was
  // refused would not try again. What the node itself answers on, as its name server may, goes to nobody else.
  const unallocated = context.serviceCIDRs.map(
    (cidr) => `ct state new ${ip} daddr ${cidr} fib daddr type != local drop`,
  );
  const vipVerdicts = (name: string): NftContainer => ({
    kind: "map",
    name,
    spec: `type ${address} . inet_proto . inet_service : verdict`,
  });
  const portVerdicts = (name: string): NftContainer => ({
    kind: "map",
    name,
    spec: "type inet_proto . inet_service : verdict",
  });
  return {
    containers: [
      vipVerdicts("svc"),
      portVerdicts("np"),
      vipVerdicts("noep"),
      portVerdicts("noep-np"),
      vipVerdicts("fw"),
      { kind: "set", name: "cluster-ips", spec: `type ${address}` },
      {
        kind: "set",
        name: "hairpin",
        spec: `type ${address} . ${address} . inet_proto . inet_service`,
      },
      ...endpointMaps(context),
    ],
    chains: [
      { name: layoutChain, rules: [] },
      // A TCP reset is not rate-limited by the kernel, as ICMP errors are.
      { name: "rej", rules: ["meta l4proto tcp reject with tcp reset", "reject"] },
      {
        name: "services",
        rules: [
          ...(masquerade === undefined ? [] : [`${masquerade} ${markRule(context)}`]),
          `${toVIP} vmap @svc`,
          ...toNode.map((match) => `${match} meta l4proto . th dport vmap @np`),
        ],
      },
      // Docker publishes ports at -100; Services come first.
      base("prerouting", { type: "nat", hook: "prerouting", priority: -101 }, ["jump services"]),
      base("output", { type: "nat", hook: "output", priority: -101 }, ["jump services"]),
      base("postrouting", { type: "nat", hook: "postrouting", priority: 99 }, [
        `meta mark and ${mark} != 0 meta mark set meta mark xor ${mark} masquerade fully-random`,
        `ct status dnat ${ip} saddr . ${ip} daddr . meta l4proto . th dport @hairpin masquerade fully-random`,
      ]),
      base("firewall-in", { type: "filter", hook: "prerouting", priority: -110 }, [
        `ct state new ${toVIP} vmap @fw`,
      ]),
      base("firewall-out", { type: "filter", hook: "output", priority: -110 }, [
        `ct state new ${toVIP} vmap @fw`,
      ]),
      base("reject-in", { type: "filter", hook: "input", priority: 0 }, [
        `ct state new ${toVIP} vmap @noep`,
        ...toNode.map((match) => `ct state new ${match} meta l4proto . th dport vmap @noep-np`),
      ]),
      base("reject-forward", { type: "filter", hook: "forward", priority: 0 }, [
        `ct state new ${toVIP} vmap @noep`,
        `ct state new ${ip} daddr @cluster-ips goto rej`,
        ...unallocated,
      ]),
      base("reject-out", { type: "filter", hook: "output", priority: 0 }, [
        `ct state new ${toVIP} vmap @noep`,
        `ct state new ${ip} daddr @cluster-ips goto rej`,
        ...unallocated,
      ]),
    ],
    elements: [],
  };
}

/** What node ports answer on; nothing where no address is left. */
function nodePortMatch(context: RulesContext): readonly string[] {
  const ip = ipWord(context);
  const { nodePortIPs } = context;
  if (nodePortIPs === undefined) {
    const loopback = context.family === "IPv4" ? "127.0.0.0/8" : "::1";
    return [`fib daddr type local ${ip} daddr != ${loopback}`];
  }
  // An empty set is a syntax error.
  return nodePortIPs.length === 0 ? [] : [`${ip} daddr { ${nodePortIPs.toSorted().join(", ")} }`];
}

/**
 * Chains and elements of one Service port.
 *
 * @param shared Chains that ports share, by name; those that are missing are added.
 */
export function portClaims(
  plan: PlannedPort,
  context: RulesContext,
  shared: Map<string, ChainClaim> = new Map(),
): Claims {
  const chains = new Map<string, ChainClaim>();
  const containers = new Map<string, NftContainer>();
  const elements: ElementClaim[] = [
    { container: "cluster-ips", key: plan.clusterIP, value: "", shared: true },
    ...plan.hairpin.map(({ ip, port }) => ({
      container: "hairpin",
      key: `${ip} . ${ip} . ${plan.protocol} . ${port}`,
      value: "",
      shared: true,
    })),
  ];
  const draft: Draft = { plan, context, shared, chains, containers, elements };
  for (const frontend of plan.frontends) addFrontend(draft, frontend);
  return { chains: [...chains.values()], containers: [...containers.values()], elements };
}

interface Draft {
  readonly plan: PlannedPort;
  readonly context: RulesContext;
  readonly shared: Map<string, ChainClaim>;
  readonly chains: Map<string, ChainClaim>;
  readonly containers: Map<string, NftContainer>;
  readonly elements: ElementClaim[];
}

function addFrontend(draft: Draft, frontend: Frontend): void {
  const { plan, elements } = draft;
  const nodePort = frontend.ip === "";
  const tail = `${plan.protocol} . ${frontend.port}`;
  const key = nodePort ? tail : `${frontend.ip} . ${tail}`;
  const dispatch = nodePort ? "np" : "svc";
  const refuse = nodePort ? "noep-np" : "noep";
  const add = (container: string, value: string): void => {
    elements.push({ container, key, value, shared: false });
  };
  if (frontend.restricted) add("fw", `goto ${firewallChain(draft)}`);
  switch (frontend.verdict) {
    case "reject":
      add(refuse, "goto rej");
      return;
    case "drop":
      add(refuse, "drop");
      return;
    case "cluster":
      addEndpoints(draft, frontend, "cluster");
      add(dispatch, `goto ${endpointChain(draft, nodePort, "cluster")}`);
      return;
    case "local":
      addEndpoints(draft, frontend, "local");
      add(dispatch, `goto ${endpointChain(draft, nodePort, "local")}`);
      return;
    case "cluster-masqueraded":
      addEndpoints(draft, frontend, "cluster");
      add(dispatch, `goto ${masqueradeChain(draft, nodePort)}`);
      return;
    case "split":
      addEndpoints(draft, frontend, "cluster");
      addEndpoints(draft, frontend, "local");
      add(dispatch, `goto ${splitChain(draft, nodePort)}`);
      // Pods and the node were sent on by the dispatch; who is left has no endpoint here.
      if (plan.local.length === 0) add(refuse, "drop");
  }
}

type ListName = "cluster" | "local";

function scopeOf(nodePort: boolean, list: ListName): string {
  return `${nodePort ? "n" : ""}${list === "cluster" ? "c" : "l"}`;
}

/**
 * One map per protocol for all numbers of endpoints: with one for all protocols, nft 1.0.6 would refuse each rule that
 * reads it from a later transaction ("conflicting protocols specified: tcp vs. th").
 */
function endpointMap(scope: string, protocol: Protocol): string {
  return `ep-${scope}-${protocol}`;
}

/** What packets are looked up by in such a map, the slot excepted. */
function endpointKey(context: RulesContext, nodePort: boolean, protocol: Protocol): string {
  return nodePort ? `${protocol} dport` : `${ipWord(context)} daddr . ${protocol} dport`;
}

function endpointMaps(context: RulesContext): readonly NftContainer[] {
  return [false, true].flatMap((nodePort) =>
    (["cluster", "local"] as const).flatMap((list) =>
      protocols.map((protocol): NftContainer => ({
        kind: "map",
        name: endpointMap(scopeOf(nodePort, list), protocol),
        spec: `typeof ${endpointKey(context, nodePort, protocol)} . numgen random mod 2 : ${ipWord(context)} daddr . ${protocol} dport`,
      })),
    ),
  );
}

function slotPrefix({ ip, port }: Frontend): string {
  return ip === "" ? `${port} . ` : `${ip} . ${port} . `;
}

function addEndpoints(draft: Draft, frontend: Frontend, list: ListName): void {
  const { plan, elements } = draft;
  if (plan.affinitySeconds > 0) return;
  const container = endpointMap(scopeOf(frontend.ip === "", list), plan.protocol);
  const prefix = slotPrefix(frontend);
  for (const [slot, backend] of plan[list].entries()) {
    elements.push({ container, key: prefix + slot, value: backendID(backend), shared: false });
  }
}

/** See {@link TableLayout.slots}: any frontend that leads to the list, because all give an endpoint the same slot. */
function endpointSlots(plan: PlannedPort, list: ListName): ReturnType<TableLayout["slots"]> {
  const leads = plan.frontends.find(({ verdict }) => {
    switch (verdict) {
      case "cluster":
      case "cluster-masqueraded":
        return list === "cluster";
      case "local":
        return list === "local";
      case "split":
        return true;
      case "reject":
      case "drop":
        return false;
    }
  });
  if (leads === undefined || plan.affinitySeconds > 0) return undefined;
  const prefix = slotPrefix(leads);
  return {
    container: endpointMap(scopeOf(leads.ip === "", list), plan.protocol),
    key: (slot) => prefix + slot,
  };
}

/** A chain by its name; one that ports share is made once. */
function addChain(draft: Draft, name: string, rules: () => readonly string[]): string {
  const { plan, shared, chains } = draft;
  const chain = shared.get(name) ?? { name, rules: rules() };
  if (plan.affinitySeconds === 0) shared.set(name, chain);
  chains.set(name, chain);
  return name;
}

/**
 * The least power of two that is not below `count`. Ports share chains by it, so that one endpoint more or less is seldom
 * another chain: a changed verdict makes the kernel walk the elements of all Services in search of circles (12 ms at
 * 10 000 Services).
 */
function roomFor(count: number): number {
  let room = 1;
  while (room < count) room *= 2;
  return room;
}

/** From how many slots each rule of an endpoint chain draws; an empty slot sends the packet on to the next rule. */
function drawnFrom(room: number): readonly number[] {
  return room <= 2 ? [room] : [...Array.from({ length: draws }, () => room), room / 2];
}

/** With affinity each port has chains of its own; without, ports with about equally many endpoints share theirs. */
function endpointChain(draft: Draft, nodePort: boolean, list: ListName): string {
  const { plan, context } = draft;
  if (plan.affinitySeconds > 0) return affinityChain(draft, list, list === "cluster" ? "c" : "l");
  const ip = ipWord(context);
  const room = roomFor(plan[list].length);
  const scope = scopeOf(nodePort, list);
  return addChain(draft, `${scope}${room}`, () =>
    protocols.flatMap((protocol) =>
      drawnFrom(room).map((slots) => {
        const key = `${endpointKey(context, nodePort, protocol)} . numgen random mod ${slots}`;
        return `meta l4proto ${protocol} dnat ${ip} addr . port to ${key} map @${endpointMap(scope, protocol)}`;
      }),
    ),
  );
}

function masqueradeChain(draft: Draft, nodePort: boolean): string {
  const target = endpointChain(draft, nodePort, "cluster");
  const rules = (): readonly string[] => [markRule(draft.context), `goto ${target}`];
  return addChain(draft, `x-${target}`, rules);
}

function splitChain(draft: Draft, nodePort: boolean): string {
  const { context, plan } = draft;
  const everywhere = endpointChain(draft, nodePort, "cluster");
  const here = plan.local.length > 0 ? endpointChain(draft, nodePort, "local") : undefined;
  const rules = (): readonly string[] => [
    ...podMatches(context).map((match) => `${match} goto ${everywhere}`),
    `fib saddr type local ${markRule(context)}`,
    `fib saddr type local goto ${everywhere}`,
    ...(here === undefined ? [] : [`goto ${here}`]),
  ];
  return addChain(draft, `xl-${everywhere}-${here ?? "none"}`, rules);
}

function affinityChain(draft: Draft, list: ListName, letter: string): string {
  const { plan, context } = draft;
  const ip = ipWord(context);
  const name = `a${letter}-${shortHash(`${plan.key} ${context.family}`, 12)}`;
  const targets = plan[list].map((backend) => affinityEndpoint(draft, backend));
  const spread = targets.map((target, index) => `${index} : goto e-${target}`).join(", ");
  draft.chains.set(name, {
    name,
    rules: [
      ...targets.map((target) => `${ip} saddr @aff-${target} goto e-${target}`),
      `numgen random mod ${targets.length} vmap { ${spread} }`,
    ],
  });
  return name;
}

/** The chain that remembers the client and sends it to one endpoint. The time-out is in the name: a set keeps its own. */
function affinityEndpoint(draft: Draft, { ip, port }: Backend): string {
  const { plan, context } = draft;
  const word = ipWord(context);
  const hash = shortHash(`${plan.key} ${ip} ${port} ${plan.affinitySeconds}`, 12);
  const address = context.family === "IPv4" ? "ipv4_addr" : "ipv6_addr";
  const target = context.family === "IPv4" ? `${ip}:${port}` : `[${ip}]:${port}`;
  draft.containers.set(`aff-${hash}`, {
    kind: "set",
    name: `aff-${hash}`,
    spec: `type ${address} ; flags dynamic, timeout ; timeout ${plan.affinitySeconds}s`,
  });
  draft.chains.set(`e-${hash}`, {
    name: `e-${hash}`,
    rules: [
      `update @aff-${hash} { ${word} saddr }`,
      `meta l4proto ${plan.protocol} dnat to ${target}`,
    ],
  });
  return hash;
}

function firewallChain(draft: Draft): string {
  const { plan, context } = draft;
  const name = `fw-${shortHash(`${plan.key} ${context.family}`, 12)}`;
  draft.chains.set(name, {
    name,
    rules: [
      ...plan.sourceRanges.map((range) => `${ipWord(context)} saddr ${range} return`),
      "drop",
    ],
  });
  return name;
}

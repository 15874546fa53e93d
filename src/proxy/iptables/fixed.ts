import { cidrContains, parseCidr } from "../../lib/cidr.ts";
import { martianRule as martian } from "../../netfilter/kubelet-hints.ts";
import type { RulesContext } from "../backend.ts";
import { notPodsChain } from "./layout.ts";
import type { Chain, Rule, Table } from "./rules.ts";

/** What the rules depend on besides plans and {@link RulesContext}. */
export interface HostFacts {
  /** We set route_localnet, so whoever removes the rules must set it back: without them it is a hole. */
  readonly openedLocalnet: boolean;
  /** net.netfilter.nf_conntrack_tcp_be_liberal: only resets out of window are INVALID then, and those may pass. */
  readonly tcpBeLiberal: boolean;
  /** Node ports of health checks. */
  readonly healthPorts: readonly number[];
}

/** Empty, in all three tables: gone when somebody empties the firewall. */
export const canaryChain = "KUBE-PROXY-CANARY";
export const tables = ["mangle", "filter", "nat"] as const satisfies readonly Table[];

/** Never met by a packet. Goes with a restart of the machine, as the setting does. */
export const openedLocalnet: Rule = { comment: "route_localnet was 0", text: "" };

/** A rule in a chain of the system's that leads to one of ours. */
export interface Jump {
  readonly table: Table;
  readonly from: string;
  readonly to: string;
  readonly text: string;
}

const isNew = "-m conntrack --ctstate NEW ";

function jump(
  table: Table,
  [to, from]: readonly [string, string],
  comment: string,
  match = "",
): Jump {
  return {
    table,
    from,
    to,
    text: `${match}${comment === "" ? "" : `-m comment --comment "${comment}" `}-j ${to}`,
  };
}

const external = "kubernetes externally-visible service portals";
const portals = "kubernetes service portals";
const balancers = "kubernetes load balancer firewall";

/** In the order in which each is put on top of its chain, so the last one is asked first. */
export const jumps: readonly Jump[] = [
  jump("filter", ["KUBE-EXTERNAL-SERVICES", "INPUT"], external, isNew),
  jump("filter", ["KUBE-EXTERNAL-SERVICES", "FORWARD"], external, isNew),
  jump("filter", ["KUBE-NODEPORTS", "INPUT"], "kubernetes health check service ports"),
  jump("filter", ["KUBE-SERVICES", "FORWARD"], portals, isNew),
  jump("filter", ["KUBE-SERVICES", "OUTPUT"], portals, isNew),
  jump("filter", ["KUBE-FORWARD", "FORWARD"], "kubernetes forwarding rules"),
  jump("filter", ["KUBE-PROXY-FIREWALL", "INPUT"], balancers, isNew),
  jump("filter", ["KUBE-PROXY-FIREWALL", "OUTPUT"], balancers, isNew),
  jump("filter", ["KUBE-PROXY-FIREWALL", "FORWARD"], balancers, isNew),
  jump("nat", ["KUBE-SERVICES", "OUTPUT"], portals),
  jump("nat", ["KUBE-SERVICES", "PREROUTING"], portals),
  jump("nat", ["KUBE-POSTROUTING", "POSTROUTING"], "kubernetes postrouting rules"),
  // The kubelet has these too.
  jump("filter", ["KUBE-FIREWALL", "INPUT"], ""),
  jump("filter", ["KUBE-FIREWALL", "OUTPUT"], ""),
];

/** Chains that are there whatever Services there are, but for those that every Service has rules in. */
export function fixedChains(context: RulesContext, facts: HostFacts): readonly Chain[] {
  const mark = `0x${context.mark.toString(16)}`;
  const chain = (table: Table, name: string, ...rules: Rule[]): Chain => ({ table, name, rules });
  const rule = (text: string, comment = ""): Rule => ({ text, comment });
  const invalid = facts.tcpBeLiberal ? [] : [rule("-m conntrack --ctstate INVALID -j DROP")];
  return [
    ...tables.map((table) =>
      chain(
        table,
        canaryChain,
        ...(table === "mangle" && facts.openedLocalnet ? [openedLocalnet] : []),
      ),
    ),
    chain(
      "filter",
      "KUBE-NODEPORTS",
      ...facts.healthPorts.map((port) =>
        rule(`-m tcp -p tcp --dport ${port} -j ACCEPT`, "health check node port"),
      ),
    ),
    chain(
      "filter",
      "KUBE-FORWARD",
      ...invalid,
      // The first packet of a flow carries the mark, later ones are of a known flow: also where FORWARD drops.
      rule(`-m mark --mark ${mark}/${mark} -j ACCEPT`, "kubernetes forwarding rules"),
      rule(
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "kubernetes forwarding conntrack rule",
      ),
    ),
    chain("filter", "KUBE-FIREWALL", ...(context.family === "IPv4" ? [martian] : [])),
    chain(
      "nat",
      "KUBE-POSTROUTING",
      rule(`-m mark ! --mark ${mark}/${mark} -j RETURN`),
      // A packet that passes here again must not get yet another source.
      rule(`-j MARK --xor-mark ${mark}`),
      rule("-j MASQUERADE --random-fully", "kubernetes service traffic requiring SNAT"),
    ),
    chain("nat", "KUBE-MARK-MASQ", rule(`-j MARK --or-mark ${mark}`)),
    ...notPods(context, chain, rule),
  ];
}

function notPods(
  { local }: RulesContext,
  chain: (table: Table, name: string, ...rules: Rule[]) => Chain,
  rule: (text: string) => Rule,
): readonly Chain[] {
  if (local.kind !== "cidrs" || local.cidrs.length < 2) return [];
  return [
    chain(
      "nat",
      notPodsChain,
      ...local.cidrs.map((cidr) => rule(`-s ${cidr} -j RETURN`)),
      rule("-j KUBE-MARK-MASQ"),
    ),
  ];
}

const loopback = { IPv4: "127.0.0.0/8", IPv6: "::1/128" } as const;

function isLoopback(family: RulesContext["family"], ip: string): boolean {
  return cidrContains(parseCidr(loopback[family]), ip);
}

/** Whether node ports answer on addresses of the loopback interface. Never for IPv6, whose kernel has no such thing. */
export function servesLocalhost({
  family,
  localhostNodePorts,
  nodePortIPs,
}: RulesContext): boolean {
  return (
    family === "IPv4" &&
    localhostNodePorts &&
    (nodePortIPs === undefined || nodePortIPs.some((ip) => isLoopback(family, ip)))
  );
}

/** The end of nat KUBE-SERVICES: node ports are asked after all addresses of Services. */
export function nodePortRules(context: RulesContext): readonly Rule[] {
  const { family, nodePortIPs } = context;
  const comment = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
  const localhost = servesLocalhost(context);
  if (nodePortIPs === undefined) {
    const except = localhost ? "" : `! -d ${loopback[family]} `;
    return [{ comment, text: `-m addrtype --dst-type LOCAL ${except}-j KUBE-NODEPORTS` }];
  }
  return nodePortIPs
    .filter((ip) => localhost || !isLoopback(family, ip))
    .map((ip) => ({ comment, text: `-d ${ip} -j KUBE-NODEPORTS` }));
}

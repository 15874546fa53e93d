import type { LocalDetector, RulesContext } from "../backend.ts";
import type { Frontend, PlannedPort } from "../plan.ts";
import type { Backend } from "../types.ts";
import { endpointText, portChain, portTitle } from "./names.ts";
import type { Chain, Rule } from "./rules.ts";

/** Chains that every Service port has rules in, by what packets are asked. */
export const dispatchChains = [
  { table: "nat", name: "KUBE-SERVICES" },
  { table: "nat", name: "KUBE-NODEPORTS" },
  { table: "filter", name: "KUBE-SERVICES" },
  { table: "filter", name: "KUBE-EXTERNAL-SERVICES" },
  { table: "filter", name: "KUBE-PROXY-FIREWALL" },
] as const;

/** Indices of {@link dispatchChains}. */
const services = 0;
const nodePorts = 1;
const refused = 2;
const refusedExternal = 3;
const firewall = 4;

/** Several networks of pods cannot be excluded by one rule: a chain does. */
export const notPodsChain = "KUBE-MARK-NOT-PODS";

interface Draft {
  readonly plan: PlannedPort;
  readonly context: RulesContext;
  readonly endpointComments: boolean;
  readonly title: string;
  readonly chains: Chain[];
  readonly dispatch: Rule[][];
}

function rule(text: string, comment = ""): Rule {
  return { text, comment };
}

/** Matches that are true for packets of this node's own pods: any of them. None when nobody can tell. */
function fromPods(local: LocalDetector): readonly string[] {
  switch (local.kind) {
    case "none":
      return [];
    case "cidrs":
      return local.cidrs.map((cidr) => `-s ${cidr}`);
    case "interface":
      return [`-i ${local.name}`];
    case "interface-prefix":
      return [`-i ${local.prefix}+`];
  }
}

function toward(plan: PlannedPort, { ip, port }: Frontend): string {
  const { protocol } = plan;
  return `-m ${protocol} -p ${protocol}${ip === "" ? "" : ` -d ${ip}`} --dport ${port}`;
}

function own(draft: Draft, prefix: Parameters<typeof portChain>[0], endpoint = ""): string {
  return portChain(prefix, draft.title, draft.plan.protocol, endpoint);
}

function add(draft: Draft, index: number, what: Rule): void {
  draft.dispatch[index]?.push(what);
}

/** KUBE-SEP: one endpoint. Asked by itself it must see another source, or the answer would not come back here. */
function addEndpoint(draft: Draft, backend: Backend): void {
  const { plan, title } = draft;
  const at = endpointText(backend);
  const name = own(draft, "KUBE-SEP-", at);
  const comment = draft.endpointComments ? title : "";
  const remember = plan.affinitySeconds > 0 ? `-m recent --name ${name} --set ` : "";
  draft.chains.push({
    table: "nat",
    name,
    rules: [
      rule(`-s ${backend.ip} -j KUBE-MARK-MASQ`, comment),
      rule(
        `${remember}-m ${plan.protocol} -p ${plan.protocol} -j DNAT --to-destination ${at}`,
        comment,
      ),
    ],
  });
}

/** Who is remembered goes where they went; the rest is spread evenly, by chances of what is left. */
function spread(draft: Draft, backends: readonly Backend[]): readonly Rule[] {
  const { plan, title } = draft;
  const targets = backends.map((backend) => {
    const at = endpointText(backend);
    const comment = draft.endpointComments ? `${title} -> ${at}` : "";
    return { name: own(draft, "KUBE-SEP-", at), comment };
  });
  const remembered =
    plan.affinitySeconds === 0
      ? []
      : targets.map(({ name, comment }) =>
          rule(
            `-m recent --name ${name} --rcheck --seconds ${plan.affinitySeconds} --reap -j ${name}`,
            comment,
          ),
        );
  const random = targets.map(({ name, comment }, index) => {
    const left = targets.length - index;
    const chance =
      left === 1 ? "" : `-m statistic --mode random --probability ${(1 / left).toFixed(10)} `;
    return rule(`${chance}-j ${name}`, comment);
  });
  return [...remembered, ...random];
}

/** What goes to the ClusterIP and is not from a pod gets a new source: the answer must come back this way. */
function masqueradeRule(draft: Draft, clusterIP: Frontend): readonly Rule[] {
  const { context, plan, title } = draft;
  const comment = `${title} cluster IP`;
  const match = toward(plan, clusterIP);
  if (context.masqueradeAll) return [rule(`${match} -j KUBE-MARK-MASQ`, comment)];
  const [pods, ...more] = fromPods(context.local);
  if (pods === undefined) return [];
  return [
    more.length > 0
      ? rule(`${match} -j ${notPodsChain}`, comment)
      : rule(`${match} ! ${pods} -j KUBE-MARK-MASQ`, comment),
  ];
}

/** KUBE-EXT: external traffic before it is spread. */
function addExternalChain(draft: Draft, verdict: Frontend["verdict"]): void {
  const { context, plan, title, chains } = draft;
  const name = own(draft, "KUBE-EXT-");
  const cluster = own(draft, "KUBE-SVC-");
  if (verdict !== "split") {
    chains.push({
      table: "nat",
      name,
      rules: [
        rule("-j KUBE-MARK-MASQ", `masquerade traffic for ${title} external destinations`),
        rule(`-j ${cluster}`),
      ],
    });
    return;
  }
  // As if it went out to a load balancer and came back: no policy, and the source is kept.
  const pods = fromPods(context.local).map((match) =>
    rule(`${match} -j ${cluster}`, `pod traffic for ${title} external destinations`),
  );
  const fromNode = "-m addrtype --src-type LOCAL";
  chains.push({
    table: "nat",
    name,
    rules: [
      ...pods,
      rule(
        `${fromNode} -j KUBE-MARK-MASQ`,
        `masquerade LOCAL traffic for ${title} external destinations`,
      ),
      rule(`${fromNode} -j ${cluster}`, `route LOCAL traffic for ${title} external destinations`),
      ...(plan.local.length > 0 ? [rule(`-j ${own(draft, "KUBE-SVL-")}`)] : []),
    ],
  });
}

/** KUBE-FW: who reaches its end was not sent on, and so meets KUBE-PROXY-FIREWALL. */
function addFirewallChain(draft: Draft): void {
  const { plan, title } = draft;
  const external = own(draft, "KUBE-EXT-");
  draft.chains.push({
    table: "nat",
    name: own(draft, "KUBE-FW-"),
    rules: [
      ...plan.sourceRanges.map((range) =>
        rule(`-s ${range} -j ${external}`, `${title} loadbalancer IP`),
      ),
      rule("", `other traffic to ${title} will be dropped by KUBE-PROXY-FIREWALL`),
    ],
  });
}

/** A reset is not rate-limited by the kernel, as ICMP errors are. */
function refuse({ protocol }: PlannedPort): string {
  return protocol === "tcp" ? "-j REJECT --reject-with tcp-reset" : "-j REJECT";
}

function dispatchClusterIP(draft: Draft, frontend: Frontend): void {
  const { plan, title } = draft;
  const match = toward(plan, frontend);
  if (frontend.verdict === "reject") {
    add(draft, refused, rule(`${match} ${refuse(plan)}`, `${title} has no endpoints`));
  } else if (frontend.verdict === "drop") {
    add(draft, refused, rule(`${match} -j DROP`, `${title} has no local endpoints`));
  } else {
    const target = own(draft, frontend.verdict === "local" ? "KUBE-SVL-" : "KUBE-SVC-");
    add(draft, services, rule(`${match} -j ${target}`, `${title} cluster IP`));
  }
}

function dispatchExternal(draft: Draft, frontend: Frontend): void {
  const { plan, title } = draft;
  const match = toward(plan, frontend);
  const nodePort = frontend.ip === "";
  const refusedAt = nodePort ? `-m addrtype --dst-type LOCAL ${match}` : match;
  if (frontend.verdict === "reject") {
    const comment = `${title} has no endpoints`;
    add(draft, refusedExternal, rule(`${refusedAt} ${refuse(plan)}`, comment));
    return;
  }
  const restricted = frontend.restricted && plan.sourceRanges.length > 0;
  const target = own(draft, restricted ? "KUBE-FW-" : "KUBE-EXT-");
  if (nodePort) {
    add(draft, nodePorts, rule(`${match} -j ${target}`, title));
  } else {
    const kind = frontend.loadBalancer === true ? "loadbalancer" : "external";
    add(draft, services, rule(`${match} -j ${target}`, `${title} ${kind} IP`));
  }
  if (restricted) {
    add(
      draft,
      firewall,
      rule(`${match} -j DROP`, `${title} traffic not accepted by ${own(draft, "KUBE-FW-")}`),
    );
  }
  if (frontend.verdict === "split" && plan.local.length === 0) {
    // Pods and the node itself were sent on; who is left has no endpoint here.
    add(draft, refusedExternal, rule(`${refusedAt} -j DROP`, `${title} has no local endpoints`));
  }
}

function byText(backends: readonly Backend[]): readonly Backend[] {
  return backends.toSorted((a, b) => (endpointText(a) < endpointText(b) ? -1 : 1));
}

function draftOf(plan: PlannedPort, context: RulesContext, endpointComments = false): Draft {
  return {
    plan,
    context,
    endpointComments,
    title: portTitle(plan),
    chains: [],
    dispatch: dispatchChains.map(() => []),
  };
}

/**
 * The chains of one Service port, callees first. Pure: the same arguments give the same rules in the same order.
 *
 * @param endpointComments Whether endpoints' rules, which are most of all, say whose they are.
 */
export function portChains(
  plan: PlannedPort,
  context: RulesContext,
  endpointComments: boolean,
): readonly Chain[] {
  const draft = draftOf(plan, context, endpointComments);
  const [clusterIP, ...external] = plan.frontends;
  const reached = external.find(({ verdict }) => verdict !== "reject" && verdict !== "drop");
  addBalancers(draft, clusterIP, reached);
  if (reached !== undefined) addExternalChain(draft, reached.verdict);
  if (external.some(({ restricted, verdict }) => restricted && verdict !== "reject")) {
    addFirewallChain(draft);
  }
  return draft.chains;
}

/**
 * The rules of one Service port in each of {@link dispatchChains}, by index. Pure.
 *
 * @param lost Frontends that another Service has.
 */
export function portDispatch(
  plan: PlannedPort,
  context: RulesContext,
  lost: readonly Frontend[],
): readonly (readonly Rule[])[] {
  const draft = draftOf(plan, context);
  const [clusterIP, ...external] = plan.frontends;
  if (clusterIP !== undefined && !lost.includes(clusterIP)) dispatchClusterIP(draft, clusterIP);
  for (const frontend of external) {
    if (!lost.includes(frontend)) dispatchExternal(draft, frontend);
  }
  return draft.dispatch;
}

/** KUBE-SVC and KUBE-SVL, as far as somebody goes there, and the endpoints of both. */
function addBalancers(
  draft: Draft,
  clusterIP: Frontend | undefined,
  external: Frontend | undefined,
): void {
  const { plan } = draft;
  const internal = clusterIP?.verdict;
  const usesCluster = internal === "cluster" || external !== undefined;
  const usesLocal = internal === "local" || external?.verdict === "split";
  const lists = [
    { prefix: "KUBE-SVC-", of: usesCluster ? plan.cluster : [], by: "cluster" },
    { prefix: "KUBE-SVL-", of: usesLocal ? plan.local : [], by: "local" },
  ] as const;
  const endpoints = new Map(
    lists.flatMap(({ of }) => of.map((backend) => [endpointText(backend), backend] as const)),
  );
  for (const backend of byText([...endpoints.values()])) addEndpoint(draft, backend);
  for (const { prefix, of, by } of lists) {
    if (of.length === 0) continue;
    const first =
      clusterIP !== undefined && internal === by ? masqueradeRule(draft, clusterIP) : [];
    draft.chains.push({
      table: "nat",
      name: own(draft, prefix),
      rules: [...first, ...spread(draft, byText(of))],
    });
  }
}

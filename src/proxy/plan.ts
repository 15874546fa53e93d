import { categorizeEndpoints } from "./categorize.ts";
import type { Backend, Endpoint, NodeView, ServicePort } from "./types.ts";

/**
 * What happens to a new flow that arrives at a frontend. `split` is external traffic under externalTrafficPolicy Local,
 * or whose endpoints are all here (`NodeView.keepsSource`): pods and the node itself may use every endpoint, everybody
 * else only local ones, with their source kept.
 */
export type Verdict = "cluster" | "local" | "cluster-masqueraded" | "split" | "reject" | "drop";

/** One address and port under which a Service port can be reached. */
export interface Frontend {
  /** Empty for a node port: every address of the node. */
  readonly ip: string;
  readonly port: number;
  readonly verdict: Verdict;
  /** Source ranges apply. */
  readonly restricted: boolean;
  /** An address of the load balancer's, from the Service's status. */
  readonly loadBalancer?: true;
}

/** Everything packet rules must do for one Service port; says nothing about how. */
export interface PlannedPort {
  readonly key: string;
  readonly service: string;
  readonly protocol: ServicePort["protocol"];
  readonly clusterIP: string;
  readonly rank: string;
  readonly frontends: readonly Frontend[];
  readonly cluster: readonly Backend[];
  readonly local: readonly Backend[];
  /** All that serve, chosen or not: flows that exist may stay with them, as TCP connections do. */
  readonly serving: readonly Backend[];
  /** Backends on this node that may be asked by themselves. */
  readonly hairpin: readonly Backend[];
  readonly affinitySeconds: number;
  readonly sourceRanges: readonly string[];
}

/** One for all: there are thousands of ports, and most of their lists are empty. */
const none: readonly Backend[] = [];

/** The lists of a plan. They share what they have in common: most are the same list, and this is kept of every port. */
function listsOf(
  endpoints: readonly Endpoint[],
  cluster: readonly Endpoint[],
  local: readonly Endpoint[],
): Pick<PlannedPort, "cluster" | "local" | "serving" | "hairpin"> {
  if (endpoints.length === 0) return { cluster: none, local: none, serving: none, hairpin: none };
  const made = endpoints.map(({ ip, port }): Backend => ({ ip, port }));
  /** `list` is a part of all in their order, so one walk finds it. */
  const backends = (list: readonly Endpoint[], like: readonly Backend[]): readonly Backend[] => {
    if (list.length === 0) return none;
    if (list.length === endpoints.length) return made;
    let from = 0;
    const found = list.map((endpoint) => {
      from = endpoints.indexOf(endpoint, from) + 1;
      return made[from - 1] ?? endpoint;
    });
    const same = found.length === like.length && found.every((one, at) => one === like[at]);
    return same ? like : found;
  };
  const all = backends(cluster, none);
  const here = backends(local, all);
  const asksItself = (endpoint: Endpoint): boolean =>
    endpoint.local && (cluster.includes(endpoint) || local.includes(endpoint));
  return {
    cluster: all,
    local: here,
    serving: backends(
      endpoints.filter(({ ready, serving }) => ready || serving),
      all,
    ),
    hairpin: backends(endpoints.filter(asksItself), here),
  };
}

/** Plans one port. Pure: the same arguments give the same plan. */
export function planPort(
  port: ServicePort,
  endpoints: readonly Endpoint[],
  node: Pick<NodeView, "name" | "zone" | "keepsSource">,
): PlannedPort {
  const { cluster, local, hasAny } = categorizeEndpoints(endpoints, node);
  const internal = internalVerdict(port.internalLocal, cluster, local, hasAny);
  const keepsSource =
    port.externalLocal || (node.keepsSource === true && sameEndpoints(cluster, local));
  const external = externalVerdict(keepsSource, cluster, hasAny);
  const frontends: Frontend[] = [
    { ip: port.clusterIP, port: port.port, verdict: internal, restricted: false },
    ...port.externalIPs.map((ip) => ({
      ip,
      port: port.port,
      verdict: external,
      restricted: false,
    })),
    ...port.loadBalancerIPs
      .filter((ip) => !port.externalIPs.includes(ip))
      .map((ip) => ({
        ip,
        port: port.port,
        verdict: external,
        restricted: port.sourceRanges.length > 0,
        loadBalancer: true as const,
      })),
  ];
  if (port.nodePort !== 0) {
    frontends.push({ ip: "", port: port.nodePort, verdict: external, restricted: false });
  }
  return {
    key: port.key,
    service: port.service,
    protocol: port.protocol,
    clusterIP: port.clusterIP,
    rank: port.rank,
    frontends,
    ...listsOf(endpoints, cluster, local),
    affinitySeconds: port.affinitySeconds,
    sourceRanges: port.sourceRanges,
  };
}

/** Whether two plans of one port ask for the same. */
export function samePlan(a: PlannedPort, b: PlannedPort): boolean {
  return (
    a.clusterIP === b.clusterIP &&
    a.rank === b.rank &&
    a.affinitySeconds === b.affinitySeconds &&
    sameLists(a.sourceRanges, b.sourceRanges, Object.is) &&
    sameLists(a.frontends, b.frontends, sameFrontend) &&
    sameLists(a.cluster, b.cluster, sameBackend) &&
    sameLists(a.local, b.local, sameBackend) &&
    sameLists(a.serving, b.serving, sameBackend) &&
    sameLists(a.hairpin, b.hairpin, sameBackend)
  );
}

function sameLists<T>(a: readonly T[], b: readonly T[], same: (a: T, b: T) => boolean): boolean {
  if (a === b) return true;
  return a.length === b.length && a.every((item, at) => same(item, b[at] ?? item));
}

function sameBackend(a: Backend, b: Backend): boolean {
  return a.ip === b.ip && a.port === b.port;
}

function sameFrontend(a: Frontend, b: Frontend): boolean {
  return (
    a.ip === b.ip &&
    a.port === b.port &&
    a.verdict === b.verdict &&
    a.restricted === b.restricted &&
    a.loadBalancer === b.loadBalancer
  );
}

/** Both keep the order of all endpoints. */
function sameEndpoints(a: readonly Endpoint[], b: readonly Endpoint[]): boolean {
  return sameLists(a, b, Object.is);
}

function internalVerdict(
  localOnly: boolean,
  cluster: readonly Endpoint[],
  local: readonly Endpoint[],
  hasAny: boolean,
): Verdict {
  if (!hasAny) return "reject";
  if (!localOnly) return cluster.length > 0 ? "cluster" : "reject";
  return local.length > 0 ? "local" : "drop";
}

function externalVerdict(
  keepsSource: boolean,
  cluster: readonly Endpoint[],
  hasAny: boolean,
): Verdict {
  if (!hasAny || cluster.length === 0) return "reject";
  return keepsSource ? "split" : "cluster-masqueraded";
}

import { categorizeEndpoints } from "./categorize.ts";
import type { Backend, Endpoint, NodeView, ServicePort } from "./types.ts";

/**
 * What happens to a new flow that arrives at a frontend. `split` is external traffic under externalTrafficPolicy Local:
 * pods and the node itself may use every endpoint, everybody else only local ones, with their source kept.
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

function backend({ ip, port }: Endpoint): Backend {
  return { ip, port };
}

/** Plans one port. Pure: the same arguments give the same plan. */
export function planPort(
  port: ServicePort,
  endpoints: readonly Endpoint[],
  node: Pick<NodeView, "name" | "zone">,
): PlannedPort {
  const { cluster, local, hasAny } = categorizeEndpoints(endpoints, node);
  const internal = internalVerdict(port.internalLocal, cluster, local, hasAny);
  const external = externalVerdict(port.externalLocal, cluster, hasAny);
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
  const hairpin = [...new Set([...cluster, ...local])].filter((endpoint) => endpoint.local);
  return {
    key: port.key,
    service: port.service,
    protocol: port.protocol,
    clusterIP: port.clusterIP,
    rank: port.rank,
    frontends,
    cluster: cluster.map(backend),
    local: local.map(backend),
    serving: endpoints.filter(({ ready, serving }) => ready || serving).map(backend),
    hairpin: hairpin.map(backend),
    affinitySeconds: port.affinitySeconds,
    sourceRanges: port.sourceRanges,
  };
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
  localOnly: boolean,
  cluster: readonly Endpoint[],
  hasAny: boolean,
): Verdict {
  if (!hasAny || cluster.length === 0) return "reject";
  return localOnly ? "split" : "cluster-masqueraded";
}

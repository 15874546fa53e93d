import type { EndpointSlice, Node } from "../../../api/types.gen.ts";
import { canonicalIP, type IPFamily, ipFamily } from "../../../lib/cidr.ts";
import type { StoredNode, StoredService } from "../endpoints/service-endpoints.ts";

/** One address of a node, as a load balancer's. */
export interface NodeAddress {
  readonly ip: string;
  readonly family: IPFamily;
  readonly type: "ExternalIP" | "InternalIP";
}

/** What load balancers see of a node. */
export interface BalancerNode {
  readonly name: string;
  /** May be given to Services. */
  readonly eligible: boolean;
  readonly ready: boolean;
  readonly addresses: readonly NodeAddress[];
  /** 0 = it does not say. */
  readonly kubeletPort: number;
}

const excludeLabel = "node.kubernetes.io/exclude-from-external-load-balancers";
const autoscalerTaint = "ToBeDeletedByClusterAutoscaler";
/** What Go's strconv.ParseBool takes for false. Everything else excludes, also what it does not understand. */
const falseTexts: ReadonlySet<string> = new Set(["0", "f", "F", "false", "FALSE", "False"]);

function isEligible({ metadata, spec }: StoredNode): boolean {
  const excluded = metadata.labels?.[excludeLabel];
  return (
    metadata.deletionTimestamp === undefined &&
    (excluded === undefined || falseTexts.has(excluded)) &&
    spec?.taints?.some(({ key }) => key === autoscalerTaint) !== true
  );
}

function addressesOf({ status }: Node): readonly NodeAddress[] {
  const found = new Map<string, NodeAddress>();
  for (const type of ["ExternalIP", "InternalIP"] as const) {
    for (const { address, type: its } of status?.addresses ?? []) {
      const family = ipFamily(address);
      if (its !== type || family === undefined) continue;
      const ip = canonicalIP(address);
      if (!found.has(ip)) found.set(ip, { ip, family, type });
    }
  }
  return [...found.values()];
}

export function balancerNode(node: StoredNode): BalancerNode {
  const { status } = node;
  return {
    name: node.metadata.name,
    eligible: isEligible(node),
    ready: status?.conditions?.find(({ type }) => type === "Ready")?.status === "True",
    addresses: addressesOf(node),
    kubeletPort: status?.daemonEndpoints?.kubeletEndpoint?.Port ?? 0,
  };
}

/** Nodes with a ready endpoint of a Service, by what its slices say. */
function nodesWithEndpoints(slices: Iterable<EndpointSlice>): ReadonlySet<string> {
  const names = new Set<string>();
  for (const { endpoints } of slices) {
    for (const { conditions, nodeName } of endpoints ?? []) {
      if (nodeName !== undefined && conditions?.ready !== false) names.add(nodeName);
    }
  }
  return names;
}

/**
 * The nodes whose addresses a Service may have. One that is not ready counts only when none is: on a single machine the
 * address must outlive an engine that restarts. Under externalTrafficPolicy Local only those with a ready endpoint count;
 * while there is no endpoint at all the addresses stay, because clients and names outlive a pod that is replaced.
 */
export function nodesFor(
  service: StoredService,
  nodes: readonly BalancerNode[],
  slices: Iterable<EndpointSlice>,
): readonly BalancerNode[] {
  const eligible = nodes.filter(({ eligible: may }) => may);
  const ready = eligible.filter(({ ready: is }) => is);
  const usable = ready.length > 0 ? ready : eligible;
  if (service.spec?.externalTrafficPolicy !== "Local") return usable;
  const names = nodesWithEndpoints(slices);
  const near = usable.filter(({ name }) => names.has(name));
  return near.length > 0 ? near : usable;
}

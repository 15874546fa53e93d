import type { Endpoint, NodeView } from "./types.ts";

/** Which endpoints of a port get which traffic. */
export interface EndpointChoice {
  /** For traffic that may go anywhere. */
  readonly cluster: readonly Endpoint[];
  /** For traffic that must stay on this node. */
  readonly local: readonly Endpoint[];
  /** Some endpoint is usable somewhere, whatever the topology says. */
  readonly hasAny: boolean;
  /** Hints of this kind narrow `cluster`; undefined when there are none or they do not count. */
  readonly topology: "node" | "zone" | undefined;
}

/**
 * Chooses among a port's endpoints: ready ones, narrowed by topology hints; without any, those that still serve while
 * they terminate (KEP-1669). The local list makes the same choice among this node's endpoints alone, so a local
 * terminating endpoint is used even when other nodes have ready ones.
 */
export function categorizeEndpoints(
  endpoints: readonly Endpoint[],
  node: Pick<NodeView, "name" | "zone">,
): EndpointChoice {
  const ready = endpoints.filter((endpoint) => endpoint.ready);
  const fallback = endpoints.filter((endpoint) => endpoint.serving && endpoint.terminating);
  const near = nearest(ready, node);
  const localReady = ready.filter((endpoint) => endpoint.local);
  return {
    cluster: near.endpoints.length > 0 ? near.endpoints : fallback,
    local: localReady.length > 0 ? localReady : fallback.filter((endpoint) => endpoint.local),
    hasAny: ready.length > 0 || fallback.length > 0,
    topology: near.by,
  };
}

/** Topology hints count only when every ready endpoint has them and one of them means this node (KEP-2433). */
function nearest(
  ready: readonly Endpoint[],
  node: Pick<NodeView, "name" | "zone">,
): { readonly endpoints: readonly Endpoint[]; readonly by: EndpointChoice["topology"] } {
  if (ready.every(({ forNodes }) => forNodes !== undefined)) {
    const here = ready.filter(({ forNodes }) => forNodes?.includes(node.name) === true);
    if (here.length > 0) return { endpoints: here, by: "node" };
  }
  if (node.zone !== "" && ready.every(({ forZones }) => forZones !== undefined)) {
    const here = ready.filter(({ forZones }) => forZones?.includes(node.zone) === true);
    if (here.length > 0) return { endpoints: here, by: "zone" };
  }
  return { endpoints: ready, by: undefined };
}

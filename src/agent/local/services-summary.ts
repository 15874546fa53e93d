import type { EndpointView, ServiceView, SliceView } from "../../proxy/parse.ts";
import type { ServicesSummary, ServiceSummary } from "./types.ts";

const maxListed = 500;

/** What is known of Services on this node. */
export interface ServicesInput {
  readonly services: Iterable<ServiceView>;
  readonly slices: Iterable<SliceView>;
  readonly nodeName: string;
  /** `namespace/name` of this node's pods by their address. */
  readonly podsByIP: ReadonlyMap<string, string>;
  readonly mode: string;
  /** When the kernel got the last change, milliseconds since the epoch; undefined before the first. */
  readonly lastSync: { readonly at: number; readonly seconds: number } | undefined;
}

/** Endpoints of one Service, counted in the family that has the most: a pod of two families is one. */
class Tally {
  readonly #ready = { IPv4: new Set<string>(), IPv6: new Set<string>() };
  readonly #all = { IPv4: new Set<string>(), IPv6: new Set<string>() };
  readonly localPods = new Set<string>();

  add(family: "IPv4" | "IPv6", { ip, ready }: EndpointView, localPod: string | undefined): void {
    this.#all[family].add(ip);
    if (ready) this.#ready[family].add(ip);
    if (localPod !== undefined) this.localPods.add(localPod);
  }

  get ready(): number {
    return Math.max(this.#ready.IPv4.size, this.#ready.IPv6.size);
  }

  get total(): number {
    return Math.max(this.#all.IPv4.size, this.#all.IPv6.size);
  }
}

function tallies({ nodeName, podsByIP, slices }: ServicesInput): ReadonlyMap<string, Tally> {
  const found = new Map<string, Tally>();
  for (const { endpoints, family, service } of slices) {
    if (service === undefined || family === undefined) continue;
    let tally = found.get(service);
    if (tally === undefined) {
      tally = new Tally();
      found.set(service, tally);
    }
    for (const endpoint of endpoints) {
      const isLocal = endpoint.nodeName === undefined || endpoint.nodeName === nodeName;
      tally.add(family, endpoint, isLocal ? podsByIP.get(endpoint.ip) : undefined);
    }
  }
  return found;
}

function compare(a: ServiceSummary, b: ServiceSummary): number {
  if (a.total !== b.total) return b.total - a.total;
  if (a.namespace !== b.namespace) return a.namespace < b.namespace ? -1 : 1;
  return a.name < b.name ? -1 : 1;
}

/** Services as a snapshot tells them. Costs as much as there are endpoints in the cluster. */
export function servicesSummary(input: ServicesInput): ServicesSummary {
  const found = tallies(input);
  const all: ServiceSummary[] = [];
  let endpoints = 0;
  for (const { clusterIPs, key, name, namespace, ports, type } of input.services) {
    const tally = found.get(key);
    const total = tally?.total ?? 0;
    endpoints += total;
    all.push({
      namespace,
      name,
      type,
      clusterIPs: clusterIPs.map(({ ip }) => ip),
      ports: ports.map(({ nodePort, port, protocol }) => {
        const outside = nodePort === 0 ? "" : `:${nodePort}`;
        return `${port}${outside}/${protocol.toUpperCase()}`;
      }),
      ready: tally?.ready ?? 0,
      total,
      localPods: [...(tally?.localPods ?? [])].toSorted(),
    });
  }
  const { lastSync, mode } = input;
  return {
    mode,
    services: all.length,
    endpoints,
    lastSync: lastSync === undefined ? undefined : new Date(lastSync.at).toISOString(),
    lastSyncSeconds: lastSync?.seconds,
    list: all.toSorted(compare).slice(0, maxListed),
  };
}

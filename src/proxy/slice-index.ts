import type { IPFamily } from "../lib/cidr.ts";
import type { EndpointView, SliceView } from "./parse.ts";
import type { Endpoint, ServicePort } from "./types.ts";

/** EndpointSlices by Service. */
export class SliceIndex {
  /** Nearly always it is one, and then there is no list. */
  readonly #byService = new Map<string, SliceView | readonly SliceView[]>();
  readonly #nodeName: string;

  constructor(nodeName: string) {
    this.#nodeName = nodeName;
  }

  #slices(service: string): readonly SliceView[] {
    const held = this.#byService.get(service);
    if (held === undefined) return [];
    return "key" in held ? [held] : held;
  }

  /** Adds or replaces a slice. */
  set(slice: SliceView): void {
    const { service, key } = slice;
    if (service === undefined) return;
    const others = this.#slices(service).filter((other) => other.key !== key);
    // In the order of their names: whose word counts on an address that two have alike must not depend on history.
    const all = [...others, slice].toSorted((a, b) => (a.key < b.key ? -1 : 1));
    this.#byService.set(service, others.length === 0 ? slice : all);
  }

  delete({ service, key }: SliceView): void {
    if (service === undefined) return;
    const left = this.#slices(service).filter((slice) => slice.key !== key);
    const [only] = left;
    if (only === undefined) this.#byService.delete(service);
    else this.#byService.set(service, left.length === 1 ? only : left);
  }

  /** Ready endpoints of a Service on this node, each address once; of one family, or of both together. */
  localReady(service: string, family?: IPFamily): number {
    const ips = new Set<string>();
    for (const slice of this.#slices(service)) {
      if (family !== undefined && slice.family !== family) continue;
      // Without a port nobody can be reached there.
      if (slice.ports.length === 0) continue;
      for (const { ip, nodeName, ready } of slice.endpoints) {
        if (ready && nodeName === this.#nodeName) ips.add(ip);
      }
    }
    return ips.size;
  }

  /** Endpoints of one port, sorted, each address once. */
  endpoints(port: Pick<ServicePort, "service" | "portName" | "protocol" | "family">): Endpoint[] {
    return mergeEndpoints(this.#slices(port.service), port, this.#nodeName);
  }
}

interface PortSelector {
  readonly portName: string;
  readonly protocol: string;
  readonly family: IPFamily;
}

/**
 * The endpoints of one port in all slices. Slices overlap while endpoints move between them, and an address may be
 * reused while its former pod still terminates: then the one that is not terminating counts.
 */
export function mergeEndpoints(
  slices: Iterable<SliceView>,
  selector: PortSelector,
  nodeName: string,
): Endpoint[] {
  const all: Endpoint[] = [];
  for (const slice of slices) {
    if (slice.family !== selector.family) continue;
    for (const { name, protocol, port } of slice.ports) {
      if (name !== selector.portName || protocol !== selector.protocol) continue;
      for (const view of slice.endpoints) all.push(endpointOf(view, port, nodeName));
    }
  }
  all.sort(inOrder);
  // The same address twice stands together now, the preferred one first.
  return all.filter((endpoint, at) => at === 0 || !isSame(endpoint, all[at - 1]));
}

function endpointOf(view: EndpointView, port: number, nodeName: string): Endpoint {
  return {
    ip: view.ip,
    port,
    local: view.nodeName === nodeName,
    ready: view.ready,
    serving: view.serving,
    terminating: view.terminating,
    forZones: view.forZones,
    forNodes: view.forNodes,
  };
}

function isSame(a: Endpoint, b: Endpoint | undefined): boolean {
  return a.ip === b?.ip && a.port === b.port;
}

function inOrder(a: Endpoint, b: Endpoint): number {
  if (a.ip !== b.ip) return a.ip < b.ip ? -1 : 1;
  return a.port === b.port ? score(b) - score(a) : a.port - b.port;
}

function score(endpoint: Endpoint): number {
  return (endpoint.terminating ? 0 : 4) + (endpoint.ready ? 2 : 0) + (endpoint.serving ? 1 : 0);
}

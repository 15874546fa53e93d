import type { IPFamily } from "../lib/cidr.ts";
import type { SliceView } from "./parse.ts";
import type { Endpoint, ServicePort } from "./types.ts";

/** EndpointSlices by Service. */
export class SliceIndex {
  readonly #byService = new Map<string, Map<string, SliceView>>();
  readonly #nodeName: string;

  constructor(nodeName: string) {
    this.#nodeName = nodeName;
  }

  /** Adds or replaces a slice. */
  set(slice: SliceView): void {
    if (slice.service === undefined) return;
    const slices = this.#byService.get(slice.service) ?? new Map<string, SliceView>();
    slices.set(slice.key, slice);
    this.#byService.set(slice.service, slices);
  }

  delete(slice: SliceView): void {
    if (slice.service === undefined) return;
    const slices = this.#byService.get(slice.service);
    slices?.delete(slice.key);
    if (slices?.size === 0) this.#byService.delete(slice.service);
  }

  /** Ready endpoints of a Service on this node, each address once; of one family, or of both together. */
  localReady(service: string, family?: IPFamily): number {
    const ips = new Set<string>();
    for (const slice of this.#byService.get(service)?.values() ?? []) {
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
    return mergeEndpoints(this.#byService.get(port.service)?.values() ?? [], port, this.#nodeName);
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
  const found = new Map<string, Endpoint>();
  for (const slice of slices) {
    if (slice.family !== selector.family) continue;
    for (const port of slice.ports) {
      if (port.name !== selector.portName || port.protocol !== selector.protocol) continue;
      for (const view of slice.endpoints) {
        const { nodeName: onNode, ...rest } = view;
        const endpoint = { ...rest, port: port.port, local: onNode === nodeName };
        const key = `${view.ip} ${port.port}`;
        const known = found.get(key);
        if (known === undefined || preferred(endpoint, known)) found.set(key, endpoint);
      }
    }
  }
  return [...found].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, endpoint]) => endpoint);
}

function score(endpoint: Endpoint): number {
  return (endpoint.terminating ? 0 : 4) + (endpoint.ready ? 2 : 0) + (endpoint.serving ? 1 : 0);
}

function preferred(candidate: Endpoint, known: Endpoint): boolean {
  return score(candidate) > score(known);
}

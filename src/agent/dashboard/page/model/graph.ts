import type { PodSummary, ServiceSummary } from "../../../local/types.ts";
import { spread } from "./spread.ts";

export interface GraphNode {
  /** `namespace/name`. */
  readonly key: string;
  /** The middle of its row, from above. */
  readonly y: number;
}

export interface ServiceNode extends GraphNode {
  readonly service: ServiceSummary;
}

export interface PodNode extends GraphNode {
  /** Undefined while the list of pods does not have it yet. */
  readonly pod: PodSummary | undefined;
}

export interface GraphEdge {
  readonly service: string;
  readonly pod: string;
  readonly from: number;
  readonly to: number;
}

/** Services on the left, this node's pods behind them on the right. */
export interface Graph {
  readonly services: readonly ServiceNode[];
  readonly pods: readonly PodNode[];
  readonly edges: readonly GraphEdge[];
  readonly height: number;
  /** Services with pods here that are left out, for there are too many to be looked at. */
  readonly omitted: number;
}

/** As many as a person can follow. */
const mostServices = 40;
const mostPods = 120;
const sweeps = 6;

export function keyOf({
  namespace,
  name,
}: {
  readonly namespace: string;
  readonly name: string;
}): string {
  return `${namespace}/${name}`;
}

interface Columns {
  readonly services: readonly string[];
  readonly pods: readonly string[];
}

type Edges = readonly (readonly [service: string, pod: string])[];

/** The mean of the places of each key's neighbours, where it has any. */
function middles(
  keys: readonly string[],
  others: readonly string[],
  neighbours: ReadonlyMap<string, readonly string[]>,
): readonly number[] {
  const places = new Map(others.map((key, index) => [key, index]));
  return keys.map((key, index) => {
    const near = neighbours.get(key) ?? [];
    if (near.length === 0) return index;
    return near.reduce((sum, other) => sum + (places.get(other) ?? 0), 0) / near.length;
  });
}

function sortedBy(keys: readonly string[], weights: readonly number[]): readonly string[] {
  const weight = new Map(keys.map((key, index) => [key, weights[index] ?? 0]));
  return keys.toSorted((a, b) => (weight.get(a) ?? 0) - (weight.get(b) ?? 0));
}

/** How many pairs of edges cross each other. */
export function crossings({ services, pods }: Columns, edges: Edges): number {
  const left = new Map(services.map((key, index) => [key, index]));
  const right = new Map(pods.map((key, index) => [key, index]));
  const placed = edges.map(
    ([service, pod]) => [left.get(service) ?? 0, right.get(pod) ?? 0] as const,
  );
  let count = 0;
  for (const [index, [a, b]] of placed.entries()) {
    for (const [c, d] of placed.slice(index + 1)) if ((a - c) * (b - d) < 0) count += 1;
  }
  return count;
}

/** Each column by the means of the other one, back and forth; the order with the fewest crossings wins. */
function untangle(start: Columns, edges: Edges): Columns {
  const toPods = grouped(
    edges,
    ([service]) => service,
    ([, pod]) => pod,
  );
  const toServices = grouped(
    edges,
    ([, pod]) => pod,
    ([service]) => service,
  );
  let { services, pods } = start;
  let best = start;
  let fewest = crossings(start, edges);
  for (let sweep = 0; sweep < sweeps && fewest > 0; sweep += 1) {
    pods = sortedBy(pods, middles(pods, services, toServices));
    if (sweep > 0) services = sortedBy(services, middles(services, pods, toPods));
    const count = crossings({ services, pods }, edges);
    if (count < fewest) [best, fewest] = [{ services, pods }, count];
  }
  return best;
}

function grouped(
  edges: Edges,
  key: (edge: Edges[number]) => string,
  value: (edge: Edges[number]) => string,
): ReadonlyMap<string, readonly string[]> {
  const groups = new Map<string, string[]>();
  for (const edge of edges) {
    const group = groups.get(key(edge));
    if (group === undefined) groups.set(key(edge), [value(edge)]);
    else group.push(value(edge));
  }
  return groups;
}

/** Those that fit, in their order: never half of a Service. */
function fitting(services: readonly ServiceSummary[]): readonly ServiceSummary[] {
  const pods = new Set<string>();
  const chosen: ServiceSummary[] = [];
  for (const service of services) {
    const more = service.localPods.filter((pod) => !pods.has(pod)).length;
    const fits = chosen.length < mostServices && pods.size + more <= mostPods;
    if (!fits && chosen.length > 0) continue;
    chosen.push(service);
    for (const pod of service.localPods) pods.add(pod);
  }
  return chosen;
}

/**
 * Places Services and the pods of this node behind them. The same input gives the same picture, and what is in it stays in its
 * order as far as that crosses no more edges.
 *
 * @param rowHeight In the unit of the result.
 */
export function layOut(
  services: readonly ServiceSummary[],
  pods: readonly PodSummary[],
  rowHeight: number,
): Graph {
  const here = services
    .filter(({ localPods }) => localPods.length > 0)
    .toSorted((a, b) => compare(keyOf(a), keyOf(b)));
  const chosen = fitting(here);
  const byKey = new Map(chosen.map((service) => [keyOf(service), service]));
  const podByKey = new Map(pods.map((pod) => [keyOf(pod), pod]));
  const edges = chosen.flatMap((service) =>
    [...new Set(service.localPods)].map((pod) => [keyOf(service), pod] as const),
  );
  const columns = untangle(
    {
      services: [...byKey.keys()],
      pods: [...new Set(edges.map(([, pod]) => pod))].toSorted(compare),
    },
    edges,
  );
  const rows = Math.max(columns.services.length, columns.pods.length);
  const shorter = columns.services.length < columns.pods.length ? "services" : "pods";
  const even = (keys: readonly string[]): readonly number[] => keys.map((_, index) => index);
  const longer = shorter === "services" ? "pods" : "services";
  const neighbours =
    shorter === "services"
      ? grouped(
          edges,
          ([service]) => service,
          ([, pod]) => pod,
        )
      : grouped(
          edges,
          ([, pod]) => pod,
          ([service]) => service,
        );
  const places = {
    [longer]: even(columns[longer]),
    [shorter]: spread(middles(columns[shorter], columns[longer], neighbours), rows),
  };
  const yOf = (column: keyof Columns): ReadonlyMap<string, number> =>
    new Map(
      columns[column].map((key, index) => [
        key,
        ((places[column]?.[index] ?? 0) + 0.5) * rowHeight,
      ]),
    );
  const serviceY = yOf("services");
  const podY = yOf("pods");
  return {
    services: [...byKey].map(([key, service]) => ({ key, service, y: serviceY.get(key) ?? 0 })),
    pods: columns.pods.map((key) => ({ key, pod: podByKey.get(key), y: podY.get(key) ?? 0 })),
    edges: edges.map(([service, pod]) => ({
      service,
      pod,
      from: serviceY.get(service) ?? 0,
      to: podY.get(pod) ?? 0,
    })),
    height: rows * rowHeight,
    omitted: here.length - chosen.length,
  };
}

/** By code units: the same on every machine. */
function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** A curve from the right of one column to the left of the other. */
export function curve(x1: number, y1: number, x2: number, y2: number): string {
  const middle = (x1 + x2) / 2;
  return `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
}

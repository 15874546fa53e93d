import type { NodeFilter, Objection } from "./plugins/plugin.ts";
import { objection } from "./plugins/plugin.ts";
import type { PodInfo } from "./pod-info.ts";
import type { Profile, Turn } from "./profiles.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";
import { withPods } from "./snapshot.ts";

/** A rule made ready for one pod, with its name. */
export interface ReadyFilter {
  readonly plugin: string;
  readonly filter: NodeFilter;
}

/** Why a pod fits nowhere. */
export interface FitFailure {
  readonly total: number;
  /** The reason that holds whatever the nodes are; no node was looked at then. */
  readonly everywhere?: string;
  readonly objections: ReadonlyMap<string, Objection>;
  /** What is said of nodes that were not looked at. */
  readonly absent: Objection;
  /** The rules that objected. */
  readonly plugins: ReadonlySet<string>;
  readonly filters: readonly ReadyFilter[];
}

export type Placement =
  | { readonly kind: "node"; readonly node: string }
  | { readonly kind: "no-nodes" }
  | { readonly kind: "unschedulable"; readonly failure: FitFailure };

/** How kube-scheduler says it: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.` */
export function fitMessage(
  failure: Pick<FitFailure, "total" | "everywhere" | "objections" | "absent">,
): string {
  const { total, everywhere, objections, absent } = failure;
  const summary = `0/${total} nodes are available:`;
  if (everywhere !== undefined) return `${summary} ${everywhere}.`;
  const histogram = new Map<string, number>();
  const note = ({ reasons }: Objection, nodes: number): void => {
    for (const reason of reasons) histogram.set(reason, (histogram.get(reason) ?? 0) + nodes);
  };
  for (const each of objections.values()) note(each, 1);
  if (objections.size < total) note(absent, total - objections.size);
  const reasons = [...histogram].map(([reason, count]) => `${count} ${reason}`).toSorted();
  return reasons.length === 0 ? summary : `${summary} ${reasons.join(", ")}.`;
}

/** The rules that concern the pod. */
export function readyFilters(
  pod: PodInfo,
  snapshot: Snapshot,
  profile: Profile,
): readonly ReadyFilter[] {
  return profile.filters.flatMap((plugin) => {
    const filter = plugin.prepare(pod, snapshot);
    return filter === undefined ? [] : [{ plugin: plugin.name, filter }];
  });
}

/** The rules as if `pods` had come to `node` or left it. */
export function filtersAfter(
  filters: readonly ReadyFilter[],
  pods: Iterable<PodInfo>,
  node: NodeInfo,
  sign: 1 | -1,
): readonly ReadyFilter[] {
  let current = filters;
  for (const pod of pods)
    current = current.map(({ plugin, filter }) => ({
      plugin,
      filter: filter.after?.(pod, node, sign) ?? filter,
    }));
  return current;
}

interface NamedObjection extends Objection {
  readonly plugin: string;
}

function firstObjection(
  filters: readonly ReadyFilter[],
  node: NodeInfo,
): NamedObjection | undefined {
  for (const { plugin, filter } of filters) {
    const found = filter.check(node);
    if (found !== undefined) return { plugin, ...found };
  }
  return undefined;
}

/**
 * What speaks against a node. It must pass both with and without the pods that are nominated to it and at least as
 * important: they may come, and they may not.
 */
export function checkNode(
  pod: PodInfo,
  node: NodeInfo,
  snapshot: Snapshot,
  filters: readonly ReadyFilter[],
): NamedObjection | undefined {
  const nominated = snapshot.nominated.get(node.name) ?? [];
  const yieldsTo = nominated.filter(
    (each) => each.priority >= pod.priority && each.uid !== pod.uid,
  );
  if (yieldsTo.length > 0) {
    const after = filtersAfter(filters, yieldsTo, node, 1);
    const found = firstObjection(after, withPods(node, yieldsTo));
    if (found !== undefined) return found;
  }
  return firstObjection(filters, node);
}

/** The nodes to look at: all, unless rules name the only ones that can pass. */
function restriction(
  pod: PodInfo,
  profile: Profile,
): { readonly names: ReadonlySet<string>; readonly plugins: readonly string[] } | undefined {
  let names: ReadonlySet<string> | undefined;
  const plugins: string[] = [];
  for (const plugin of profile.filters) {
    const only = plugin.restricts?.(pod);
    if (only === undefined) continue;
    names = names === undefined ? only : only.intersection(names);
    plugins.push(plugin.name);
  }
  return names === undefined ? undefined : { names, plugins: plugins.toSorted() };
}

/**
 * Chooses a node for the pod.
 *
 * @param nominated The node that this pod's preemption made room on: taken without asking for a better one.
 */
export function placePod(
  pod: PodInfo,
  snapshot: Snapshot,
  profile: Profile,
  turn: Turn,
  nominated?: string,
): Placement {
  const total = snapshot.nodes.length;
  if (total === 0) return { kind: "no-nodes" };
  const nowhere = { total, objections: new Map<string, Objection>(), filters: [] };
  for (const plugin of profile.filters) {
    const everywhere = plugin.rejects?.(pod, snapshot);
    if (everywhere === undefined) continue;
    const absent = objection(everywhere, true);
    const plugins = new Set([plugin.name]);
    return { kind: "unschedulable", failure: { ...nowhere, everywhere, absent, plugins } };
  }
  const filters = readyFilters(pod, snapshot, profile);
  const room = snapshot.nodes.find(({ name }) => name === nominated);
  if (room !== undefined && checkNode(pod, room, snapshot, filters) === undefined)
    return { kind: "node", node: room.name };

  const only = restriction(pod, profile);
  const fitting: NodeInfo[] = [];
  const objections = new Map<string, Objection>();
  const plugins = new Set(only?.plugins);
  for (const node of snapshot.nodes) {
    if (only !== undefined && !only.names.has(node.name)) continue;
    const found = checkNode(pod, node, snapshot, filters);
    if (found === undefined) fitting.push(node);
    else {
      objections.set(node.name, found);
      plugins.add(found.plugin);
    }
  }
  const best = highest(pod, snapshot, profile, fitting);
  const chosen = best.length === 0 ? undefined : profile.choose(best, pod, snapshot, turn);
  if (chosen !== undefined) return { kind: "node", node: chosen.name };
  const absent = objection(
    `node(s) didn't satisfy plugin(s) [${only?.plugins.join(" ") ?? ""}]`,
    true,
  );
  return { kind: "unschedulable", failure: { total, objections, absent, plugins, filters } };
}

/** The nodes with the highest sum of weighted scores. */
function highest(
  pod: PodInfo,
  snapshot: Snapshot,
  profile: Profile,
  fitting: readonly NodeInfo[],
): readonly NodeInfo[] {
  if (fitting.length < 2) return fitting;
  const sums = fitting.map(() => 0);
  for (const { plugin, weight } of profile.scores)
    for (const [index, score] of (plugin.score(pod, snapshot, fitting) ?? []).entries())
      sums[index] = (sums[index] ?? 0) + weight * score;
  const most = Math.max(...sums);
  return fitting.filter((_, index) => sums[index] === most);
}

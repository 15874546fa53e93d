import type { AffinityTerm, PodInfo } from "../pod-info.ts";
import { termSelects } from "../pod-info.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";
import type { FilterPlugin, NodeFilter, ScorePlugin } from "./plugin.ts";
import { domainOf, maxScore, objection } from "./plugin.ts";

/** Numbers by topology key and value. */
type DomainCounts = ReadonlyMap<string, ReadonlyMap<string, number>>;

function countIn(counts: DomainCounts, topologyKey: string, node: NodeInfo): number {
  const value = domainOf(node, topologyKey);
  return value === undefined ? 0 : (counts.get(topologyKey)?.get(value) ?? 0);
}

function add(
  counts: Map<string, Map<string, number>>,
  topologyKey: string,
  node: NodeInfo,
  amount: number,
): void {
  const value = domainOf(node, topologyKey);
  if (value === undefined) return;
  const values = counts.get(topologyKey) ?? new Map<string, number>();
  values.set(value, (values.get(value) ?? 0) + amount);
  counts.set(topologyKey, values);
}

function copy(counts: DomainCounts): Map<string, Map<string, number>> {
  return new Map([...counts].map(([key, values]) => [key, new Map(values)]));
}

interface State {
  /** Pods that match all of the new pod's affinity terms. */
  readonly joined: DomainCounts;
  /** Pods that the new pod keeps away from. */
  readonly avoided: DomainCounts;
  /** Pods that keep the new pod away. */
  readonly closed: DomainCounts;
}

function matchesAll(
  terms: readonly AffinityTerm[],
  pod: PodInfo,
  namespaceLabels: Snapshot["namespaceLabels"],
): boolean {
  return terms.length > 0 && terms.every((term) => termSelects(term, pod, namespaceLabels));
}

function count(
  pod: PodInfo,
  snapshot: Snapshot,
  start: State,
  changes: Iterable<readonly [PodInfo, NodeInfo, 1 | -1]>,
): State {
  const { namespaceLabels } = snapshot;
  const attract = pod.affinity.required;
  const repel = pod.antiAffinity.required;
  const joined = copy(start.joined);
  const avoided = copy(start.avoided);
  const closed = copy(start.closed);
  for (const [other, node, sign] of changes) {
    if (matchesAll(attract, other, namespaceLabels))
      for (const term of attract) add(joined, term.topologyKey, node, sign);
    for (const term of repel)
      if (termSelects(term, other, namespaceLabels)) add(avoided, term.topologyKey, node, sign);
    for (const term of other.antiAffinity.required)
      if (termSelects(term, pod, namespaceLabels)) add(closed, term.topologyKey, node, sign);
  }
  return { joined, avoided, closed };
}

function* everyPod(snapshot: Snapshot): Generator<readonly [PodInfo, NodeInfo, 1]> {
  for (const node of snapshot.nodes) for (const pod of node.pods) yield [pod, node, 1];
}

const affinityRefusal = objection("node(s) didn't match pod affinity rules", true);
const antiAffinityRefusal = objection("node(s) didn't match pod anti-affinity rules", false);
const existingRefusal = objection(
  "node(s) didn't satisfy existing pods anti-affinity rules",
  false,
);

function satisfiesAffinity(
  pod: PodInfo,
  { joined }: State,
  node: NodeInfo,
  namespaceLabels: Snapshot["namespaceLabels"],
): boolean {
  const terms = pod.affinity.required;
  if (terms.some((term) => domainOf(node, term.topologyKey) === undefined)) return false;
  if (terms.every((term) => countIn(joined, term.topologyKey, node) > 0)) return true;
  // The first pod of a group that wants to be with itself has nobody to join yet.
  const alone = [...joined.values()].every((values) =>
    [...values.values()].every((value) => value <= 0),
  );
  return alone && matchesAll(terms, pod, namespaceLabels);
}

/** Whether the two pods have anything to say about one another. */
function areRelated(pod: PodInfo, other: PodInfo, snapshot: Snapshot): boolean {
  const { namespaceLabels } = snapshot;
  return (
    matchesAll(pod.affinity.required, other, namespaceLabels) ||
    pod.antiAffinity.required.some((term) => termSelects(term, other, namespaceLabels)) ||
    other.antiAffinity.required.some((term) => termSelects(term, pod, namespaceLabels))
  );
}

function filter(pod: PodInfo, snapshot: Snapshot, state: State): NodeFilter {
  const self: NodeFilter = {
    check: (node) => {
      if (!satisfiesAffinity(pod, state, node, snapshot.namespaceLabels)) return affinityRefusal;
      const repelled = pod.antiAffinity.required.some(
        (term) => countIn(state.avoided, term.topologyKey, node) > 0,
      );
      if (repelled) return antiAffinityRefusal;
      for (const topologyKey of state.closed.keys())
        if (countIn(state.closed, topologyKey, node) > 0) return existingRefusal;
      return undefined;
    },
    after: (other, node, sign) =>
      areRelated(pod, other, snapshot)
        ? filter(pod, snapshot, count(pod, snapshot, state, [[other, node, sign]]))
        : self,
  };
  return self;
}

/** Required pod affinity and anti-affinity, of the new pod and of those already there. */
export const interPodAffinity: FilterPlugin = {
  name: "InterPodAffinity",
  helpedBy: ["node-labels", "pod-assigned", "pod-left", "pod-labels", "namespace-labels"],
  prepare: (pod, snapshot) => {
    const none: State = { joined: new Map(), avoided: new Map(), closed: new Map() };
    return filter(pod, snapshot, count(pod, snapshot, none, everyPod(snapshot)));
  },
};

/** What a required affinity of a pod that is there counts for as a preference for its company. */
const hardAffinityWeight = 1;

/** Adds what `other`, on `node`, makes of the preferences of both. */
function addPreferences(
  counts: Map<string, Map<string, number>>,
  snapshot: Snapshot,
  pod: PodInfo,
  [other, node]: readonly [PodInfo, NodeInfo, 1],
): void {
  const apply = (terms: readonly AffinityTerm[], about: PodInfo, factor: number): void => {
    for (const term of terms)
      if (termSelects(term, about, snapshot.namespaceLabels))
        add(counts, term.topologyKey, node, (term.weight || hardAffinityWeight) * factor);
  };
  apply(pod.affinity.preferred, other, 1);
  apply(pod.antiAffinity.preferred, other, -1);
  apply(other.affinity.required, pod, 1);
  apply(other.affinity.preferred, pod, 1);
  apply(other.antiAffinity.preferred, pod, -1);
}

/** The preferred part of pod affinity, of the new pod and of those already there. */
export const affinityPreference: ScorePlugin = {
  name: "InterPodAffinity",
  score: (pod, snapshot, candidates) => {
    const counts = new Map<string, Map<string, number>>();
    for (const each of everyPod(snapshot)) addPreferences(counts, snapshot, pod, each);
    if (counts.size === 0) return undefined;
    const raw = candidates.map((node) =>
      [...counts.keys()].reduce((sum, key) => sum + countIn(counts, key, node), 0),
    );
    const lowest = Math.min(...raw);
    const range = Math.max(...raw) - lowest;
    return raw.map((value) =>
      range === 0 ? 0 : Math.trunc(maxScore * ((value - lowest) / range)),
    );
  },
};

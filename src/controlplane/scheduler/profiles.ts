import { controllerOf } from "../../api/object.ts";
import { isTerminating } from "../controllers/shared/pod-state.ts";
import type { ClusterEvent } from "./cluster-events.ts";
import { affinityPreference, interPodAffinity } from "./plugins/inter-pod-affinity.ts";
import {
  dynamicResources,
  nodeAffinity,
  nodeName,
  nodePorts,
  nodeResourcesFit,
  nodeUnschedulable,
  taintToleration,
} from "./plugins/node-fit.ts";
import type { FilterPlugin, ScorePlugin } from "./plugins/plugin.ts";
import { domainOf } from "./plugins/plugin.ts";
import {
  balancedAllocation,
  imageLocality,
  leastAllocated,
  nodePreference,
  taintPreference,
} from "./plugins/scores.ts";
import {
  countCopies,
  spreadPreference,
  statedSpreadPreference,
  topologySpread,
} from "./plugins/topology-spread.ts";
import { volumeBinding, volumeZone } from "./plugins/volume-binding.ts";
import { nodeVolumeLimits, volumeRestrictions } from "./plugins/volume-limits.ts";
import type { PodInfo } from "./pod-info.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";

/** What a choice between equally good nodes may depend on. */
export interface Turn {
  /** In [0, 1). */
  readonly random: () => number;
  /** The node this profile chose last. */
  readonly previous: string | undefined;
}

/** Chooses one of the nodes with the highest score; there is at least one. */
export type Choice = (
  best: readonly NodeInfo[],
  pod: PodInfo,
  snapshot: Snapshot,
  turn: Turn,
) => NodeInfo | undefined;

/** A way to place pods, chosen by `spec.schedulerName`. */
export interface Profile {
  /** The value of `spec.schedulerName`, and who reports the events. */
  readonly name: string;
  /** The first one that objects to a node names the reason. */
  readonly filters: readonly FilterPlugin[];
  readonly scores: readonly { readonly plugin: ScorePlugin; readonly weight: number }[];
  readonly choose: Choice;
}

const filters: readonly FilterPlugin[] = [
  nodeUnschedulable,
  nodeName,
  taintToleration,
  nodeAffinity,
  nodePorts,
  nodeResourcesFit,
  volumeRestrictions,
  nodeVolumeLimits,
  volumeBinding,
  volumeZone,
  topologySpread,
  interPodAffinity,
  dynamicResources,
];

const anyOf: Choice = (best, _pod, _snapshot, { random }) =>
  best[Math.min(Math.floor(random() * best.length), best.length - 1)];

/** The rules and weights of kube-scheduler. */
export const defaultProfile: Profile = {
  name: "default-scheduler",
  filters,
  scores: [
    { plugin: taintPreference, weight: 3 },
    { plugin: nodePreference, weight: 2 },
    { plugin: leastAllocated, weight: 1 },
    { plugin: spreadPreference, weight: 2 },
    { plugin: affinityPreference, weight: 2 },
    { plugin: balancedAllocation, weight: 1 },
    { plugin: imageLocality, weight: 1 },
  ],
  choose: anyOf,
};

/** What pods and nodes say in so many words comes before any policy. */
const stated: Profile["scores"] = [
  { plugin: taintPreference, weight: 3 },
  { plugin: nodePreference, weight: 2 },
  { plugin: statedSpreadPreference, weight: 2 },
  { plugin: affinityPreference, weight: 2 },
];

/** Copies of the pod's workload on a node; pods of no workload have none. */
function copiesOn(pod: PodInfo, snapshot: Snapshot): (node: NodeInfo) => number {
  const selector = snapshot.workloadSelector(pod.pod);
  if (selector !== undefined && !selector.empty)
    return (node) => countCopies(selector, pod.namespace, node);
  const owner = controllerOf(pod.pod.metadata)?.uid;
  if (owner === undefined) return () => 0;
  return ({ pods }) =>
    pods.filter(
      (each) => controllerOf(each.pod.metadata)?.uid === owner && !isTerminating(each.pod),
    ).length;
}

/** Those of `items` with the lowest number. */
function lowest<T>(items: readonly T[], number: (item: T) => number): readonly T[] {
  const numbers = items.map((each) => number(each));
  const least = Math.min(...numbers);
  return items.filter((_, index) => numbers[index] === least);
}

const fewestCopies: Choice = (best, pod, snapshot, turn) => {
  const copies = copiesOn(pod, snapshot);
  const perZone = new Map<string, number>();
  const zoneOf = (node: NodeInfo): string => domainOf(node, "topology.kubernetes.io/zone") ?? "";
  for (const node of snapshot.nodes)
    perZone.set(zoneOf(node), (perZone.get(zoneOf(node)) ?? 0) + copies(node));
  const zones = lowest(best, (node) => perZone.get(zoneOf(node)) ?? 0);
  const nodes = lowest(zones, copies);
  return anyOf(
    lowest(nodes, ({ pods }) => pods.length),
    pod,
    snapshot,
    turn,
  );
};

const next: Choice = (best, _pod, _snapshot, { previous }) => {
  const ordered = best.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return ordered.find(({ name }) => previous === undefined || name > previous) ?? ordered[0];
};

/** As even as possible: the zone with the fewest copies of the pod's workload, then such a node, then the fewest pods. */
export const spreadProfile: Profile = {
  name: "spread",
  filters,
  scores: stated,
  choose: fewestCopies,
};

/** Every node that fits is as likely as any other. */
export const randomProfile: Profile = { name: "random", filters, scores: stated, choose: anyOf };

/** One node after the other in the order of their names, skipping those that do not fit. */
export const roundRobinProfile: Profile = {
  name: "round-robin",
  filters,
  scores: stated,
  choose: next,
};

export const profiles: readonly Profile[] = [
  defaultProfile,
  spreadProfile,
  randomProfile,
  roundRobinProfile,
];

/** What may help a pod that these rules of the profile, by name, refused. */
export function eventsThatHelp(
  profile: Profile,
  pod: PodInfo,
  plugins: ReadonlySet<string>,
): ReadonlySet<ClusterEvent> {
  const refusing = profile.filters.filter(({ name }) => plugins.has(name));
  // A rule that nothing helps waits for the flush, or for a node that is new.
  return new Set([
    "node-added" as const,
    ...refusing.flatMap((plugin) => [...plugin.helpedBy, ...(plugin.helpedByFor?.(pod) ?? [])]),
  ]);
}

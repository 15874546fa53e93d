import type { Affinity, PodAffinityTerm } from "../../../src/api/types.gen.ts";
import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import { ClusterCache } from "../../../src/controlplane/scheduler/cluster-cache.ts";
import { labelMatcher } from "../../../src/controlplane/scheduler/label-matcher.ts";
import { fitMessage, placePod } from "../../../src/controlplane/scheduler/place-pod.ts";
import { podInfo } from "../../../src/controlplane/scheduler/pod-info.ts";
import type { PodInfo } from "../../../src/controlplane/scheduler/pod-info.ts";
import type { Preemption } from "../../../src/controlplane/scheduler/preemption.ts";
import type { DisruptionBudget } from "../../../src/controlplane/scheduler/preemption.ts";
import { findPreemption } from "../../../src/controlplane/scheduler/preemption.ts";
import type { Profile } from "../../../src/controlplane/scheduler/profiles.ts";
import { defaultProfile } from "../../../src/controlplane/scheduler/profiles.ts";
import type { Snapshot } from "../../../src/controlplane/scheduler/snapshot.ts";
import { noStorage } from "../../../src/controlplane/scheduler/volumes/storage-view.ts";
import type { StorageView } from "../../../src/controlplane/scheduler/volumes/storage-view.ts";
import type { NodeParts, PodParts } from "../controlplane-controllers/builders.ts";
import { node, now, pod } from "../controlplane-controllers/builders.ts";

export interface World {
  readonly nodes: readonly NodeParts[];
  readonly pods?: readonly StoredPod[];
  readonly namespaces?: Readonly<Record<string, Record<string, string>>>;
  /** Labels that make copies of one another. */
  readonly workload?: Record<string, string>;
  /** Pods that hope for a node, by its name. */
  readonly nominated?: Readonly<Record<string, readonly StoredPod[]>>;
  /** Of the pod in question. */
  readonly nominatedNode?: string;
  readonly budgets?: readonly DisruptionBudget[];
  readonly storage?: StorageView;
}

export function snapshot(world: World): Snapshot {
  const cache = new ClusterCache();
  for (const each of world.nodes) cache.setNode(node(each));
  for (const each of world.pods ?? []) cache.setPod(each);
  const nominated = Object.entries(world.nominated ?? {}).map(
    ([name, pods]) => [name, pods.map((each) => podInfo(each))] as const,
  );
  return {
    nodes: cache.nodes(),
    nominated: new Map(nominated),
    namespaceLabels: (name) => world.namespaces?.[name] ?? { "kubernetes.io/metadata.name": name },
    workloadSelector: () =>
      world.workload === undefined ? undefined : labelMatcher({ matchLabels: world.workload }),
    nodesWithImage: (name) => cache.nodesWithImage(name),
    storage: world.storage ?? noStorage,
  };
}

/** The chosen node, or the reasons as they are shown. */
export function place(
  what: StoredPod,
  world: World,
  profile: Profile = defaultProfile,
  random = 0,
  previous?: string,
): string {
  const turn = { random: () => random, previous };
  const result = placePod(podInfo(what), snapshot(world), profile, turn, world.nominatedNode);
  if (result.kind === "node") return result.node;
  return result.kind === "no-nodes" ? "no nodes" : fitMessage(result.failure);
}

/** Places a pod that must not fit, and looks for victims. */
export function preempt(what: StoredPod, world: World): Preemption {
  const info = podInfo(what);
  const seen = snapshot(world);
  const turn = { random: () => 0, previous: undefined };
  const result = placePod(info, seen, defaultProfile, turn);
  if (result.kind !== "unschedulable") throw new Error(`the pod fits: ${JSON.stringify(result)}`);
  return findPreemption({
    pod: info,
    snapshot: seen,
    failure: result.failure,
    nominated: world.nominatedNode,
    budgets: world.budgets ?? [],
    random: () => 0,
    now,
  });
}

/** `node: victim, victim`, or the message. */
export function preemption(what: StoredPod, world: World): string {
  const found = preempt(what, world);
  if (found.kind === "none") return found.message;
  return `${found.node}: ${found.victims.map(nameOf).join(", ")}`;
}

export function nameOf({ pod: { metadata } }: PodInfo): string {
  return metadata.name;
}

/** A pod that asks for resources. */
export function asking(requests: Record<string, string>, parts: PodParts = {}): StoredPod {
  return pod({
    ...parts,
    spec: { ...parts.spec, containers: [{ name: "c", image: "i", resources: { requests } }] },
  });
}

/** One term of pod affinity over zones. */
export function term(app: string, more: Partial<PodAffinityTerm> = {}): PodAffinityTerm {
  return { topologyKey: "zone", labelSelector: { matchLabels: { app } }, ...more };
}

export function together(...terms: PodAffinityTerm[]): Affinity {
  return { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: terms } };
}

export function apart(...terms: PodAffinityTerm[]): Affinity {
  return { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: terms } };
}

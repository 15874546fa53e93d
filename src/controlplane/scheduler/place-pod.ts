import type { StoredPod } from "../controllers/shared/pod-state.ts";
import { interPodAffinity, podTopologySpread } from "./plugins/inter-pod.ts";
import {
  dynamicResources,
  nodeAffinity,
  nodePorts,
  nodeResourcesFit,
  nodeUnschedulable,
  taintToleration,
  volumeBinding,
} from "./plugins/node-fit.ts";
import type { FilterPlugin, ScorePlugin } from "./plugins/plugin.ts";
import {
  affinityPreference,
  balancedAllocation,
  leastAllocated,
  ownerSpread,
  taintPreference,
} from "./plugins/scores.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";

export interface Profile {
  /** The first one that objects to a node names the reason. */
  readonly filters: readonly FilterPlugin[];
  readonly scores: readonly ScorePlugin[];
}

/** The rules of `default-scheduler`. */
export const defaultProfile: Profile = {
  filters: [
    nodeUnschedulable,
    taintToleration,
    nodeAffinity,
    nodePorts,
    nodeResourcesFit,
    volumeBinding,
    dynamicResources,
    podTopologySpread,
    interPodAffinity,
  ],
  scores: [taintPreference, affinityPreference, ownerSpread, leastAllocated, balancedAllocation],
};

export type Placement =
  | { readonly kind: "node"; readonly node: string }
  | { readonly kind: "unschedulable"; readonly message: string };

/**
 * Chooses a node for the pod.
 *
 * @param random In [0, 1): breaks ties between equally good nodes.
 */
export function placePod(
  pod: StoredPod,
  snapshot: Snapshot,
  profile: Profile,
  random: () => number,
): Placement {
  const total = snapshot.nodes.length;
  if (total === 0) return { kind: "unschedulable", message: "no nodes available to schedule pods" };
  const summary = `0/${total} nodes are available:`;
  for (const plugin of profile.filters) {
    const reason = plugin.rejects?.(pod, snapshot);
    if (reason !== undefined) return { kind: "unschedulable", message: `${summary} ${reason}.` };
  }
  const checks = profile.filters.map((plugin) => plugin.prepare(pod, snapshot));
  const fitting: NodeInfo[] = [];
  const histogram = new Map<string, number>();
  for (const node of snapshot.nodes) {
    const reasons = firstObjection(checks, node);
    if (reasons.length === 0) fitting.push(node);
    for (const reason of reasons) histogram.set(reason, (histogram.get(reason) ?? 0) + 1);
  }
  if (fitting.length === 0) {
    const reasons = [...histogram].map(([reason, count]) => `${count} ${reason}`).toSorted();
    return { kind: "unschedulable", message: `${summary} ${reasons.join(", ")}.` };
  }
  return { kind: "node", node: best(pod, snapshot, { profile, fitting, random }) };
}

function firstObjection(
  checks: readonly ((node: NodeInfo) => readonly string[])[],
  node: NodeInfo,
): readonly string[] {
  for (const check of checks) {
    const reasons = check(node);
    if (reasons.length > 0) return reasons;
  }
  return [];
}

function best(
  pod: StoredPod,
  snapshot: Snapshot,
  choice: {
    readonly profile: Profile;
    readonly fitting: readonly NodeInfo[];
    readonly random: () => number;
  },
): string {
  const { profile, fitting, random } = choice;
  const scorers = profile.scores.map((plugin) => {
    const score = plugin.prepare(pod, snapshot, fitting);
    return (node: NodeInfo) => plugin.weight * score(node);
  });
  let highest = -Infinity;
  let winners: NodeInfo[] = [];
  for (const node of fitting) {
    const score = Math.round(scorers.reduce((sum, scorer) => sum + scorer(node), 0));
    if (score > highest) [highest, winners] = [score, [node]];
    else if (score === highest) winners.push(node);
  }
  const index = Math.min(Math.floor(random() * winners.length), winners.length - 1);
  return winners[index]?.node.metadata.name ?? "";
}

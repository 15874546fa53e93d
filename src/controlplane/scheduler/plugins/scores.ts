import { controllerOf } from "../../../api/object.ts";
import { podRequests } from "../../../api/pod-requests.ts";
import { matchesNodeTerm } from "../../../api/selectors.ts";
import { tolerates } from "../../../api/tolerations.ts";
import type { StoredPod } from "../../controllers/shared/pod-state.ts";
import { isTerminating } from "../../controllers/shared/pod-state.ts";
import type { NodeInfo } from "../snapshot.ts";
import type { ScorePlugin } from "./plugin.ts";
import { normalised } from "./plugin.ts";

/** What a container that asks for nothing is counted with, so that such pods spread too. */
const assumedCpuMillicores = 100;
const assumedMemoryBytes = 200 * 1024 * 1024;

function scoringRequest(pod: StoredPod, name: "cpu" | "memory"): number {
  const requested = podRequests(pod).get(name) ?? 0;
  if (requested > 0) return requested;
  const containers = pod.spec?.containers.length ?? 1;
  return containers * (name === "cpu" ? assumedCpuMillicores : assumedMemoryBytes);
}

/** Share of cpu and memory in use once the pod is there, 0 to 1 each. */
function shares(pod: StoredPod): (node: NodeInfo) => readonly number[] {
  const own = { cpu: scoringRequest(pod, "cpu"), memory: scoringRequest(pod, "memory") };
  return (info) =>
    (["cpu", "memory"] as const).flatMap((name) => {
      const allocatable = info.allocatable.get(name) ?? 0;
      if (allocatable === 0) return [];
      const used = info.pods.reduce((sum, each) => sum + scoringRequest(each, name), own[name]);
      return [Math.min(used / allocatable, 1)];
    });
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, each) => sum + each, 0) / values.length;
}

/** Prefers nodes with more room (NodeResourcesFit, LeastAllocated). */
export const leastAllocated: ScorePlugin = {
  name: "NodeResourcesFit",
  weight: 1,
  prepare: (pod) => {
    const share = shares(pod);
    return (node) => 100 * (1 - mean(share(node)));
  },
};

/** Prefers nodes where cpu and memory fill evenly. */
export const balancedAllocation: ScorePlugin = {
  name: "NodeResourcesBalancedAllocation",
  weight: 1,
  prepare: (pod) => {
    const share = shares(pod);
    return (node) => {
      const [cpu, memory] = share(node);
      if (cpu === undefined || memory === undefined) return 100;
      return 100 * (1 - Math.abs(cpu - memory) / 2);
    };
  },
};

/** Avoids PreferNoSchedule taints. */
export const taintPreference: ScorePlugin = {
  name: "TaintToleration",
  weight: 3,
  prepare: (pod, _snapshot, candidates) => {
    const tolerations = pod.spec?.tolerations ?? [];
    const bad = normalised(
      candidates,
      ({ node }) =>
        (node.spec?.taints ?? []).filter(
          (taint) =>
            taint.effect === "PreferNoSchedule" &&
            !tolerations.some((each) => tolerates(each, taint)),
        ).length,
    );
    return (node) => 100 - bad(node);
  },
};

/** The preferred part of node affinity. */
export const affinityPreference: ScorePlugin = {
  name: "NodeAffinity",
  weight: 2,
  prepare: (pod, _snapshot, candidates) => {
    const preferred =
      pod.spec?.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
    return normalised(candidates, ({ node }) =>
      preferred
        .filter(({ preference }) => matchesNodeTerm(preference, node.metadata))
        .reduce((sum, { weight }) => sum + weight, 0),
    );
  },
};

/** Spreads the pods of one owner over nodes and zones. */
export const ownerSpread: ScorePlugin = {
  name: "PodTopologySpread",
  weight: 2,
  prepare: (pod, snapshot, candidates) => {
    const owner = controllerOf(pod.metadata)?.uid;
    if (owner === undefined) return () => 0;
    const sibling = (other: StoredPod): boolean =>
      controllerOf(other.metadata)?.uid === owner && !isTerminating(other);
    const zoneOf = ({ node }: NodeInfo): string | undefined =>
      node.metadata.labels?.["topology.kubernetes.io/zone"];
    const perNode = new Map(
      snapshot.nodes.map((info) => [info, info.pods.filter((each) => sibling(each)).length]),
    );
    const perZone = new Map<string | undefined, number>();
    for (const [info, count] of perNode)
      perZone.set(zoneOf(info), (perZone.get(zoneOf(info)) ?? 0) + count);
    const crowd = normalised(
      candidates,
      (info) =>
        (perNode.get(info) ?? 0) +
        (zoneOf(info) === undefined ? 0 : (perZone.get(zoneOf(info)) ?? 0) / 2),
    );
    return (node) => 100 - crowd(node);
  },
};

import { matchesNodeTerm } from "../../../api/selectors.ts";
import { tolerates } from "../../../api/tolerations.ts";
import type { NodeInfo } from "../snapshot.ts";
import type { ScorePlugin } from "./plugin.ts";
import { maxScore, normalised } from "./plugin.ts";

const resources = ["cpu", "memory"] as const;

/** Prefers nodes with more room (NodeResourcesFit, LeastAllocated). */
export const leastAllocated: ScorePlugin = {
  name: "NodeResourcesFit",
  score: (pod, _snapshot, candidates) =>
    candidates.map(({ allocatable, scoring }) => {
      const scores = resources.flatMap((name) => {
        const capacity = allocatable.get(name) ?? 0;
        if (capacity === 0) return [];
        const free = Math.max(capacity - scoring[name] - pod.scoring[name], 0);
        return [Math.trunc((free * maxScore) / capacity)];
      });
      if (scores.length === 0) return 0;
      return Math.trunc(scores.reduce((sum, each) => sum + each, 0) / scores.length);
    }),
};

/** 100 when cpu and memory are used to the same share, less the more they differ. */
function balance(info: NodeInfo, more: (name: "cpu" | "memory") => number): number {
  const [first, second] = resources.flatMap((name) => {
    const capacity = info.allocatable.get(name) ?? 0;
    if (capacity === 0) return [];
    return [Math.min(((info.requested.get(name) ?? 0) + more(name)) / capacity, 1)];
  });
  const deviation =
    first === undefined || second === undefined ? 0 : Math.abs((first - second) / 2);
  return Math.trunc((1 - deviation) * maxScore);
}

/** Prefers nodes whose cpu and memory the pod brings into balance: 75 when it changes nothing. */
export const balancedAllocation: ScorePlugin = {
  name: "NodeResourcesBalancedAllocation",
  score: ({ requests }, _snapshot, candidates) => {
    // All nodes would look alike to a pod that asks for nothing, and the scores would hide other preferences.
    if (resources.every((name) => (requests.get(name) ?? 0) === 0)) return undefined;
    return candidates.map((info) => {
      const gain = balance(info, (name) => requests.get(name) ?? 0) - balance(info, () => 0);
      return maxScore / 2 + Math.trunc((maxScore / 2 + gain) / 2);
    });
  },
};

/** Avoids PreferNoSchedule taints. */
export const taintPreference: ScorePlugin = {
  name: "TaintToleration",
  score: ({ pod }, _snapshot, candidates) => {
    const tolerations = pod.spec?.tolerations ?? [];
    const untolerated = candidates.map(
      ({ node }) =>
        (node.spec?.taints ?? []).filter(
          (taint) =>
            taint.effect === "PreferNoSchedule" &&
            !tolerations.some((each) => tolerates(each, taint)),
        ).length,
    );
    return normalised(untolerated, true);
  },
};

/** The preferred part of node affinity. */
export const nodePreference: ScorePlugin = {
  name: "NodeAffinity",
  score: ({ pod }, _snapshot, candidates) => {
    const preferred =
      pod.spec?.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
    if (preferred.length === 0) return undefined;
    const weights = candidates.map(({ node }) =>
      preferred
        .filter(({ preference }) => matchesNodeTerm(preference, node.metadata))
        .reduce((sum, { weight }) => sum + weight, 0),
    );
    return normalised(weights);
  },
};

const smallImageBytes = 23 * 1024 * 1024;
const bigImageBytes = 1000 * 1024 * 1024;

/** With a tag, as nodes report images. */
function imageName(name: string): string {
  return name.lastIndexOf(":") <= name.lastIndexOf("/") ? `${name}:latest` : name;
}

/** Prefers nodes that have big images of the pod already, more so the more nodes have them. */
export const imageLocality: ScorePlugin = {
  name: "ImageLocality",
  score: ({ pod }, snapshot, candidates) => {
    const containers = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
    const volumes = (pod.spec?.volumes ?? []).flatMap(({ image }) => image?.reference ?? []);
    const names = [...containers.map(({ image = "" }) => image), ...volumes].map(imageName);
    const most = bigImageBytes * containers.length;
    return candidates.map(({ images }) => {
      const bytes = names.reduce((sum, name) => {
        const size = images.get(name) ?? 0;
        if (size === 0) return sum;
        return sum + Math.trunc((size * snapshot.nodesWithImage(name)) / snapshot.nodes.length);
      }, 0);
      const bounded = Math.min(Math.max(bytes, smallImageBytes), most);
      return Math.trunc((maxScore * (bounded - smallImageBytes)) / (most - smallImageBytes));
    });
  },
};

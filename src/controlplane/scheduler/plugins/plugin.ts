import type { ClusterEvent } from "../cluster-events.ts";
import type { PodInfo } from "../pod-info.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";

/** Why a node does not take the pod. */
export interface Objection {
  readonly reasons: readonly string[];
  /** True when no pod could leave the node to change that (upstream's UnschedulableAndUnresolvable). */
  readonly final: boolean;
}

/** An objection with one reason. */
export function objection(reason: string, final: boolean): Objection {
  return { reasons: [reason], final };
}

/** A rule made ready for one pod. */
export interface NodeFilter {
  /** What speaks against the node, undefined when it passes. */
  check(node: NodeInfo): Objection | undefined;
  /** The same rule as if `pod` had come to `node` (1) or left it (-1). Absent where a rule looks at one node only. */
  after?(pod: PodInfo, node: NodeInfo, sign: 1 | -1): NodeFilter;
}

/** A scheduling rule. All of it is pure: what is worked out once per pod comes from `prepare`. */
export interface FilterPlugin {
  readonly name: string;
  /** What may happen in the cluster that makes the rule think again. */
  readonly helpedBy: readonly ClusterEvent[];
  /** What else does so for one pod. */
  helpedByFor?(pod: PodInfo): readonly ClusterEvent[];
  /** A reason why the pod fits nowhere, whatever the nodes are (upstream's PreFilter). */
  rejects?(pod: PodInfo, snapshot: Snapshot): string | undefined;
  /** The only nodes that can pass, by name; undefined = any. */
  restricts?(pod: PodInfo): ReadonlySet<string> | undefined;
  /** Returns the check of one node, undefined when the rule does not concern the pod. */
  prepare(pod: PodInfo, snapshot: Snapshot): NodeFilter | undefined;
}

/** A scheduling preference. */
export interface ScorePlugin {
  readonly name: string;
  /**
   * The scores, 0 to 100, of the nodes that passed all filters, in their order; undefined when the preference does not
   * concern the pod.
   */
  score(
    pod: PodInfo,
    snapshot: Snapshot,
    candidates: readonly NodeInfo[],
  ): readonly number[] | undefined;
}

export const maxScore = 100;

/** Scales raw numbers so that the highest becomes 100, or 0 when `reverse`; all zero means all equal. */
export function normalised(raw: readonly number[], reverse = false): readonly number[] {
  const highest = Math.max(0, ...raw);
  return raw.map((value) => {
    const score = highest === 0 ? 0 : Math.trunc((value * maxScore) / highest);
    return reverse ? maxScore - score : score;
  });
}

/** The value of a node's label. */
export function domainOf(info: NodeInfo, topologyKey: string): string | undefined {
  return info.node.metadata.labels?.[topologyKey];
}

import type { TopologySpreadConstraint } from "../../../api/types.gen.ts";
import { matchesNodeAffinity } from "../../../api/selectors.ts";
import { untoleratedTaint } from "../../../api/tolerations.ts";
import { isTerminating } from "../../controllers/shared/pod-state.ts";
import type { LabelMatcher } from "../label-matcher.ts";
import { labelMatcher, sameValues } from "../label-matcher.ts";
import type { PodInfo } from "../pod-info.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";
import type { FilterPlugin, NodeFilter, ScorePlugin } from "./plugin.ts";
import { domainOf, maxScore, objection } from "./plugin.ts";

const hostnameLabel = "kubernetes.io/hostname";
const zoneLabel = "topology.kubernetes.io/zone";

interface Constraint {
  readonly topologyKey: string;
  readonly maxSkew: number;
  readonly minDomains: number;
  readonly selector: LabelMatcher;
  readonly honorsAffinity: boolean;
  readonly honorsTaints: boolean;
}

function constraintsOf(
  { pod }: PodInfo,
  action: TopologySpreadConstraint["whenUnsatisfiable"],
): readonly Constraint[] {
  return (pod.spec?.topologySpreadConstraints ?? [])
    .filter(({ whenUnsatisfiable }) => whenUnsatisfiable === action)
    .map((each) => ({
      topologyKey: each.topologyKey,
      maxSkew: each.maxSkew,
      minDomains: each.minDomains ?? 1,
      selector: labelMatcher(
        each.labelSelector,
        sameValues(each.matchLabelKeys, pod.metadata.labels, "In"),
      ),
      honorsAffinity: each.nodeAffinityPolicy !== "Ignore",
      honorsTaints: each.nodeTaintsPolicy === "Honor",
    }));
}

/** Whether the pods of a node count for the constraint. */
function includes(constraint: Constraint, { pod }: PodInfo, { node }: NodeInfo): boolean {
  if (constraint.honorsAffinity && !matchesNodeAffinity(pod, node.metadata)) return false;
  if (!constraint.honorsTaints) return true;
  const { taints = [] } = node.spec ?? {};
  const tolerations = pod.spec?.tolerations ?? [];
  return untoleratedTaint(taints, tolerations, ["NoSchedule", "NoExecute"]) === undefined;
}

function hasAllKeys(constraints: readonly Constraint[], node: NodeInfo): boolean {
  return constraints.every(({ topologyKey }) => domainOf(node, topologyKey) !== undefined);
}

/** A pod that counts: of the same namespace, selected, not on its way out. */
function isCounted(selector: LabelMatcher, namespace: string, other: PodInfo): boolean {
  return (
    other.namespace === namespace &&
    !selector.empty &&
    !isTerminating(other.pod) &&
    selector.matches(other.pod.metadata.labels)
  );
}

/** How many of the node's pods a selector counts. An empty selector counts none. */
export function countCopies(
  selector: LabelMatcher,
  namespace: string,
  { pods }: Pick<NodeInfo, "pods">,
): number {
  let copies = 0;
  for (const each of pods) if (isCounted(selector, namespace, each)) copies += 1;
  return copies;
}

/** Pods by the value of each constraint's label, in the order of the constraints. */
type DomainCounts = readonly ReadonlyMap<string, number>[];

const skewRefusal = objection("node(s) didn't match pod topology spread constraints", false);
const labelRefusal = objection(
  "node(s) didn't match pod topology spread constraints (missing required label)",
  true,
);

function filter(
  pod: PodInfo,
  constraints: readonly Constraint[],
  counts: DomainCounts,
): NodeFilter {
  // With fewer domains than asked for, the missing ones count as empty.
  const least = constraints.map(({ minDomains }, index) => {
    const perDomain = counts[index] ?? new Map<string, number>();
    return perDomain.size < minDomains ? 0 : Math.min(...perDomain.values());
  });
  const self: NodeFilter = {
    check: (node) => {
      for (const [index, { topologyKey, maxSkew, selector }] of constraints.entries()) {
        const value = domainOf(node, topologyKey);
        if (value === undefined) return labelRefusal;
        const there = counts[index]?.get(value) ?? 0;
        const own = selector.matches(pod.pod.metadata.labels) ? 1 : 0;
        if (there + own - (least[index] ?? 0) > maxSkew) return skewRefusal;
      }
      return undefined;
    },
    after: (other, node, sign) => {
      const counting = constraints.map(
        (constraint) =>
          isCounted(constraint.selector, pod.namespace, other) && includes(constraint, pod, node),
      );
      if (!counting.includes(true) || !hasAllKeys(constraints, node)) return self;
      const next = constraints.map(({ topologyKey }, index) => {
        const perDomain = counts[index] ?? new Map<string, number>();
        if (counting[index] !== true) return perDomain;
        const value = domainOf(node, topologyKey) ?? "";
        return new Map(perDomain).set(value, (perDomain.get(value) ?? 0) + sign);
      });
      return filter(pod, constraints, next);
    },
  };
  return self;
}

/** topologySpreadConstraints with whenUnsatisfiable DoNotSchedule. */
export const topologySpread: FilterPlugin = {
  name: "PodTopologySpread",
  helpedBy: [
    "node-removed",
    "node-labels",
    "node-taints",
    "pod-assigned",
    "pod-left",
    "pod-labels",
    // Pods on their way out do not count.
    "pod-terminating",
  ],
  prepare: (pod, snapshot) => {
    const constraints = constraintsOf(pod, "DoNotSchedule");
    if (constraints.length === 0) return undefined;
    const counts = constraints.map(() => new Map<string, number>());
    for (const node of snapshot.nodes) {
      if (!hasAllKeys(constraints, node)) continue;
      for (const [index, constraint] of constraints.entries()) {
        if (!includes(constraint, pod, node)) continue;
        const value = domainOf(node, constraint.topologyKey) ?? "";
        const copies = countCopies(constraint.selector, pod.namespace, node);
        counts[index]?.set(value, (counts[index]?.get(value) ?? 0) + copies);
      }
    }
    return filter(pod, constraints, counts);
  },
};

/** What spreads the pods of a workload that says nothing itself. */
function defaultConstraints(selector: LabelMatcher): readonly Constraint[] {
  const common = { selector, minDomains: 1, honorsAffinity: true, honorsTaints: false };
  return [
    { ...common, topologyKey: hostnameLabel, maxSkew: 3 },
    { ...common, topologyKey: zoneLabel, maxSkew: 5 },
  ];
}

/** Copies by the value of a label that is no node's own; the nodes of the candidates only. */
function copiesPerDomain(
  constraint: Constraint,
  pod: PodInfo,
  snapshot: Snapshot,
  scored: readonly NodeInfo[],
  counted: (node: NodeInfo) => boolean,
): ReadonlyMap<string, number> {
  const copies = new Map(scored.map((node) => [domainOf(node, constraint.topologyKey) ?? "", 0]));
  for (const node of snapshot.nodes) {
    const value = domainOf(node, constraint.topologyKey) ?? "";
    const before = copies.get(value);
    if (before === undefined || !counted(node) || !includes(constraint, pod, node)) continue;
    copies.set(value, before + countCopies(constraint.selector, pod.namespace, node));
  }
  return copies;
}

function spreadScores(
  pod: PodInfo,
  snapshot: Snapshot,
  candidates: readonly NodeInfo[],
  rules: { readonly constraints: readonly Constraint[]; readonly needsAllKeys: boolean },
): readonly number[] | undefined {
  const { constraints, needsAllKeys } = rules;
  if (constraints.length === 0) return undefined;
  const counted = (node: NodeInfo): boolean => !needsAllKeys || hasAllKeys(constraints, node);
  const scored = candidates.filter((node) => counted(node));
  const costs = constraints.map((constraint) => {
    const { topologyKey, maxSkew, selector } = constraint;
    const perNode = topologyKey === hostnameLabel;
    const perDomain = perNode
      ? new Map<string, number>()
      : copiesPerDomain(constraint, pod, snapshot, scored, counted);
    // Many small domains must not drown a few big ones.
    const weight = Math.log((perNode ? scored.length : perDomain.size) + 2);
    return (node: NodeInfo): number => {
      const value = domainOf(node, topologyKey);
      if (value === undefined) return 0;
      const copies = perNode
        ? countCopies(selector, pod.namespace, node)
        : (perDomain.get(value) ?? 0);
      return copies * weight + (maxSkew - 1);
    };
  });
  const raw = candidates.map((node) =>
    counted(node) ? Math.round(costs.reduce((sum, cost) => sum + cost(node), 0)) : undefined,
  );
  const known = raw.filter((value) => value !== undefined);
  const highest = Math.max(0, ...known);
  const lowest = Math.min(...known);
  return raw.map((value) => {
    if (value === undefined) return 0;
    return highest === 0 ? maxScore : Math.trunc((maxScore * (highest + lowest - value)) / highest);
  });
}

/**
 * topologySpreadConstraints with whenUnsatisfiable ScheduleAnyway; for a pod without any constraints, over hostnames and
 * zones by what owns or selects it.
 */
export const spreadPreference: ScorePlugin = {
  name: "PodTopologySpread",
  score: (pod, snapshot, candidates) => {
    if ((pod.pod.spec?.topologySpreadConstraints ?? []).length > 0)
      return statedSpreadPreference.score(pod, snapshot, candidates);
    const selector = snapshot.workloadSelector(pod.pod);
    if (selector === undefined || selector.empty) return undefined;
    const constraints = defaultConstraints(selector);
    return spreadScores(pod, snapshot, candidates, { constraints, needsAllKeys: false });
  },
};

/** As {@link spreadPreference}, for what the pod itself says only. */
export const statedSpreadPreference: ScorePlugin = {
  name: "PodTopologySpread",
  score: (pod, snapshot, candidates) => {
    const constraints = constraintsOf(pod, "ScheduleAnyway");
    return spreadScores(pod, snapshot, candidates, { constraints, needsAllKeys: true });
  },
};

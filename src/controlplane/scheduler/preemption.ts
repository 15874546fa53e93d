import type { Stored } from "../../api/object.ts";
import type { PodDisruptionBudget } from "../../api/types.gen.ts";
import { podCondition, timeMs, isTerminating } from "../controllers/shared/pod-state.ts";
import type { LabelMatcher } from "./label-matcher.ts";
import { labelMatcher } from "./label-matcher.ts";
import type { FitFailure } from "./place-pod.ts";
import { checkNode, filtersAfter, fitMessage } from "./place-pod.ts";
import type { Objection } from "./plugins/plugin.ts";
import { objection } from "./plugins/plugin.ts";
import type { PodInfo } from "./pod-info.ts";
import type { NodeInfo, Snapshot } from "./snapshot.ts";
import { withoutPods, withPods } from "./snapshot.ts";

/** What a PodDisruptionBudget still allows. */
export interface DisruptionBudget {
  readonly namespace: string;
  readonly selector: LabelMatcher;
  readonly disruptionsAllowed: number;
  /** Names of pods whose disruption is granted already and in the number. */
  readonly disruptedPods: ReadonlySet<string>;
}

/** Budgets as preemption looks at them. One without a selector, or with an empty one, protects nothing from it. */
export function disruptionBudgets(
  budgets: Iterable<Stored<PodDisruptionBudget>>,
): readonly DisruptionBudget[] {
  return [...budgets].map(({ metadata, spec, status }) => ({
    namespace: metadata.namespace ?? "",
    selector: labelMatcher(spec?.selector),
    disruptionsAllowed: status?.disruptionsAllowed ?? 0,
    disruptedPods: new Set(Object.keys(status?.disruptedPods ?? {})),
  }));
}

export interface PreemptionContext {
  readonly pod: PodInfo;
  readonly snapshot: Snapshot;
  readonly failure: FitFailure;
  /** The node this pod was nominated to before. */
  readonly nominated: string | undefined;
  readonly budgets: readonly DisruptionBudget[];
  /** In [0, 1). */
  readonly random: () => number;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

export type Preemption =
  | { readonly kind: "node"; readonly node: string; readonly victims: readonly PodInfo[] }
  /** `message` ends the pod's FailedScheduling event; `renounce`: an earlier nomination is void. */
  | { readonly kind: "none"; readonly message: string; readonly renounce: boolean };

interface Candidate {
  readonly node: string;
  /** The most important first. */
  readonly victims: readonly PodInfo[];
  readonly violations: number;
}

/** How many nodes are tried before the best is taken: a tenth, but a hundred where there are so many. */
const minCandidates = 100;
const candidateShare = 0.1;

const noVictims = objection("No preemption victims found for incoming pod", true);
const notHelpful = objection("Preemption is not helpful for scheduling", true);

function startedAt({ pod }: PodInfo, now: number): number {
  return timeMs(pod.status?.startTime) ?? now;
}

/** Higher priority first, then the one that runs for longer. */
function byImportance(now: number): (a: PodInfo, b: PodInfo) => number {
  return (a, b) => b.priority - a.priority || startedAt(a, now) - startedAt(b, now);
}

/** On its way out because of a preemption. */
function isLeaving({ pod }: PodInfo): boolean {
  const condition = podCondition(pod, "DisruptionTarget");
  return (
    isTerminating(pod) &&
    condition?.status === "True" &&
    condition.reason === "PreemptionByScheduler"
  );
}

/** Why the pod may not preempt at all. */
function ineligible(context: PreemptionContext): string | undefined {
  const { pod, snapshot, failure, nominated } = context;
  if (pod.pod.spec?.preemptionPolicy === "Never")
    return "not eligible due to preemptionPolicy=Never.";
  const room = snapshot.nodes.find(({ name }) => name === nominated);
  if (room === undefined || (failure.objections.get(room.name) ?? failure.absent).final)
    return undefined;
  return room.pods.some((each) => each.priority < pod.priority && isLeaving(each))
    ? "not eligible due to a terminating pod on the nominated node."
    : undefined;
}

/** Parts `pods`, in their order, into those whose loss a budget forbids and the others. */
function splitByBudget(
  pods: readonly PodInfo[],
  budgets: readonly DisruptionBudget[],
): { readonly protected: readonly PodInfo[]; readonly free: readonly PodInfo[] } {
  const allowed = budgets.map(({ disruptionsAllowed }) => disruptionsAllowed);
  const parts = { protected: [] as PodInfo[], free: [] as PodInfo[] };
  for (const each of pods) {
    const { labels, name } = each.pod.metadata;
    let violates = false;
    for (const [index, budget] of budgets.entries()) {
      if (budget.namespace !== each.namespace || budget.selector.empty) continue;
      if (Object.keys(labels ?? {}).length === 0 || !budget.selector.matches(labels)) continue;
      if (budget.disruptedPods.has(name)) continue;
      allowed[index] = (allowed[index] ?? 0) - 1;
      violates ||= (allowed[index] ?? 0) < 0;
    }
    parts[violates ? "protected" : "free"].push(each);
  }
  return parts;
}

/** The pods that must leave `node`, as few and as unimportant as possible, or what speaks against it even then. */
function victimsOn(
  context: PreemptionContext,
  node: NodeInfo,
): Candidate | { readonly objection: Objection } {
  const { pod, snapshot, failure, budgets, now } = context;
  const lower = node.pods.filter(({ priority }) => priority < pod.priority);
  if (lower.length === 0) return { objection: noVictims };
  let current = withoutPods(node, new Set(lower));
  let filters = filtersAfter(failure.filters, lower, node, -1);
  const still = checkNode(pod, current, snapshot, filters);
  if (still !== undefined) return { objection: still };
  const ordered = lower.toSorted(byImportance(now));
  const parts = splitByBudget(ordered, budgets);
  const victims: PodInfo[] = [];
  let violations = 0;
  // Each is let back in if the new pod fits beside it: protected ones first, then the most important.
  for (const each of [...parts.protected, ...parts.free]) {
    const with1 = withPods(current, [each]);
    const after = filtersAfter(filters, [each], node, 1);
    if (checkNode(pod, with1, snapshot, after) === undefined) {
      current = with1;
      filters = after;
    } else {
      victims.push(each);
      if (parts.protected.includes(each)) violations += 1;
    }
  }
  return { node: node.name, victims: victims.toSorted(byImportance(now)), violations };
}

/**
 * The candidate that costs least: budgets violated, then the priority of the most important victim, then the sum of
 * priorities, which also prefers fewer, then whose most important victims started last.
 */
function cheapest(candidates: readonly Candidate[], now: number): Candidate | undefined {
  const costs: readonly ((candidate: Candidate) => number)[] = [
    ({ violations }) => violations,
    ({ victims }) => victims[0]?.priority ?? 0,
    // Shifted, so that every further pod costs more, also of a negative priority.
    ({ victims }) => victims.reduce((sum, { priority }) => sum + priority + 2 ** 31, 0),
    ({ victims }) => {
      const top = victims.filter(({ priority }) => priority === victims[0]?.priority);
      return -Math.min(...top.map((each) => startedAt(each, now)));
    },
  ];
  let left = candidates;
  for (const cost of costs) {
    const values = left.map((each) => cost(each));
    const least = Math.min(...values);
    left = left.filter((_, index) => values[index] === least);
  }
  return left[0];
}

/** Looks for a node where the pod would fit if less important pods left. */
export function findPreemption(context: PreemptionContext): Preemption {
  const { snapshot, failure, random, now } = context;
  const reason = ineligible(context);
  if (reason !== undefined)
    return { kind: "none", message: `preemption: ${reason}`, renounce: false };
  const promising = snapshot.nodes.filter(
    ({ name }) => !(failure.objections.get(name) ?? failure.absent).final,
  );
  const share = Math.trunc(promising.length * candidateShare);
  const wanted = Math.min(Math.max(share, minCandidates), promising.length);
  const offset = Math.floor(random() * promising.length);
  const candidates: Candidate[] = [];
  const objections = new Map<string, Objection>();
  for (let step = 0; step < promising.length; step += 1) {
    const node = promising[(offset + step) % promising.length];
    if (node === undefined) break;
    const found = victimsOn(context, node);
    if ("objection" in found) objections.set(node.name, found.objection);
    // Without victims the pod would have fitted: it waits for pods nominated there.
    else if (found.victims.length > 0) candidates.push(found);
    if (candidates.length >= wanted && candidates.some(({ violations }) => violations === 0)) break;
  }
  const best = cheapest(candidates, now);
  if (best !== undefined) return { kind: "node", node: best.node, victims: best.victims };
  const { total } = failure;
  const message = `preemption: ${fitMessage({ total, objections, absent: notHelpful })}`;
  return { kind: "none", message, renounce: true };
}

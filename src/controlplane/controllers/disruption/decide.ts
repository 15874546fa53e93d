import type { Condition, IntOrString, PodDisruptionBudgetStatus } from "../../../api/types.gen.ts";
import type { Stored } from "../../../api/object.ts";
import type { PodDisruptionBudget } from "../../../api/types.gen.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import {
  formatTime,
  isPodReady,
  isTerminating,
  podCondition,
  timeMs,
} from "../shared/pod-state.ts";

export type StoredBudget = Stored<PodDisruptionBudget>;

/** How long an eviction may take until the pod counts again, and a DisruptionTarget may stand without a deletion. */
export const disruptionMs = 2 * 60_000;

/** The owner of a pod and how many copies it wants, or why that cannot be said. */
export type OwnerScale =
  | { readonly kind: "scale"; readonly uid: string; readonly replicas: number }
  | { readonly kind: "unmanaged" }
  | { readonly kind: "unknown"; readonly message: string };

/** A number, or a percentage of `total`, rounded up. Validation has refused everything else. */
function scaled(value: IntOrString, total: number): number {
  if (typeof value === "number") return value;
  const percent = /^(\d+)%$/.exec(value)?.[1];
  return percent === undefined ? 0 : Math.ceil((Number(percent) * total) / 100);
}

export interface Expectation {
  readonly expectedPods: number;
  readonly desiredHealthy: number;
  /** Some of the pods have no owner that says how many there should be. */
  readonly unmanaged: boolean;
}

/**
 * How many pods there should be and how many of them healthy.
 *
 * @returns A text when an owner's number of copies is not known.
 */
export function expectation(
  budget: StoredBudget,
  pods: readonly StoredPod[],
  scaleOf: (pod: StoredPod) => OwnerScale,
): Expectation | string {
  const { minAvailable, maxUnavailable } = budget.spec ?? {};
  if (maxUnavailable === undefined && typeof minAvailable === "number")
    return { expectedPods: pods.length, desiredHealthy: minAvailable, unmanaged: false };
  if (maxUnavailable === undefined && minAvailable === undefined)
    return { expectedPods: 0, desiredHealthy: 0, unmanaged: false };
  const owners = new Map<string, number>();
  let unmanaged = false;
  for (const pod of pods) {
    const scale = scaleOf(pod);
    if (scale.kind === "unknown") return scale.message;
    if (scale.kind === "unmanaged") unmanaged = true;
    else owners.set(scale.uid, scale.replicas);
  }
  const expectedPods = [...owners.values()].reduce((sum, each) => sum + each, 0);
  const desiredHealthy =
    maxUnavailable === undefined
      ? scaled(minAvailable ?? 0, expectedPods)
      : Math.max(expectedPods - scaled(maxUnavailable, expectedPods), 0);
  return { expectedPods, desiredHealthy, unmanaged };
}

/** The evictions that are granted and not done yet, and in how many milliseconds the first of them is overdue. */
export function pendingDisruptions(
  budget: StoredBudget,
  pods: readonly StoredPod[],
  now: number,
): {
  readonly disruptedPods: Readonly<Record<string, string>>;
  readonly overdue: readonly StoredPod[];
  readonly recheckMs: number | undefined;
} {
  const disruptedPods: Record<string, string> = {};
  const overdue: StoredPod[] = [];
  let recheckMs: number | undefined;
  for (const pod of pods) {
    const { name } = pod.metadata;
    const since = budget.status?.disruptedPods?.[name];
    if (since === undefined || isTerminating(pod)) continue;
    const left = (timeMs(since) ?? now) + disruptionMs - now;
    if (left < 0) overdue.push(pod);
    else {
      disruptedPods[name] = since;
      recheckMs = Math.min(recheckMs ?? left, left);
    }
  }
  return { disruptedPods, overdue, recheckMs };
}

function withCondition(
  conditions: readonly Condition[],
  next: Omit<Condition, "lastTransitionTime">,
  now: number,
): Condition[] {
  const before = conditions.find(({ type }) => type === next.type);
  const lastTransitionTime =
    before?.status === next.status ? before.lastTransitionTime : formatTime(now);
  return [...conditions.filter(({ type }) => type !== next.type), { ...next, lastTransitionTime }];
}

/** The budget's status as it should be. */
export function budgetStatus(
  budget: StoredBudget,
  pods: readonly StoredPod[],
  { expectedPods, desiredHealthy }: Expectation,
  now: number,
): PodDisruptionBudgetStatus {
  const { disruptedPods } = pendingDisruptions(budget, pods, now);
  const currentHealthy = pods.filter(
    (pod) =>
      !isTerminating(pod) && disruptedPods[pod.metadata.name] === undefined && isPodReady(pod),
  ).length;
  // Nothing is allowed while nothing is expected: the first pods may just be coming.
  const disruptionsAllowed = expectedPods > 0 ? Math.max(currentHealthy - desiredHealthy, 0) : 0;
  const observedGeneration = budget.metadata.generation ?? 0;
  const allowed = disruptionsAllowed > 0;
  const condition = {
    type: "DisruptionAllowed",
    status: allowed ? ("True" as const) : ("False" as const),
    reason: allowed ? "SufficientPods" : "InsufficientPods",
    message: "",
    observedGeneration,
  };
  return {
    currentHealthy,
    desiredHealthy,
    expectedPods,
    disruptionsAllowed,
    observedGeneration,
    ...(Object.keys(disruptedPods).length === 0 ? {} : { disruptedPods }),
    conditions: withCondition(budget.status?.conditions ?? [], condition, now),
  };
}

/** The status when it cannot be worked out: no eviction is allowed. */
export function failedStatus(
  budget: StoredBudget,
  message: string,
  now: number,
): PodDisruptionBudgetStatus {
  const status = budget.status ?? {
    currentHealthy: 0,
    desiredHealthy: 0,
    expectedPods: 0,
    disruptionsAllowed: 0,
  };
  const { observedGeneration } = status;
  const condition = {
    type: "DisruptionAllowed",
    status: "False" as const,
    reason: "SyncFailed",
    message,
    ...(observedGeneration === undefined ? {} : { observedGeneration }),
  };
  return {
    ...status,
    disruptionsAllowed: 0,
    conditions: withCondition(status.conditions ?? [], condition, now),
  };
}

/**
 * In how many milliseconds a DisruptionTarget that nobody followed up is stale, 0 when it is; undefined when there is
 * none. What the node says of a pod it ends itself may stand for longer.
 */
export function staleDisruptionMs(pod: StoredPod, now: number): number | undefined {
  const condition = podCondition(pod, "DisruptionTarget");
  if (isTerminating(pod) || condition?.status !== "True") return undefined;
  if (condition.reason === "TerminationByKubelet") return undefined;
  if (pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed") return undefined;
  const since = timeMs(condition.lastTransitionTime) ?? now;
  return Math.max(since + disruptionMs - now, 0);
}

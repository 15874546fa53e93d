import { controllerOf } from "../../../api/object.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import {
  formatTime,
  isPodAvailable,
  isPodReady,
  isPodTerminal,
  isTerminating,
  readySinceMs,
} from "../shared/pod-state.ts";
import { matchesMap } from "../../../api/selectors.ts";
import { podsToRemove } from "./rank.ts";
import type { ReplicaCondition, ReplicaStatus, ReplicaWorkload } from "./workload.ts";

/** Pods created or deleted in one reconciliation at most; the rest follows at once in the next. */
export const burstReplicas = 500;

export type ScaleAction =
  | { readonly kind: "none" }
  | { readonly kind: "create"; readonly count: number }
  | { readonly kind: "delete"; readonly pods: readonly StoredPod[] };

/** What brings the number of active pods to `replicas`. */
export function planScale(
  workload: ReplicaWorkload,
  active: readonly StoredPod[],
  related: readonly StoredPod[],
  now: number,
): ScaleAction {
  if (workload.deleting) return { kind: "none" };
  const surplus = active.length - workload.replicas;
  if (surplus === 0) return { kind: "none" };
  if (surplus < 0) return { kind: "create", count: Math.min(-surplus, burstReplicas) };
  const count = Math.min(surplus, burstReplicas);
  return { kind: "delete", pods: podsToRemove(active, related, count, now) };
}

/**
 * Sizes of creation batches: 1, 2, 4, ... A template that can never work then costs one refused request per attempt,
 * not hundreds.
 */
export function slowStartBatches(count: number): readonly number[] {
  const batches: number[] = [];
  for (let left = count, size = 1; left > 0; size *= 2) {
    const batch = Math.min(size, left);
    batches.push(batch);
    left -= batch;
  }
  return batches;
}

/** How the last scaling failed, if it did. */
export interface ScaleFailure {
  readonly reason: "FailedCreate" | "FailedDelete";
  readonly message: string;
}

/** Pods of the workload that are on their way out and may still run (KEP-3973). */
export function countTerminating(workload: ReplicaWorkload, pods: Iterable<StoredPod>): number {
  let count = 0;
  for (const pod of pods) {
    if (!isTerminating(pod) || isPodTerminal(pod)) continue;
    if (controllerOf(pod.metadata)?.uid !== workload.uid) continue;
    if (workload.selects(pod.metadata.labels)) count += 1;
  }
  return count;
}

/** Milliseconds until the next pod may count as available; undefined when none waits for that. */
export function nextAvailabilityMs(
  workload: ReplicaWorkload,
  active: readonly StoredPod[],
  now: number,
): number | undefined {
  if (workload.minReadySeconds === 0) return undefined;
  const waits = active.flatMap((pod) => {
    const since = readySinceMs(pod);
    return since === undefined ? [] : [since + workload.minReadySeconds * 1000 - now];
  });
  const pending = waits.filter((wait) => wait > 0);
  return pending.length === 0 ? undefined : Math.min(...pending);
}

/** The status that the pods amount to. */
export function computeReplicaStatus(
  workload: ReplicaWorkload,
  pods: { readonly active: readonly StoredPod[]; readonly terminating: number | undefined },
  failure: ScaleFailure | undefined,
  now: number,
): ReplicaStatus {
  const { active, terminating } = pods;
  const templateLabels = workload.template.metadata?.labels ?? {};
  return {
    replicas: active.length,
    fullyLabeledReplicas: active.filter((pod) => matchesMap(templateLabels, pod.metadata.labels))
      .length,
    readyReplicas: active.filter((pod) => isPodReady(pod)).length,
    availableReplicas: active.filter((pod) => isPodAvailable(pod, workload.minReadySeconds, now))
      .length,
    terminatingReplicas: terminating,
    observedGeneration: workload.generation,
    conditions: failureConditions(workload.status.conditions, failure, now),
  };
}

function failureConditions(
  existing: readonly ReplicaCondition[],
  failure: ScaleFailure | undefined,
  now: number,
): readonly ReplicaCondition[] {
  const others = existing.filter((condition) => condition.type !== "ReplicaFailure");
  if (failure === undefined) return others;
  // The first failure stays until scaling works again, so that its time says since when.
  if (others.length < existing.length) return existing;
  return [
    ...others,
    {
      type: "ReplicaFailure",
      status: "True",
      reason: failure.reason,
      message: failure.message,
      lastTransitionTime: formatTime(now),
    },
  ];
}

/** Whether writing `wanted` would change anything. */
export function sameReplicaStatus(current: ReplicaStatus, wanted: ReplicaStatus): boolean {
  return (
    current.replicas === wanted.replicas &&
    current.fullyLabeledReplicas === wanted.fullyLabeledReplicas &&
    current.readyReplicas === wanted.readyReplicas &&
    current.availableReplicas === wanted.availableReplicas &&
    current.terminatingReplicas === wanted.terminatingReplicas &&
    current.observedGeneration === wanted.observedGeneration &&
    JSON.stringify(current.conditions) === JSON.stringify(wanted.conditions)
  );
}

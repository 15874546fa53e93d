import type { ContainerStatus } from "../../../api/types.gen.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isTerminating, podCondition, timeMs } from "../shared/pod-state.ts";
import type { JobView } from "./view.ts";

/** Keeps a pod until its end has been counted. */
export const trackingFinalizer = "batch.kubernetes.io/job-tracking";

/** Annotations (and for the first a label) of a Job's pods. */
export const indexAnnotations = {
  completionIndex: "batch.kubernetes.io/job-completion-index",
  failureCount: "batch.kubernetes.io/job-index-failure-count",
  ignoredFailureCount: "batch.kubernetes.io/job-index-ignored-failure-count",
} as const;

export function isTracked(pod: StoredPod): boolean {
  return pod.metadata.finalizers?.includes(trackingFinalizer) === true;
}

/** The pod's completion index; undefined when it has none that can be read. */
export function completionIndex(pod: StoredPod): number | undefined {
  const text = pod.metadata.annotations?.[indexAnnotations.completionIndex];
  return text !== undefined && /^\+?\d+$/.test(text) ? Number(text) : undefined;
}

/** As {@link completionIndex}, and one that the Job has. */
export function validIndex(job: JobView, pod: StoredPod): number | undefined {
  const index = completionIndex(pod);
  return index !== undefined && index < (job.completions ?? 0) ? index : undefined;
}

/** Failed, or (where such pods are replaced at once) told to end before it succeeded. */
export function isPodFailed(job: JobView, pod: StoredPod): boolean {
  if (pod.status?.phase === "Failed") return true;
  if (job.onlyReplaceFailed) return false;
  return isTerminating(pod) && pod.status?.phase !== "Succeeded";
}

function annotationCount(pod: StoredPod, key: string): number {
  const text = pod.metadata.annotations?.[key] ?? "";
  const count = /^\+?\d+$/.test(text) ? Number(text) : 0;
  return count > 2_147_483_647 ? 0 : count;
}

/** Earlier failures of the pod's index that count towards `backoffLimitPerIndex`, and those that do not. */
export function indexFailures(pod: StoredPod): {
  readonly counted: number;
  readonly ignored: number;
} {
  return {
    counted: annotationCount(pod, indexAnnotations.failureCount),
    ignored: annotationCount(pod, indexAnnotations.ignoredFailureCount),
  };
}

/** The latest end, ms; undefined unless all of them have one. */
function latestEnd(statuses: readonly ContainerStatus[]): number | undefined {
  let latest: number | undefined;
  for (const { state } of statuses) {
    const end = timeMs(state?.terminated?.finishedAt);
    if (end === undefined) return undefined;
    latest = Math.max(latest ?? end, end);
  }
  return latest;
}

/** When the pod ended, ms: by its containers, else by what else is known of it. */
export function finishedMs(pod: StoredPod): number {
  const { metadata, spec, status } = pod;
  const sidecars = new Set(
    (spec?.initContainers ?? [])
      .filter(({ restartPolicy }) => restartPolicy === "Always")
      .map(({ name }) => name),
  );
  const byContainers = latestEnd([
    ...(status?.containerStatuses ?? []),
    // Sidecars end last.
    ...(status?.initContainerStatuses ?? []).filter(({ name }) => sidecars.has(name)),
  ]);
  if (byContainers !== undefined) return byContainers;
  const ready = podCondition(pod, "Ready");
  const unready = ready?.status === "False" ? timeMs(ready.lastTransitionTime) : undefined;
  if (unready !== undefined) return unready;
  const deleted = timeMs(metadata.deletionTimestamp);
  if (deleted !== undefined) return deleted - (metadata.deletionGracePeriodSeconds ?? 0) * 1000;
  return timeMs(metadata.creationTimestamp) ?? 0;
}

import type { StoredPod } from "../shared/pod-state.ts";
import {
  isPodActive,
  isPodReady,
  isPodTerminal,
  isTerminating,
  timeMs,
} from "../shared/pod-state.ts";
import type { BackoffRecord } from "./backoff.ts";
import { afterEnds } from "./backoff.ts";
import type { Intervals } from "./intervals.ts";
import { countIndexes, hasIndex, parseIntervals, withIndexes } from "./intervals.ts";
import {
  completionIndex,
  finishedMs,
  indexFailures,
  isPodFailed,
  isTracked,
  validIndex,
} from "./pods.ts";
import { judgeFailure, metSuccessRule } from "./policies.ts";
import type { JobProgress, JobView, Verdict } from "./view.ts";
import { standingVerdict } from "./view.ts";

/** What is known of a Job at one instant. */
export interface Observation {
  readonly job: JobView;
  /** All pods that are the Job's, in any state. */
  readonly pods: readonly StoredPod[];
  /** UIDs of pods whose finalizer is gone at the server, though not yet in the cache. */
  readonly released: ReadonlySet<string>;
  readonly backoff: BackoffRecord;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** Where a Job stands; counts include what is not in its status yet. */
export interface Assessment {
  readonly active: readonly StoredPod[];
  readonly ready: number;
  readonly terminating: number;
  readonly succeeded: number;
  readonly failed: number;
  /** Of Indexed Jobs. */
  readonly succeededIndexes: Intervals;
  /** Of Jobs with backoffLimitPerIndex. */
  readonly failedIndexes: Intervals | undefined;
  /** The last failed pod of each index that waits for a replacement, which inherits its failure count. */
  readonly awaitingReplacement: ReadonlyMap<number, StoredPod>;
  readonly backoff: BackoffRecord;
  /** How the Job ends; undefined while it runs. Completion by count is {@link isComplete}'s. */
  readonly verdict: Verdict | undefined;
  /** Milliseconds until activeDeadlineSeconds are over. */
  readonly deadlineMs: number | undefined;
}

/** Pods that are not counted yet: still tracked, in no list of the status, and of an index the Job has. */
function uncounted(
  { job, pods, released }: Observation,
  counted: readonly string[],
): readonly StoredPod[] {
  const known = new Set(counted);
  return pods.filter((pod) => {
    const { uid } = pod.metadata;
    if (!isTracked(pod) || known.has(uid) || released.has(uid)) return false;
    return !job.indexed || validIndex(job, pod) !== undefined;
  });
}

function indexFailed(job: JobView, pod: StoredPod): boolean {
  if (!isPodFailed(job, pod)) return false;
  const { action, counts } = judgeFailure(job.podFailurePolicy, pod);
  if (action === "FailIndex") return true;
  return counts && indexFailures(pod).counted >= (job.backoffLimitPerIndex ?? 0);
}

function indexesWhere(
  job: JobView,
  pods: readonly StoredPod[],
  holds: (pod: StoredPod) => boolean,
): readonly number[] {
  return pods.flatMap((pod) => {
    const index = validIndex(job, pod);
    return index !== undefined && isTracked(pod) && holds(pod) ? [index] : [];
  });
}

/** The indexes that `status.completedIndexes` names already. */
export function countedIndexes(job: JobView): Intervals {
  return parseIntervals(job.progress.completedIndexes, job.completions ?? 0);
}

/** The completion indexes of pods. */
export function indexesOf(pods: readonly StoredPod[]): readonly number[] {
  return pods.flatMap((pod) => completionIndex(pod) ?? []);
}

function awaitingReplacement(
  observation: Observation,
  taken: {
    readonly succeeded: Intervals;
    readonly failed: Intervals;
    readonly active: Set<number>;
  },
): ReadonlyMap<number, StoredPod> {
  const { job } = observation;
  const last = new Map<number, StoredPod>();
  const failures = (pod: StoredPod): number => {
    const { counted, ignored } = indexFailures(pod);
    return counted + ignored;
  };
  for (const pod of uncounted(observation, [])) {
    const index = validIndex(job, pod);
    if (index === undefined || !isPodFailed(job, pod)) continue;
    if (taken.active.has(index)) continue;
    if (hasIndex(taken.succeeded, index) || hasIndex(taken.failed, index)) continue;
    const other = last.get(index);
    const later =
      other === undefined ||
      (failures(other) <= failures(pod) && finishedMs(pod) >= finishedMs(other));
    if (later) last.set(index, pod);
  }
  return last;
}

/** With restartPolicy OnFailure it is the restarts of containers that count. */
function pastRestarts(job: JobView, pods: readonly StoredPod[]): boolean {
  if (job.template.spec?.restartPolicy !== "OnFailure") return false;
  let restarts = 0;
  for (const { status } of pods) {
    if (status?.phase !== "Running" && status?.phase !== "Pending") continue;
    const statuses = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])];
    for (const { restartCount } of statuses) restarts += restartCount;
  }
  return job.backoffLimit === 0 ? restarts > 0 : restarts >= job.backoffLimit;
}

function failure(reason: string, message: string): Verdict {
  return { type: "FailureTarget", reason, message };
}

function failureByPolicy(job: JobView, pods: readonly StoredPod[]): Verdict | undefined {
  if (job.podFailurePolicy === undefined) return undefined;
  for (const pod of pods) {
    if (!isPodFailed(job, pod)) continue;
    const { message } = judgeFailure(job.podFailurePolicy, pod);
    if (message !== undefined) return failure("PodFailurePolicy", message);
  }
  return undefined;
}

/** Milliseconds left of activeDeadlineSeconds; a suspended Job has none. */
function deadlineMs(job: JobView, startTime: string | undefined, now: number): number | undefined {
  const started = timeMs(startTime);
  if (job.activeDeadlineSeconds === undefined || job.suspended || started === undefined)
    return undefined;
  return started + job.activeDeadlineSeconds * 1000 - now;
}

function failureByIndexes(
  job: JobView,
  succeeded: Intervals,
  failed: Intervals,
): Verdict | undefined {
  const count = countIndexes(failed);
  if (job.maxFailedIndexes !== undefined && count > job.maxFailedIndexes) {
    return failure(
      "MaxFailedIndexesExceeded",
      "Job has exceeded the specified maximal number of failed indexes",
    );
  }
  return count > 0 && count + countIndexes(succeeded) >= (job.completions ?? 0)
    ? failure("FailedIndexes", "Job has failed indexes")
    : undefined;
}

function failureByLimits(
  job: JobView,
  facts: {
    readonly pods: readonly StoredPod[];
    readonly failed: number;
    readonly deadlineMs: number | undefined;
  },
): Verdict | undefined {
  if (facts.failed > job.backoffLimit || pastRestarts(job, facts.pods)) {
    return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
  }
  return facts.deadlineMs !== undefined && facts.deadlineMs <= 0
    ? failure("DeadlineExceeded", "Job was active longer than specified deadline")
    : undefined;
}

function successByPolicy(job: JobView, succeeded: Intervals): Verdict | undefined {
  const message = metSuccessRule(job.successPolicy, job.completions ?? 0, succeeded);
  return message === undefined
    ? undefined
    : { type: "SuccessCriteriaMet", reason: "SuccessPolicy", message };
}

/** Counts a Job's pods and finds out whether it has to end. */
export function assessJob(observation: Observation, progress: JobProgress): Assessment {
  const { job, pods, now } = observation;
  const active = pods.filter((pod) => isPodActive(pod));
  const newSucceeded = uncounted(observation, progress.uncounted.succeeded).filter(
    (pod) => pod.status?.phase === "Succeeded",
  );
  const newFailed = uncounted(observation, progress.uncounted.failed).filter((pod) =>
    isPodFailed(job, pod),
  );
  const counting = newFailed.filter((pod) => judgeFailure(job.podFailurePolicy, pod).counts);
  const failed = progress.failed + counting.length + progress.uncounted.failed.length;
  const leftMs = deadlineMs(job, progress.startTime, now);
  const succeededIndexes = job.indexed
    ? withIndexes(
        countedIndexes(job),
        indexesWhere(job, pods, (pod) => pod.status?.phase === "Succeeded"),
      )
    : [];
  const failedIndexes =
    job.indexed && job.backoffLimitPerIndex !== undefined
      ? withIndexes(
          parseIntervals(progress.failedIndexes, job.completions ?? 0),
          indexesWhere(job, pods, (pod) => indexFailed(job, pod)),
        )
      : undefined;
  const verdict =
    standingVerdict(progress) ??
    failureByPolicy(job, pods) ??
    failureByLimits(job, { pods, failed, deadlineMs: leftMs }) ??
    (failedIndexes === undefined
      ? undefined
      : failureByIndexes(job, succeededIndexes, failedIndexes)) ??
    (job.indexed ? successByPolicy(job, succeededIndexes) : undefined);
  return {
    active,
    ready: active.filter((pod) => isPodReady(pod)).length,
    terminating: pods.filter((pod) => isTerminating(pod) && !isPodTerminal(pod)).length,
    succeeded: job.indexed
      ? countIndexes(succeededIndexes)
      : progress.succeeded + newSucceeded.length + progress.uncounted.succeeded.length,
    failed,
    succeededIndexes,
    failedIndexes,
    awaitingReplacement:
      failedIndexes === undefined
        ? new Map()
        : awaitingReplacement(observation, {
            succeeded: succeededIndexes,
            failed: failedIndexes,
            active: new Set(indexesOf(active)),
          }),
    backoff: afterEnds(observation.backoff, newSucceeded, newFailed),
    verdict,
    deadlineMs: leftMs,
  };
}

/** As many successes as wanted, and nothing runs any more. */
export function isComplete(job: JobView, succeeded: number, active: number): boolean {
  return succeeded >= (job.completions ?? 1) && active === 0;
}

import type { StoredPod } from "../shared/pod-state.ts";
import { formatTime } from "../shared/pod-state.ts";
import type { Assessment } from "./assess.ts";
import { countedIndexes } from "./assess.ts";
import { countIndexes, formatIntervals, hasIndex, withIndexes } from "./intervals.ts";
import { completionIndex, isPodFailed, isTracked, validIndex } from "./pods.ts";
import { judgeFailure } from "./policies.ts";
import type { JobProgress, JobView, Verdict } from "./view.ts";
import { findCondition, withCondition } from "./view.ts";

/** Pods counted in one sync at most, so that the lists of UIDs stay small. */
const burst = 500;

export interface Tracking {
  /** To be written before any finalizer is removed: a pod is on record before it can vanish. */
  readonly progress: JobProgress;
  /** Pods whose finalizer may go. */
  readonly release: readonly StoredPod[];
  /** What the Job becomes once everything is counted: Complete or Failed. */
  readonly final: Verdict | undefined;
}

interface Facts {
  readonly job: JobView;
  readonly pods: readonly StoredPod[];
  readonly released: ReadonlySet<string>;
  readonly assessment: Pick<
    Assessment,
    "succeededIndexes" | "failedIndexes" | "awaitingReplacement"
  >;
  /** The verdict that can be carried out now. */
  readonly verdict: Verdict | undefined;
  readonly now: number;
}

function mayRelease({ job, assessment, verdict }: Facts, pod: StoredPod, failed: boolean): boolean {
  if (job.deleting || verdict !== undefined || pod.status?.phase === "Succeeded") return true;
  if (!failed) return false;
  const index = completionIndex(pod);
  // Its replacement takes over the failure count: it stays until there is one.
  return (
    index === undefined ||
    assessment.awaitingReplacement.get(index)?.metadata.uid !== pod.metadata.uid
  );
}

interface Counted {
  readonly succeeded: string[];
  readonly failed: string[];
  readonly indexes: number[];
}

function countSuccess({ job }: Facts, pod: StoredPod, counted: Counted): void {
  if (!job.indexed) {
    if (!counted.succeeded.includes(pod.metadata.uid)) counted.succeeded.push(pod.metadata.uid);
    return;
  }
  // The list of completed indexes is itself the record.
  const index = validIndex(job, pod);
  if (index !== undefined && !hasIndex(countedIndexes(job), index)) counted.indexes.push(index);
}

function countFailure({ job }: Facts, pod: StoredPod, counted: Counted): void {
  const { uid } = pod.metadata;
  if (counted.failed.includes(uid)) return;
  if (job.indexed && validIndex(job, pod) === undefined) return;
  if (judgeFailure(job.podFailurePolicy, pod).counts) counted.failed.push(uid);
}

/** Adds to the lists what has ended; returns the pods that need no finalizer any more. */
function countEnds(
  facts: Facts,
  counted: Counted,
): { readonly release: readonly StoredPod[]; readonly complete: boolean } {
  const { job, verdict } = facts;
  const release: StoredPod[] = [];
  const pods = job.indexed
    ? facts.pods.toSorted((a, b) => (completionIndex(a) ?? -1) - (completionIndex(b) ?? -1))
    : facts.pods;
  // Of a Job that fails, what still runs has failed.
  const restFails = verdict !== undefined && verdict.type !== "SuccessCriteriaMet";
  for (const pod of pods) {
    if (!isTracked(pod) || facts.released.has(pod.metadata.uid)) continue;
    const failed = isPodFailed(job, pod);
    if (!mayRelease(facts, pod, failed)) continue;
    release.push(pod);
    if (pod.status?.phase === "Succeeded" && !counted.failed.includes(pod.metadata.uid))
      countSuccess(facts, pod, counted);
    else if (failed || restFails) countFailure(facts, pod, counted);
    const total = counted.indexes.length + counted.succeeded.length + counted.failed.length;
    if (total >= burst) return { release, complete: false };
  }
  return { release, complete: true };
}

function withVerdict(
  progress: JobProgress,
  verdict: Verdict | undefined,
  now: number,
): JobProgress {
  if (verdict?.type !== "FailureTarget" && verdict?.type !== "SuccessCriteriaMet") return progress;
  const { type, reason, message } = verdict;
  if (findCondition(progress.conditions, type)?.status === "True") return progress;
  const wanted = { type, status: "True", reason, message };
  return { ...progress, conditions: withCondition(progress.conditions, wanted, now) };
}

/**
 * Decides what of the ended pods is written down next, and which of them may then go. `progress` is the status so far.
 */
export function trackEnds(facts: Facts, progress: JobProgress): Tracking {
  const { job, pods, released, assessment, verdict, now } = facts;
  const tracked = pods.filter((pod) => isTracked(pod) && !released.has(pod.metadata.uid));
  const settled = countReleased(progress, new Set(tracked.map(({ metadata }) => metadata.uid)));
  const counted: Counted = {
    succeeded: [...settled.uncounted.succeeded],
    failed: [...settled.uncounted.failed],
    indexes: [],
  };
  const { release, complete } = countEnds(facts, counted);
  const completed = withIndexes(countedIndexes(job), counted.indexes);
  const indexed: Partial<JobProgress> = job.indexed
    ? {
        succeeded: countIndexes(completed),
        completedIndexes: formatIntervals(completed),
        failedIndexes:
          assessment.failedIndexes === undefined
            ? undefined
            : formatIntervals(assessment.failedIndexes),
      }
    : {};
  return {
    progress: withVerdict(
      {
        ...settled,
        uncounted: { succeeded: counted.succeeded, failed: counted.failed },
        ...indexed,
      },
      verdict,
      now,
    ),
    release,
    final: complete ? finalVerdict(verdict) : undefined,
  };
}

function finalVerdict(verdict: Verdict | undefined): Verdict | undefined {
  if (verdict === undefined) return undefined;
  const failed = verdict.type === "FailureTarget" || verdict.type === "Failed";
  return { ...verdict, type: failed ? "Failed" : "Complete" };
}

/** Moves what no longer holds a finalizer from the lists to the counters. */
export function countReleased(progress: JobProgress, tracked: ReadonlySet<string>): JobProgress {
  const { succeeded, failed } = progress.uncounted;
  const left = {
    succeeded: succeeded.filter((uid) => tracked.has(uid)),
    failed: failed.filter((uid) => tracked.has(uid)),
  };
  return {
    ...progress,
    succeeded: progress.succeeded + succeeded.length - left.succeeded.length,
    failed: progress.failed + failed.length - left.failed.length,
    uncounted: left,
  };
}

/** The status of the ended Job; undefined while a pod is still to be counted or to end. */
export function concludeJob(
  progress: JobProgress,
  final: Verdict | undefined,
  now: number,
): JobProgress | undefined {
  if (final === undefined || (progress.terminating ?? 0) > 0) return undefined;
  if (progress.uncounted.succeeded.length + progress.uncounted.failed.length > 0) return undefined;
  const { type, reason, message } = final;
  const wanted = { type, status: "True", reason, message };
  return {
    ...progress,
    conditions: withCondition(progress.conditions, wanted, now),
    completionTime: type === "Complete" ? formatTime(now) : progress.completionTime,
  };
}

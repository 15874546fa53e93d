import type { Stored } from "../../../api/object.ts";
import { matchesSelector } from "../../../api/selectors.ts";
import type {
  Job,
  JobCondition,
  JobStatus,
  PodFailurePolicy,
  PodTemplateSpec,
  SuccessPolicy,
} from "../../../api/types.gen.ts";
import type { Claimant } from "../shared/ownership.ts";
import { formatTime } from "../shared/pod-state.ts";

/** The condition types of a Job that this controller writes. */
export type ConditionType =
  | "Suspended"
  | "FailureTarget"
  | "SuccessCriteriaMet"
  | "Complete"
  | "Failed";

/** Why a Job ends and what will then be said of it. */
export interface Verdict {
  readonly type: "FailureTarget" | "SuccessCriteriaMet" | "Failed" | "Complete";
  readonly reason: string;
  readonly message: string;
}

/** Terminated pods whose finalizer may still be there: in neither counter yet. */
export interface Uncounted {
  readonly succeeded: readonly string[];
  readonly failed: readonly string[];
}

/** A Job's status with every member present. */
export interface JobProgress {
  readonly active: number;
  readonly ready: number | undefined;
  readonly terminating: number | undefined;
  readonly succeeded: number;
  readonly failed: number;
  readonly startTime: string | undefined;
  readonly completionTime: string | undefined;
  readonly conditions: readonly JobCondition[];
  readonly completedIndexes: string;
  readonly failedIndexes: string | undefined;
  readonly uncounted: Uncounted;
}

/** A Job as its controller sees it, with the API's defaults. */
export interface JobView extends Claimant {
  readonly parallelism: number;
  /** Undefined: the first success ends the Job. */
  readonly completions: number | undefined;
  readonly indexed: boolean;
  readonly backoffLimit: number;
  readonly backoffLimitPerIndex: number | undefined;
  readonly maxFailedIndexes: number | undefined;
  readonly activeDeadlineSeconds: number | undefined;
  readonly suspended: boolean;
  readonly podFailurePolicy: PodFailurePolicy | undefined;
  readonly successPolicy: SuccessPolicy | undefined;
  /** A pod is replaced when it has Failed, not already when it is told to end. */
  readonly onlyReplaceFailed: boolean;
  readonly template: PodTemplateSpec;
  readonly progress: JobProgress;
}

/** `spec.managedBy` of Jobs that are this controller's. */
const ownName = "kubernetes.io/job-controller";

/** Another controller's Job: not to be touched. */
export function isManagedElsewhere(job: Stored<Job>): boolean {
  const { managedBy } = job.spec ?? {};
  return managedBy !== undefined && managedBy !== ownName;
}

export function findCondition(
  conditions: readonly JobCondition[] | undefined,
  type: ConditionType,
): JobCondition | undefined {
  return conditions?.find((condition) => condition.type === type);
}

function isTrue(conditions: readonly JobCondition[] | undefined, type: ConditionType): boolean {
  return findCondition(conditions, type)?.status === "True";
}

/** Complete or Failed: nothing about it will change any more. */
export function isJobFinished(job: Pick<Job, "status">): boolean {
  const { conditions } = job.status ?? {};
  return isTrue(conditions, "Complete") || isTrue(conditions, "Failed");
}

/** The verdict of an earlier sync, if there is one. */
export function standingVerdict(progress: JobProgress): Verdict | undefined {
  for (const type of ["SuccessCriteriaMet", "FailureTarget"] as const) {
    const condition = findCondition(progress.conditions, type);
    if (condition?.status !== "True") continue;
    const { reason = "", message = "" } = condition;
    return { type: type === "FailureTarget" ? "Failed" : type, reason, message };
  }
  return undefined;
}

/**
 * Sets a condition. One that is not there and would be False is left out: from nothing to False is no news.
 *
 * @returns the same list when nothing changes.
 */
export function withCondition(
  conditions: readonly JobCondition[],
  wanted: Pick<JobCondition, "status" | "reason" | "message"> & { readonly type: ConditionType },
  now: number,
): readonly JobCondition[] {
  const { type, status, reason, message } = wanted;
  const time = formatTime(now);
  const condition = {
    type,
    status,
    reason,
    message,
    lastProbeTime: time,
    lastTransitionTime: time,
  };
  const present = findCondition(conditions, type);
  if (present === undefined) return status === "False" ? conditions : [...conditions, condition];
  if (
    present.status === status &&
    (present.reason ?? "") === (reason ?? "") &&
    (present.message ?? "") === (message ?? "")
  )
    return conditions;
  return conditions.map((each) => (each === present ? condition : each));
}

function parseProgress(status: JobStatus = {}): JobProgress {
  return {
    active: status.active ?? 0,
    ready: status.ready,
    terminating: status.terminating,
    succeeded: status.succeeded ?? 0,
    failed: status.failed ?? 0,
    startTime: status.startTime,
    completionTime: status.completionTime,
    conditions: status.conditions ?? [],
    completedIndexes: status.completedIndexes ?? "",
    failedIndexes: status.failedIndexes,
    uncounted: {
      succeeded: status.uncountedTerminatedPods?.succeeded ?? [],
      failed: status.uncountedTerminatedPods?.failed ?? [],
    },
  };
}

function unlessZero(count: number): number | undefined {
  return count === 0 ? undefined : count;
}

function unlessEmpty<T>(items: readonly T[]): T[] | undefined {
  return items.length === 0 ? undefined : [...items];
}

/** The API's form: counters that are zero are left out. */
export function jobStatus(progress: JobProgress): JobStatus {
  const { uncounted, completedIndexes } = progress;
  return {
    conditions: unlessEmpty(progress.conditions),
    startTime: progress.startTime,
    completionTime: progress.completionTime,
    active: unlessZero(progress.active),
    succeeded: unlessZero(progress.succeeded),
    failed: unlessZero(progress.failed),
    terminating: progress.terminating,
    completedIndexes: completedIndexes === "" ? undefined : completedIndexes,
    failedIndexes: progress.failedIndexes,
    uncountedTerminatedPods: {
      succeeded: unlessEmpty(uncounted.succeeded),
      failed: unlessEmpty(uncounted.failed),
    },
    ready: progress.ready,
  };
}

export function parseJob(job: Stored<Job>): JobView {
  const { metadata, spec, status } = job;
  return {
    namespace: metadata.namespace ?? "",
    name: metadata.name,
    uid: metadata.uid,
    deleting: metadata.deletionTimestamp !== undefined,
    parallelism: spec?.parallelism ?? 1,
    completions: spec?.completions,
    indexed: spec?.completionMode === "Indexed",
    backoffLimit: spec?.backoffLimit ?? 6,
    backoffLimitPerIndex: spec?.backoffLimitPerIndex,
    maxFailedIndexes: spec?.maxFailedIndexes,
    activeDeadlineSeconds: spec?.activeDeadlineSeconds,
    suspended: spec?.suspend === true,
    podFailurePolicy: spec?.podFailurePolicy,
    successPolicy: spec?.successPolicy,
    onlyReplaceFailed:
      spec?.podReplacementPolicy === "Failed" || spec?.podFailurePolicy !== undefined,
    template: spec?.template ?? {},
    progress: parseProgress(status),
    selects: (labels) => matchesSelector(spec?.selector, labels),
  };
}

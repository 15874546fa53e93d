import { compareForRemoval } from "../replication/rank.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodTerminal, isTerminating } from "../shared/pod-state.ts";
import type { Assessment } from "./assess.ts";
import { indexesOf } from "./assess.ts";
import { remainingForIndexMs, remainingMs } from "./backoff.ts";
import { firstMissing, mergeIntervals, withIndexes } from "./intervals.ts";
import { completionIndex } from "./pods.ts";
import type { JobView } from "./view.ts";

/** Pods created or deleted in one sync at most; the rest follows in the next. */
const burst = 500;

export type ScaleAction =
  | { readonly kind: "none" }
  | { readonly kind: "delete"; readonly pods: readonly StoredPod[] }
  /** One pod each; the index is undefined for Jobs without. */
  | { readonly kind: "create"; readonly indexes: readonly (number | undefined)[] }
  /** Pods have failed: no new one before this time is over. */
  | { readonly kind: "wait"; readonly ms: number };

function wantedActive(job: JobView, { active, succeeded }: Assessment): number {
  if (job.completions === undefined) return succeeded > 0 ? active.length : job.parallelism;
  return Math.max(0, Math.min(job.completions - succeeded, job.parallelism));
}

function inRemovalOrder(pods: readonly StoredPod[], now: number): readonly StoredPod[] {
  return pods.toSorted((left, right) =>
    compareForRemoval({ pod: left, rank: 0 }, { pod: right, rank: 0 }, now),
  );
}

/** Active pods to remove: those without an index the Job has, all but one of each index, then `atLeast` of the rest. */
function surplus(
  job: JobView,
  active: readonly StoredPod[],
  atLeast: number,
  now: number,
): readonly StoredPod[] {
  const remove: StoredPod[] = [];
  let keep = active;
  if (job.indexed) {
    const byIndex = new Map<number, StoredPod[]>();
    for (const pod of active) {
      const index = completionIndex(pod);
      if (index === undefined || index >= (job.completions ?? 0)) remove.push(pod);
      else byIndex.set(index, [...(byIndex.get(index) ?? []), pod]);
    }
    keep = [...byIndex.values()].flatMap((pods) => {
      const ordered = inRemovalOrder(pods, now);
      remove.push(...ordered.slice(0, -1));
      return ordered.slice(-1);
    });
  }
  const missing = Math.max(0, atLeast - remove.length);
  return [...remove, ...inRemovalOrder(keep, now).slice(0, missing)];
}

function pendingIndexes(
  job: JobView,
  assessment: Assessment,
  pods: readonly StoredPod[],
  count: number,
): readonly number[] {
  const waiting = job.onlyReplaceFailed
    ? pods.filter((pod) => isTerminating(pod) && !isPodTerminal(pod))
    : [];
  const busy = withIndexes(
    assessment.succeededIndexes,
    indexesOf([...assessment.active, ...waiting]),
  );
  const taken = mergeIntervals(busy, assessment.failedIndexes ?? []);
  return firstMissing(taken, count, job.completions ?? 0);
}

/** What brings the Job's active pods to the number it wants now. Deleting goes before creating. */
export function planScale(
  job: JobView,
  assessment: Assessment,
  pods: readonly StoredPod[],
  now: number,
): ScaleAction {
  const { active } = assessment;
  if (job.suspended)
    return active.length === 0 ? { kind: "none" } : { kind: "delete", pods: active };
  const wanted = wantedActive(job, assessment);
  const remove = surplus(job, active, Math.max(0, active.length - wanted), now);
  if (remove.length > 0) return { kind: "delete", pods: remove.slice(0, burst) };
  const leaving = job.onlyReplaceFailed ? assessment.terminating : 0;
  const missing = Math.min(wanted - leaving - active.length, burst);
  if (missing <= 0) return { kind: "none" };
  if (job.backoffLimitPerIndex === undefined) {
    const ms = remainingMs(assessment.backoff, now);
    if (ms > 0) return { kind: "wait", ms };
  }
  if (!job.indexed)
    return { kind: "create", indexes: Array.from({ length: missing }, () => undefined) };
  const indexes = pendingIndexes(job, assessment, pods, missing);
  if (job.backoffLimitPerIndex === undefined) return { kind: "create", indexes };
  const delays = indexes.map((index) => ({
    index,
    ms: remainingForIndexMs(assessment.awaitingReplacement.get(index), now),
  }));
  const ready = delays.filter(({ ms }) => ms === 0);
  if (ready.length > 0 || delays.length === 0)
    return { kind: "create", indexes: ready.map(({ index }) => index) };
  return { kind: "wait", ms: Math.min(...delays.map(({ ms }) => ms)) };
}

import type { StoredPod } from "../shared/pod-state.ts";
import { finishedMs, indexFailures } from "./pods.ts";

const baseMs = 10_000;
const maxMs = 10 * 60 * 1000;

/** How a Job's pods have failed lately. Memory only: a restart forgets the delay, never a count. */
export interface BackoffRecord {
  readonly failuresSinceSuccess: number;
  /** Undefined when there was none. */
  readonly lastFailureMs: number | undefined;
}

export const noFailures: BackoffRecord = { failuresSinceSuccess: 0, lastFailureMs: undefined };

/** The record after pods have ended that were not known before. */
export function afterEnds(
  record: BackoffRecord,
  succeeded: readonly StoredPod[],
  failed: readonly StoredPod[],
): BackoffRecord {
  if (succeeded.length + failed.length === 0) return record;
  const ends = failed.map((pod) => finishedMs(pod));
  if (succeeded.length === 0) {
    return {
      failuresSinceSuccess: record.failuresSinceSuccess + failed.length,
      lastFailureMs: Math.max(...ends),
    };
  }
  const lastSuccess = Math.max(...succeeded.map((pod) => finishedMs(pod)));
  const since = ends.filter((end) => end > lastSuccess);
  return since.length === 0
    ? noFailures
    : { failuresSinceSuccess: since.length, lastFailureMs: Math.max(...since) };
}

/** Milliseconds until the next pod may be created: 10 s, 20 s, 40 s, ... 10 min after the last failure. */
export function remainingMs(record: BackoffRecord, now: number): number {
  const { failuresSinceSuccess, lastFailureMs } = record;
  if (failuresSinceSuccess === 0 || lastFailureMs === undefined) return 0;
  const delay = Math.min(maxMs, baseMs * 2 ** (failuresSinceSuccess - 1));
  return Math.max(0, delay - (now - lastFailureMs));
}

/** As {@link remainingMs}, for one index whose last failed pod this is. */
export function remainingForIndexMs(lastFailed: StoredPod | undefined, now: number): number {
  if (lastFailed === undefined) return 0;
  const { counted, ignored } = indexFailures(lastFailed);
  return remainingMs(
    { failuresSinceSuccess: counted + ignored + 1, lastFailureMs: finishedMs(lastFailed) },
    now,
  );
}

import { isNotFound } from "../../../api/errors.ts";
import type { Stored } from "../../../api/object.ts";
import { controllerOf } from "../../../api/object.ts";
import { JOBS, PODS } from "../../../api/resources.ts";
import type { Job } from "../../../api/types.gen.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { Expectations } from "../replication/expectations.ts";
import type { NamespaceIndex } from "../shared/by-namespace.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import { replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop, splitKey } from "../shared/controller.ts";
import { claimObjects, isNamespaceTerminating, ownerKeys } from "../shared/ownership.ts";
import type { PodOwner } from "../shared/pod-control.ts";
import { createPod, deletePod, firstFailure, slowStart } from "../shared/pod-control.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { formatTime, isPodReady, isTerminating } from "../shared/pod-state.ts";
import type { Assessment, Observation } from "./assess.ts";
import { assessJob, isComplete } from "./assess.ts";
import type { BackoffRecord } from "./backoff.ts";
import { noFailures } from "./backoff.ts";
import { OrphanedPods, removeTracking } from "./orphans.ts";
import type { ScaleAction } from "./plan.ts";
import { planScale } from "./plan.ts";
import { jobPod } from "./pod-template.ts";
import { isTracked, trackingFinalizer } from "./pods.ts";
import { concludeJob, countReleased, trackEnds } from "./track.ts";
import type { JobProgress, JobView, Verdict } from "./view.ts";
import {
  findCondition,
  isJobFinished,
  isManagedElsewhere,
  jobStatus,
  parseJob,
  withCondition,
} from "./view.ts";

/** What one sync works with. */
interface Sync {
  readonly key: string;
  readonly object: Stored<Job>;
  readonly owner: PodOwner;
  readonly observation: Observation;
  /** Whether the cache shows all that was created and deleted before. */
  readonly settled: boolean;
  readonly queue: KeyedQueue;
  readonly signal: AbortSignal;
}

interface Counts {
  readonly active: number;
  readonly ready: number;
  readonly terminating: number;
}

/** What was done about a Job's pods. */
interface Outcome {
  readonly counts: Counts;
  readonly verdict: Verdict | undefined;
  readonly progress: JobProgress;
  readonly failure: Error | undefined;
  readonly events: readonly JobEvent[];
}

interface JobEvent {
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly message: string;
}

/** Runs the pods of Jobs to their end and counts them exactly, also across crashes (KEP-2307). */
export class JobController implements Controller {
  readonly name = "job";
  readonly #context: ControllerContext;
  readonly #expectations: Expectations;
  readonly #backoff = new Map<string, BackoffRecord>();
  /** By Job UID: pods that have lost their finalizer, which the cache does not show yet. */
  readonly #released = new Map<string, Set<string>>();
  /** By Job UID: the resourceVersion of our last write. An older cached Job would be counted on twice. */
  readonly #written = new Map<string, bigint>();
  #pods: NamespaceIndex<StoredPod> | undefined;

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#expectations = new Expectations(() => context.clock.monotonic());
  }

  async run(signal: AbortSignal): Promise<void> {
    const { jobs, pods } = this.#context.informers;
    const orphans = new OrphanedPods(this.#context);
    await Promise.all([
      orphans.run(signal),
      runQueueLoop(
        {
          name: this.name,
          context: this.#context,
          waitFor: [jobs, pods],
          sync: async (key, queue) => this.#sync(key, queue, signal),
          subscribe: (queue) => {
            const index = indexByNamespace(pods);
            this.#pods = index;
            return [() => index.close(), ...this.#subscribe(queue)];
          },
        },
        signal,
      ),
    ]);
  }

  #subscribe(queue: KeyedQueue): readonly (() => void)[] {
    return [
      this.#context.informers.jobs.subscribe((change) => {
        if (change.kind === "deleted") this.#forget(change.previous.metadata.uid);
        queue.add(change.key);
      }),
      this.#context.informers.pods.subscribe((change) => {
        const pod = change.kind === "deleted" ? change.previous : change.object;
        const owner = controllerOf(pod.metadata);
        if (owner !== undefined) {
          const { uid } = pod.metadata;
          if (change.kind === "added" && !isTerminating(pod))
            this.#expectations.creationObserved(owner.uid);
          if (change.kind === "deleted" || isTerminating(pod))
            this.#expectations.deletionObserved(owner.uid, uid);
          if (change.kind === "deleted" || !isTracked(pod))
            this.#released.get(owner.uid)?.delete(uid);
        }
        this.#wakeOwners(pod, queue);
        if (change.kind === "updated") this.#wakeOwners(change.previous, queue);
      }),
    ];
  }

  #forget(uid: string): void {
    this.#expectations.forget(uid);
    this.#backoff.delete(uid);
    this.#released.delete(uid);
    this.#written.delete(uid);
  }

  /** Wakes the pod's Job, or, for a pod without owner, every Job that would adopt it. */
  #wakeOwners({ metadata }: StoredPod, queue: KeyedQueue): void {
    const keys = ownerKeys(metadata, {
      kind: JOBS.kind,
      informer: this.#context.informers.jobs,
      selects: (job, labels) => parseJob(job).selects(labels),
    });
    for (const key of keys) queue.add(key);
  }

  async #sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const object = this.#context.informers.jobs.get(key);
    if (object === undefined || isManagedElsewhere(object)) return;
    const { uid, resourceVersion } = object.metadata;
    if (isJobFinished(object)) {
      this.#forget(uid);
      return;
    }
    // The watch brings what we have written, and that wakes the key again.
    if (BigInt(resourceVersion) < (this.#written.get(uid) ?? 0n)) return;
    const settled = this.#expectations.satisfied(uid);
    const job = parseJob(object);
    const pods = await claimObjects(
      {
        client: this.#context.client,
        claimant: job,
        ownerResource: JOBS,
        resource: PODS,
        objects: [...(this.#pods?.in(splitKey(key).namespace) ?? [])],
        finalizer: trackingFinalizer,
      },
      signal,
    );
    const observation: Observation = {
      job,
      pods,
      released: new Set(this.#released.get(uid)),
      backoff: this.#backoff.get(uid) ?? noFailures,
      now: this.#context.clock.now(),
    };
    const owner: PodOwner = { context: this.#context, resource: JOBS, object };
    await this.#advance({ key, object, owner, observation, settled, queue, signal });
  }

  async #advance(sync: Sync): Promise<void> {
    const { job, now } = sync.observation;
    const started = job.progress.startTime ?? (job.suspended ? undefined : formatTime(now));
    const progress = { ...job.progress, startTime: started };
    const assessment = assessJob(sync.observation, progress);
    // A wake-up that is due later must be asked for in each sync: being woken forgets it.
    if (assessment.deadlineMs !== undefined && assessment.deadlineMs > 0)
      sync.queue.addAfter(sync.key, assessment.deadlineMs);
    const outcome = await this.#act(sync, assessment, progress);
    await this.#record(sync, assessment, {
      ...outcome,
      progress: { ...outcome.progress, ...outcome.counts },
    });
    if (outcome.failure !== undefined) throw outcome.failure;
  }

  /** Brings the number of pods to what the Job wants now. */
  async #act(sync: Sync, assessment: Assessment, progress: JobProgress): Promise<Outcome> {
    const { job, pods, now } = sync.observation;
    const { active, ready, terminating, verdict } = assessment;
    const before = { active: active.length, ready, terminating };
    if (verdict !== undefined) {
      const removal = await this.#remove(sync, active, "keep-finalizer");
      const counts = less(before, removal.removed);
      // Not the end yet while a pod may be left that nobody has told.
      const ended = counts.active === 0 && sync.settled;
      const { failure } = removal;
      return { counts, progress, verdict: ended ? verdict : undefined, failure, events: [] };
    }
    const scaling = sync.settled && !job.deleting;
    const { counts, failure } = scaling
      ? await this.#scale(sync, assessment, planScale(job, assessment, pods, now), before)
      : { counts: before, failure: undefined };
    if (isComplete(job, assessment.succeeded, counts.active)) {
      const complete = {
        type: "SuccessCriteriaMet",
        reason: "CompletionsReached",
        message: "Reached expected number of succeeded pods",
      } as const;
      return { counts, progress, verdict: complete, failure, events: [] };
    }
    const next = scaling ? suspension(job, progress, now) : { progress, events: [] };
    return { counts, ...next, verdict: undefined, failure };
  }

  async #scale(
    sync: Sync,
    assessment: Assessment,
    action: ScaleAction,
    before: Counts,
  ): Promise<{ readonly counts: Counts; readonly failure: Error | undefined }> {
    switch (action.kind) {
      case "none":
        return { counts: before, failure: undefined };
      case "wait":
        sync.queue.addAfter(sync.key, action.ms);
        return { counts: before, failure: undefined };
      case "delete": {
        const { uid } = sync.object.metadata;
        this.#expectations.expectDeletions(
          uid,
          action.pods.map((pod) => pod.metadata.uid),
        );
        const { removed, failure } = await this.#remove(sync, action.pods, "drop-finalizer");
        return { counts: less(before, removed), failure };
      }
      case "create": {
        const { created, failure } = await this.#create(sync, assessment, action.indexes);
        return { counts: { ...before, active: before.active + created }, failure };
      }
    }
  }

  async #create(
    sync: Sync,
    assessment: Assessment,
    indexes: readonly (number | undefined)[],
  ): Promise<{ readonly created: number; readonly failure: Error | undefined }> {
    const { owner, observation, signal } = sync;
    const { uid } = sync.object.metadata;
    this.#expectations.expectCreations(uid, indexes.length);
    const { failures, skipped } = await slowStart(indexes, async (index) => {
      const replaced = index === undefined ? undefined : assessment.awaitingReplacement.get(index);
      await createPod(owner, jobPod(owner, observation.job, index, replaced), signal);
    });
    // These will never be seen.
    for (let count = failures.length + skipped; count > 0; count -= 1)
      this.#expectations.creationObserved(uid);
    return {
      created: indexes.length - failures.length - skipped,
      failure: failures.find((error) => !isNamespaceTerminating(error)),
    };
  }

  /** Deletes pods. With their finalizer they still have to be counted, without it they never were. */
  async #remove(
    sync: Sync,
    pods: readonly StoredPod[],
    finalizer: "keep-finalizer" | "drop-finalizer",
  ): Promise<{ readonly removed: readonly StoredPod[]; readonly failure: Error | undefined }> {
    const { client } = this.#context;
    const results = await Promise.allSettled(
      pods.map(async (pod) => {
        try {
          if (finalizer === "drop-finalizer") await removeTracking(client, pod, sync.signal);
          await deletePod(sync.owner, pod, sync.signal);
        } catch (error) {
          this.#expectations.deletionObserved(sync.object.metadata.uid, pod.metadata.uid);
          throw error;
        }
      }),
    );
    return {
      removed: pods.filter((_, index) => results[index]?.status === "fulfilled"),
      failure: firstFailure(results),
    };
  }

  /** Writes down what has ended, lets go of it, counts it: in this order, so that a crash loses nothing. */
  async #record(sync: Sync, assessment: Assessment, outcome: Outcome): Promise<void> {
    const { object, observation } = sync;
    const { job, pods, released, now } = observation;
    const { uid } = object.metadata;
    const facts = { job, pods, released, assessment, verdict: outcome.verdict, now };
    const tracking = trackEnds(facts, outcome.progress);
    let current = await this.#write(object, tracking.progress, sync.signal);
    this.#backoff.set(uid, assessment.backoff);
    for (const event of outcome.events) this.#event(object, event);
    const { gone, failure } = await this.#release(sync, tracking.release);
    const tracked = pods.filter((pod) => isTracked(pod) && !released.has(pod.metadata.uid));
    const left = new Set(tracked.map((pod) => pod.metadata.uid)).difference(gone);
    const counted = countReleased(tracking.progress, left);
    const ended = failure === undefined ? concludeJob(counted, tracking.final, now) : undefined;
    current = await this.#write(current, ended ?? counted, sync.signal);
    if (ended !== undefined && tracking.final !== undefined)
      this.#announce(job, current, tracking.final);
    if (failure !== undefined) throw failure;
  }

  async #release(
    sync: Sync,
    pods: readonly StoredPod[],
  ): Promise<{ readonly gone: ReadonlySet<string>; readonly failure: Error | undefined }> {
    const { uid } = sync.object.metadata;
    const expected = this.#released.get(uid) ?? new Set<string>();
    this.#released.set(uid, expected);
    for (const pod of pods) expected.add(pod.metadata.uid);
    const results = await Promise.allSettled(
      pods.map(async (pod) => {
        try {
          const found = await removeTracking(this.#context.client, pod, sync.signal);
          // No update will come of a pod that is gone.
          if (!found) expected.delete(pod.metadata.uid);
        } catch (error) {
          expected.delete(pod.metadata.uid);
          throw error;
        }
      }),
    );
    const gone = pods.filter((_, index) => results[index]?.status === "fulfilled");
    return {
      gone: new Set(gone.map((pod) => pod.metadata.uid)),
      failure: firstFailure(results),
    };
  }

  /** Writes the status unless `current` has it; the resourceVersion guards against what others wrote meanwhile. */
  async #write(
    current: Stored<Job>,
    progress: JobProgress,
    signal: AbortSignal,
  ): Promise<Stored<Job>> {
    const status = jobStatus(progress);
    if (JSON.stringify(status) === JSON.stringify(jobStatus(parseJob(current).progress)))
      return current;
    const { namespace, name, uid } = current.metadata;
    try {
      const written = await replaceObject(
        this.#context.client,
        { resource: JOBS, namespace, name, subresource: "status" },
        { ...current, status },
        signal,
      );
      this.#written.set(uid, BigInt(written.metadata.resourceVersion));
      return written;
    } catch (error) {
      if (isNotFound(error)) return current;
      throw error;
    }
  }

  #announce(job: JobView, object: Stored<Job>, final: Verdict): void {
    if (final.type !== "Complete") {
      const { reason, message } = final;
      this.#event(object, { type: "Warning", reason, message });
      return;
    }
    if (job.completions !== undefined && (object.status?.succeeded ?? 0) > job.completions) {
      this.#event(object, {
        type: "Warning",
        reason: "TooManySucceededPods",
        message: "Too many succeeded pods running after completion count reached",
      });
    }
    this.#event(object, { type: "Normal", reason: "Completed", message: "Job completed" });
  }

  #event(object: Stored<Job>, { type, reason, message }: JobEvent): void {
    this.#context.recorder.event(eventTarget(JOBS, object), type, reason, message);
  }
}

function less(counts: Counts, removed: readonly StoredPod[]): Counts {
  return {
    active: counts.active - removed.length,
    ready: counts.ready - removed.filter((pod) => isPodReady(pod)).length,
    terminating: counts.terminating + removed.length,
  };
}

/** The Suspended condition, and the start time that goes with it: a deadline runs only while the Job does. */
function suspension(
  job: JobView,
  progress: JobProgress,
  now: number,
): Pick<Outcome, "progress" | "events"> {
  const [status, reason, message] = job.suspended
    ? ["True", "JobSuspended", "Job suspended"]
    : ["False", "JobResumed", "Job resumed"];
  const wanted = { type: "Suspended", status, reason, message } as const;
  const conditions = withCondition(progress.conditions, wanted, now);
  if (conditions === progress.conditions) return { progress, events: [] };
  const resumed = findCondition(conditions, "Suspended")?.status === "False";
  return {
    progress: { ...progress, conditions, startTime: resumed ? formatTime(now) : undefined },
    events: [{ type: "Normal", reason: resumed ? "Resumed" : "Suspended", message }],
  };
}

import type { ApiClient } from "../../../api/client.ts";
import { ApiError, isNotFound } from "../../../api/errors.ts";
import type { Stored } from "../../../api/object.ts";
import { controllerOf, keyOf, objectKey } from "../../../api/object.ts";
import { JOBS, PODS } from "../../../api/resources.ts";
import type { Job } from "../../../api/types.gen.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { patchObject } from "../shared/calls.ts";
import type { ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isTracked, trackingFinalizer } from "./pods.ts";
import { isJobFinished, isManagedElsewhere } from "./view.ts";

/**
 * Takes the tracking finalizer from a pod; one without it is left alone.
 *
 * @returns false when the pod is gone.
 */
export async function removeTracking(
  client: ApiClient,
  pod: StoredPod,
  signal: AbortSignal,
): Promise<boolean> {
  if (!isTracked(pod)) return true;
  const { namespace, name, uid } = pod.metadata;
  const patch = {
    metadata: { uid, "$deleteFromPrimitiveList/finalizers": [trackingFinalizer] },
  };
  try {
    await patchObject(client, { resource: PODS, namespace, name }, patch, signal);
    return true;
  } catch (error) {
    // 409: another pod has the name by now.
    if (isNotFound(error) || (error instanceof ApiError && error.status === 409)) return false;
    throw error;
  }
}

/** Lets go of pods whose Job is gone or finished: nobody else would, and they could never be deleted. */
export class OrphanedPods {
  readonly #context: ControllerContext;

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { jobs, pods } = this.#context.informers;
    await runQueueLoop(
      {
        name: "job-orphans",
        context: this.#context,
        waitFor: [jobs, pods],
        sync: async (key) => {
          const pod = pods.get(key);
          if (pod !== undefined && this.#isOrphan(pod))
            await removeTracking(this.#context.client, pod, signal);
        },
        subscribe: (queue) => [
          jobs.subscribe((change) => {
            const job = change.kind === "deleted" ? change.previous : change.object;
            const over = change.kind === "deleted" || isJobFinished(job);
            if (over) this.#wakePods(job, queue);
          }),
          pods.subscribe((change) => {
            if (change.kind !== "deleted" && this.#isOrphan(change.object)) queue.add(change.key);
          }),
        ],
      },
      signal,
    );
  }

  #wakePods(job: Stored<Job>, queue: KeyedQueue): void {
    for (const pod of this.#context.informers.pods.values()) {
      if (pod.metadata.namespace !== job.metadata.namespace || !isTracked(pod)) continue;
      if (this.#isOrphan(pod)) queue.add(keyOf(pod));
    }
  }

  #isOrphan(pod: StoredPod): boolean {
    if (!isTracked(pod)) return false;
    const owner = controllerOf(pod.metadata);
    if (owner === undefined) return true;
    if (owner.kind !== JOBS.kind) return false;
    const job = this.#context.informers.jobs.get(objectKey(pod.metadata.namespace, owner.name));
    if (job === undefined || job.metadata.uid !== owner.uid) return true;
    return isJobFinished(job) && !isManagedElsewhere(job);
  }
}

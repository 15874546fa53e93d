import { ApiError } from "../../../api/errors.ts";
import type { Stored } from "../../../api/object.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import type { Resource } from "../../../api/resource.ts";
import { PODS } from "../../../api/resources.ts";
import type { ObjectMeta, Pod, PodTemplateSpec } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { ControllerContext } from "./controller.ts";
import { eventTarget } from "./controller.ts";
import { controllerReference, isNamespaceTerminating } from "./ownership.ts";
import type { StoredPod } from "./pod-state.ts";

/** Whose pods are made and removed, and under which name. */
export interface PodOwner {
  readonly context: Pick<ControllerContext, "client" | "recorder">;
  readonly resource: Resource<unknown>;
  readonly object: Stored<unknown>;
}

/** The pod of a template, owned by the controller of `owner`. */
export function ownedPod(owner: PodOwner, template: PodTemplateSpec, generateName: string): Pod {
  const { metadata, spec } = template;
  const meta: ObjectMeta = {
    generateName,
    namespace: owner.object.metadata.namespace,
    labels: metadata?.labels,
    annotations: metadata?.annotations,
    finalizers: metadata?.finalizers,
    ownerReferences: [controllerReference(owner.resource, owner.object.metadata)],
  };
  return { metadata: meta, ...(spec === undefined ? {} : { spec }) };
}

/** Creates a pod and says so in an Event of its owner; a failure too, unless the whole namespace goes away. */
export async function createPod(
  owner: PodOwner,
  pod: Pod,
  signal: AbortSignal,
): Promise<StoredPod> {
  const { client, recorder } = owner.context;
  const about = eventTarget(owner.resource, owner.object);
  try {
    const created = await createObject(client, PODS, pod, { signal });
    recorder.event(about, "Normal", "SuccessfulCreate", `Created pod: ${created.metadata.name}`);
    return created;
  } catch (error) {
    if (!signal.aborted && !isNamespaceTerminating(error))
      recorder.event(about, "Warning", "FailedCreate", `Error creating: ${errorMessage(error)}`);
    throw error;
  }
}

/** Deletes this very pod and says so in an Event of its owner. A pod that is gone already is no error. */
export async function deletePod(
  owner: PodOwner,
  pod: StoredPod,
  signal: AbortSignal,
): Promise<void> {
  const { client, recorder } = owner.context;
  const about = eventTarget(owner.resource, owner.object);
  const { namespace, name, uid } = pod.metadata;
  try {
    if (await deleteObject(client, PODS, { namespace, name }, { uid, signal }))
      recorder.event(about, "Normal", "SuccessfulDelete", `Deleted pod: ${name}`);
  } catch (error) {
    // Another pod has the name by now: ours is gone, which is what was wanted.
    if (error instanceof ApiError && error.status === 409) return;
    if (!signal.aborted)
      recorder.event(about, "Warning", "FailedDelete", `Error deleting: ${errorMessage(error)}`);
    throw error;
  }
}

/** The error of the first call that failed. */
export function firstFailure(results: readonly PromiseSettledResult<unknown>[]): Error | undefined {
  return failuresOf(results)[0];
}

function failuresOf(results: readonly PromiseSettledResult<unknown>[]): readonly Error[] {
  return results.flatMap((result) => {
    if (result.status === "fulfilled") return [];
    const reason: unknown = result.reason;
    return [reason instanceof Error ? reason : new Error(errorMessage(reason))];
  });
}

/** How a series of creations went. */
export interface SeriesResult {
  readonly failures: readonly Error[];
  /** Items that were not tried, because the ones before them had failed. */
  readonly skipped: number;
}

/**
 * Works on 1, 2, 4, ... items at a time and stops at the first failure: what can never work then costs one refused
 * request, not hundreds.
 */
export async function slowStart<T>(
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
): Promise<SeriesResult> {
  for (let start = 0, size = 1; start < items.length; size *= 2) {
    const results = await Promise.allSettled(items.slice(start, start + size).map(work));
    start += results.length;
    const failures = failuresOf(results);
    if (failures.length > 0) return { failures, skipped: items.length - start };
  }
  return { failures: [], skipped: 0 };
}

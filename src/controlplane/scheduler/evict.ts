import type { EventRecorder } from "../../api/event-types.ts";
import { deleteObject } from "../../api/objects.ts";
import { PODS } from "../../api/resources.ts";
import { eventTarget } from "../controllers/shared/controller.ts";
import { isTerminating } from "../controllers/shared/pod-state.ts";
import type { PodInfo } from "./pod-info.ts";
import type { StatusDeps } from "./report.ts";
import { conditionPatch, patchStatus } from "./report.ts";

/** Who makes room for whom. */
export interface Eviction {
  readonly preemptor: PodInfo;
  /** `spec.schedulerName` of the preemptor. */
  readonly scheduler: string;
  readonly node: string;
  readonly victims: readonly PodInfo[];
}

/**
 * Makes the victims leave: each gets the DisruptionTarget condition (PreemptionByScheduler) and is deleted with its own
 * grace. Idempotent: those that are on their way out already are left alone.
 *
 * @throws {ApiError} when one could not be deleted; the others may have been.
 */
export async function evictVictims(
  deps: StatusDeps & { readonly recorder: EventRecorder },
  eviction: Eviction,
  signal: AbortSignal,
): Promise<void> {
  const { preemptor, scheduler, node, victims } = eviction;
  for (const { pod, uid } of victims) {
    if (isTerminating(pod)) continue;
    const condition = conditionPatch(
      pod,
      {
        type: "DisruptionTarget",
        status: "True",
        reason: "PreemptionByScheduler",
        message: `${scheduler}: preempting to accommodate a higher priority pod`,
      },
      deps.clock.now(),
    );
    if (condition !== undefined)
      await patchStatus(deps.client, pod, { conditions: [condition] }, signal);
    const existed = await deleteObject(deps.client, PODS, pod.metadata, { signal, uid });
    if (existed)
      deps.recorder.event(
        eventTarget(PODS, pod),
        "Normal",
        "Preempted",
        `Preempted by pod ${preemptor.uid} on node ${node}`,
      );
  }
}

import type { Stored } from "../../../api/object.ts";
import type { DaemonSet, DaemonSetStatus } from "../../../api/types.gen.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodAvailable, isPodReady, readySinceMs } from "../shared/pod-state.ts";
import { eligibility } from "./eligibility.ts";
import type { Observation } from "./plan.ts";
import { compareAge, isUpdated } from "./pods.ts";

/**
 * The numbers of a DaemonSet.
 *
 * @param observed Whether the spec of this generation was acted on.
 */
export function computeStatus(
  observation: Observation,
  object: Stored<DaemonSet>,
  observed: boolean,
): DaemonSetStatus {
  const { view, nodes, byNode, hash, now } = observation;
  const counts = { desired: 0, current: 0, misscheduled: 0, ready: 0, updated: 0, available: 0 };
  for (const node of nodes) {
    const pod = (byNode.get(node.metadata.name) ?? []).toSorted(compareAge)[0];
    if (!eligibility(view, node).shouldRun) {
      if (pod !== undefined) counts.misscheduled += 1;
      continue;
    }
    counts.desired += 1;
    if (pod === undefined) continue;
    counts.current += 1;
    if (isPodReady(pod)) counts.ready += 1;
    if (isPodAvailable(pod, view.minReadySeconds, now)) counts.available += 1;
    if (isUpdated(view, pod, hash)) counts.updated += 1;
  }
  const { status } = object;
  return {
    currentNumberScheduled: counts.current,
    numberMisscheduled: counts.misscheduled,
    desiredNumberScheduled: counts.desired,
    numberReady: counts.ready,
    observedGeneration: observed ? view.generation : status?.observedGeneration,
    updatedNumberScheduled: unlessZero(counts.updated),
    numberAvailable: unlessZero(counts.available),
    numberUnavailable: unlessZero(counts.desired - counts.available),
    collisionCount: status?.collisionCount,
    conditions: status?.conditions,
  };
}

function unlessZero(count: number): number | undefined {
  return count === 0 ? undefined : count;
}

/** Milliseconds until a ready pod is available: time passes without an event. Undefined when none is waiting. */
export function nextAvailabilityMs({ view, byNode, now }: Observation): number | undefined {
  const waits = [...byNode.values()].flat().flatMap((pod: StoredPod) => {
    const since = readySinceMs(pod);
    const left = since === undefined ? 0 : since + view.minReadySeconds * 1000 - now;
    return left > 0 ? [left] : [];
  });
  return waits.length === 0 ? undefined : Math.min(...waits);
}

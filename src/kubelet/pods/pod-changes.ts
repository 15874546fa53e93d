import { isDeepStrictEqual } from "node:util";

import { isTerminalPhase, podGracePeriodSeconds } from "../spec/containers.ts";
import { foreignConditions } from "../status/conditions.ts";
import type { AssignedPod } from "../types.ts";

/** Deletion has begun, or its grace has become shorter. */
export function shrinksGrace(before: AssignedPod, after: AssignedPod): boolean {
  if (after.metadata.deletionTimestamp === undefined) return false;
  if (before.metadata.deletionTimestamp === undefined) return true;
  const graceOf = (pod: AssignedPod): number =>
    pod.metadata.deletionGracePeriodSeconds ?? podGracePeriodSeconds(pod);
  return graceOf(after) < graceOf(before);
}

/** Whether volumes of the pod may show something else than before. */
export function changesContent(before: AssignedPod, after: AssignedPod): boolean {
  const shown = ({ metadata: { annotations, generation, labels } }: AssignedPod): unknown => [
    generation,
    labels,
    annotations,
  ];
  return !isDeepStrictEqual(shown(before), shown(after));
}

/** Neither ended nor to end. */
export function mayRun({ metadata, status }: AssignedPod): boolean {
  return metadata.deletionTimestamp === undefined && !isTerminalPhase(status?.phase);
}

/** Whether a change is more than the echo of our own status writes. */
export function concernsNode(before: AssignedPod, after: AssignedPod): boolean {
  const identity = ({ metadata, spec, status }: AssignedPod): unknown => ({
    metadata: { ...metadata, resourceVersion: "" },
    spec,
    conditions: foreignConditions(status?.conditions ?? []),
    terminal: isTerminalPhase(status?.phase),
  });
  return !isDeepStrictEqual(identity(before), identity(after));
}

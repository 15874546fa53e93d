import { findPodContainer } from "../spec/containers.ts";
import { unappliedResources } from "../spec/resize.ts";
import type { AssignedPod } from "../types.ts";
import type { ObservedPod } from "./observed.ts";

/** Whether the pod, or some running container of it, is not held to what it was granted. Pure. */
export function isResizing(pod: AssignedPod, observed: ObservedPod): boolean {
  if (observed.cgroupBehind === true) return true;
  return observed.record.containers.some((record) => {
    if (record.state.kind !== "running") return false;
    const entry = findPodContainer(pod, record.name);
    if (entry === undefined || entry.role === "ephemeral") return false;
    return unappliedResources(pod, entry.container, record.limits).length > 0;
  });
}

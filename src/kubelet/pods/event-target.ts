import type { EventTarget } from "../../api/event-types.ts";
import { containerFieldPath, type PodContainer } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";

/** The pod as events point at it. */
export function podTarget(pod: AssignedPod): EventTarget {
  const { name, namespace = "", uid, resourceVersion } = pod.metadata;
  return { kind: "Pod", apiVersion: "v1", namespace, name, uid, resourceVersion };
}

/** One container of the pod as events point at it. */
export function containerTarget(pod: AssignedPod, entry: PodContainer): EventTarget {
  return { ...podTarget(pod), fieldPath: containerFieldPath(entry) };
}

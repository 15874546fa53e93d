import type { ContainerStatus, Pod } from "../../api/types.gen.ts";

function containerWords(status: ContainerStatus | undefined): string | undefined {
  const waiting = status?.state?.waiting;
  if (waiting !== undefined) {
    const { reason = "waiting", message } = waiting;
    return message === undefined || message === "" ? reason : `${reason}: ${message}`;
  }
  const terminated = status?.state?.terminated;
  if (terminated !== undefined) return `ended with exit code ${terminated.exitCode}`;
  return undefined;
}

/** True while nothing has asked for the pod's deletion and its condition Ready is True. */
export function isReady(pod: Pod): boolean {
  return (
    pod.metadata?.deletionTimestamp === undefined &&
    (pod.status?.conditions ?? []).some(({ type, status }) => type === "Ready" && status === "True")
  );
}

/** In a few words what a pod is doing, or what it waits for. */
export function podWords(pod: Pod): string {
  if (pod.metadata?.deletionTimestamp !== undefined) return "ending";
  if (isReady(pod)) return "ready";
  const { status } = pod;
  const scheduled = (status?.conditions ?? []).find(({ type }) => type === "PodScheduled");
  if (scheduled?.status === "False") return `no node yet: ${scheduled.message ?? ""}`.trim();
  if ((pod.spec?.nodeName ?? "") === "") return "waiting for a node";
  const words = (status?.containerStatuses ?? [])
    .map((container) => containerWords(container))
    .find((text) => text !== undefined);
  if (words !== undefined) return words;
  if (status?.phase === "Running") return "running, not ready yet";
  return "starting";
}

import type { ContainerStatus, PodStatus } from "../../api/types.gen.ts";
import type { ContainerRecord, PodRecord } from "../../runtime/types.ts";
import { specHash } from "../spec/container-config.ts";
import { initContainers, type PodContainer, regularContainers } from "../spec/containers.ts";
import { crashDelayMs, type CrashLoopCurve } from "../status/observed.ts";
import { isRestartingAll, restartingAllContainers } from "../status/restarting-all.ts";
import type { AssignedPod } from "../types.ts";

/**
 * Notes how containers ended, by name. Others may remove their records (`docker system prune`), and what has ended must
 * then neither run again nor begin its crash loop anew.
 */
export function rememberEnds(ends: Map<string, ContainerRecord>, record: PodRecord): void {
  const seen = new Set<string>();
  for (const container of record.containers) {
    // Newest first: an end that was followed by another run says nothing about that one.
    if (seen.has(container.name)) continue;
    seen.add(container.name);
    if (container.state.kind === "exited") ends.set(container.name, container);
    else ends.delete(container.name);
  }
}

/** The same from the API, for an agent that has just begun: how containers ended that the runtime has lost since. */
export function recallEnds(
  ends: Map<string, ContainerRecord>,
  pod: AssignedPod,
  status: PodStatus,
  curve?: CrashLoopCurve,
): void {
  // What is removed on purpose starts anew.
  if (isRestartingAll(status.conditions)) return;
  const known = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])];
  for (const entry of [...initContainers(pod), ...regularContainers(pod)]) {
    const { name } = entry.container;
    const found = known.find((candidate) => candidate.name === name);
    const end = found === undefined || ends.has(name) ? undefined : endOf(pod, entry, found, curve);
    if (end !== undefined) ends.set(name, end);
  }
}

function endOf(
  pod: AssignedPod,
  { container }: PodContainer,
  status: ContainerStatus,
  curve: CrashLoopCurve | undefined,
): ContainerRecord | undefined {
  const waits = status.state?.waiting !== undefined;
  const ended = status.state?.terminated ?? (waits ? status.lastState?.terminated : undefined);
  if (ended?.finishedAt === undefined || ended.startedAt === undefined) return undefined;
  if (ended.reason === restartingAllContainers) return undefined;
  const startedAt = Date.parse(ended.startedAt);
  const { name, namespace = "", uid } = pod.metadata;
  return {
    id: (ended.containerID ?? "").replace(/^.*:\/\//, ""),
    sandboxID: "",
    podUID: uid,
    podName: name,
    podNamespace: namespace,
    name: container.name,
    attempt: status.restartCount,
    state: {
      kind: "exited",
      createdAt: startedAt,
      startedAt,
      finishedAt: Date.parse(ended.finishedAt),
      exitCode: ended.exitCode,
      oomKilled: ended.reason === "OOMKilled",
      error: "",
    },
    image: status.image,
    imageID: status.imageID,
    specHash: specHash(container),
    labels: {},
    record: JSON.stringify({ backoffMs: crashDelayMs(status.restartCount, curve) }),
  };
}

import type { ContainerRecord, ContainerRuntime } from "../../runtime/types.ts";
import { findPodContainer } from "../spec/containers.ts";
import { recordsOf } from "../status/observed.ts";
import type { AssignedPod, ContainerLookup } from "../types.ts";

/** What a request for a container's logs or a session in it names. */
export interface ContainerAddress {
  readonly namespace: string;
  readonly pod: string;
  readonly uid?: string;
  readonly container: string;
}

function pick(records: readonly ContainerRecord[], previous: boolean): ContainerRecord | undefined {
  if (!previous) return records.find(({ state }) => state.kind !== "created");
  const [newest, ...older] = records.filter(({ state }) => state.kind !== "created");
  // While a crashed container waits for its next start, that crash is what "previous" means to its reader.
  if (newest?.state.kind === "exited" && older.length === 0) return newest;
  return older.find(({ state }) => state.kind === "exited");
}

/** Finds the runtime's instance of a container, by what the API and the runtime say now. */
export async function findContainer(
  runtime: Pick<ContainerRuntime, "podRecord">,
  pod: AssignedPod | undefined,
  at: ContainerAddress,
  previous: boolean,
  signal: AbortSignal,
): Promise<ContainerLookup> {
  if (pod === undefined) return { kind: "podNotFound" };
  const entry = findPodContainer(pod, at.container);
  if (entry === undefined) return { kind: "containerNotFound" };
  const record = await runtime.podRecord(pod.metadata.uid, signal);
  const found = pick(recordsOf(record, at.container), previous);
  if (found === undefined) {
    const statuses = [
      ...(pod.status?.initContainerStatuses ?? []),
      ...(pod.status?.containerStatuses ?? []),
      ...(pod.status?.ephemeralContainerStatuses ?? []),
    ];
    const status = statuses.find(({ name }) => name === at.container);
    return { kind: "notStarted", reason: status?.state?.waiting?.reason ?? "ContainerCreating" };
  }
  return {
    kind: "found",
    containerID: found.id,
    running: found.state.kind === "running",
    tty: entry.container.tty ?? false,
    stdin: entry.container.stdin ?? false,
  };
}

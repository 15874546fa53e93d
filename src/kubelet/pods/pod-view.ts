import type { ContainerStatus, PodStatus } from "../../api/types.gen.ts";
import type { ContainerRecord, ContainerRuntime } from "../../runtime/types.ts";
import { findPodContainer, type PodContainer } from "../spec/containers.ts";
import { recordsOf } from "../status/observed.ts";
import type { AssignedPod, ContainerLookup } from "../types.ts";
import type { KeptLogs } from "./kept-logs.ts";

/** What a request for a container's logs or a session in it names. */
export interface ContainerAddress {
  readonly namespace: string;
  readonly pod: string;
  readonly uid?: string;
  readonly container: string;
}

export interface ContainerSources {
  readonly runtime: Pick<ContainerRuntime, "podRecord">;
  readonly keptLogs: Pick<KeptLogs, "find">;
}

function pick(
  records: readonly ContainerRecord[],
  previous: boolean,
  status: ContainerStatus | undefined,
): ContainerRecord | undefined {
  if (!previous) return records.find(({ state }) => state.kind !== "created");
  const [newest, ...older] = records.filter(({ state }) => state.kind !== "created");
  const over = newest !== undefined && bareID(status?.state?.terminated?.containerID) === newest.id;
  // While a crashed container waits for its next start, that crash is what "previous" means to its reader.
  if (newest?.state.kind === "exited" && older.length === 0 && !over) return newest;
  return older.find(({ state }) => state.kind === "exited");
}

function allStatuses(status: PodStatus): readonly ContainerStatus[] {
  return [
    ...(status.initContainerStatuses ?? []),
    ...(status.containerStatuses ?? []),
    ...(status.ephemeralContainerStatuses ?? []),
  ];
}

function bareID(containerID: string | undefined): string {
  return (containerID ?? "").replace(/^.*:\/\//, "");
}

/** Ids of all containers that a status names: their logs may be asked for. */
export function loggedContainers(status: PodStatus): readonly string[] {
  return allStatuses(status).flatMap(({ containerID, lastState, state }) =>
    [containerID, state?.terminated?.containerID, lastState?.terminated?.containerID]
      .map(bareID)
      .filter((id) => id !== ""),
  );
}

/** Whose log is meant, by the status alone; empty when there is none. */
function loggedID({ containerID, lastState, state }: ContainerStatus, previous: boolean): string {
  const last = lastState?.terminated?.containerID;
  if (previous) return bareID(last);
  if (state?.running !== undefined) return bareID(containerID);
  return bareID(state?.terminated?.containerID ?? last);
}

/** Of a container that the runtime does not have (any more): somebody else may have removed it. */
async function findRemoved(
  keptLogs: ContainerSources["keptLogs"],
  uid: string,
  { container: { name, stdin = false, tty = false } }: PodContainer,
  status: ContainerStatus | undefined,
  previous: boolean,
): Promise<ContainerLookup> {
  const containerID = status === undefined ? "" : loggedID(status, previous);
  if (containerID !== "") {
    const logPath = await keptLogs.find(uid, name, containerID);
    return { kind: "found", containerID, running: false, tty, stdin, removed: { logPath } };
  }
  return { kind: "notStarted", reason: status?.state?.waiting?.reason ?? "ContainerCreating" };
}

/** Finds the runtime's instance of a container, by what the API and the runtime say now. */
export async function findContainer(
  { keptLogs, runtime }: ContainerSources,
  pod: AssignedPod | undefined,
  at: ContainerAddress,
  previous: boolean,
  signal: AbortSignal,
): Promise<ContainerLookup> {
  if (pod === undefined) return { kind: "podNotFound" };
  const entry = findPodContainer(pod, at.container);
  if (entry === undefined) return { kind: "containerNotFound" };
  const { uid } = pod.metadata;
  const record = await runtime.podRecord(uid, signal);
  const status = allStatuses(pod.status ?? {}).find(({ name }) => name === at.container);
  const found = pick(recordsOf(record, at.container), previous, status);
  if (found === undefined) {
    return findRemoved(keptLogs, uid, entry, status, previous);
  }
  return {
    kind: "found",
    containerID: found.id,
    running: found.state.kind === "running",
    tty: entry.container.tty ?? false,
    stdin: entry.container.stdin ?? false,
  };
}

import type {
  ContainerState,
  ContainerStateTerminated,
  ContainerStatus,
} from "../../api/types.gen.ts";
import type { ContainerRecord } from "../../runtime/types.ts";
import { appliedFields } from "../spec/applied.ts";
import { specHash } from "../spec/container-config.ts";
import { type PodContainer, shouldRestart } from "../spec/containers.ts";
import { podLabel } from "../spec/pod-name.ts";
import { unappliedResources } from "../spec/resize.ts";
import type { AssignedPod } from "../types.ts";
import { restartingAllContainers } from "./restarting-all.ts";
import { crashBackoff, lostEnd, type ObservedPod, recordsOf } from "./observed.ts";

/** Why a container does not run yet; reasons are the kubelet's. */
export interface WaitingReason {
  readonly reason: string;
  readonly message: string;
}

/** What the status of a container needs beyond the runtime's record. */
export interface ContainerStatusInput {
  readonly pod: AssignedPod;
  readonly observed: ObservedPod;
  /** By container name. */
  readonly waiting: ReadonlyMap<string, WaitingReason>;
  /** Termination messages by container id. */
  readonly messages: ReadonlyMap<string, string>;
  /** `docker-pullable://repo@sha256:...` by the runtime's image id. */
  readonly imageRefs: ReadonlyMap<string, string>;
  /** All containers are being removed, or have just been, to be started again (KEP-5532). */
  readonly restartingAll: boolean;
  /** No container of this pod will be started any more. */
  readonly terminating: boolean;
}

/** An API timestamp: whole seconds. */
export function apiTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

function exitReason(state: Extract<ContainerRecord["state"], { kind: "exited" }>): string {
  if (state.oomKilled) return "OOMKilled";
  if (state.startedAt === 0 && state.error !== "") return "ContainerCannotRun";
  return state.exitCode === 0 ? "Completed" : "Error";
}

function terminatedState(
  record: ContainerRecord,
  state: Extract<ContainerRecord["state"], { kind: "exited" }>,
  messages: ReadonlyMap<string, string>,
): ContainerStateTerminated {
  // The engine's words first, as the kubelet has them.
  const message = [state.error, messages.get(record.id) ?? ""]
    .filter((part) => part !== "")
    .join(": ");
  const started = state.startedAt === 0 ? state.createdAt : state.startedAt;
  return {
    exitCode: state.exitCode,
    reason: exitReason(state),
    ...(message === "" ? {} : { message }),
    startedAt: apiTime(started),
    finishedAt: apiTime(state.finishedAt === 0 ? started : state.finishedAt),
    containerID: `docker://${record.id}`,
  };
}

function recordState(
  record: ContainerRecord,
  old: ContainerStatus | undefined,
  input: ContainerStatusInput,
): ContainerState {
  switch (record.state.kind) {
    case "running":
      return { running: { startedAt: apiTime(record.state.startedAt) } };
    case "exited":
      return { terminated: terminatedState(record, record.state, input.messages) };
    case "created":
      return { waiting: { reason: "ContainerCreating" } };
    case "unknown":
      // It ran and nobody knows how it ended: that must not look like "never ran".
      return old?.state?.running === undefined
        ? { waiting: { reason: "ContainerCreating" } }
        : {
            terminated: {
              exitCode: 137,
              reason: "ContainerStatusUnknown",
              message: "The container could not be located when the pod was terminated",
            },
          };
  }
}

/** A container that ran and was removed because all are restarted. */
function removedForRestart(
  entry: PodContainer,
  old: ContainerStatus | undefined,
  input: ContainerStatusInput,
): ContainerStatus | undefined {
  if (!input.restartingAll || entry.role === "ephemeral") return undefined;
  if (old === undefined || old.state?.waiting !== undefined) return undefined;
  const reason = restartingAllContainers;
  const message = "The container is removed because RestartAllContainers in place";
  return {
    name: old.name,
    image: old.image,
    imageID: old.imageID,
    ready: false,
    started: false,
    restartCount: old.restartCount + 1,
    state: { waiting: { reason, message } },
    lastState: { terminated: { exitCode: 137, reason, message } },
  };
}

/** The status before anything ran, or after what ran has vanished from the runtime. */
function withoutRecord(
  entry: PodContainer,
  old: ContainerStatus | undefined,
  input: ContainerStatusInput,
  initialized: boolean,
): ContainerStatus {
  if (old?.state?.terminated !== undefined) return old;
  const hasInit = (input.pod.spec?.initContainers ?? []).length > 0;
  const status: ContainerStatus = {
    name: entry.container.name,
    image: entry.container.image ?? "",
    imageID: "",
    ready: false,
    started: false,
    restartCount: old?.restartCount ?? 0,
    state: { waiting: { reason: hasInit ? "PodInitializing" : "ContainerCreating" } },
    lastState: old?.lastState ?? {},
  };
  if (entry.role === "init" && initialized) {
    // Its record was pruned; regular containers only start after it succeeded.
    status.state = {
      terminated: {
        exitCode: 0,
        reason: "Completed",
        message:
          "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally",
      },
    };
    status.ready = true;
    return status;
  }
  if (old?.state?.running === undefined) return status;
  status.lastState = {
    terminated: {
      exitCode: 137,
      reason: "ContainerStatusUnknown",
      message:
        "The container could not be located when the pod was deleted.  The container used to be Running",
    },
  };
  if (input.pod.metadata.deletionTimestamp === undefined) status.restartCount += 1;
  return status;
}

function isStarted(
  entry: PodContainer,
  record: ContainerRecord,
  old: ContainerStatus | undefined,
  observed: ObservedPod,
): boolean {
  if (record.state.kind !== "running" || observed.starting.has(record.id)) return false;
  if (entry.container.startupProbe === undefined) return true;
  const result = observed.probes.startup(record.id);
  // Until the first result after a restart of the agent, what was known before still holds.
  return result ?? (old?.containerID === `docker://${record.id}` && old.started === true);
}

function isReady(
  entry: PodContainer,
  record: ContainerRecord,
  old: ContainerStatus | undefined,
  observed: ObservedPod,
): boolean {
  if (record.state.kind === "exited") return entry.role === "init" && record.state.exitCode === 0;
  if (entry.role === "init" || entry.role === "ephemeral") return false;
  if (!isStarted(entry, record, old, observed)) return false;
  if (entry.container.readinessProbe === undefined) return true;
  const result = observed.probes.readiness(record.id);
  return result ?? (old?.containerID === `docker://${record.id}` && old.ready);
}

/** Waiting for its next try, where the container is to run again and something is in the way. */
function retryState(
  entry: PodContainer,
  newest: ContainerRecord | undefined,
  input: ContainerStatusInput,
): WaitingReason | undefined {
  if (input.terminating || newest?.state.kind === "running") return undefined;
  const { name } = entry.container;
  const last = newest ?? lostEnd(input.observed, name);
  if (last?.state.kind === "exited" && !shouldRestart(input.pod, entry, last.state.exitCode)) {
    return undefined;
  }
  const backoff = crashBackoff(last, entry.container, input.observed.crashLoop);
  if (backoff.dueAt > input.observed.now) {
    return {
      reason: "CrashLoopBackOff",
      message: `back-off ${formatSeconds(backoff.delayMs)} restarting failed container=${name} pod=${podLabel(input.pod)}`,
    };
  }
  return input.waiting.get(name);
}

/** `40s`, `2m40s`, `5m0s`: a duration as Go prints it. */
export function formatSeconds(ms: number): string {
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}

function fromRecords(
  entry: PodContainer,
  records: readonly [ContainerRecord, ...ContainerRecord[]],
  old: ContainerStatus | undefined,
  input: ContainerStatusInput,
): ContainerStatus {
  const [newest, previous] = records;
  const { container } = entry;
  const id = `docker://${newest.id}`;
  const last =
    previous === undefined
      ? old?.containerID === id
        ? old.lastState
        : old?.state?.terminated === undefined
          ? old?.lastState
          : old.state
      : recordState(previous, undefined, input);
  const unchanged = newest.specHash === specHash(container);
  return {
    name: container.name,
    image: unchanged ? (container.image ?? newest.image) : newest.image,
    imageID: input.imageRefs.get(newest.imageID) ?? newest.imageID,
    containerID: id,
    ready: isReady(entry, newest, old, input.observed),
    started: isStarted(entry, newest, old, input.observed),
    restartCount: Math.max(newest.attempt, old?.restartCount ?? 0),
    state: recordState(newest, old, input),
    lastState: last?.terminated === undefined ? {} : { terminated: last.terminated },
  };
}

/** The API status of one container. Pure. */
export function containerStatus(
  entry: PodContainer,
  old: ContainerStatus | undefined,
  input: ContainerStatusInput,
  initialized: boolean,
): ContainerStatus {
  const { container } = entry;
  const [newest, ...older] = recordsOf(input.observed.record, container.name);
  const status =
    newest === undefined
      ? (removedForRestart(entry, old, input) ?? withoutRecord(entry, old, input, initialized))
      : fromRecords(entry, [newest, ...older], old, input);
  const retry = retryState(entry, newest, input);
  if (retry !== undefined && !(newest === undefined && status.state?.terminated !== undefined)) {
    if (status.state?.terminated !== undefined) {
      status.lastState = { terminated: status.state.terminated };
    }
    status.state = { waiting: { ...retry } };
  }
  Object.assign(status, appliedFields(container, newest));
  if (entry.role !== "ephemeral" && container.resources !== undefined) {
    const pending =
      newest?.state.kind === "running" &&
      unappliedResources(input.pod, container, newest.limits).length > 0;
    // What is in force: until the engine has taken the new limits, the old ones.
    status.resources = pending ? (old?.resources ?? container.resources) : container.resources;
    const { requests } = container.resources;
    if (requests !== undefined) status.allocatedResources = requests;
  }
  return status;
}

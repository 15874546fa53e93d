import type {
  ContainerLimits,
  ContainerRecord,
  PodRecord,
  SandboxRecord,
} from "../../runtime/types.ts";
import {
  isHostNetwork,
  type PodContainer,
  regularContainers,
  shouldRestart,
} from "../spec/containers.ts";
import { parseContainerNote } from "../spec/records.ts";
import type { AssignedPod } from "../types.ts";

/** One look at a pod: what the runtime holds and what the network and the prober add to it. */
export interface ObservedPod {
  readonly record: PodRecord;
  /** Addresses of a sandbox, undefined while it has none. */
  readonly addresses: (sandboxID: string) => readonly string[] | undefined;
  /** True when somebody took the sandbox's interface away. */
  readonly disconnected?: (sandboxID: string) => boolean;
  /** Node addresses, primary first. */
  readonly hostIPs: readonly string[];
  readonly probes: ProbeView;
  /** Containers whose postStart hook is still running, by id. */
  readonly starting: ReadonlySet<string>;
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** Last updates by container id, so that an engine that rounds limits is not asked again and again. */
  readonly updated?: ReadonlyMap<string, LimitsUpdate>;
  /** How containers last ended, by name: also those that the runtime has lost since. */
  readonly ended?: ReadonlyMap<string, ContainerRecord>;
}

/** Limits that the runtime was asked for, and those that it showed at that time. */
export interface LimitsUpdate {
  readonly from: ContainerLimits | undefined;
  readonly to: ContainerLimits;
}

/** Probe results by container id; undefined before the first one. */
export interface ProbeView {
  startup(containerID: string): boolean | undefined;
  readiness(containerID: string): boolean | undefined;
  liveness(containerID: string): boolean | undefined;
}

/** Records of one container name, newest attempt first. */
export function recordsOf(record: PodRecord, name: string): readonly ContainerRecord[] {
  return record.containers.filter((container) => container.name === name);
}

/** The newest sandbox, usable or not. */
export function newestSandbox(record: PodRecord): SandboxRecord | undefined {
  return record.sandboxes[0];
}

/** The sandbox that containers may run in: newest, alive since its start, of the network mode that the pod asks for. */
export function liveSandbox(pod: AssignedPod, record: PodRecord): SandboxRecord | undefined {
  const sandbox = newestSandbox(record);
  if (sandbox === undefined || !sandbox.ready || sandbox.restarted === true) return undefined;
  return sandbox.network === (isHostNetwork(pod) ? "node" : "pod") ? sandbox : undefined;
}

/** The live sandbox once it has its addresses. */
export function networkedSandbox(
  pod: AssignedPod,
  observed: ObservedPod,
): SandboxRecord | undefined {
  const sandbox = liveSandbox(pod, observed.record);
  if (sandbox === undefined || isHostNetwork(pod)) return sandbox;
  return observed.addresses(sandbox.id) === undefined ? undefined : sandbox;
}

/** How the container of this name last ended, where that is all that is left of it. */
export function lostEnd({ ended, record }: ObservedPod, name: string): ContainerRecord | undefined {
  return recordsOf(record, name).length === 0 ? ended?.get(name) : undefined;
}

/** True when a regular container was started in this sandbox: initialisation is then over for good. */
export function hasInitialized(
  pod: AssignedPod,
  { ended, record }: Pick<ObservedPod, "ended" | "record">,
  sandboxID: string,
): boolean {
  const names = new Set(regularContainers(pod).map((entry) => entry.container.name));
  return [...record.containers, ...(ended?.values() ?? [])].some(
    (container) => container.sandboxID === sandboxID && names.has(container.name),
  );
}

const firstDelayMs = 10_000;
const maxDelayMs = 300_000;
const resetAfterMs = 2 * maxDelayMs;

/** The wait before the next start of a container that was restarted so often and has ended again. */
export function crashDelayMs(restarts: number): number {
  return restarts === 0 ? 0 : Math.min(firstDelayMs * 2 ** (restarts - 1), maxDelayMs);
}

export interface CrashBackoff {
  /** When the container may start again, milliseconds since the epoch. */
  readonly dueAt: number;
  /** The delay that counts now; 0 for a first restart. */
  readonly delayMs: number;
  /** The delay to note in the next run, for when that one ends. */
  readonly nextDelayMs: number;
}

/**
 * The crash loop curve, from what the last run's container remembers: first restart at once, then 10 s doubling to
 * 300 s from the end of the run; a run of more than ten minutes starts the curve anew, as does a change of the image.
 */
export function crashBackoff(last: ContainerRecord | undefined, specHash: string): CrashBackoff {
  const fresh = { dueAt: 0, delayMs: 0, nextDelayMs: firstDelayMs };
  if (last === undefined || last.state.kind !== "exited") return { ...fresh, nextDelayMs: 0 };
  if (last.specHash !== specHash) return fresh;
  const { createdAt, finishedAt, startedAt } = last.state;
  const ended = Math.max(finishedAt, startedAt, createdAt);
  const { backoffMs } = parseContainerNote(last.record);
  if (backoffMs === 0 || ended - createdAt > resetAfterMs) return fresh;
  return {
    dueAt: ended + backoffMs,
    delayMs: backoffMs,
    nextDelayMs: Math.min(backoffMs * 2, maxDelayMs),
  };
}

/**
 * The same for a running container that is killed to be started again: that is at once, unless it has just been started
 * after a wait.
 */
export function killBackoff(last: ContainerRecord, specHash: string, now: number): CrashBackoff {
  const same = last.specHash === specHash;
  const backoffMs = same ? parseContainerNote(last.record).backoffMs : 0;
  const { createdAt } = last.state;
  const dueAt = createdAt + backoffMs;
  if (now - createdAt > resetAfterMs) return { dueAt, delayMs: 0, nextDelayMs: firstDelayMs };
  const doubled = Math.min(backoffMs * 2, maxDelayMs);
  const first = last.attempt === 0 ? 0 : firstDelayMs;
  return { dueAt, delayMs: backoffMs, nextDelayMs: backoffMs === 0 ? first : doubled };
}

/** Whether a container that has ended is to run again in the present sandbox. */
export function isRestartable(
  pod: AssignedPod,
  entry: PodContainer,
  last: ContainerRecord | undefined,
): boolean {
  if (last === undefined) return true;
  switch (last.state.kind) {
    case "running":
      return false;
    case "created":
    case "unknown":
      return true;
    case "exited":
      return shouldRestart(pod, entry, last.state.exitCode);
  }
}

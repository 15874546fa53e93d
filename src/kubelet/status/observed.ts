import type { Container } from "../../api/types.gen.ts";
import type {
  ContainerLimits,
  ContainerRecord,
  PodRecord,
  SandboxRecord,
} from "../../runtime/types.ts";
import { resourcesHash, specHash } from "../spec/container-config.ts";
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
  /** What was granted to the pod as a whole by a resize is not in force yet. */
  readonly cgroupBehind?: boolean;
  /** How long restarts have to wait; default {@link crashLoopCurve}. */
  readonly crashLoop?: CrashLoopCurve;
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

/** Waits of a crash loop: the first, doubling up to the longest. A run of twice that begins it anew. Milliseconds. */
export interface CrashLoopCurve {
  readonly firstMs: number;
  readonly longestMs: number;
}

/** The kubelet's curve, up to `longestMs` (`crashLoopBackOff.maxContainerRestartPeriod`, KEP-4603). */
export function crashLoopCurve(longestMs = 300_000): CrashLoopCurve {
  return { firstMs: Math.min(10_000, longestMs), longestMs };
}

const usual = crashLoopCurve();

/** The wait before the next start of a container that was restarted so often and has ended again. */
export function crashDelayMs(restarts: number, curve: CrashLoopCurve = usual): number {
  return restarts === 0 ? 0 : Math.min(curve.firstMs * 2 ** (restarts - 1), curve.longestMs);
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
 * The wait that a container has noted for after its run; undefined when it was another one: of another image, or with
 * other resources. The note may have been written by an agent with a longer curve.
 */
function notedDelayMs(
  last: ContainerRecord,
  container: Container,
  { longestMs }: CrashLoopCurve,
): number | undefined {
  if (last.specHash !== specHash(container)) return undefined;
  const note = parseContainerNote(last.record);
  // Nothing was noted for a container without resources, and by older agents.
  const had = note.resourcesHash;
  if (had !== undefined && had !== resourcesHash(container)) return undefined;
  return Math.min(note.backoffMs, longestMs);
}

/**
 * The crash loop, from what the last run's container remembers: first restart at once, then along the curve from the
 * end of the run; a long run starts the curve anew, as does a change of the image or the resources.
 */
export function crashBackoff(
  last: ContainerRecord | undefined,
  container: Container,
  curve: CrashLoopCurve = usual,
): CrashBackoff {
  const fresh = { dueAt: 0, delayMs: 0, nextDelayMs: curve.firstMs };
  if (last === undefined || last.state.kind !== "exited") return { ...fresh, nextDelayMs: 0 };
  const delayMs = notedDelayMs(last, container, curve);
  if (delayMs === undefined) return fresh;
  const { createdAt, finishedAt, startedAt } = last.state;
  const ended = Math.max(finishedAt, startedAt, createdAt);
  if (delayMs === 0 || ended - createdAt > 2 * curve.longestMs) return fresh;
  return {
    dueAt: ended + delayMs,
    delayMs,
    nextDelayMs: Math.min(delayMs * 2, curve.longestMs),
  };
}

/**
 * The same for a running container that is killed to be started again: that is at once, unless it has just been started
 * after a wait.
 */
export function killBackoff(
  last: ContainerRecord,
  container: Container,
  now: number,
  curve: CrashLoopCurve = usual,
): CrashBackoff {
  const delayMs = notedDelayMs(last, container, curve) ?? 0;
  const { createdAt } = last.state;
  const dueAt = createdAt + delayMs;
  if (now - createdAt > 2 * curve.longestMs) {
    return { dueAt, delayMs: 0, nextDelayMs: curve.firstMs };
  }
  const doubled = Math.min(delayMs * 2, curve.longestMs);
  const first = last.attempt === 0 ? 0 : curve.firstMs;
  return { dueAt, delayMs, nextDelayMs: delayMs === 0 ? first : doubled };
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

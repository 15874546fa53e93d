import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { ContainerRecord } from "../../runtime/types.ts";
import { findPodContainer, initContainers, type PodContainer } from "../spec/containers.ts";
import { newestSandbox, type ObservedPod } from "../status/observed.ts";
import type { AssignedPod } from "../types.ts";
import { containerTarget } from "./event-target.ts";
import { runHook } from "./hooks.ts";
import type { PodDeps } from "./pod-deps.ts";
import type { PodEntry, RunningHook } from "./pod-entry.ts";

/** The least time between the stop signal and SIGKILL, whatever the grace and whatever has used it up. Seconds. */
const minimumGraceSeconds = 2;

export interface StopRequest {
  readonly deps: PodDeps;
  readonly state: PodEntry;
  /** Undefined when only the runtime knows the pod: then no hooks and no events. */
  readonly pod: AssignedPod | undefined;
  readonly observed: ObservedPod;
  readonly graceSeconds: number;
  /** False: no preStop hooks. */
  readonly hooks?: boolean;
}

function isAlive(record: ContainerRecord): boolean {
  return record.state.kind === "running" || record.state.kind === "unknown";
}

/** Begins the hook, unless the container has none, or it was begun before. */
function beginPreStop(request: StopRequest, record: ContainerRecord): RunningHook | undefined {
  const { deps, observed, pod, state } = request;
  const entry = pod === undefined ? undefined : findPodContainer(pod, record.name);
  const handler = entry?.container.lifecycle?.preStop;
  if (pod === undefined || entry === undefined || handler === undefined) return undefined;
  if (request.hooks === false || record.state.kind !== "running") return undefined;
  const begun = state.preStops.get(record.id);
  if (begun !== undefined) return begun;
  const limit = new AbortController();
  const { clock, events, runtime } = deps;
  const podIP = podAddress(observed);
  const context = { runtime, clock, events, pod, containerID: record.id, entry, podIP };
  const signal = AbortSignal.any([deps.signal, limit.signal]);
  const done = runHook(handler, context, signal).catch((error: unknown) => {
    if (signal.aborted && isAbort(error)) return;
    deps.logger.log("warn", "preStop hook failed", {
      podUID: state.uid,
      container: record.name,
      error: errorMessage(error),
    });
    const target = containerTarget(pod, entry);
    events.event(target, "Warning", "FailedPreStopHook", "PreStopHook failed");
  });
  const hook = { done, limit };
  state.preStops.set(record.id, hook);
  return hook;
}

/** Runs the hook, or waits for the one that runs, for as long as the grace is. Throws `AbortError` only. */
async function preStop(
  request: StopRequest,
  record: ContainerRecord,
  signal: AbortSignal,
): Promise<void> {
  const hook = beginPreStop(request, record);
  if (hook === undefined) return;
  const over = new AbortController();
  const expiry = request.deps.clock
    .sleep(request.graceSeconds * 1000, AbortSignal.any([signal, over.signal]))
    .then(
      () => hook.limit.abort(),
      () => undefined,
    );
  // An interrupted wait leaves the hook to the next one: a shorter grace does not take back what has begun.
  await Promise.race([hook.done, expiry]);
  over.abort();
  await expiry;
  signal.throwIfAborted();
  await hook.done;
}

function podAddress(observed: ObservedPod): string {
  const sandbox = newestSandbox(observed.record);
  const own = sandbox === undefined ? undefined : observed.addresses(sandbox.id)?.[0];
  return own ?? observed.hostIPs[0] ?? "127.0.0.1";
}

function remainingSeconds(request: StopRequest, startedAt: number): number {
  const elapsed = (request.deps.clock.monotonic() - startedAt) / 1000;
  // What took no time must not cost a second of it.
  if (elapsed < 0.5) return Math.max(request.graceSeconds, minimumGraceSeconds);
  return Math.max(Math.ceil(request.graceSeconds - elapsed), minimumGraceSeconds);
}

/**
 * Stops one container for good or for a restart: event, preStop within the grace, stop signal, SIGKILL.
 *
 * @throws {RuntimeError}; `AbortError`, which does not take back a stop that has begun.
 */
export async function stopContainer(
  request: StopRequest,
  record: ContainerRecord,
  message: string,
  signal: AbortSignal,
): Promise<void> {
  const startedAt = request.deps.clock.monotonic();
  announce(request, record, message);
  await preStop(request, record, signal);
  await finish(request, record, startedAt, signal);
}

function announce(request: StopRequest, record: ContainerRecord, message: string): void {
  const { deps, pod, state } = request;
  const entry = pod === undefined ? undefined : findPodContainer(pod, record.name);
  if (pod === undefined || entry === undefined || state.preStops.has(record.id)) return;
  deps.events.event(containerTarget(pod, entry), "Normal", "Killing", message);
}

async function finish(
  request: StopRequest,
  record: ContainerRecord,
  startedAt: number,
  signal: AbortSignal,
): Promise<void> {
  const { runtime, step } = request.deps;
  await step("stopContainer");
  await runtime.stopContainer(record.id, remainingSeconds(request, startedAt), signal);
}

function isSidecarRecord(sidecars: readonly PodContainer[], record: ContainerRecord): boolean {
  return sidecars.some(({ container }) => container.name === record.name);
}

/**
 * Stops everything that runs: regular containers at once, then sidecars in reverse order (KEP-753), all within one
 * grace period.
 *
 * @throws the first failure, after all stops have ended.
 */
export async function stopContainers(request: StopRequest, signal: AbortSignal): Promise<void> {
  const { deps, observed, pod } = request;
  const startedAt = deps.clock.monotonic();
  const sidecars =
    pod === undefined ? [] : initContainers(pod).filter(({ role }) => role === "sidecar");
  const alive = observed.record.containers.filter(isAlive);
  const regular = alive.filter((record) => !isSidecarRecord(sidecars, record));
  const late = sidecars
    .toReversed()
    .flatMap(({ container }) => alive.filter(({ name }) => name === container.name));
  const text = (record: ContainerRecord): string => `Stopping container ${record.name}`;
  for (const record of late) announce(request, record, text(record));
  // Their hooks run beside the regular stops; only their stop signals wait.
  const hooks = new Map(
    late.map((record) => [record.id, settle(preStop(request, record, signal))]),
  );
  const stops = await Promise.allSettled(
    regular.map(async (record) => {
      await stopContainer(request, record, text(record), signal);
    }),
  );
  const failed = stops.find((result) => result.status === "rejected");
  if (failed !== undefined) {
    await Promise.all(hooks.values());
    throw failed.reason;
  }
  for (const record of late) {
    const hook = await hooks.get(record.id);
    if (hook?.error !== undefined) throw hook.error;
    await finish(request, record, startedAt, signal);
  }
}

/** Turns a promise into one that never rejects, so that nobody has to be there when it does. */
async function settle(promise: Promise<void>): Promise<{ readonly error: Error | undefined }> {
  try {
    await promise;
    return { error: undefined };
  } catch (error) {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  }
}

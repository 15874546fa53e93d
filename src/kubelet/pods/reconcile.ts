import type { PodStatus } from "../../api/types.gen.ts";
import { errorCode, errorMessage, isAbort } from "../../lib/errors.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { CgroupError } from "../cgroups/cgroup-tree.ts";
import {
  allContainers,
  isHostNetwork,
  isTerminalPhase,
  podGracePeriodSeconds,
} from "../spec/containers.ts";
import { allocatedPod } from "../spec/resize.ts";
import type { ObservedPod } from "../status/observed.ts";
import type { AssignedPod } from "../types.ts";
import { VolumeError } from "../volumes/payload.ts";
import { TearDownError } from "../volumes/take-down.ts";
import { computeActions } from "./compute-actions.ts";
import { podTarget } from "./event-target.ts";
import { executeActions, noteResizeError } from "./execute-actions.ts";
import { observePod, publishStatus } from "./observe.ts";
import type { PodDeps } from "./pod-deps.ts";
import type { PodEntry } from "./pod-entry.ts";
import { loggedContainers } from "./pod-view.ts";
import { stopContainers } from "./stop-containers.ts";
import { networkError } from "../node/conditions.ts";
import { pruneActions } from "./prune-actions.ts";
import { deletePodObject, removePod, tearDownPod } from "./tear-down.ts";
import { tellingMeanwhile } from "./while-stopping.ts";

/** What the pod's loop does after one look. */
export interface Outcome {
  /** Milliseconds until the next look, unless something wakes the pod before. */
  readonly requeueMs: number | undefined;
  /** Nothing is left of the pod: forget it. */
  readonly finished: boolean;
}

interface Look {
  readonly deps: PodDeps;
  readonly state: PodEntry;
  readonly refs: Map<string, string>;
  readonly signal: AbortSignal;
}

const resyncMs = 60_000;
const retryMs = 10_000;
const networkRetryMs = 1_000;
/** More rounds than this in one look means that two rules fight; the queue then gives others a turn. */
const maxRounds = 12;

/** Spreads `ms` over the next half of itself, so that pods do not move in step. */
function spread(deps: PodDeps, ms: number): number {
  return ms * (1 + deps.random() / 2);
}

function isTerminating(deps: PodDeps, state: PodEntry, pod: AssignedPod): boolean {
  return (
    state.ending ||
    state.verdict !== undefined ||
    pod.metadata.deletionTimestamp !== undefined ||
    isTerminalPhase(deps.writer.current(state.uid)?.phase) ||
    isTerminalPhase(pod.status?.phase)
  );
}

/** Seconds for stopping; a later, smaller wish wins, a larger one never. */
export function effectiveGrace(state: PodEntry): number {
  const { pod } = state;
  const wished =
    pod === undefined || state.removed
      ? 1
      : (pod.metadata.deletionGracePeriodSeconds ?? podGracePeriodSeconds(pod));
  const grace = Math.max(Math.min(wished, state.graceSeconds ?? wished), 1);
  state.graceSeconds = grace;
  return grace;
}

/** When the pod has been active long enough, milliseconds since the epoch. */
function deadlineAt({ deps, state }: Look, pod: AssignedPod | undefined): number | undefined {
  const seconds = pod?.spec?.activeDeadlineSeconds;
  const { startTime } = deps.writer.current(state.uid) ?? pod?.status ?? {};
  if (seconds === undefined || startTime === undefined) return undefined;
  return Date.parse(startTime) + seconds * 1000;
}

/** Ends the pod when its deadline has passed. */
function enforceDeadline(look: Look, pod: AssignedPod): void {
  const { deps, state } = look;
  const due = deadlineAt(look, pod);
  if (due === undefined || deps.clock.now() < due) return;
  const message = "Pod was active on the node longer than the specified deadline";
  state.verdict = { reason: "DeadlineExceeded", message, conditions: [] };
  deps.events.event(podTarget(pod), "Normal", "DeadlineExceeded", message);
}

async function publish(
  look: Look,
  pod: AssignedPod,
  observed: ObservedPod,
  terminating: boolean,
): Promise<PodStatus> {
  const { deps, refs, signal, state } = look;
  return publishStatus(deps, state, pod, { observed, terminating, refs }, signal);
}

/** The pod's cgroup as its resources are now. Returns why it cannot be. */
async function ensureCgroup(look: Look, pod: AssignedPod): Promise<CgroupError | undefined> {
  const { deps } = look;
  if (deps.cgroups.isCurrent(pod)) return undefined;
  await deps.step("makePodCgroup");
  try {
    await deps.cgroups.ensure(pod);
    return undefined;
  } catch (error) {
    if (!(error instanceof CgroupError)) throw error;
    const text = `unable to ensure pod container exists: ${error.message}`;
    deps.events.event(podTarget(pod), "Warning", "FailedCreatePodContainer", text);
    return error;
  }
}

/** How the pod's volumes stand after a look. */
interface Prepared {
  /** Containers may be started. */
  readonly ready: boolean;
  /** When to try again, milliseconds since the epoch. */
  readonly dueAt: number | undefined;
}

/** Whether volumes have to be made, or may show something else than they should. */
function isStale({ deps: { clock }, state }: Look): boolean {
  if (state.volumesStale || state.changed.size > 0) return true;
  if (clock.monotonic() - state.volumesAt >= resyncMs) return true;
  return clock.now() >= (state.volumesDueAt ?? Number.POSITIVE_INFINITY);
}

/** When a token is to be refreshed; one that was just left as it is does not count. */
function nextRefresh({ deps: { clock, tokens }, state }: Look): number | undefined {
  const refreshAt = tokens.refreshAt(state.uid);
  return refreshAt !== undefined && refreshAt > clock.now() ? refreshAt : undefined;
}

/** The pod ends before it has begun: the control plane finds it another node. */
function reject(
  { deps, state }: Look,
  pod: AssignedPod,
  { message, reason }: { readonly reason: string; readonly message: string },
): void {
  state.verdict = { reason, message: `Pod was rejected: ${message}`, conditions: [] };
  deps.metrics?.pods.rejected(reason);
  deps.events.event(podTarget(pod), "Warning", reason, message);
}

/** Directories and volumes. */
async function prepare(look: Look, pod: AssignedPod, observed: ObservedPod): Promise<Prepared> {
  const { deps, signal, state } = look;
  if (!isStale(look)) return { ready: true, dueAt: state.volumesDueAt };
  // A running pod lives on with the content it has.
  const running = observed.record.containers.some(({ state: { kind } }) => kind === "running");
  try {
    await deps.step("makePodDirectories");
    await deps.volumes.makeDirectories(state.uid);
    const sandbox = observed.record.sandboxes[0];
    const podIPs = sandbox === undefined ? [] : (observed.addresses(sandbox.id) ?? []);
    // What changes from here on makes them stale again.
    state.volumesStale = false;
    state.changed.clear();
    const result = await deps.volumes.setUp(pod, { podIPs, hostIPs: observed.hostIPs }, signal);
    for (const { message, reason } of result.problems) {
      deps.events.event(podTarget(pod), "Warning", reason, message);
    }
    if (result.rejection !== undefined && !running) reject(look, pod, result.rejection);
    if (result.current) {
      state.volumesAt = deps.clock.monotonic();
      state.volumesDueAt = nextRefresh(look);
      return { ready: true, dueAt: state.volumesDueAt };
    }
    state.volumesStale = true;
    const { retryInMs } = result;
    const dueAt = retryInMs === undefined ? undefined : deps.clock.now() + retryInMs;
    return { ready: result.ready || running, dueAt };
  } catch (error) {
    state.volumesStale = true;
    if (signal.aborted && isAbort(error)) throw error;
    if (!(error instanceof VolumeError) && errorCode(error) === undefined) throw error;
    deps.events.event(podTarget(pod), "Warning", "FailedMount", errorMessage(error));
    return { ready: running, dueAt: undefined };
  }
}

/**
 * A look at a pod that is to live on. Of a container that the runtime is too busy to tell about nothing is concluded: not
 * that it has ended, and not that it has to be killed.
 *
 * @throws {RuntimeError} that is tried again.
 */
async function observeAll({ deps, signal, state }: Look): Promise<ObservedPod> {
  const observed = await observePod(deps, state, signal);
  const silent = observed.record.containers.find(
    (container) => container.state.kind === "unknown" && container.state.unanswered === true,
  );
  if (silent === undefined) return observed;
  throw new RuntimeError("Timeout", `the engine does not tell how container ${silent.name} is`);
}

/** Brings a pod that is to run one look further. */
async function sync(look: Look, pod: AssignedPod): Promise<Outcome> {
  const { deps, signal, state } = look;
  enforceDeadline(look, pod);
  if (state.verdict !== undefined) return terminate(look, pod);
  deps.objects.register(pod);
  let observed = await observeAll(look);
  let status = await publish(look, pod, observed, false);
  if (isTerminalPhase(status.phase)) {
    state.ending = true;
    return terminate(look, pod);
  }
  if (!isHostNetwork(pod) && !deps.network.ready && observed.record.sandboxes.length === 0) {
    const reason = deps.network.notReadyReason ?? "the node has no pod CIDR yet";
    const message = `network is not ready: ${networkError(reason)}`;
    deps.events.event(podTarget(pod), "Warning", "NetworkNotReady", message);
    return { requeueMs: networkRetryMs, finished: false };
  }
  const refused = await ensureCgroup(look, pod);
  if (observed.cgroupBehind === true) {
    if (refused !== undefined) noteResizeError(deps, state, pod, refused.message);
    observed = await observeAll(look);
    status = await publish(look, pod, observed, false);
  }
  if (refused !== undefined) return failure(look, refused);
  const volumes = await prepare(look, pod, observed);
  if (state.verdict !== undefined) return terminate(look, pod);
  if (!volumes.ready) return failure(look, undefined, volumes.dueAt);
  for (let round = 0; round < maxRounds; round += 1) {
    const actions = computeActions({ pod, observed, status });
    const result = await executeActions({ deps, state, pod, observed, signal }, actions);
    if (state.ending) return terminate(look, pod);
    if (result.acted) {
      observed = await observeAll(look);
      status = await publish(look, pod, observed, false);
    }
    if (result.error !== undefined) return failure(look, result.error, result.dueAt);
    if (!result.acted) {
      state.failures = 0;
      state.failureLog.recovered(deps.clock.monotonic());
      const prune = pruneActions(pod, observed);
      const pruned = await executeActions({ deps, state, pod, observed, signal }, prune);
      if (pruned.error !== undefined) return failure(look, pruned.error);
      await keepLogs(look, pod, observed);
      // Asked for only now: the first look at a pod is what gives it its start time.
      const times = [result.dueAt, volumes.dueAt, deadlineAt(look, pod)];
      return { requeueMs: nextLook(look, times), finished: false };
    }
  }
  return { requeueMs: 0, finished: false };
}

/** Logs that nobody can ask for any more go; those that can are kept from whoever removes their containers. */
async function keepLogs(look: Look, pod: AssignedPod, { record }: ObservedPod): Promise<void> {
  const { keptLogs, writer } = look.deps;
  const { containers } = record;
  const running = containers.filter(({ state }) => state.kind === "running");
  const known = loggedContainers(writer.current(look.state.uid) ?? pod.status ?? {});
  const wanted = new Set([...containers.map(({ id }) => id), ...known]);
  const signature = `${await keptLogs.signature(pod, running)} ${[...wanted].join(" ")}`;
  if (signature === look.state.keptLogs) return;
  await keptLogs.keep(pod, running);
  for (const { container } of allContainers(pod)) {
    await keptLogs.drop(pod.metadata.uid, container.name, wanted);
  }
  look.state.keptLogs = signature;
}

/** Until the earliest of these times and the regular resync. */
function nextLook(look: Look, times: readonly (number | undefined)[]): number {
  const { clock } = look.deps;
  const waits = times.flatMap((time) => (time === undefined ? [] : [time - clock.now()]));
  return Math.max(Math.min(spread(look.deps, resyncMs), ...waits), 0);
}

/** Waits before the next try. What time alone will mend is tried when that time has come. */
function failure(look: Look, error?: unknown, dueAt?: number): Outcome {
  const { deps, state } = look;
  state.failures += 1;
  if (error !== undefined) {
    const message = errorMessage(error);
    const level = state.failureLog.level(message, deps.clock.monotonic());
    deps.logger.log(level, "pod could not be brought to its desired state, will retry", {
      podUID: state.uid,
      pod: `${state.namespace}/${state.name}`,
      attempt: state.failures,
      error: message,
    });
  }
  // An engine that does not answer is asked again soon; a wrong image or spec is not.
  const base = error instanceof RuntimeError && error.retryable ? retryMs / 10 : retryMs;
  const wait = spread(deps, Math.min(base * state.failures, retryMs));
  const deadline = state.ending ? undefined : deadlineAt(look, state.pod);
  const waits = [dueAt, deadline].flatMap((time) =>
    time === undefined ? [] : [Math.max(time - deps.clock.now(), 0)],
  );
  return { requeueMs: Math.min(wait, ...waits), finished: false };
}

/** Stops everything, publishes the terminal status, cleans up, and lets the API forget a deleted pod. */
async function terminate(look: Look, pod: AssignedPod): Promise<Outcome> {
  const { deps, signal, state } = look;
  state.ending = true;
  const sent = state.deletionSentAt;
  if (sent !== undefined && deps.clock.monotonic() - sent < retryMs) {
    // Nothing is left to report about it; the watch will tell when it is gone.
    return { requeueMs: retryMs, finished: false };
  }
  let observed = await observePod(deps, state, signal);
  await publish(look, pod, observed, true);
  const alive = observed.record.containers.some(
    ({ state: { kind } }) => kind === "running" || kind === "unknown",
  );
  if (alive) {
    try {
      const graceSeconds = effectiveGrace(state);
      const stopping = { deps, state, pod, observed, graceSeconds };
      await tellingMeanwhile(
        state,
        () => tellEnding(look, pod),
        () => stopContainers(stopping, signal),
      );
      await removeUnknown(look, observed);
    } catch (error) {
      if (signal.aborted && isAbort(error)) throw error;
      const text = `error killing pod: ${errorMessage(error)}`;
      deps.events.event(podTarget(pod), "Warning", "FailedKillPod", text);
      return failure(look, error);
    }
    observed = await observePod(deps, state, signal);
    await publish(look, pod, observed, true);
  }
  return cleanUp(look, pod, observed);
}

/** Publishes how a pod that is being stopped is now. */
async function tellEnding(look: Look, pod: AssignedPod): Promise<void> {
  const { deps, signal, state } = look;
  try {
    await publish(look, pod, await observePod(deps, state, signal), true);
  } catch (error) {
    // The look that stops the pod publishes at its end too, and what it meets there is told.
    deps.logger.log("debug", "status of a pod that is being stopped not published", {
      pod: `${state.namespace}/${state.name}`,
      error: errorMessage(error),
    });
  }
}

/** A container whose state the engine cannot tell is gone only once it is removed. */
async function removeUnknown(look: Look, observed: ObservedPod): Promise<void> {
  const { deps, signal } = look;
  for (const { id, state } of observed.record.containers) {
    if (state.kind !== "unknown") continue;
    await deps.step("removeContainer");
    await deps.runtime.removeContainer(id, signal);
  }
}

/** What keeps a pod from going is told on the pod, as long as there is one, and tried again when its time has come. */
function stuck(look: Look, error: unknown, pod?: AssignedPod): Outcome {
  const { clock, events } = look.deps;
  const volumes = error instanceof TearDownError ? error : undefined;
  // An engine that is away is told of for the node, not for each pod.
  const away = error instanceof RuntimeError && error.retryable;
  if (pod !== undefined && (volumes?.news ?? !away)) {
    const text = `error killing pod: ${errorMessage(error)}`;
    events.event(podTarget(pod), "Warning", "FailedKillPod", text);
  }
  const dueAt = volumes === undefined ? undefined : clock.now() + volumes.retryInMs;
  return failure(look, error, dueAt);
}

async function cleanUp(look: Look, pod: AssignedPod, observed: ObservedPod): Promise<Outcome> {
  const { deps, signal, state } = look;
  try {
    if (!state.tornDown) {
      await tearDownPod(deps, observed.record, signal);
      deps.objects.unregister(state.uid);
      deps.puller.forget(state.uid);
      deps.prober.sync(state.uid, [], true);
      state.tornDown = true;
    }
    if (pod.metadata.deletionTimestamp === undefined) {
      const prune = pruneActions(pod, observed);
      await executeActions({ deps, state, pod, observed, signal }, prune);
      return { requeueMs: undefined, finished: false };
    }
    // Exit codes must be in the API before the containers that hold them go; the write wakes this pod.
    const visible = isTerminalPhase(deps.writer.current(state.uid)?.phase);
    if (!visible || !deps.writer.isWritten(state.uid)) {
      return { requeueMs: spread(deps, retryMs), finished: false };
    }
    await removePod(deps, observed.record, signal);
    await deletePodObject(deps, pod, signal);
    state.deletionSentAt = deps.clock.monotonic();
    return { requeueMs: spread(deps, retryMs), finished: false };
  } catch (error) {
    if (signal.aborted && isAbort(error)) throw error;
    return stuck(look, error, pod);
  }
}

/** Removes everything of a pod that the API does not have (any more). */
async function removeOrphan(look: Look): Promise<Outcome> {
  const { deps, signal, state } = look;
  state.ending = true;
  try {
    const observed = await observePod(deps, state, signal);
    const graceSeconds = effectiveGrace(state);
    const { pod } = state;
    await stopContainers({ deps, state, pod, observed, graceSeconds }, signal);
    await tearDownPod(deps, observed.record, signal);
    await removePod(deps, observed.record, signal);
    deps.objects.unregister(state.uid);
    deps.puller.forget(state.uid);
    deps.prober.sync(state.uid, [], true);
    return { requeueMs: undefined, finished: true };
  } catch (error) {
    if (signal.aborted && isAbort(error)) throw error;
    return stuck(look, error);
  }
}

/**
 * One look at one pod: observe, publish, act. Safe to repeat at any point, also in another process after a crash.
 *
 * @param refs Image references already known; shared by all pods.
 * @throws `AbortError`, and errors that no rule expects.
 */
export async function reconcilePod(
  deps: PodDeps,
  state: PodEntry,
  refs: Map<string, string>,
  signal: AbortSignal,
): Promise<Outcome> {
  const look: Look = { deps, state, refs, signal };
  if (state.pod === undefined || state.removed) return removeOrphan(look);
  deps.writer.observe(state.pod);
  const pod = allocatedPod(state.pod, state.allocation);
  return isTerminating(deps, state, pod) ? terminate(look, pod) : sync(look, pod);
}

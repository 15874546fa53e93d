import { errorMessage, isAbort } from "../../lib/errors.ts";
import { CgroupError } from "../cgroups/cgroup-tree.ts";
import type { ContainerRecord, SandboxRecord } from "../../runtime/types.ts";
import { readHostResolvConf } from "../node/host-resolv-conf.ts";
import { podResolvConf } from "../spec/dns.ts";
import { networkRequest } from "../spec/network-request.ts";
import { findPodContainer, isHostNetwork, podGracePeriodSeconds } from "../spec/containers.ts";
import { containerTarget, podTarget } from "./event-target.ts";
import { hostPortFacts, hostPortNotices } from "./host-port-notices.ts";
import { podLabel } from "../spec/pod-name.ts";
import { resizeMessage } from "../spec/resize.ts";
import { hostPorts, sandboxConfig } from "../spec/sandbox-config.ts";
import type { ObservedPod } from "../status/observed.ts";
import type { AssignedPod } from "../types.ts";
import type { PodImages } from "../volumes/image-volumes.ts";
import type { PodAction } from "./pod-action.ts";
import type { PodDeps } from "./pod-deps.ts";
import type { PodEntry } from "./pod-entry.ts";
import { StartError, startContainer } from "./start-container.ts";
import { stopContainer, type StopRequest } from "./stop-containers.ts";

/** How a round of actions ended. */
export interface ExecutionResult {
  /** Something changed: look again at once. */
  readonly acted: boolean;
  /** Earliest time at which waiting will help, milliseconds since the epoch. */
  readonly dueAt: number | undefined;
  /** The first failure; the others were tried all the same. */
  readonly error: unknown;
}

interface Execution {
  readonly deps: PodDeps;
  readonly state: PodEntry;
  readonly pod: AssignedPod;
  readonly observed: ObservedPod;
  readonly signal: AbortSignal;
}

async function createSandbox(
  run: Execution,
  action: Extract<PodAction, { kind: "createSandbox" }>,
): Promise<SandboxRecord> {
  const { deps, pod, signal } = run;
  const target = podTarget(pod);
  if (action.recreated) {
    const text = "Pod sandbox changed, it will be killed and re-created.";
    deps.events.event(target, "Normal", "SandboxChanged", text);
  }
  try {
    await readHostResolvConf(deps.config.resolvConf);
    // A reboot takes the cgroup with it.
    if (action.recreated) await deps.cgroups.ensure(pod);
    const config = sandboxConfig(pod, {
      attempt: action.attempt,
      clusterDomain: deps.config.clusterDomain,
      nodeName: deps.config.nodeName,
      cgroup: deps.cgroups.of(pod),
      runtimeHandler: await deps.runtimeClasses.handler(pod.spec?.runtimeClassName, signal),
    });
    await deps.step("runPodSandbox");
    return await deps.runtime.runPodSandbox(config, signal);
  } catch (error) {
    if (!signal.aborted) {
      const text = `Failed to create pod sandbox: ${errorMessage(error)}`;
      deps.events.event(target, "Warning", "FailedCreatePodSandBox", text);
    }
    throw error;
  }
}

async function setUpNetwork(
  run: Execution,
  action: Extract<PodAction, { kind: "setUpNetwork" }>,
): Promise<void> {
  const { deps, pod, signal } = run;
  const { id, pid } = action.sandbox;
  // Ready without a pid is a record that is out of date; the next look has a better one.
  if (pid === undefined) throw new StartError("ContainerCreating", "the sandbox has no process");
  await deps.step("setUpNetwork");
  const ports = hostPorts(pod);
  try {
    const resolvConf = podResolvConf(pod, await readHostResolvConf(deps.config.resolvConf), {
      dns: deps.config.clusterDNS,
      domain: deps.config.clusterDomain,
      nodeIPs: deps.node.hostIPs(),
    });
    const { ips, notLimited } = await deps.network.setUp(
      {
        sandboxID: id,
        podUID: pod.metadata.uid,
        podKey: `${pod.metadata.namespace ?? ""}/${pod.metadata.name}`,
        pid,
        hostPorts: ports,
        pod: networkRequest(pod, resolvConf),
      },
      signal,
    );
    if (notLimited !== undefined) {
      const text = `the pod's bandwidth is not limited yet: ${notLimited}`;
      deps.events.event(podTarget(pod), "Warning", "BandwidthNotLimited", text);
    }
    if (ports.length === 0) return;
    for (const { message, reason } of hostPortNotices(ports, await hostPortFacts(ips))) {
      deps.events.event(podTarget(pod), "Warning", reason, message);
    }
  } catch (error) {
    if (!signal.aborted) {
      const text = `Failed to create pod sandbox: failed to set up sandbox container "${id}" network for pod "${pod.metadata.name}": ${errorMessage(error)}`;
      deps.events.event(podTarget(pod), "Warning", "FailedCreatePodSandBox", text);
    }
    throw error;
  }
}

async function stopSandbox(
  run: Execution,
  action: Extract<PodAction, { kind: "stopSandbox" }>,
): Promise<void> {
  const { network, runtime, step } = run.deps;
  await step("tearDownNetwork");
  await network.tearDown(action.sandboxID, run.signal);
  await step("stopPodSandbox");
  await runtime.stopPodSandbox(action.sandboxID, run.signal);
}

/** A failed probe may bring its own grace; everything else has the pod's. */
const shortestGraceSeconds = 2;

function killGrace(
  run: Execution,
  record: ContainerRecord,
  action: Extract<PodAction, { kind: "killContainer" }>,
): number {
  if (action.cause === "restartAll") return shortestGraceSeconds;
  const container = findPodContainer(run.pod, record.name)?.container;
  const own =
    action.cause === "liveness"
      ? container?.livenessProbe?.terminationGracePeriodSeconds
      : action.cause === "startup"
        ? container?.startupProbe?.terminationGracePeriodSeconds
        : undefined;
  return own ?? podGracePeriodSeconds(run.pod);
}

async function killContainer(
  run: Execution,
  action: Extract<PodAction, { kind: "killContainer" }>,
): Promise<void> {
  const { deps, observed, pod, signal, state } = run;
  const { record } = action;
  const graceSeconds = killGrace(run, record, action);
  const hooks = action.cause !== "restartAll";
  const request: StopRequest = { deps, state, pod, observed, graceSeconds, hooks };
  await stopContainer(request, record, action.message, signal);
  if (record.state.kind === "unknown") {
    await deps.step("removeContainer");
    await deps.runtime.removeContainer(record.id, signal);
  }
}

function noteBackOff(run: Execution, action: Extract<PodAction, { kind: "backOff" }>): void {
  const { deps, pod } = run;
  const { name } = action.entry.container;
  const text = `Back-off restarting failed container ${name} in pod ${podLabel(pod)}`;
  deps.events.event(containerTarget(pod, action.entry), "Warning", "BackOff", text);
}

/** Why granted resources cannot be put in force: told once, and shown by the pod until they are. */
export function noteResizeError(
  deps: Pick<PodDeps, "events">,
  state: PodEntry,
  pod: AssignedPod,
  text: string,
): void {
  if (state.resizeError !== text) {
    const message = resizeMessage("Pod resize error", pod, text);
    deps.events.event(podTarget(pod), "Warning", "ResizeError", message);
  }
  state.resizeError = text;
}

/**
 * A limit below what is in use would have the kernel kill somebody.
 *
 * @throws {CgroupError} with the kubelet's text.
 */
async function refuseKilling(
  { deps, pod }: Execution,
  { limits, record }: Extract<PodAction, { kind: "updateContainer" }>,
): Promise<void> {
  const wanted = limits.memoryLimitBytes;
  const held = record.limits?.memoryLimitBytes ?? 0;
  if (wanted === 0 || (held !== 0 && wanted >= held)) return;
  const usage = await deps.cgroups.memoryUsage(pod, record.id);
  if (usage === undefined || usage < wanted) return;
  throw new CgroupError(
    `attempting to set container "${record.name}" memory limit (${wanted}) below current usage (${usage})`,
  );
}

async function updateContainer(
  run: Execution,
  action: Extract<PodAction, { kind: "updateContainer" }>,
): Promise<void> {
  const { deps, pod, signal, state } = run;
  const { limits, record } = action;
  await deps.step("updateContainer");
  try {
    await refuseKilling(run, action);
    await deps.runtime.updateContainer(record.id, limits, signal);
    state.updated.set(record.id, { from: record.limits, to: limits });
    state.resizeError = undefined;
  } catch (error) {
    if (signal.aborted && isAbort(error)) throw error;
    noteResizeError(deps, state, pod, errorMessage(error));
    throw error;
  }
}

/** What is removed on purpose starts anew. */
function forget({ ended }: PodEntry, { id, name }: ContainerRecord): void {
  if (ended?.get(name)?.id === id) ended.delete(name);
}

async function executeOne(
  run: Execution,
  action: PodAction,
  volumeImages: PodImages,
): Promise<void> {
  const { deps, observed, pod, signal, state } = run;
  switch (action.kind) {
    case "createSandbox": {
      const sandbox = await createSandbox(run, action);
      // What a look in between would find is known already.
      if (!isHostNetwork(pod)) await setUpNetwork(run, { kind: "setUpNetwork", sandbox });
      return;
    }
    case "setUpNetwork":
      await setUpNetwork(run, action);
      return;
    case "stopSandbox":
      await stopSandbox(run, action);
      return;
    case "killContainer":
      await killContainer(run, action);
      return;
    case "updateContainer":
      await updateContainer(run, action);
      return;
    case "removeContainer":
      await deps.step("removeContainer");
      await deps.runtime.removeContainer(action.record.id, signal);
      forget(state, action.record);
      return;
    case "removeSandbox":
      await deps.step("removePodSandbox");
      await deps.network.tearDown(action.sandbox.id, signal);
      await deps.runtime.removePodSandbox(action.sandbox.id, signal);
      return;
    case "startContainer":
      await startContainer(deps, state, pod, { observed, action, volumeImages }, signal);
      return;
    case "backOff":
      noteBackOff(run, action);
      return;
    case "endPod":
      state.ending = true;
  }
}

/** A failed start or update leaves the rest worth trying; a failure of the sandbox does not. */
function mayGoOn(action: PodAction): boolean {
  return action.kind === "startContainer" || action.kind === "updateContainer";
}

/**
 * Carries out a plan in order. A container that fails to start does not keep the others from being tried.
 *
 * @throws `AbortError` only.
 */
export async function executeActions(
  run: Execution,
  actions: readonly PodAction[],
): Promise<ExecutionResult> {
  let acted = false;
  let dueAt: number | undefined;
  let error: unknown;
  const volumeImages = run.deps.imageVolumes.round(run.pod);
  for (const action of actions) {
    if (action.kind === "backOff") dueAt = Math.min(dueAt ?? action.dueAt, action.dueAt);
    else acted = true;
    try {
      await executeOne(run, action, volumeImages);
    } catch (failure) {
      if (run.signal.aborted && isAbort(failure)) throw failure;
      error ??= failure;
      if (failure instanceof StartError && failure.retryAt !== undefined) {
        dueAt = Math.min(dueAt ?? failure.retryAt, failure.retryAt);
      }
      if (!mayGoOn(action)) break;
    }
  }
  return { acted, dueAt, error };
}

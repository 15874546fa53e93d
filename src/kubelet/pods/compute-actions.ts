import { isDeepStrictEqual } from "node:util";

import type { PodStatus } from "../../api/types.gen.ts";
import type { ContainerLimits, ContainerRecord, SandboxRecord } from "../../runtime/types.ts";
import { specHash } from "../spec/container-config.ts";
import {
  allContainers,
  containerRestartPolicy,
  ephemeralContainers,
  initContainers,
  isHostNetwork,
  type PodContainer,
  podRestartPolicy,
  regularContainers,
} from "../spec/containers.ts";
import { needsRestart, unappliedResources } from "../spec/resize.ts";
import { cgroupLimits } from "../spec/resources.ts";
import {
  crashBackoff,
  hasInitialized,
  isRestartable,
  liveSandbox,
  newestSandbox,
  type ObservedPod,
  recordsOf,
} from "../status/observed.ts";
import type { AssignedPod } from "../types.ts";

/** Why a running container is stopped although its pod goes on. */
export type KillCause = "definition" | "liveness" | "startup" | "resize" | "unknown" | "sandbox";

/** One thing to do for a pod, as data. The executor does them in order. */
export type PodAction =
  /** Nothing will run any more: stop what does and publish the terminal phase. */
  | { readonly kind: "endPod" }
  | { readonly kind: "stopSandbox"; readonly sandbox: SandboxRecord }
  | { readonly kind: "createSandbox"; readonly attempt: number; readonly recreated: boolean }
  | { readonly kind: "setUpNetwork"; readonly sandbox: SandboxRecord }
  | {
      readonly kind: "killContainer";
      readonly record: ContainerRecord;
      readonly cause: KillCause;
      readonly message: string;
    }
  | { readonly kind: "removeContainer"; readonly record: ContainerRecord }
  | { readonly kind: "removeSandbox"; readonly sandbox: SandboxRecord }
  | {
      readonly kind: "startContainer";
      readonly entry: PodContainer;
      readonly sandbox: SandboxRecord;
      readonly attempt: number;
      /** To note in the new container: the wait after its run. */
      readonly backoffMs: number;
    }
  /** Other limits for a running container, without a restart. */
  | {
      readonly kind: "updateContainer";
      readonly entry: PodContainer;
      readonly record: ContainerRecord;
      readonly limits: ContainerLimits;
    }
  /** Waits out the crash loop; milliseconds since the epoch. */
  | { readonly kind: "backOff"; readonly entry: PodContainer; readonly dueAt: number };

export interface ActionsInput {
  readonly pod: AssignedPod;
  readonly observed: ObservedPod;
  /** The status as computed from the same observation: the floor of restart counts. */
  readonly status: PodStatus;
}

function floorOfAttempts(input: ActionsInput, name: string): number {
  const statuses = [
    ...(input.status.initContainerStatuses ?? []),
    ...(input.status.containerStatuses ?? []),
  ];
  const status = statuses.find((candidate) => candidate.name === name);
  if (status === undefined) return 0;
  return status.restartCount + (status.state?.terminated === undefined ? 0 : 1);
}

/** Attempt of the next container of this name. One that was created and never started gives its number back. */
function nextAttempt(input: ActionsInput, name: string): number {
  const records = recordsOf(input.observed.record, name);
  const [newest] = records;
  if (newest === undefined) return floorOfAttempts(input, name);
  return newest.state.kind === "created" ? newest.attempt : newest.attempt + 1;
}

/** Start the container, after removing a half-made one, or say until when it must wait. */
function startActions(
  input: ActionsInput,
  entry: PodContainer,
  sandbox: SandboxRecord,
): readonly PodAction[] {
  const { name } = entry.container;
  const [newest, second] = recordsOf(input.observed.record, name);
  const half = newest?.state.kind === "created";
  const backoff = crashBackoff(half ? second : newest, specHash(entry.container));
  if (backoff.dueAt > input.observed.now) {
    return [{ kind: "backOff", entry, dueAt: backoff.dueAt }];
  }
  const before: PodAction[] = [];
  if (newest !== undefined && half) before.push({ kind: "removeContainer", record: newest });
  if (newest?.state.kind === "unknown") {
    before.push({
      kind: "killContainer",
      record: newest,
      cause: "unknown",
      message: `Container is in "unknown" state, try killing it before restart`,
    });
  }
  return [
    ...before,
    {
      kind: "startContainer",
      entry,
      sandbox,
      attempt: nextAttempt(input, name),
      backoffMs: backoff.nextDelayMs,
    },
  ];
}

/** Why a running container must be replaced, if it must. */
function killReason(
  input: ActionsInput,
  entry: PodContainer,
  record: ContainerRecord,
): { readonly cause: KillCause; readonly text: string; readonly restart: boolean } | undefined {
  const { container } = entry;
  const { probes } = input.observed;
  const label = entry.role === "sidecar" ? "Init container" : "Container";
  const restart =
    entry.role === "sidecar" || containerRestartPolicy(input.pod, container) !== "Never";
  if (record.specHash !== specHash(container)) {
    const text = `${label} ${container.name} definition changed`;
    return { cause: "definition", text, restart: true };
  }
  if (container.livenessProbe !== undefined && probes.liveness(record.id) === false) {
    const text = `${label} ${container.name} failed liveness probe`;
    return { cause: "liveness", text, restart };
  }
  if (container.startupProbe !== undefined && probes.startup(record.id) === false) {
    const text = `${label} ${container.name} failed startup probe`;
    return { cause: "startup", text, restart };
  }
  return undefined;
}

function replaceActions(
  input: ActionsInput,
  entry: PodContainer,
  record: ContainerRecord,
): { readonly actions: readonly PodAction[]; readonly keeps: boolean } | undefined {
  const reason = killReason(input, entry, record);
  if (reason === undefined) return undefined;
  const message = reason.restart ? `${reason.text}, will be restarted` : reason.text;
  // The restart itself is decided by the next look, from the exit that the kill leaves behind.
  return {
    actions: [{ kind: "killContainer", record, cause: reason.cause, message }],
    keeps: reason.restart,
  };
}

/** What a resize asks of a running container: new limits, or a restart where its policy says so. */
function resizeActions(
  input: ActionsInput,
  entry: PodContainer,
  record: ContainerRecord,
): readonly PodAction[] {
  const { container } = entry;
  const changed = unappliedResources(container, record.limits);
  if (changed.length === 0) return [];
  if (needsRestart(container, changed)) {
    const message = `Container ${container.name} resize requires restart`;
    return [{ kind: "killContainer", record, cause: "resize", message }];
  }
  const limits = cgroupLimits(container);
  if (isDeepStrictEqual(input.observed.updated?.get(record.id), limits)) return [];
  return [{ kind: "updateContainer", entry, record, limits }];
}

/** Whether a running container counts as started: its hook is done and its startup probe has passed. */
function isStarted(input: ActionsInput, entry: PodContainer, record: ContainerRecord): boolean {
  const statuses = input.status.initContainerStatuses ?? [];
  const status = statuses.find((candidate) => candidate.name === entry.container.name);
  return status?.containerID === `docker://${record.id}` && status.started === true;
}

interface InitPlan {
  readonly actions: readonly PodAction[];
  readonly progress: "pending" | "done" | "failed";
}

function sidecarPlan(
  input: ActionsInput,
  entry: PodContainer,
  sandbox: SandboxRecord,
  record: ContainerRecord | undefined,
): InitPlan {
  if (record?.state.kind !== "running") {
    return { actions: startActions(input, entry, sandbox), progress: "pending" };
  }
  const replace = replaceActions(input, entry, record);
  if (replace !== undefined) return { actions: replace.actions, progress: "pending" };
  const actions = resizeActions(input, entry, record);
  return { actions, progress: isStarted(input, entry, record) ? "done" : "pending" };
}

function initPlan(
  input: ActionsInput,
  entry: PodContainer,
  sandbox: SandboxRecord,
  record: ContainerRecord | undefined,
): InitPlan {
  if (entry.role === "sidecar") return sidecarPlan(input, entry, sandbox, record);
  if (record?.state.kind === "running") {
    const replace = replaceActions(input, entry, record);
    return { actions: replace?.actions ?? [], progress: "pending" };
  }
  if (record?.state.kind === "exited" && record.state.exitCode === 0) {
    return { actions: [], progress: "done" };
  }
  if (!isRestartable(input.pod, entry, record)) return { actions: [], progress: "failed" };
  return { actions: startActions(input, entry, sandbox), progress: "pending" };
}

function planInit(input: ActionsInput, sandbox: SandboxRecord, initialized: boolean): InitPlan {
  const entries = initContainers(input.pod);
  const here = input.observed.record.containers.filter(({ sandboxID }) => sandboxID === sandbox.id);
  const latest = (name: string): ContainerRecord | undefined =>
    here.find((record) => record.name === name);
  // Records of finished init containers may have been pruned; a later one that ran proves them done.
  const lastSeen = entries.findLastIndex(({ container }) => latest(container.name) !== undefined);
  const actions: PodAction[] = [];
  for (const [index, entry] of entries.entries()) {
    const record = latest(entry.container.name);
    const proven = initialized || (record === undefined && index < lastSeen);
    if (proven && entry.role === "init") continue;
    const plan = initPlan(input, entry, sandbox, record);
    actions.push(...plan.actions);
    if (plan.progress === "failed") return { actions: [], progress: "failed" };
    if (plan.progress === "pending" && !initialized) return { actions, progress: "pending" };
  }
  return { actions, progress: "done" };
}

function planRegular(input: ActionsInput, sandbox: SandboxRecord): readonly PodAction[] | "ended" {
  const actions: PodAction[] = [];
  let alive = 0;
  for (const entry of regularContainers(input.pod)) {
    const [newest] = recordsOf(input.observed.record, entry.container.name);
    if (newest?.state.kind === "running") {
      const replace = replaceActions(input, entry, newest);
      actions.push(...(replace?.actions ?? resizeActions(input, entry, newest)));
      // A container that is killed for good still has to be seen dead before the pod can end.
      alive += 1;
    } else if (isRestartable(input.pod, entry, newest)) {
      actions.push(...startActions(input, entry, sandbox));
      alive += 1;
    }
  }
  return alive === 0 ? "ended" : actions;
}

function planEphemeral(input: ActionsInput, sandbox: SandboxRecord): readonly PodAction[] {
  return ephemeralContainers(input.pod).flatMap((entry): readonly PodAction[] => {
    const [newest] = recordsOf(input.observed.record, entry.container.name);
    if (newest !== undefined && newest.state.kind !== "created") return [];
    return startActions(input, entry, sandbox);
  });
}

/** Without a usable sandbox: end the pod where nothing is to run again, else make a new one. */
function planSandbox(input: ActionsInput): readonly PodAction[] {
  const { pod, observed } = input;
  const { record } = observed;
  const newest = newestSandbox(record);
  const attempt = newest === undefined ? 0 : newest.metadata.attempt + 1;
  const regular = regularContainers(pod);
  const ran = regular.filter(({ container }) => recordsOf(record, container.name).length > 0);
  const toRun = regular.filter((entry) => {
    const [last] = recordsOf(record, entry.container.name);
    // What still runs there is killed with its sandbox, which does not mean that it was done.
    return last?.state.kind === "running" || isRestartable(pod, entry, last);
  });
  const once = podRestartPolicy(pod) === "Never" && newest !== undefined;
  if ((once && record.containers.length > 0) || (toRun.length === 0 && ran.length > 0)) {
    return [{ kind: "endPod" }];
  }
  const stops = record.sandboxes.filter(({ ready }) => ready);
  return [
    ...runningKills(record.containers),
    ...stops.map((sandbox): PodAction => ({ kind: "stopSandbox", sandbox })),
    { kind: "createSandbox", attempt, recreated: newest !== undefined },
  ];
}

function runningKills(records: readonly ContainerRecord[]): readonly PodAction[] {
  return records
    .filter(({ state }) => state.kind === "running" || state.kind === "unknown")
    .map((record): PodAction => ({
      kind: "killContainer",
      record,
      cause: "sandbox",
      message: "Pod sandbox changed, it will be killed and re-created.",
    }));
}

/** What nobody needs any more: all but the newest dead container of each name, strangers, empty old sandboxes. */
export function pruneActions(pod: AssignedPod, observed: ObservedPod): readonly PodAction[] {
  const { record } = observed;
  const known = new Set(allContainers(pod).map(({ container }) => container.name));
  const doomed = new Set<string>();
  const actions: PodAction[] = [];
  const seen = new Map<string, number>();
  for (const container of record.containers) {
    const dead = seen.get(container.name) ?? 0;
    if (container.state.kind === "running") continue;
    if (container.state.kind === "exited") seen.set(container.name, dead + 1);
    if (known.has(container.name) && (dead === 0 || container.state.kind !== "exited")) continue;
    doomed.add(container.id);
    actions.push({ kind: "removeContainer", record: container });
  }
  const used = new Set(
    record.containers.filter(({ id }) => !doomed.has(id)).map(({ sandboxID }) => sandboxID),
  );
  for (const sandbox of record.sandboxes.slice(1)) {
    if (!sandbox.ready && !used.has(sandbox.id)) actions.push({ kind: "removeSandbox", sandbox });
  }
  return actions;
}

/**
 * Decides what to do next for a pod that is to run. Pure: the same input gives the same plan. After the plan was
 * carried out the caller looks again; an empty plan means that all is as it should be.
 */
export function computeActions(input: ActionsInput): readonly PodAction[] {
  const { pod, observed } = input;
  const sandbox = liveSandbox(pod, observed.record);
  if (sandbox === undefined) return planSandbox(input);
  if (!isHostNetwork(pod) && observed.addresses(sandbox.id) === undefined) {
    return [{ kind: "setUpNetwork", sandbox }];
  }
  const strays = observed.record.containers.filter(({ sandboxID }) => sandboxID !== sandbox.id);
  const kills = runningKills(strays);
  if (kills.length > 0) return kills;
  const ephemeral = planEphemeral(input, sandbox);
  const initialized = hasInitialized(pod, observed.record, sandbox.id);
  const init = planInit(input, sandbox, initialized);
  if (init.progress === "failed") return [{ kind: "endPod" }];
  if (init.progress === "pending") return [...ephemeral, ...init.actions];
  const regular = planRegular(input, sandbox);
  if (regular === "ended") return [{ kind: "endPod" }];
  return [...ephemeral, ...init.actions, ...regular];
}

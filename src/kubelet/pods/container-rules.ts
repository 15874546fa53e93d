import { isDeepStrictEqual } from "node:util";

import type { ContainerRecord, SandboxRecord } from "../../runtime/types.ts";
import { specHash } from "../spec/container-config.ts";
import {
  type ContainerRole,
  containerRestartPolicy,
  type PodContainer,
  shouldRestart,
} from "../spec/containers.ts";
import { needsRestart, unappliedResources } from "../spec/resize.ts";
import { cgroupLimits } from "../spec/resources.ts";
import { crashBackoff, killBackoff, lostEnd, recordsOf } from "../status/observed.ts";
import type { ActionsInput, KillCause, PodAction } from "./pod-action.ts";

/** One container of the spec and what became of it in the runtime. */
export interface ContainerView {
  readonly input: ActionsInput;
  readonly entry: PodContainer;
  readonly sandbox: SandboxRecord;
  /** Its newest container; of init containers and sidecars, the newest in this sandbox. */
  readonly last: ContainerRecord | undefined;
}

/**
 * How far it is. `pending`: something has to happen first; `up`: as it should be; `succeeded` and `failed`: it ended
 * and will not run again in this sandbox.
 */
export type Progress = "pending" | "up" | "succeeded" | "failed";

export interface ContainerPlan {
  readonly progress: Progress;
  readonly actions: readonly PodAction[];
}

interface ContainerRule {
  /** The kubelet's behaviour that it stands for. */
  readonly name: string;
  /** Roles it is for; all where it is left out. */
  readonly roles?: readonly ContainerRole[];
  /** States of the newest container it is for; `none` = there is none. */
  readonly states: readonly (ContainerRecord["state"]["kind"] | "none")[];
  /** Undefined when it does not apply: the next rule is asked. */
  plan(view: ContainerView): ContainerPlan | undefined;
}

const long: readonly ContainerRole[] = ["regular", "sidecar"];
const restartable: readonly ContainerRole[] = ["init", "sidecar", "regular"];

/** In order: the first that applies decides. */
export const containerRules: readonly ContainerRule[] = [
  { name: "ended for good, and others removed it", states: ["none"], plan: endedAndLost },
  { name: "never ran, or created and never started", states: ["none", "created"], plan: start },
  {
    name: "an ephemeral container is never restarted",
    roles: ["ephemeral"],
    states: ["running", "exited", "unknown"],
    plan: () => ({ progress: "up", actions: [] }),
  },
  {
    name: "in an unknown state: killed before its restart",
    states: ["unknown"],
    plan: (view) =>
      start(
        view,
        kill(
          view,
          "unknown",
          `${kindOf(view)} is in "unknown" state, try killing it before restart`,
        ),
      ),
  },
  {
    name: "definition changed: restarted whatever the policy says",
    roles: long,
    states: ["running"],
    plan: (view) =>
      view.last?.specHash === specHash(view.entry.container)
        ? undefined
        : restart(view, "definition", `${label(view)} definition changed`),
  },
  {
    name: "liveness probe failed",
    roles: restartable,
    states: ["running"],
    plan: (view) => failedProbe(view, "liveness"),
  },
  {
    name: "startup probe failed",
    roles: restartable,
    states: ["running"],
    plan: (view) => failedProbe(view, "startup"),
  },
  {
    name: "resize with resizePolicy RestartContainer",
    roles: restartable,
    states: ["running"],
    plan: restartForResize,
  },
  {
    name: "the engine was told to restart it by itself",
    states: ["running"],
    plan: (view) => (view.last?.engineRestarts === true ? update(view, view.last) : undefined),
  },
  { name: "resize in place", roles: restartable, states: ["running"], plan: resize },
  {
    name: "an init container runs",
    roles: ["init"],
    states: ["running"],
    plan: () => pending([]),
  },
  {
    name: "a sidecar is started once its hook and its startup probe are through",
    roles: ["sidecar"],
    states: ["running"],
    plan: (view) => ({ progress: isStarted(view) ? "up" : "pending", actions: [] }),
  },
  { name: "runs", states: ["running"], plan: () => ({ progress: "up", actions: [] }) },
  { name: "ended for good", states: ["exited"], plan: ended },
  { name: "crash loop", states: ["exited"], plan: start },
];

/** What to do about one container. Pure. */
export function planContainer(view: ContainerView): ContainerPlan {
  const state = view.last?.state.kind ?? "none";
  for (const rule of containerRules) {
    if (!rule.states.includes(state)) continue;
    if (rule.roles !== undefined && !rule.roles.includes(view.entry.role)) continue;
    const plan = rule.plan(view);
    if (plan !== undefined) return plan;
  }
  return { progress: "up", actions: [] };
}

function pending(actions: readonly PodAction[]): ContainerPlan {
  return { progress: "pending", actions };
}

function kindOf({ entry }: ContainerView): string {
  return entry.role === "sidecar" || entry.role === "init" ? "Init container" : "Container";
}

function label(view: ContainerView): string {
  return `${kindOf(view)} ${view.entry.container.name}`;
}

function kill({ last }: ContainerView, cause: KillCause, message: string): readonly PodAction[] {
  return last === undefined ? [] : [{ kind: "killContainer", record: last, cause, message }];
}

/**
 * Kills and starts in one plan: what the kill makes of the exit code must decide nothing. Where the crash loop has to
 * be waited for, the next look goes on from the exit.
 */
function restart(view: ContainerView, cause: KillCause, text: string): ContainerPlan {
  const { entry, input, last, sandbox } = view;
  if (last === undefined) return pending([]);
  const message =
    entry.role === "sidecar" || cause === "resize" ? text : `${text}, will be restarted`;
  const kills = kill(view, cause, message);
  const { crashLoop, now } = input.observed;
  const { container } = entry;
  const { dueAt, nextDelayMs: backoffMs } = killBackoff(last, container, now, crashLoop);
  if (dueAt > now) return pending(kills);
  const attempt = last.attempt + 1;
  return pending([...kills, { kind: "startContainer", entry, sandbox, attempt, backoffMs }]);
}

function failedProbe(view: ContainerView, kind: "liveness" | "startup"): ContainerPlan | undefined {
  const { entry, input, last } = view;
  const { container } = entry;
  const probe = kind === "liveness" ? container.livenessProbe : container.startupProbe;
  if (probe === undefined || last === undefined) return undefined;
  if (input.observed.probes[kind](last.id) !== false) return undefined;
  const again =
    entry.role === "sidecar" || containerRestartPolicy(input.pod, container) !== "Never";
  const text = `${label(view)} failed ${kind} probe`;
  return again ? restart(view, kind, text) : pending(kill(view, kind, text));
}

function restartForResize(view: ContainerView): ContainerPlan | undefined {
  const { container } = view.entry;
  const changed = unappliedResources(view.input.pod, container, view.last?.limits);
  if (changed.length === 0 || !needsRestart(container, changed)) return undefined;
  return restart(view, "resize", `Container ${container.name} resize requires restart`);
}

function resize(view: ContainerView): ContainerPlan | undefined {
  const { entry, input, last } = view;
  if (
    last === undefined ||
    unappliedResources(input.pod, entry.container, last.limits).length === 0
  ) {
    return undefined;
  }
  // Asked for the same from the same before; from others, somebody else has changed it since.
  const wanted = { from: last.limits, to: cgroupLimits(input.pod, entry.container) };
  if (isDeepStrictEqual(input.observed.updated?.get(last.id), wanted)) return undefined;
  return update(view, last);
}

function update(view: ContainerView, record: ContainerRecord): ContainerPlan {
  const { entry, input } = view;
  const started = entry.role !== "sidecar" || isStarted(view);
  const limits = cgroupLimits(input.pod, entry.container);
  return {
    progress: entry.role === "init" || !started ? "pending" : "up",
    actions: [{ kind: "updateContainer", entry, record, limits }],
  };
}

function isStarted({ entry, input, last }: ContainerView): boolean {
  const statuses = input.status.initContainerStatuses ?? [];
  const status = statuses.find((candidate) => candidate.name === entry.container.name);
  return status?.containerID === `docker://${last?.id ?? ""}` && status.started === true;
}

function ended({ entry, input, last }: ContainerView): ContainerPlan | undefined {
  if (last?.state.kind !== "exited") return undefined;
  const { exitCode } = last.state;
  if (shouldRestart(input.pod, entry, exitCode)) return undefined;
  return { progress: exitCode === 0 ? "succeeded" : "failed", actions: [] };
}

function endedAndLost(view: ContainerView): ContainerPlan | undefined {
  const { entry, input, sandbox } = view;
  const last = lostEnd(input.observed, entry.container.name);
  // Another sandbox initialises anew.
  if (last === undefined || (entry.role === "init" && last.sandboxID !== sandbox.id)) {
    return undefined;
  }
  return entry.role === "ephemeral" ? { progress: "up", actions: [] } : ended({ ...view, last });
}

function floorOfAttempts({ entry, input }: ContainerView): number {
  const statuses = [
    ...(input.status.initContainerStatuses ?? []),
    ...(input.status.containerStatuses ?? []),
  ];
  const status = statuses.find((candidate) => candidate.name === entry.container.name);
  if (status === undefined) return 0;
  return status.restartCount + (status.state?.terminated === undefined ? 0 : 1);
}

/** Attempt of the next container of this name. One that was created and never started gives its number back. */
function nextAttempt(view: ContainerView, newest: ContainerRecord | undefined): number {
  if (newest === undefined) {
    const lost = lostEnd(view.input.observed, view.entry.container.name);
    return Math.max(floorOfAttempts(view), lost === undefined ? 0 : lost.attempt + 1);
  }
  return newest.state.kind === "created" ? newest.attempt : newest.attempt + 1;
}

/** Starts the container after `before`, or says until when its crash loop has to wait. */
function start(view: ContainerView, before: readonly PodAction[] = []): ContainerPlan {
  const { entry, input, sandbox } = view;
  const { container } = entry;
  const [newest, second] = recordsOf(input.observed.record, container.name);
  const half = newest?.state.kind === "created" ? newest : undefined;
  const last = half === undefined ? newest : second;
  const lost = lostEnd(input.observed, container.name);
  const { crashLoop } = input.observed;
  const backoff = crashBackoff(last ?? lost, container, crashLoop);
  if (backoff.dueAt > input.observed.now) {
    return pending([{ kind: "backOff", entry, dueAt: backoff.dueAt }]);
  }
  const removal: readonly PodAction[] =
    half === undefined ? [] : [{ kind: "removeContainer", record: half }];
  const attempt = nextAttempt(view, newest);
  const { nextDelayMs: backoffMs } = backoff;
  return pending([
    ...before,
    ...removal,
    { kind: "startContainer", entry, sandbox, attempt, backoffMs },
  ]);
}

import type { ContainerStatus, PodCondition } from "../../api/types.gen.ts";
import { initContainers, regularContainers } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";
import { apiTime } from "./container-status.ts";
import type { PodPhase } from "./phase.ts";
import { allContainersRestarting, couldRestartAll } from "./restarting-all.ts";

interface Verdict {
  readonly type: string;
  readonly status: "True" | "False";
  readonly reason?: string;
  readonly message?: string;
}

/** Why resources that the spec asks for are not granted (KEP-1287). */
export interface ResizePending {
  /** Infeasible: never on this node. Deferred: not now. */
  readonly reason: "Infeasible" | "Deferred";
  readonly message: string;
}

/** Conditions that the kubelet writes; all others belong to somebody else and are kept. */
const owned = new Set([
  "PodReadyToStartContainers",
  "Initialized",
  "Ready",
  "ContainersReady",
  "PodScheduled",
  "PodResizePending",
  "PodResizeInProgress",
  allContainersRestarting,
]);

/** Conditions that somebody else writes, such as those of readiness gates. */
export function foreignConditions(conditions: readonly PodCondition[]): readonly PodCondition[] {
  return conditions.filter(({ type }) => !owned.has(type));
}

function terminalVerdict(type: string, phase: PodPhase): Verdict {
  return { type, status: "False", reason: phase === "Failed" ? "PodFailed" : "PodCompleted" };
}

function sortNames(names: readonly string[]): string {
  return `[${names.join(" ")}]`;
}

function unmet(
  type: string,
  reason: string,
  parts: readonly { readonly label: string; readonly names: readonly string[] }[],
): Verdict {
  const messages = parts
    .filter(({ names }) => names.length > 0)
    .map(({ label, names }) => `containers with ${label} status: ${sortNames(names)}`);
  if (messages.length === 0) return { type, status: "True" };
  return { type, status: "False", reason, message: messages.join(", ") };
}

function containersReady(
  pod: AssignedPod,
  statuses: ReadonlyMap<string, ContainerStatus>,
  phase: PodPhase,
): Verdict {
  const type = "ContainersReady";
  const names = [
    ...initContainers(pod).filter((entry) => entry.role === "sidecar"),
    ...regularContainers(pod),
  ].map((entry) => entry.container.name);
  const unknown = names.filter((name) => !statuses.has(name));
  if (phase === "Failed" || (phase === "Succeeded" && unknown.length === 0)) {
    return terminalVerdict(type, phase);
  }
  const unready = names.filter((name) => statuses.get(name)?.ready === false);
  return unmet(type, "ContainersNotReady", [
    { label: "unknown", names: unknown },
    { label: "unready", names: unready },
  ]);
}

function ready(pod: AssignedPod, containers: Verdict, all: readonly PodCondition[]): Verdict {
  if (containers.status !== "True") return { ...containers, type: "Ready" };
  const messages: string[] = [];
  for (const { conditionType } of pod.spec?.readinessGates ?? []) {
    const condition = all.find(({ type }) => type === conditionType);
    if (condition === undefined) {
      messages.push(
        `corresponding condition of pod readiness gate "${conditionType}" does not exist.`,
      );
    } else if (condition.status !== "True") {
      messages.push(
        `the status of pod readiness gate "${conditionType}" is not "True", but ${condition.status}`,
      );
    }
  }
  if (messages.length === 0) return { type: "Ready", status: "True" };
  const message = messages.join(", ");
  return { type: "Ready", status: "False", reason: "ReadinessGatesNotReady", message };
}

function initialized(
  pod: AssignedPod,
  statuses: ReadonlyMap<string, ContainerStatus>,
  phase: PodPhase,
  before: boolean,
): Verdict {
  const type = "Initialized";
  const entries = initContainers(pod);
  const unknown = entries
    .map((entry) => entry.container.name)
    .filter((name) => !statuses.has(name));
  if (phase === "Succeeded" && unknown.length === 0) {
    return { type, status: "True", reason: "PodCompleted" };
  }
  const began = regularContainers(pod).some(({ container }) => {
    const status = statuses.get(container.name);
    return (
      status?.started === true ||
      status?.state?.terminated !== undefined ||
      status?.lastState?.terminated !== undefined
    );
  });
  // What was initialised once stays so, also while its init containers run again.
  if (began || before) return { type, status: "True" };
  const incomplete = entries
    .filter((entry) => {
      const status = statuses.get(entry.container.name);
      if (status === undefined) return false;
      return entry.role === "sidecar" ? status.started !== true : !status.ready;
    })
    .map((entry) => entry.container.name);
  return unmet(type, "ContainersNotInitialized", [
    { label: "unknown", names: unknown },
    { label: "incomplete", names: incomplete },
  ]);
}

export interface ConditionsInput {
  readonly pod: AssignedPod;
  /** The kubelet's conditions as last written. Everybody else's are taken from the pod. */
  readonly old: readonly PodCondition[];
  /** Status of init and regular containers. */
  readonly statuses: readonly ContainerStatus[];
  readonly phase: PodPhase;
  readonly sandboxReady: boolean;
  readonly resizePending?: ResizePending | undefined;
  /** Granted resources are being applied; the text says why that fails. */
  readonly resizing?: { readonly error: string } | undefined;
  /** All containers are being removed, to be started again (KEP-5532). */
  readonly restartingAll: boolean;
  /** Conditions to add, such as DisruptionTarget. */
  readonly extra: readonly PodCondition[];
  readonly now: number;
}

function stamp(input: ConditionsInput, verdict: Verdict): PodCondition {
  const old = input.old.find(({ type }) => type === verdict.type);
  const { generation } = input.pod.metadata;
  return {
    type: verdict.type,
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    status: verdict.status,
    lastProbeTime: old?.lastProbeTime,
    lastTransitionTime:
      old?.status === verdict.status && old.lastTransitionTime !== undefined
        ? old.lastTransitionTime
        : apiTime(input.now),
    ...(verdict.reason === undefined ? {} : { reason: verdict.reason }),
    ...(verdict.message === undefined ? {} : { message: verdict.message }),
  };
}

function restartingVerdict({ phase, restartingAll }: ConditionsInput): Verdict {
  const type = allContainersRestarting;
  if (phase === "Succeeded" || phase === "Failed") return terminalVerdict(type, phase);
  if (!restartingAll) return { type, status: "False" };
  const message = "container exited with restart policy rule";
  return { type, status: "True", reason: "RestartAllContainersStarted", message };
}

/** All conditions of the pod: the kubelet's five, and everybody else's untouched. Pure. */
export function podConditions(input: ConditionsInput): PodCondition[] {
  const statuses = new Map(input.statuses.map((status) => [status.name, status]));
  const extraTypes = new Set(input.extra.map(({ type }) => type));
  const foreign = foreignConditions(input.pod.status?.conditions ?? []).filter(
    ({ type }) => !extraTypes.has(type),
  );
  const containers = containersReady(input.pod, statuses, input.phase);
  const wasInitialized = input.old.some(
    ({ status, type }) => type === "Initialized" && status === "True",
  );
  const verdicts: Verdict[] = [
    { type: "PodReadyToStartContainers", status: input.sandboxReady ? "True" : "False" },
    initialized(input.pod, statuses, input.phase, wasInitialized),
    ready(input.pod, containers, [...foreign, ...input.extra]),
    containers,
    { type: "PodScheduled", status: "True" },
  ];
  if (couldRestartAll(input.pod)) verdicts.push(restartingVerdict(input));
  const { resizePending, resizing } = input;
  if (resizePending !== undefined) {
    verdicts.push({ type: "PodResizePending", status: "True", ...resizePending });
  }
  if (resizing !== undefined) {
    const failure = resizing.error === "" ? {} : { reason: "Error", message: resizing.error };
    verdicts.push({ type: "PodResizeInProgress", status: "True", ...failure });
  }
  return [...foreign, ...input.extra, ...verdicts.map((verdict) => stamp(input, verdict))];
}

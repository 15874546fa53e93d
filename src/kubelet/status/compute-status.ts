import type { ContainerStatus, PodCondition, PodStatus } from "../../api/types.gen.ts";
import { ipFamily } from "../../lib/cidr.ts";
import {
  ephemeralContainers,
  initContainers,
  isHostNetwork,
  isTerminalPhase,
  type PodContainer,
  regularContainers,
} from "../spec/containers.ts";
import { qosClass } from "../spec/resources.ts";
import type { AssignedPod } from "../types.ts";
import { podConditions, type ResizePending } from "./conditions.ts";
import { apiTime, containerStatus, type ContainerStatusInput } from "./container-status.ts";
import { isResizing } from "./resizing.ts";
import { hasInitialized, liveSandbox, networkedSandbox, newestSandbox } from "./observed.ts";
import { podPhase, type PodPhase } from "./phase.ts";
import { isRestartingAll, restartsAllContainers } from "./restarting-all.ts";

/** Why a pod ends that its containers alone would not end: rejection, deadline, eviction. */
export interface PodVerdict {
  readonly reason: string;
  readonly message: string;
  /** Conditions that go with it, such as DisruptionTarget. */
  readonly conditions: readonly PodCondition[];
}

export interface ComputeStatusInput extends Omit<ContainerStatusInput, "restartingAll"> {
  /** The status last written or read: what cannot be recomputed comes from it. */
  readonly old: PodStatus;
  readonly verdict: PodVerdict | undefined;
  readonly resizePending?: ResizePending | undefined;
  readonly resizeError?: string | undefined;
  /** First time this node saw the pod, when the old status has none. Milliseconds since the epoch. */
  readonly seenAt: number;
}

function statusesOf(
  input: ContainerStatusInput,
  entries: readonly PodContainer[],
  old: readonly ContainerStatus[] | undefined,
  initialized: boolean,
): ContainerStatus[] {
  return entries.map((entry) =>
    containerStatus(
      entry,
      old?.find((status) => status.name === entry.container.name),
      input,
      initialized,
    ),
  );
}

function anyRunning(input: ComputeStatusInput): boolean {
  return input.observed.record.containers.some(
    ({ state }) => state.kind === "running" || state.kind === "unknown",
  );
}

/** How far a restart of all containers in place is (KEP-5532). */
interface RestartAll {
  /** Containers of before are still there. */
  readonly held: boolean;
  /** It goes on, or the last of them has just gone. */
  readonly begun: boolean;
}

function restartAllOf({ observed, old, pod, terminating }: ComputeStatusInput): RestartAll {
  if (terminating) return { held: false, begun: false };
  const held = restartsAllContainers(pod, observed.record, old.conditions);
  return { held, begun: held || isRestartingAll(old.conditions) };
}

/** The terminal phase waits until nothing runs; before that the pod keeps the phase it had. */
function phaseOf(
  input: ComputeStatusInput,
  statuses: readonly ContainerStatus[],
  context: { readonly initialized: boolean; readonly held: boolean },
): PodPhase {
  const { pod, old } = input;
  const { initialized } = context;
  const known = old.phase === "Unknown" ? undefined : old.phase;
  if (known !== undefined && isTerminalPhase(known)) return known;
  // Containers that are killed on the way must not count as failed.
  if (context.held && known !== undefined) return known;
  const computed = podPhase({ pod, statuses, terminal: input.terminating, initialized });
  if (!input.terminating) return computed;
  if (anyRunning(input)) return isTerminalPhase(computed) ? (known ?? "Running") : computed;
  if (input.verdict !== undefined) return "Failed";
  // A pod that is stopped for good and never got to run has failed.
  return isTerminalPhase(computed) ? computed : "Failed";
}

function podIPs(input: ComputeStatusInput): readonly string[] {
  const { pod, observed, old } = input;
  const before = (old.podIPs ?? []).map(({ ip }) => ip);
  if (isHostNetwork(pod)) {
    // A pod that has ended keeps the address it had. A running one has those of the node, which may change under it: what
    // leads to it (endpoints, people) must follow, though upstream keeps the first one for good (kubernetes#93897).
    const ended = input.terminating || isTerminalPhase(old.phase);
    return observed.hostIPs.length === 0 || (ended && before.length > 0)
      ? before
      : observed.hostIPs;
  }
  const sandbox = newestSandbox(observed.record);
  const found = sandbox === undefined ? undefined : observed.addresses(sandbox.id);
  if (found === undefined) {
    // A pod that has ended keeps the address it had; one that will run again must not claim a lost one.
    return input.terminating ? before : [];
  }
  const primary = ipFamily(observed.hostIPs[0] ?? "");
  return found.toSorted(
    (a, b) => Number(ipFamily(b) === primary) - Number(ipFamily(a) === primary),
  );
}

function addressFields(input: ComputeStatusInput): PodStatus {
  const ips = podIPs(input);
  const { hostIPs } = input.observed;
  const [podIP] = ips;
  const [hostIP] = hostIPs;
  return {
    ...(hostIP === undefined ? {} : { hostIP, hostIPs: hostIPs.map((ip) => ({ ip })) }),
    ...(podIP === undefined ? {} : { podIP, podIPs: ips.map((ip) => ({ ip })) }),
  };
}

function reasonFields(input: ComputeStatusInput, phase: PodPhase): PodStatus {
  if (phase === "Failed" && input.verdict !== undefined && !isTerminalPhase(input.old.phase)) {
    return { reason: input.verdict.reason, message: input.verdict.message };
  }
  if (phase !== input.old.phase) return {};
  const { reason, message } = input.old;
  return {
    ...(reason === undefined ? {} : { reason }),
    ...(message === undefined ? {} : { message }),
  };
}

/** What the pod as a whole was granted (KEP-2837). */
function podResources({ spec }: AssignedPod): PodStatus {
  const resources = spec?.resources;
  if (resources === undefined) return {};
  const { requests } = resources;
  return { resources, ...(requests === undefined ? {} : { allocatedResources: requests }) };
}

/**
 * The pod's whole status from what the API said last and what was observed now. Pure. Terminal phases are final, and
 * appear only once no container runs.
 */
export function computeStatus(input: ComputeStatusInput): PodStatus {
  const { pod, observed, old } = input;
  const sandbox = liveSandbox(pod, observed.record);
  const initialized = sandbox !== undefined && hasInitialized(pod, observed, sandbox.id);
  const restart = restartAllOf(input);
  const view = { ...input, restartingAll: restart.begun };
  const init = statusesOf(view, initContainers(pod), old.initContainerStatuses, initialized);
  const regular = statusesOf(
    view,
    regularContainers(pod),
    old.containerStatuses,
    initialized,
  ).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const ephemeral = statusesOf(
    view,
    ephemeralContainers(pod),
    old.ephemeralContainerStatuses,
    initialized,
  );
  const phase = phaseOf(input, [...init, ...regular], { initialized, held: restart.held });
  const { generation } = pod.metadata;
  // A pod that this node never took on has no containers to speak of: clients then show its reason.
  const never =
    isTerminalPhase(phase) &&
    observed.record.containers.length === 0 &&
    old.containerStatuses === undefined;
  return {
    conditions: podConditions({
      pod,
      old: old.conditions ?? [],
      statuses: [...init, ...regular],
      phase,
      ...(isTerminalPhase(phase)
        ? {}
        : {
            resizePending: input.resizePending,
            resizing: isResizing(pod, observed) ? { error: input.resizeError ?? "" } : undefined,
          }),
      restartingAll: restart.held,
      sandboxReady: networkedSandbox(pod, observed) !== undefined,
      extra: phase === "Failed" ? (input.verdict?.conditions ?? []) : [],
      now: observed.now,
    }),
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    phase,
    ...reasonFields(input, phase),
    ...addressFields(input),
    startTime: old.startTime ?? apiTime(input.seenAt),
    qosClass: old.qosClass ?? qosClass(pod),
    ...podResources(pod),
    ...(never || init.length === 0 ? {} : { initContainerStatuses: init }),
    ...(never ? {} : { containerStatuses: regular }),
    ...(never || ephemeral.length === 0 ? {} : { ephemeralContainerStatuses: ephemeral }),
  };
}

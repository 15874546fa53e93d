import type { Container, PodCondition } from "../../api/types.gen.ts";
import type { ContainerRecord, PodRecord } from "../../runtime/types.ts";
import {
  initContainers,
  matchingRestartRule,
  type PodContainer,
  regularContainers,
} from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";

/** Condition, and reason of containers that were removed on the way (KEP-5532). */
export const allContainersRestarting = "AllContainersRestarting";
export const restartingAllContainers = "RestartingAllContainers";

/** All containers that take part: ephemeral ones are left alone. */
function participants(pod: AssignedPod): readonly PodContainer[] {
  return [...initContainers(pod), ...regularContainers(pod)];
}

/** Whether some rule of the pod may ask for a restart of all its containers. */
export function couldRestartAll(pod: AssignedPod): boolean {
  return participants(pod).some(({ container }) =>
    (container.restartPolicyRules ?? []).some(({ action }) => action === "RestartAllContainers"),
  );
}

/** Whether the way in which this container ended asks for a restart of all. */
export function isRestartTrigger(
  container: Container | undefined,
  { state }: ContainerRecord,
): boolean {
  if (container === undefined || state.kind !== "exited") return false;
  return matchingRestartRule(container, state.exitCode)?.action === "RestartAllContainers";
}

/** Whether the condition was written that all containers are being restarted. */
export function isRestartingAll(conditions: readonly PodCondition[] | undefined): boolean {
  return (conditions ?? []).some(
    ({ status, type }) => type === allContainersRestarting && status === "True",
  );
}

/**
 * Whether all containers are being restarted in place: one ended by a rule that asks for it, or that has begun and some
 * container of before is still there. Ends when the runtime holds none of them any more.
 *
 * @param conditions As last written: they carry a restart over a crash of the agent.
 */
export function restartsAllContainers(
  pod: AssignedPod,
  record: PodRecord,
  conditions: readonly PodCondition[] | undefined,
): boolean {
  if (!couldRestartAll(pod)) return false;
  const containers = new Map(
    participants(pod).map(({ container }) => [container.name, container] as const),
  );
  const held = record.containers.filter(({ name }) => containers.has(name));
  if (held.length === 0) return false;
  if (isRestartingAll(conditions)) return true;
  const newest = new Map(held.toReversed().map((each) => [each.name, each] as const));
  return [...newest.values()].some((each) => isRestartTrigger(containers.get(each.name), each));
}

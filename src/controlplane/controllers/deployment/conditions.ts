import type { DeploymentCondition } from "../../../api/types.gen.ts";
import { formatTime } from "../shared/pod-state.ts";

type Conditions = readonly DeploymentCondition[];

export interface ConditionChange {
  readonly type: "Available" | "Progressing" | "ReplicaFailure";
  readonly status: "True" | "False" | "Unknown";
  readonly reason: string;
  readonly message: string;
}

export function findCondition(
  conditions: Conditions,
  type: ConditionChange["type"],
): DeploymentCondition | undefined {
  return conditions.find((condition) => condition.type === type);
}

export function withoutCondition(
  conditions: Conditions,
  type: ConditionChange["type"],
): Conditions {
  return conditions.filter((condition) => condition.type !== type);
}

/** Puts a whole condition in the place of the one of its type, unless that one has the same status and reason. */
export function putCondition(conditions: Conditions, condition: DeploymentCondition): Conditions {
  const current = conditions.find(({ type }) => type === condition.type);
  if (current?.status === condition.status && current.reason === condition.reason)
    return conditions;
  return [
    ...conditions.filter(({ type }) => type !== condition.type),
    current?.status === condition.status
      ? { ...condition, lastTransitionTime: current.lastTransitionTime }
      : condition,
  ];
}

/** Sets a condition as of now; the same status and reason again change nothing, not even the message. */
export function setCondition(
  conditions: Conditions,
  change: ConditionChange,
  now: number,
): Conditions {
  return putCondition(conditions, stamped(change, now));
}

/** As {@link setCondition}, but its lastUpdateTime moves although status and reason stay: a sign of life. */
export function renewCondition(
  conditions: Conditions,
  change: ConditionChange,
  now: number,
): Conditions {
  const current = findCondition(conditions, change.type);
  const fresh = stamped(change, now);
  return [
    ...withoutCondition(conditions, change.type),
    current?.status === change.status
      ? { ...fresh, lastTransitionTime: current.lastTransitionTime }
      : fresh,
  ];
}

function stamped(change: ConditionChange, now: number): DeploymentCondition {
  const time = formatTime(now);
  return { ...change, lastUpdateTime: time, lastTransitionTime: time };
}

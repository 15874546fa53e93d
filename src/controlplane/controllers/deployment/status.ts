import type { DeploymentCondition } from "../../../api/types.gen.ts";
import { timeMs } from "../shared/pod-state.ts";
import {
  findCondition,
  putCondition,
  renewCondition,
  setCondition,
  withoutCondition,
} from "./conditions.ts";
import type { Draft } from "./draft.ts";
import { availableReplicas, sum, totalReplicas } from "./draft.ts";
import type { DeploymentCounts, DeploymentState, DeploymentView } from "./view.ts";

type Conditions = readonly DeploymentCondition[];

/** The ReplicaSets of a Deployment, `fresh` being the one of its present template. */
export interface Drafts {
  readonly old: readonly Draft[];
  readonly fresh: Draft | undefined;
}

export function allDrafts({ old, fresh }: Drafts): readonly Draft[] {
  return fresh === undefined ? old : [...old, fresh];
}

/** Undefined as soon as one that was looked at does not say. */
function terminatingReplicas(drafts: readonly Draft[]): number | undefined {
  let total = 0;
  for (const { status } of drafts) {
    if (status.terminatingReplicas === undefined && status.synced) return undefined;
    total += status.terminatingReplicas ?? 0;
  }
  return total;
}

function countsOf(drafts: Drafts): DeploymentCounts {
  const all = allDrafts(drafts);
  const available = availableReplicas(all);
  return {
    replicas: sum(all, ({ status }) => status.replicas),
    updatedReplicas: drafts.fresh?.status.replicas ?? 0,
    readyReplicas: sum(all, ({ status }) => status.readyReplicas),
    availableReplicas: available,
    unavailableReplicas: Math.max(0, totalReplicas(all) - available),
    terminatingReplicas: terminatingReplicas(all),
  };
}

/** What the ReplicaSets amount to, on top of `conditions`. Says nothing new of progress. */
export function computeStatus(
  deployment: DeploymentView,
  drafts: Drafts,
  conditions: Conditions,
  now: number,
): DeploymentState {
  const counts = countsOf(drafts);
  const minAvailable = deployment.replicas - deployment.maxUnavailable;
  return {
    ...counts,
    observedGeneration: deployment.generation,
    collisionCount: deployment.status.collisionCount,
    conditions: setCondition(
      conditions,
      counts.availableReplicas >= minAvailable
        ? {
            type: "Available",
            status: "True",
            reason: "MinimumReplicasAvailable",
            message: "Deployment has minimum availability.",
          }
        : {
            type: "Available",
            status: "False",
            reason: "MinimumReplicasUnavailable",
            message: "Deployment does not have minimum availability.",
          },
      now,
    ),
  };
}

/** All pods are of the present template and available, and no others are left. */
export function isComplete(deployment: DeploymentView, status: DeploymentState): boolean {
  return (
    status.updatedReplicas === deployment.replicas &&
    status.replicas === deployment.replicas &&
    status.availableReplicas === deployment.replicas &&
    status.observedGeneration >= deployment.generation
  );
}

function hasProgressed(before: DeploymentCounts, after: DeploymentCounts): boolean {
  return (
    after.updatedReplicas > before.updatedReplicas ||
    after.replicas - after.updatedReplicas < before.replicas - before.updatedReplicas ||
    after.readyReplicas > before.readyReplicas ||
    after.availableReplicas > before.availableReplicas
  );
}

/** Milliseconds since the epoch at which the lack of progress becomes a failure; undefined when it cannot. */
function deadlineOf(deployment: DeploymentView, conditions: Conditions): number | undefined {
  const { progressDeadlineSeconds } = deployment;
  const progressing = findCondition(conditions, "Progressing");
  if (progressDeadlineSeconds === undefined || progressing === undefined) return undefined;
  return (timeMs(progressing.lastUpdateTime) ?? 0) + progressDeadlineSeconds * 1000;
}

function judgeProgress(
  deployment: DeploymentView,
  status: DeploymentState,
  subject: string,
  now: number,
): Conditions {
  const { conditions } = status;
  const current = findCondition(conditions, "Progressing");
  if (isComplete(deployment, status)) {
    return setCondition(
      conditions,
      {
        type: "Progressing",
        status: "True",
        reason: "NewReplicaSetAvailable",
        message: `${subject} has successfully progressed.`,
      },
      now,
    );
  }
  if (hasProgressed(deployment.status, status)) {
    return renewCondition(
      conditions,
      {
        type: "Progressing",
        status: "True",
        reason: "ReplicaSetUpdated",
        message: `${subject} is progressing.`,
      },
      now,
    );
  }
  // The next rollout's progress begins with its first sign of life, not with the end of the last one.
  if (current?.reason === "NewReplicaSetAvailable") return conditions;
  const due = deadlineOf(deployment, conditions);
  if (due === undefined || due >= now) return conditions;
  return setCondition(
    conditions,
    {
      type: "Progressing",
      status: "False",
      reason: "ProgressDeadlineExceeded",
      message: `${subject} has timed out progressing.`,
    },
    now,
  );
}

/** The failure to create or delete pods of one ReplicaSet, the new one's first, is the Deployment's. */
function replicaFailure(conditions: Conditions, drafts: Drafts): Conditions {
  const { fresh, old } = drafts;
  const failures = [...(fresh === undefined ? [] : [fresh]), ...old].flatMap(({ status }) =>
    status.conditions.filter(({ type }) => type === "ReplicaFailure"),
  );
  const [failure] = failures;
  if (failure === undefined) return withoutCondition(conditions, "ReplicaFailure");
  return putCondition(conditions, { ...failure, lastUpdateTime: failure.lastTransitionTime });
}

/** {@link computeStatus} with the conditions Progressing and ReplicaFailure, for a Deployment that rolls. */
export function computeRolloutStatus(
  deployment: DeploymentView,
  drafts: Drafts,
  conditions: Conditions,
  now: number,
): DeploymentState {
  const status = computeStatus(deployment, drafts, conditions, now);
  const withProgress = (): Conditions => {
    if (deployment.progressDeadlineSeconds === undefined)
      return withoutCondition(status.conditions, "Progressing");
    const reason = findCondition(conditions, "Progressing")?.reason;
    // The last rollout is over and nothing but a resync goes on.
    if (status.replicas === status.updatedReplicas && reason === "NewReplicaSetAvailable")
      return status.conditions;
    const { fresh } = drafts;
    const subject =
      fresh === undefined ? `Deployment "${deployment.name}"` : `ReplicaSet "${fresh.name}"`;
    return judgeProgress(deployment, status, subject, now);
  };
  return { ...status, conditions: replicaFailure(withProgress(), drafts) };
}

/** Milliseconds until progress has to be judged again although nothing happens; undefined when never. */
export function progressCheckMs(
  deployment: DeploymentView,
  status: DeploymentState,
  now: number,
): number | undefined {
  const reason = findCondition(status.conditions, "Progressing")?.reason;
  // Judged already, or not to be judged before something happens.
  if (reason === "ProgressDeadlineExceeded" || reason === "NewReplicaSetAvailable")
    return undefined;
  if (isComplete(deployment, status)) return undefined;
  const due = deadlineOf(deployment, status.conditions);
  // A second more: the deadline is over only when its second is.
  return due === undefined ? undefined : Math.max(due - now, 0) + 1000;
}

/** Whether writing `wanted` would change anything. */
export function sameStatus(current: DeploymentState, wanted: DeploymentState): boolean {
  return canonical(current) === canonical(wanted);
}

function canonical(status: DeploymentState): string {
  const conditions = status.conditions.map((each) => [
    each.type,
    each.status,
    each.reason,
    each.message,
    each.lastUpdateTime,
    each.lastTransitionTime,
  ]);
  return JSON.stringify([
    status.replicas,
    status.updatedReplicas,
    status.readyReplicas,
    status.availableReplicas,
    status.unavailableReplicas,
    status.terminatingReplicas,
    status.observedGeneration,
    status.collisionCount,
    conditions,
  ]);
}

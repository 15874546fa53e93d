import {
  countAnnotation,
  desiredReplicasAnnotation,
  maxReplicasAnnotation,
} from "./annotations.ts";
import type { Draft } from "./draft.ts";
import { activeDrafts, resize, sum, totalReplicas } from "./draft.ts";
import type { DeploymentView } from "./view.ts";
import { byAge } from "./view.ts";

/** Whether the Deployment's own size changed since its ReplicaSets got theirs. */
export function isScalingEvent(deployment: DeploymentView, drafts: readonly Draft[]): boolean {
  const active = activeDrafts(drafts);
  // Recreate has nothing to distribute among several: its rollout brings them down to one.
  if (!deployment.rolling && active.length > 1) return false;
  return active.some(({ annotations }) => {
    const desired = countAnnotation(annotations, desiredReplicasAnnotation);
    return desired !== undefined && desired !== deployment.replicas;
  });
}

/** The new ReplicaSet has, and believes in, every pod of the Deployment, and all of them are available. */
function isSaturated(deployment: DeploymentView, fresh: Draft | undefined): boolean {
  return (
    fresh !== undefined &&
    fresh.replicas === deployment.replicas &&
    countAnnotation(fresh.annotations, desiredReplicasAnnotation) === deployment.replicas &&
    fresh.status.availableReplicas === deployment.replicas
  );
}

/**
 * Scales without rolling on: the one active ReplicaSet (or the newest, when none is) to the full size; several of them
 * in proportion, so that a scaling in the middle of a rollout does not hasten it.
 */
export function scaleInProportion(
  deployment: DeploymentView,
  old: readonly Draft[],
  fresh: Draft | undefined,
): void {
  const all = fresh === undefined ? [...old] : [...old, fresh];
  const active = activeDrafts(all);
  const [first] = active;
  if (first === undefined) {
    const latest = fresh ?? old.toSorted(byAge).at(-1);
    if (latest !== undefined && latest.replicas !== deployment.replicas)
      resize(latest, deployment.replicas, deployment);
    return;
  }
  if (active.length === 1) {
    const noted = countAnnotation(first.annotations, desiredReplicasAnnotation);
    // Also when somebody has already given it the size: else the rollout would wait for a scaling for ever.
    if (first.replicas !== deployment.replicas || (noted ?? deployment.replicas) !== first.replicas)
      resize(first, deployment.replicas, deployment);
    return;
  }
  if (isSaturated(deployment, fresh)) {
    for (const draft of activeDrafts(old)) resize(draft, 0, deployment);
    return;
  }
  if (deployment.rolling) distribute(deployment, active);
}

/** Distributes what is to be added or removed over the active ReplicaSets by their present sizes. */
function distribute(deployment: DeploymentView, active: readonly Draft[]): void {
  const allowed = deployment.replicas > 0 ? deployment.replicas + deployment.maxSurge : 0;
  const toAdd = allowed - totalReplicas(active);
  // Of the same size, the newer one grows first and the older one shrinks first.
  const sorted = active.toSorted(
    (left, right) =>
      right.replicas - left.replicas || (toAdd > 0 ? byAge(right, left) : byAge(left, right)),
  );
  let added = 0;
  const sizes = sorted.map((draft) => {
    const share = shareOf(draft, deployment, toAdd, added);
    added += share;
    return draft.replicas + share;
  });
  // What rounding left goes to the largest.
  const [largest = 0] = sizes;
  sizes[0] = Math.max(0, largest + toAdd - added);
  for (const [index, draft] of sorted.entries())
    resize(draft, sizes[index] ?? draft.replicas, deployment);
}

/** How many of `toAdd` pods (negative: to remove) one ReplicaSet gets, `added` being spoken for. */
function shareOf(draft: Draft, deployment: DeploymentView, toAdd: number, added: number): number {
  if (toAdd === 0 || toAdd === added) return 0;
  const fraction = fractionOf(draft, deployment);
  return toAdd > 0 ? Math.min(fraction, toAdd - added) : Math.max(fraction, toAdd - added);
}

function fractionOf(draft: Draft, deployment: DeploymentView): number {
  if (deployment.replicas === 0) return -draft.replicas;
  const noted = countAnnotation(draft.annotations, maxReplicasAnnotation) ?? 0;
  const before = noted === 0 ? deployment.status.replicas : noted;
  if (before === 0) return 0;
  const size = (draft.replicas * (deployment.replicas + deployment.maxSurge)) / before;
  return Math.round(size) - draft.replicas;
}

/** The size that a rollout may give the new ReplicaSet now. */
export function newReplicaSetSize(
  deployment: DeploymentView,
  all: readonly Draft[],
  current: number,
): number {
  if (!deployment.rolling) return deployment.replicas;
  const room = deployment.replicas + deployment.maxSurge - totalReplicas(all);
  if (room <= 0) return current;
  return current + Math.min(room, deployment.replicas - current);
}

/** Gives the new ReplicaSet its next size; false when it has it. */
export function growNew(deployment: DeploymentView, all: readonly Draft[], fresh: Draft): boolean {
  if (fresh.replicas === deployment.replicas) return false;
  const size =
    fresh.replicas > deployment.replicas
      ? deployment.replicas
      : newReplicaSetSize(deployment, all, fresh.replicas);
  if (size === fresh.replicas) return false;
  resize(fresh, size, deployment);
  return true;
}

/**
 * Takes pods from the old ReplicaSets as far as availability allows. Those that are not available go first and cost
 * nothing; pods of the new ReplicaSet that are not available yet count against what may go.
 */
export function shrinkOld(
  deployment: DeploymentView,
  old: readonly Draft[],
  fresh: Draft,
): boolean {
  const active = activeDrafts(old).toSorted(byAge);
  if (active.length === 0) return false;
  const minAvailable = deployment.replicas - deployment.maxUnavailable;
  const freshUnavailable = fresh.replicas - fresh.status.availableReplicas;
  const budget = totalReplicas([...old, fresh]) - minAvailable - freshUnavailable;
  if (budget <= 0) return false;
  const unhealthy = takeFrom(deployment, active, budget, ({ replicas, status }) =>
    Math.max(0, replicas - status.availableReplicas),
  );
  const spare = lastingReplicas([...active, fresh]) - minAvailable;
  const healthy = takeFrom(deployment, active, spare, ({ replicas }) => replicas);
  return unhealthy + healthy > 0;
}

/** Available pods that stay: what a ReplicaSet has above its size is about to go, whatever its status still says. */
function lastingReplicas(drafts: readonly Draft[]): number {
  return sum(drafts, ({ replicas, status }) => Math.min(replicas, status.availableReplicas));
}

/** Removes up to `budget` pods, oldest ReplicaSet first, at most `limit` of each; how many it were. */
function takeFrom(
  deployment: DeploymentView,
  drafts: readonly Draft[],
  budget: number,
  limit: (draft: Draft) => number,
): number {
  let taken = 0;
  for (const draft of drafts) {
    const count = Math.min(budget - taken, limit(draft));
    if (count <= 0) continue;
    resize(draft, draft.replicas - count, deployment);
    taken += count;
  }
  return taken;
}

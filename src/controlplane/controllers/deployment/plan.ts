import type { DeploymentCondition, LabelSelector, ReplicaSet } from "../../../api/types.gen.ts";
import { DEPLOYMENTS } from "../../../api/resources.ts";
import { controllerReference } from "../shared/ownership.ts";
import {
  highestRevision,
  newReplicaSetAnnotations,
  replicaAnnotations,
  revisionAnnotation,
  revisionOf,
} from "./annotations.ts";
import { findCondition, setCondition } from "./conditions.ts";
import type { Draft } from "./draft.ts";
import { activeDrafts, draftOf, resize } from "./draft.ts";
import {
  growNew,
  isScalingEvent,
  newReplicaSetSize,
  scaleInProportion,
  shrinkOld,
} from "./scale.ts";
import type { Drafts } from "./status.ts";
import {
  allDrafts,
  computeRolloutStatus,
  computeStatus,
  isComplete,
  progressCheckMs,
  sameStatus,
} from "./status.ts";
import { sameTemplate, templateHash, templateHashLabel } from "./template.ts";
import type { DeploymentState, DeploymentView, ReplicaSetView } from "./view.ts";
import { byAge } from "./view.ts";

/** One write to a ReplicaSet. */
export interface ReplicaSetUpdate {
  readonly view: ReplicaSetView;
  readonly replicas: number;
  readonly minReadySeconds: number;
  readonly annotations: Readonly<Record<string, string>>;
}

/** What one look at a Deployment comes to. Its parts are carried out in this order. */
export interface DeploymentPlan {
  readonly create: ReplicaSet | undefined;
  readonly updates: readonly ReplicaSetUpdate[];
  readonly deletions: readonly ReplicaSetView[];
  readonly status: DeploymentState;
  /** The Deployment's revision annotation; undefined: as it is. */
  readonly revision: string | undefined;
  /** Whether status or revision have to be written. */
  readonly statusChanged: boolean;
  /** Look again then, whatever happens. */
  readonly recheckMs: number | undefined;
}

export interface PlanOptions {
  readonly now: number;
  /** Whether pods of that ReplicaSet may still run, also those on their way out. Asked for Recreate only. */
  readonly hasPods: (replicaSetUID: string) => boolean;
}

/** The state of one planning. */
interface Planning {
  readonly deployment: DeploymentView;
  readonly options: PlanOptions;
  readonly old: readonly Draft[];
  fresh: Draft | undefined;
  conditions: readonly DeploymentCondition[];
  deletions: readonly ReplicaSetView[];
}

/** The one of the Deployment's ReplicaSets that has its present template, oldest first should there be several. */
export function findNewReplicaSet(
  deployment: DeploymentView,
  replicaSets: readonly ReplicaSetView[],
): ReplicaSetView | undefined {
  return replicaSets
    .toSorted(byAge)
    .find(({ template }) => sameTemplate(template, deployment.template));
}

/** A pause and its end restart the clock of the progress deadline. */
function pauseConditions(deployment: DeploymentView, now: number): readonly DeploymentCondition[] {
  const { conditions } = deployment.status;
  const reason = findCondition(conditions, "Progressing")?.reason;
  if (deployment.progressDeadlineSeconds === undefined) return conditions;
  if (reason === "ProgressDeadlineExceeded") return conditions;
  const paused = reason === "DeploymentPaused";
  if (deployment.paused === paused) return conditions;
  return setCondition(
    conditions,
    {
      type: "Progressing",
      status: "Unknown",
      reason: deployment.paused ? "DeploymentPaused" : "DeploymentResumed",
      message: deployment.paused ? "Deployment is paused" : "Deployment is resumed",
    },
    now,
  );
}

function startPlanning(
  deployment: DeploymentView,
  replicaSets: readonly ReplicaSetView[],
  options: PlanOptions,
): Planning {
  const current = findNewReplicaSet(deployment, replicaSets);
  const old = replicaSets.filter((each) => each !== current).toSorted(byAge);
  let conditions = deployment.deleting
    ? deployment.status.conditions
    : pauseConditions(deployment, options.now);
  let fresh: Draft | undefined;
  if (current !== undefined) {
    fresh = draftOf(current);
    fresh.minReadySeconds = deployment.minReadySeconds;
    const revision = highestRevision(old) + 1n;
    fresh.annotations = newReplicaSetAnnotations(
      current.annotations,
      deployment.annotations,
      revision,
    );
    if (
      deployment.progressDeadlineSeconds !== undefined &&
      findCondition(conditions, "Progressing") === undefined
    ) {
      const message = `Found new replica set "${current.name}"`;
      conditions = setCondition(
        conditions,
        { type: "Progressing", status: "True", reason: "FoundNewReplicaSet", message },
        options.now,
      );
    }
  }
  return {
    deployment,
    options,
    old: old.map((each) => draftOf(each)),
    fresh,
    conditions,
    deletions: [],
  };
}

/** A name that tells the template, so that a second creation of the same is refused as such. */
export function replicaSetName(deploymentName: string, hash: string): string {
  return `${deploymentName.slice(0, 253 - 1 - hash.length)}-${hash}`;
}

/** The draft of the ReplicaSet of the present template, which does not exist yet. */
function createFresh(planning: Planning): Draft {
  const { deployment, old, options } = planning;
  const hash = templateHash(deployment.template, deployment.status.collisionCount);
  const fresh: Draft = {
    view: undefined,
    name: replicaSetName(deployment.name, hash),
    createdAt: options.now,
    status: {
      replicas: 0,
      readyReplicas: 0,
      availableReplicas: 0,
      terminatingReplicas: undefined,
      synced: false,
      conditions: [],
    },
    replicas: newReplicaSetSize(deployment, old, 0),
    minReadySeconds: deployment.minReadySeconds,
    annotations: {
      ...newReplicaSetAnnotations({}, deployment.annotations, highestRevision(old) + 1n),
      ...replicaAnnotations(deployment),
    },
  };
  planning.fresh = fresh;
  if (deployment.progressDeadlineSeconds !== undefined) {
    const message = `Created new replica set "${fresh.name}"`;
    planning.conditions = setCondition(
      planning.conditions,
      { type: "Progressing", status: "True", reason: "NewReplicaSetCreated", message },
      options.now,
    );
  }
  return fresh;
}

/** Old ReplicaSets beyond the history limit that have no pods any more, lowest revision first. */
function expiredReplicaSets(planning: Planning): readonly ReplicaSetView[] {
  const { deployment, old } = planning;
  const limit = deployment.revisionHistoryLimit;
  if (limit === undefined) return [];
  const kept = old.flatMap(({ view, replicas }) =>
    view === undefined || view.deleting ? [] : [{ view, replicas }],
  );
  const surplus = kept.length - limit;
  if (surplus <= 0) return [];
  return kept
    .toSorted((left, right) => byRevision(left.view, right.view))
    .slice(0, surplus)
    .filter(({ view, replicas }) => view.status.replicas === 0 && replicas === 0 && view.observed)
    .filter(({ view }) => view.replicas === 0)
    .map(({ view }) => view);
}

function byRevision(left: ReplicaSetView, right: ReplicaSetView): number {
  const [a, b] = [revisionOf(left.annotations), revisionOf(right.annotations)];
  if (a === undefined || b === undefined || a === b) return byAge(left, right);
  return a < b ? -1 : 1;
}

/** Recreate: the new pods start when no old pod may run any more. */
function rollRecreate(planning: Planning): void {
  const { deployment, old, options } = planning;
  const active = activeDrafts(old);
  if (active.length > 0) {
    for (const draft of active) resize(draft, 0, deployment);
    return;
  }
  const running = old.some(
    ({ view, status }) => status.replicas > 0 || (view !== undefined && options.hasPods(view.uid)),
  );
  if (running) return;
  const fresh = planning.fresh ?? createFresh(planning);
  if (fresh.replicas !== deployment.replicas) resize(fresh, deployment.replicas, deployment);
  if (isComplete(deployment, deployment.status)) planning.deletions = expiredReplicaSets(planning);
}

/** RollingUpdate: up as far as maxSurge allows, else down as far as availability allows. */
function rollRolling(planning: Planning): void {
  const { deployment, old } = planning;
  const fresh = planning.fresh ?? createFresh(planning);
  if (growNew(deployment, [...old, fresh], fresh)) return;
  if (shrinkOld(deployment, old, fresh)) return;
  if (isComplete(deployment, deployment.status)) planning.deletions = expiredReplicaSets(planning);
}

/**
 * What to do for a Deployment that is as `deployment` says and has these ReplicaSets.
 *
 * @param replicaSets All that it controls, whatever their template.
 */
export function planDeployment(
  deployment: DeploymentView,
  replicaSets: readonly ReplicaSetView[],
  options: PlanOptions,
): DeploymentPlan {
  const planning = startPlanning(deployment, replicaSets, options);
  const { old } = planning;
  if (deployment.deleting) return finish(planning, computeStatus);
  if (deployment.paused || isScalingEvent(deployment, allDrafts(planning))) {
    scaleInProportion(deployment, old, planning.fresh);
    if (deployment.paused) planning.deletions = expiredReplicaSets(planning);
    return finish(planning, computeStatus);
  }
  if (deployment.rolling) rollRolling(planning);
  else rollRecreate(planning);
  return finish(planning, computeRolloutStatus);
}

function finish(
  planning: Planning,
  compute: (
    deployment: DeploymentView,
    drafts: Drafts,
    conditions: readonly DeploymentCondition[],
    now: number,
  ) => DeploymentState,
): DeploymentPlan {
  const { deployment, fresh, options } = planning;
  const status = compute(deployment, planning, planning.conditions, options.now);
  const revision = fresh?.annotations[revisionAnnotation];
  const same = sameStatus(deployment.status, status);
  return {
    create: fresh?.view === undefined ? bodyOf(planning) : undefined,
    updates: allDrafts(planning).flatMap((draft) => updateOf(draft)),
    deletions: planning.deletions,
    status,
    revision,
    statusChanged:
      !same || (revision !== undefined && deployment.annotations[revisionAnnotation] !== revision),
    recheckMs:
      compute === computeRolloutStatus
        ? progressCheckMs(deployment, status, options.now)
        : undefined,
  };
}

function updateOf(draft: Draft): readonly ReplicaSetUpdate[] {
  const { view, replicas, minReadySeconds, annotations } = draft;
  if (view === undefined) return [];
  const same =
    view.replicas === replicas &&
    view.minReadySeconds === minReadySeconds &&
    Object.entries(annotations).every(([key, value]) => view.annotations[key] === value);
  return same ? [] : [{ view, replicas, minReadySeconds, annotations }];
}

function withHash(
  labels: Readonly<Record<string, string>> | undefined,
  hash: string,
): Record<string, string> {
  return { ...labels, [templateHashLabel]: hash };
}

/** The ReplicaSet to create, when the planning drafted one. */
function bodyOf({ deployment, fresh }: Planning): ReplicaSet | undefined {
  if (fresh === undefined) return undefined;
  const { template } = deployment;
  const hash = templateHash(template, deployment.status.collisionCount);
  const labels = withHash(template.metadata?.labels, hash);
  const selector: LabelSelector = {
    ...deployment.selector,
    matchLabels: withHash(deployment.selector.matchLabels, hash),
  };
  return {
    metadata: {
      name: fresh.name,
      namespace: deployment.namespace,
      labels,
      annotations: { ...fresh.annotations },
      ownerReferences: [controllerReference(DEPLOYMENTS, deployment)],
    },
    spec: {
      replicas: fresh.replicas,
      ...(fresh.minReadySeconds === 0 ? {} : { minReadySeconds: fresh.minReadySeconds }),
      selector,
      template: { ...template, metadata: { ...template.metadata, labels } },
    },
  };
}

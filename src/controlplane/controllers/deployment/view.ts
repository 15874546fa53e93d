import type { Stored } from "../../../api/object.ts";
import type {
  Deployment,
  DeploymentCondition,
  DeploymentStrategy,
  IntOrString,
  LabelSelector,
  PodTemplateSpec,
  ReplicaSet,
  ReplicaSetCondition,
} from "../../../api/types.gen.ts";
import { timeMs } from "../shared/pod-state.ts";

type Annotations = Readonly<Record<string, string>>;

export interface DeploymentCounts {
  readonly replicas: number;
  readonly updatedReplicas: number;
  readonly readyReplicas: number;
  readonly availableReplicas: number;
  readonly unavailableReplicas: number;
  /** Undefined when a ReplicaSet does not say. */
  readonly terminatingReplicas: number | undefined;
}

export interface DeploymentState extends DeploymentCounts {
  readonly observedGeneration: number;
  readonly collisionCount: number | undefined;
  readonly conditions: readonly DeploymentCondition[];
}

/** A Deployment with its numbers resolved. */
export interface DeploymentView {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly generation: number;
  readonly deleting: boolean;
  readonly paused: boolean;
  readonly replicas: number;
  readonly minReadySeconds: number;
  readonly rolling: boolean;
  /** Pods above `replicas` during a rolling update; 0 for Recreate. */
  readonly maxSurge: number;
  /** Pods below `replicas` that may be unavailable during a rolling update; 0 for Recreate. */
  readonly maxUnavailable: number;
  /** Undefined: progress is not judged. */
  readonly progressDeadlineSeconds: number | undefined;
  /** Undefined: every old ReplicaSet is kept. */
  readonly revisionHistoryLimit: number | undefined;
  readonly selector: LabelSelector;
  readonly template: PodTemplateSpec;
  readonly annotations: Annotations;
  readonly status: DeploymentState;
}

export interface ReplicaSetView {
  readonly object: Stored<ReplicaSet>;
  readonly name: string;
  readonly uid: string;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  readonly deleting: boolean;
  /** Its status speaks of its present spec. */
  readonly observed: boolean;
  readonly replicas: number;
  readonly minReadySeconds: number;
  readonly annotations: Annotations;
  readonly template: PodTemplateSpec;
  readonly status: ReplicaSetState;
}

export interface ReplicaSetState {
  readonly replicas: number;
  readonly readyReplicas: number;
  readonly availableReplicas: number;
  readonly terminatingReplicas: number | undefined;
  /** Its controller has looked at it at least once. */
  readonly synced: boolean;
  readonly conditions: readonly ReplicaSetCondition[];
}

/** "No limit" of progressDeadlineSeconds and revisionHistoryLimit. */
const maxInt32 = 2 ** 31 - 1;

function limited(value: number | undefined): number | undefined {
  return value === maxInt32 ? undefined : value;
}

/** A number, or a percentage of `total`. Validation has refused everything else. */
function scaled(
  value: IntOrString | undefined,
  total: number,
  round: (value: number) => number,
): number {
  if (typeof value === "number") return value;
  const percent = /^(\d+)%$/.exec(value ?? "")?.[1];
  return percent === undefined ? 0 : round((Number(percent) * total) / 100);
}

/**
 * What maxSurge and maxUnavailable come to. Surge is rounded up, unavailability down; when that leaves none of either,
 * one pod may be unavailable, or the update could never begin.
 */
export function resolveFenceposts(
  maxSurge: IntOrString | undefined,
  maxUnavailable: IntOrString | undefined,
  replicas: number,
): { readonly surge: number; readonly unavailable: number } {
  const surge = scaled(maxSurge, replicas, Math.ceil);
  const unavailable = scaled(maxUnavailable, replicas, Math.floor);
  return { surge, unavailable: surge === 0 && unavailable === 0 ? 1 : unavailable };
}

function stateOf(status: Deployment["status"]): DeploymentState {
  return {
    replicas: status?.replicas ?? 0,
    updatedReplicas: status?.updatedReplicas ?? 0,
    readyReplicas: status?.readyReplicas ?? 0,
    availableReplicas: status?.availableReplicas ?? 0,
    unavailableReplicas: status?.unavailableReplicas ?? 0,
    terminatingReplicas: status?.terminatingReplicas,
    observedGeneration: status?.observedGeneration ?? 0,
    collisionCount: status?.collisionCount,
    conditions: status?.conditions ?? [],
  };
}

function boundsOf(
  strategy: DeploymentStrategy | undefined,
  replicas: number,
): Pick<DeploymentView, "rolling" | "maxSurge" | "maxUnavailable"> {
  if (strategy?.type === "Recreate") return { rolling: false, maxSurge: 0, maxUnavailable: 0 };
  const { maxSurge, maxUnavailable } = strategy?.rollingUpdate ?? {};
  const { surge, unavailable } = resolveFenceposts(maxSurge, maxUnavailable, replicas);
  return { rolling: true, maxSurge: surge, maxUnavailable: Math.min(unavailable, replicas) };
}

/** Reads a Deployment as the server has defaulted it. */
export function viewDeployment(object: Stored<Deployment>): DeploymentView {
  const { metadata, spec, status } = object;
  const replicas = spec?.replicas ?? 1;
  return {
    namespace: metadata.namespace ?? "",
    name: metadata.name,
    uid: metadata.uid,
    generation: metadata.generation ?? 0,
    deleting: metadata.deletionTimestamp !== undefined,
    paused: spec?.paused ?? false,
    replicas,
    minReadySeconds: spec?.minReadySeconds ?? 0,
    ...boundsOf(spec?.strategy, replicas),
    progressDeadlineSeconds: limited(spec?.progressDeadlineSeconds),
    revisionHistoryLimit: limited(spec?.revisionHistoryLimit),
    selector: spec?.selector ?? {},
    template: spec?.template ?? {},
    annotations: metadata.annotations ?? {},
    status: stateOf(status),
  };
}

function replicaSetState(status: ReplicaSet["status"]): ReplicaSetState {
  return {
    replicas: status?.replicas ?? 0,
    readyReplicas: status?.readyReplicas ?? 0,
    availableReplicas: status?.availableReplicas ?? 0,
    terminatingReplicas: status?.terminatingReplicas,
    synced: (status?.observedGeneration ?? 0) > 0,
    conditions: status?.conditions ?? [],
  };
}

export function viewReplicaSet(object: Stored<ReplicaSet>): ReplicaSetView {
  const { metadata, spec, status } = object;
  return {
    object,
    name: metadata.name,
    uid: metadata.uid,
    createdAt: timeMs(metadata.creationTimestamp) ?? 0,
    deleting: metadata.deletionTimestamp !== undefined,
    observed: (status?.observedGeneration ?? 0) >= (metadata.generation ?? 0),
    replicas: spec?.replicas ?? 1,
    minReadySeconds: spec?.minReadySeconds ?? 0,
    annotations: metadata.annotations ?? {},
    template: spec?.template ?? {},
    status: replicaSetState(status),
  };
}

/** Oldest first; the name decides between those of the same second. */
export function byAge(
  left: Pick<ReplicaSetView, "createdAt" | "name">,
  right: Pick<ReplicaSetView, "createdAt" | "name">,
): number {
  if (left.createdAt !== right.createdAt) return left.createdAt - right.createdAt;
  return left.name < right.name ? -1 : Number(left.name > right.name);
}

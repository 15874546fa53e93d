import { replicaAnnotations } from "./annotations.ts";
import type { DeploymentView, ReplicaSetState, ReplicaSetView } from "./view.ts";

/** A ReplicaSet as a plan wants it to be. Belongs to the one plan that makes it, which changes it step by step. */
export interface Draft {
  /** As it is; undefined for one that is to be created. */
  readonly view: ReplicaSetView | undefined;
  readonly name: string;
  readonly createdAt: number;
  readonly status: ReplicaSetState;
  replicas: number;
  minReadySeconds: number;
  annotations: Readonly<Record<string, string>>;
}

export function draftOf(view: ReplicaSetView): Draft {
  const { name, createdAt, status, replicas, minReadySeconds, annotations } = view;
  return { view, name, createdAt, status, replicas, minReadySeconds, annotations };
}

/** Gives a ReplicaSet its size and writes down which size of the Deployment it belongs to. */
export function resize(draft: Draft, replicas: number, deployment: DeploymentView): void {
  draft.replicas = replicas;
  draft.annotations = { ...draft.annotations, ...replicaAnnotations(deployment) };
}

export function sum(drafts: readonly Draft[], count: (draft: Draft) => number): number {
  return drafts.reduce((total, draft) => total + count(draft), 0);
}

/** Pods that the ReplicaSets are to have. */
export function totalReplicas(drafts: readonly Draft[]): number {
  return sum(drafts, ({ replicas }) => replicas);
}

export function availableReplicas(drafts: readonly Draft[]): number {
  return sum(drafts, ({ status }) => status.availableReplicas);
}

/** Those that have, or ought to have, pods. */
export function activeDrafts(drafts: readonly Draft[]): readonly Draft[] {
  return drafts.filter(({ replicas }) => replicas > 0);
}

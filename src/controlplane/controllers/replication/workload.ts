import type { Stored } from "../../../api/object.ts";
import type { Resource } from "../../../api/resource.ts";
import { REPLICATION_CONTROLLERS } from "../../../api/resources.ts";
import type {
  PodTemplateSpec,
  ReplicationController,
  ReplicationControllerStatus,
} from "../../../api/types.gen.ts";
import { matchesMap } from "../../../api/selectors.ts";

export interface ReplicaCondition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string | undefined;
  readonly message?: string | undefined;
  readonly lastTransitionTime?: string | undefined;
}

export interface ReplicaStatus {
  readonly replicas: number;
  readonly fullyLabeledReplicas: number;
  readonly readyReplicas: number;
  readonly availableReplicas: number;
  readonly observedGeneration: number;
  readonly conditions: readonly ReplicaCondition[];
}

/** What ReplicationController and ReplicaSet have in common: a template, a selector and a number. */
export interface ReplicaWorkload {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation: number;
  readonly deleting: boolean;
  readonly replicas: number;
  readonly minReadySeconds: number;
  readonly template: PodTemplateSpec;
  readonly status: ReplicaStatus;
  selects(labels: Readonly<Record<string, string>> | undefined): boolean;
}

/** One kind that keeps a number of pods. `T` is its API type. */
export interface ReplicaKind<T> {
  readonly resource: Resource<T>;
  parse(object: Stored<T>): ReplicaWorkload;
}

function parseStatus(status: ReplicationControllerStatus | undefined): ReplicaStatus {
  return {
    replicas: status?.replicas ?? 0,
    fullyLabeledReplicas: status?.fullyLabeledReplicas ?? 0,
    readyReplicas: status?.readyReplicas ?? 0,
    availableReplicas: status?.availableReplicas ?? 0,
    observedGeneration: status?.observedGeneration ?? 0,
    conditions: status?.conditions ?? [],
  };
}

export const replicationControllerKind: ReplicaKind<ReplicationController> = {
  resource: REPLICATION_CONTROLLERS,
  parse(object) {
    const { metadata, spec, status } = object;
    // The server defaults the selector from the template (SetDefaults_ReplicationController).
    const selector = spec?.selector ?? {};
    return {
      namespace: metadata.namespace ?? "",
      name: metadata.name,
      uid: metadata.uid,
      resourceVersion: metadata.resourceVersion,
      generation: metadata.generation ?? 0,
      deleting: metadata.deletionTimestamp !== undefined,
      replicas: spec?.replicas ?? 1,
      minReadySeconds: spec?.minReadySeconds ?? 0,
      template: spec?.template ?? {},
      status: parseStatus(status),
      // A selector without a single pair would claim every pod of the namespace.
      selects: (labels) => Object.keys(selector).length > 0 && matchesMap(selector, labels),
    };
  },
};

import type { Stored } from "../../../api/object.ts";
import { controllerOf } from "../../../api/object.ts";
import type { Resource } from "../../../api/resource.ts";
import { REPLICA_SETS, REPLICATION_CONTROLLERS } from "../../../api/resources.ts";
import type {
  PodTemplateSpec,
  ReplicaSet,
  ReplicaSetStatus,
  ReplicationController,
  ReplicationControllerStatus,
} from "../../../api/types.gen.ts";
import { matchesMap, matchesSelector } from "../../../api/selectors.ts";

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
  /** Undefined for kinds that do not report it. */
  readonly terminatingReplicas: number | undefined;
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
  /** Whoever controls the workload itself. */
  readonly ownerUID: string | undefined;
  readonly replicas: number;
  readonly minReadySeconds: number;
  readonly template: PodTemplateSpec;
  readonly status: ReplicaStatus;
  selects(labels: Readonly<Record<string, string>> | undefined): boolean;
}

/** One kind that keeps a number of pods. `T` is its API type. */
export interface ReplicaKind<T> {
  readonly resource: Resource<T>;
  /** Whether its status has `terminatingReplicas`. */
  readonly reportsTerminating: boolean;
  parse(object: Stored<T>): ReplicaWorkload;
}

function parseStatus(
  status: ReplicationControllerStatus | ReplicaSetStatus | undefined,
): ReplicaStatus {
  return {
    replicas: status?.replicas ?? 0,
    fullyLabeledReplicas: status?.fullyLabeledReplicas ?? 0,
    readyReplicas: status?.readyReplicas ?? 0,
    availableReplicas: status?.availableReplicas ?? 0,
    terminatingReplicas:
      status !== undefined && "terminatingReplicas" in status
        ? status.terminatingReplicas
        : undefined,
    observedGeneration: status?.observedGeneration ?? 0,
    conditions: status?.conditions ?? [],
  };
}

/** What the two kinds write alike. */
function parseWorkload(
  object: Stored<ReplicationController> | Stored<ReplicaSet>,
): Omit<ReplicaWorkload, "selects"> {
  const { metadata, spec, status } = object;
  return {
    namespace: metadata.namespace ?? "",
    name: metadata.name,
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    generation: metadata.generation ?? 0,
    deleting: metadata.deletionTimestamp !== undefined,
    ownerUID: controllerOf(metadata)?.uid,
    replicas: spec?.replicas ?? 1,
    minReadySeconds: spec?.minReadySeconds ?? 0,
    template: spec?.template ?? {},
    status: parseStatus(status),
  };
}

export const replicationControllerKind: ReplicaKind<ReplicationController> = {
  resource: REPLICATION_CONTROLLERS,
  reportsTerminating: false,
  parse(object) {
    // The server defaults the selector from the template (SetDefaults_ReplicationController).
    const selector = object.spec?.selector ?? {};
    return {
      ...parseWorkload(object),
      // A selector without a single pair would claim every pod of the namespace.
      selects: (labels) => Object.keys(selector).length > 0 && matchesMap(selector, labels),
    };
  },
};

export const replicaSetKind: ReplicaKind<ReplicaSet> = {
  resource: REPLICA_SETS,
  reportsTerminating: true,
  parse(object) {
    const selector = object.spec?.selector;
    return {
      ...parseWorkload(object),
      selects: (labels) => matchesSelector(selector, labels),
    };
  },
};

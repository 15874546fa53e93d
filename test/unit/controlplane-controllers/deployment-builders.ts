import type { Stored } from "../../../src/api/object.ts";
import type {
  Deployment,
  DeploymentSpec,
  PodTemplateSpec,
  ReplicaSet,
  ReplicaSetStatus,
} from "../../../src/api/types.gen.ts";
import { ago } from "./builders.ts";

export const desired = "deployment.kubernetes.io/desired-replicas";
export const max = "deployment.kubernetes.io/max-replicas";
export const revision = "deployment.kubernetes.io/revision";
export const history = "deployment.kubernetes.io/revision-history";

export function template(image: string): PodTemplateSpec {
  return { metadata: { labels: { app: "web" } }, spec: { containers: [{ name: "c", image }] } };
}

export interface DeploymentParts {
  readonly image?: string;
  readonly annotations?: Record<string, string>;
  readonly spec?: Partial<DeploymentSpec>;
  readonly status?: Deployment["status"];
  readonly deleting?: boolean;
}

/** A Deployment as the server has defaulted it. */
export function deployment(replicas: number, parts: DeploymentParts = {}): Stored<Deployment> {
  return {
    metadata: {
      name: "web",
      namespace: "default",
      uid: "deployment",
      resourceVersion: "1",
      generation: 2,
      ...(parts.annotations === undefined ? {} : { annotations: parts.annotations }),
      ...(parts.deleting === true ? { deletionTimestamp: ago(1) } : {}),
    },
    spec: {
      replicas,
      selector: { matchLabels: { app: "web" } },
      strategy: {
        type: "RollingUpdate",
        rollingUpdate: { maxSurge: "25%", maxUnavailable: "25%" },
      },
      revisionHistoryLimit: 10,
      progressDeadlineSeconds: 600,
      template: template(parts.image ?? "v1"),
      ...parts.spec,
    },
    status: parts.status,
  };
}

export interface ReplicaSetParts {
  readonly image?: string;
  readonly annotations?: Record<string, string>;
  readonly createdAgo?: number;
  /** Also the actual, ready and available number unless `status` says otherwise. */
  readonly replicas?: number;
  readonly status?: Partial<ReplicaSetStatus>;
}

/** A ReplicaSet whose controller has done its work. */
export function replicaSet(name: string, parts: ReplicaSetParts = {}): Stored<ReplicaSet> {
  const replicas = parts.replicas ?? 0;
  return {
    metadata: {
      name,
      namespace: "default",
      uid: `uid-${name}`,
      resourceVersion: "1",
      generation: 1,
      creationTimestamp: ago(parts.createdAgo ?? 100),
      annotations: parts.annotations ?? {},
    },
    spec: {
      replicas,
      selector: { matchLabels: { app: "web" } },
      template: template(parts.image ?? name),
    },
    status: {
      replicas,
      readyReplicas: replicas,
      availableReplicas: replicas,
      terminatingReplicas: 0,
      observedGeneration: 1,
      ...parts.status,
    },
  };
}

import type { Resource } from "./resource.ts";
import type {
  CertificateSigningRequest,
  ConfigMap,
  ControllerRevision,
  CSIDriver,
  CSINode,
  CSIStorageCapacity,
  DaemonSet,
  Deployment,
  Endpoints,
  EndpointSlice,
  Event,
  Job,
  Lease,
  Namespace,
  Node,
  PersistentVolume,
  PersistentVolumeClaim,
  Pod,
  PodDisruptionBudget,
  ReplicaSet,
  ReplicationController,
  RuntimeClass,
  Secret,
  Service,
  ServiceAccount,
  ServiceCIDR,
  StorageClass,
  VolumeAttachment,
  VolumeAttributesClass,
} from "./types.gen.ts";

function core<T>(kind: string, plural: string, namespaced = true): Resource<T> {
  return { group: "", version: "v1", kind, plural, namespaced };
}

export const PODS = core<Pod>("Pod", "pods");
export const NODES = core<Node>("Node", "nodes", false);
export const NAMESPACES = core<Namespace>("Namespace", "namespaces", false);
export const SERVICES = core<Service>("Service", "services");
export const ENDPOINTS = core<Endpoints>("Endpoints", "endpoints");
export const CONFIG_MAPS = core<ConfigMap>("ConfigMap", "configmaps");
export const SECRETS = core<Secret>("Secret", "secrets");
export const SERVICE_ACCOUNTS = core<ServiceAccount>("ServiceAccount", "serviceaccounts");
export const EVENTS = core<Event>("Event", "events");
export const REPLICATION_CONTROLLERS = core<ReplicationController>(
  "ReplicationController",
  "replicationcontrollers",
);
export const PERSISTENT_VOLUMES = core<PersistentVolume>(
  "PersistentVolume",
  "persistentvolumes",
  false,
);
export const PERSISTENT_VOLUME_CLAIMS = core<PersistentVolumeClaim>(
  "PersistentVolumeClaim",
  "persistentvolumeclaims",
);

function apps<T>(kind: string, plural: string): Resource<T> {
  return { group: "apps", version: "v1", kind, plural, namespaced: true };
}

export const REPLICA_SETS = apps<ReplicaSet>("ReplicaSet", "replicasets");
export const DEPLOYMENTS = apps<Deployment>("Deployment", "deployments");
export const DAEMON_SETS = apps<DaemonSet>("DaemonSet", "daemonsets");
export const CONTROLLER_REVISIONS = apps<ControllerRevision>(
  "ControllerRevision",
  "controllerrevisions",
);
export const JOBS: Resource<Job> = {
  group: "batch",
  version: "v1",
  kind: "Job",
  plural: "jobs",
  namespaced: true,
};
export const LEASES: Resource<Lease> = {
  group: "coordination.k8s.io",
  version: "v1",
  kind: "Lease",
  plural: "leases",
  namespaced: true,
};
export const ENDPOINT_SLICES: Resource<EndpointSlice> = {
  group: "discovery.k8s.io",
  version: "v1",
  kind: "EndpointSlice",
  plural: "endpointslices",
  namespaced: true,
};
export const SERVICE_CIDRS: Resource<ServiceCIDR> = {
  group: "networking.k8s.io",
  version: "v1",
  kind: "ServiceCIDR",
  plural: "servicecidrs",
  namespaced: false,
};
export const RUNTIME_CLASSES: Resource<RuntimeClass> = {
  group: "node.k8s.io",
  version: "v1",
  kind: "RuntimeClass",
  plural: "runtimeclasses",
  namespaced: false,
};
export const CERTIFICATE_SIGNING_REQUESTS: Resource<CertificateSigningRequest> = {
  group: "certificates.k8s.io",
  version: "v1",
  kind: "CertificateSigningRequest",
  plural: "certificatesigningrequests",
  namespaced: false,
};
export const POD_DISRUPTION_BUDGETS: Resource<PodDisruptionBudget> = {
  group: "policy",
  version: "v1",
  kind: "PodDisruptionBudget",
  plural: "poddisruptionbudgets",
  namespaced: true,
};

function storage<T>(kind: string, plural: string): Resource<T> {
  return { group: "storage.k8s.io", version: "v1", kind, plural, namespaced: false };
}

export const STORAGE_CLASSES = storage<StorageClass>("StorageClass", "storageclasses");
export const VOLUME_ATTACHMENTS = storage<VolumeAttachment>(
  "VolumeAttachment",
  "volumeattachments",
);
export const VOLUME_ATTRIBUTES_CLASSES = storage<VolumeAttributesClass>(
  "VolumeAttributesClass",
  "volumeattributesclasses",
);
export const CSI_DRIVERS = storage<CSIDriver>("CSIDriver", "csidrivers");
export const CSI_NODES = storage<CSINode>("CSINode", "csinodes");
export const CSI_STORAGE_CAPACITIES: Resource<CSIStorageCapacity> = {
  ...storage<CSIStorageCapacity>("CSIStorageCapacity", "csistoragecapacities"),
  namespaced: true,
};

/** Sets of trust anchors that every pod may read (KEP-3257). */
export const CLUSTER_TRUST_BUNDLES: Resource<unknown> = {
  group: "certificates.k8s.io",
  version: "v1beta1",
  kind: "ClusterTrustBundle",
  plural: "clustertrustbundles",
  namespaced: false,
};

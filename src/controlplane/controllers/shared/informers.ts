import { clusterInfo, tokenNamespace, tokenSecretType } from "../../../api/bootstrap-token.ts";
import type { ApiClient } from "../../../api/client.ts";
import { createInformer } from "../../../api/informer.ts";
import type { Informer } from "../../../api/informer-types.ts";
import type { Stored } from "../../../api/object.ts";
import { parseStored } from "../../../api/object.ts";
import type { Resource } from "../../../api/resource.ts";
import {
  CERTIFICATE_SIGNING_REQUESTS,
  CONFIG_MAPS,
  CONTROLLER_REVISIONS,
  CSI_DRIVERS,
  CSI_NODES,
  CSI_STORAGE_CAPACITIES,
  DAEMON_SETS,
  DEPLOYMENTS,
  ENDPOINTS,
  ENDPOINT_SLICES,
  JOBS,
  LEASES,
  NAMESPACES,
  NODES,
  PERSISTENT_VOLUMES,
  PERSISTENT_VOLUME_CLAIMS,
  PODS,
  POD_DISRUPTION_BUDGETS,
  REPLICATION_CONTROLLERS,
  REPLICA_SETS,
  SECRETS,
  SERVICES,
  SERVICE_ACCOUNTS,
  STORAGE_CLASSES,
  VOLUME_ATTACHMENTS,
  VOLUME_ATTRIBUTES_CLASSES,
} from "../../../api/resources.ts";
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
  Secret,
  Service,
  ServiceAccount,
  StorageClass,
  VolumeAttachment,
  VolumeAttributesClass,
} from "../../../api/types.gen.ts";
import type { Clock } from "../../../lib/clock.ts";
import type { Logger } from "../../../lib/log.ts";

/** The caches that the controllers and the scheduler share. */
export interface Informers {
  readonly pods: Informer<Stored<Pod>>;
  readonly nodes: Informer<Stored<Node>>;
  readonly namespaces: Informer<Stored<Namespace>>;
  readonly services: Informer<Stored<Service>>;
  readonly endpoints: Informer<Stored<Endpoints>>;
  readonly endpointSlices: Informer<Stored<EndpointSlice>>;
  readonly replicationControllers: Informer<Stored<ReplicationController>>;
  readonly replicaSets: Informer<Stored<ReplicaSet>>;
  readonly deployments: Informer<Stored<Deployment>>;
  readonly daemonSets: Informer<Stored<DaemonSet>>;
  readonly controllerRevisions: Informer<Stored<ControllerRevision>>;
  readonly jobs: Informer<Stored<Job>>;
  readonly podDisruptionBudgets: Informer<Stored<PodDisruptionBudget>>;
  readonly serviceAccounts: Informer<Stored<ServiceAccount>>;
  readonly persistentVolumes: Informer<Stored<PersistentVolume>>;
  readonly persistentVolumeClaims: Informer<Stored<PersistentVolumeClaim>>;
  readonly storageClasses: Informer<Stored<StorageClass>>;
  readonly volumeAttachments: Informer<Stored<VolumeAttachment>>;
  readonly volumeAttributesClasses: Informer<Stored<VolumeAttributesClass>>;
  readonly csiDrivers: Informer<Stored<CSIDriver>>;
  readonly csiNodes: Informer<Stored<CSINode>>;
  readonly csiStorageCapacities: Informer<Stored<CSIStorageCapacity>>;
  /** Only those of kube-node-lease. */
  readonly nodeLeases: Informer<Stored<Lease>>;
  /** Only those named kube-root-ca.crt. */
  readonly rootCAs: Informer<Stored<ConfigMap>>;
  readonly certificateSigningRequests: Informer<Stored<CertificateSigningRequest>>;
  /** Only Secrets that are bootstrap tokens. */
  readonly bootstrapTokens: Informer<Stored<Secret>>;
  /** Only kube-public/cluster-info. */
  readonly clusterInfo: Informer<Stored<ConfigMap>>;
}

export interface InformerOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
}

/** Builds the shared caches; nothing runs before `run`. */
export function createInformers(options: InformerOptions): {
  readonly informers: Informers;
  run(signal: AbortSignal): Promise<void>;
} {
  const all: Informer<unknown>[] = [];
  function informer<T>(
    resource: Resource<T>,
    scope: { readonly namespace?: string; readonly fieldSelector?: string } = {},
  ): Informer<Stored<T>> {
    const created = createInformer<Stored<T>>({
      ...options,
      ...scope,
      resource,
      // Whole objects on purpose: the in-process client hands out the store's own frozen copies, so that keeping the
      // object costs less than a projection of it.
      project: (object) => parseStored<T>(object),
    });
    all.push(created);
    return created;
  }
  const informers: Informers = {
    pods: informer(PODS),
    nodes: informer(NODES),
    namespaces: informer(NAMESPACES),
    services: informer(SERVICES),
    endpoints: informer(ENDPOINTS),
    endpointSlices: informer(ENDPOINT_SLICES),
    replicationControllers: informer(REPLICATION_CONTROLLERS),
    replicaSets: informer(REPLICA_SETS),
    deployments: informer(DEPLOYMENTS),
    daemonSets: informer(DAEMON_SETS),
    controllerRevisions: informer(CONTROLLER_REVISIONS),
    jobs: informer(JOBS),
    podDisruptionBudgets: informer(POD_DISRUPTION_BUDGETS),
    serviceAccounts: informer(SERVICE_ACCOUNTS),
    persistentVolumes: informer(PERSISTENT_VOLUMES),
    persistentVolumeClaims: informer(PERSISTENT_VOLUME_CLAIMS),
    storageClasses: informer(STORAGE_CLASSES),
    volumeAttachments: informer(VOLUME_ATTACHMENTS),
    volumeAttributesClasses: informer(VOLUME_ATTRIBUTES_CLASSES),
    csiDrivers: informer(CSI_DRIVERS),
    csiNodes: informer(CSI_NODES),
    csiStorageCapacities: informer(CSI_STORAGE_CAPACITIES),
    nodeLeases: informer(LEASES, { namespace: "kube-node-lease" }),
    rootCAs: informer(CONFIG_MAPS, { fieldSelector: "metadata.name=kube-root-ca.crt" }),
    certificateSigningRequests: informer(CERTIFICATE_SIGNING_REQUESTS),
    bootstrapTokens: informer(SECRETS, {
      namespace: tokenNamespace,
      fieldSelector: `type=${tokenSecretType}`,
    }),
    clusterInfo: informer(CONFIG_MAPS, {
      namespace: clusterInfo.namespace,
      fieldSelector: `metadata.name=${clusterInfo.name}`,
    }),
  };
  return {
    informers,
    run: async (signal) => {
      await Promise.all(all.map(async (each) => each.run(signal)));
    },
  };
}

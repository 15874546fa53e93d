import type { KindDefinition, ObjectReader } from "../types.ts";
import { certificateSigningRequestKind } from "./certificate-signing-request.ts";
import { configMapKind, secretKind } from "./config-map.ts";
import { controllerRevisionKind } from "./controller-revision.ts";
import { csiDriverKind, csiNodeKind, csiStorageCapacityKind } from "./csi-kinds.ts";
import { daemonSetKind } from "./daemon-set.ts";
import { deploymentKind } from "./deployment.ts";
import { endpointsKind, endpointSliceKind } from "./endpoints.ts";
import { eventV1Kind } from "./event-v1.ts";
import { eventKind } from "./event.ts";
import { jobKind } from "./job.ts";
import { namespaceKind } from "./namespace.ts";
import { nodeKind } from "./node.ts";
import { persistentVolumeClaimKind } from "./persistent-volume-claim.ts";
import { persistentVolumeKind } from "./persistent-volume.ts";
import { podDisruptionBudgetKind } from "./pod-disruption-budget.ts";
import { bindingKind, podKind } from "./pod.ts";
import { rbacKinds } from "./rbac.ts";
import { replicaSetKind } from "./replica-set.ts";
import { replicationControllerKind } from "./replication-controller.ts";
import { createReviewKinds, type ReviewDeps } from "./reviews.ts";
import { createServiceAccountKind, type SignToken } from "./service-account.ts";
import type { RandomInt } from "./service-allocation.ts";
import { createServiceKind } from "./service.ts";
import { leaseKind, priorityClassKind, runtimeClassKind } from "./small-kinds.ts";
import { storageClassKind, volumeAttributesClassKind } from "./storage-class.ts";
import { volumeAttachmentKind } from "./volume-attachment.ts";

export interface KindsDeps extends ReviewDeps {
  /** IPv4 range of cluster IPs, for example `10.96.0.0/16`. */
  readonly serviceCidrs: readonly string[];
  /** Both ends included; upstream's default is 30000-32767. */
  readonly nodePorts: { readonly first: number; readonly last: number };
  readonly randomInt: RandomInt;
  /** The registry; a function, because the registry is built from the kinds. First called while serving. */
  readonly objects: () => ObjectReader;
  readonly signToken: SignToken;
}

/** Every kind this control plane serves. What is not here answers 404. */
export function createKinds(deps: KindsDeps): readonly KindDefinition[] {
  return [
    bindingKind,
    certificateSigningRequestKind,
    configMapKind,
    endpointsKind,
    eventV1Kind,
    eventKind,
    jobKind,
    namespaceKind,
    nodeKind,
    persistentVolumeKind,
    persistentVolumeClaimKind,
    podKind,
    podDisruptionBudgetKind,
    replicationControllerKind,
    secretKind,
    createServiceAccountKind(deps.signToken),
    createServiceKind({
      serviceCidrs: deps.serviceCidrs,
      nodePorts: deps.nodePorts,
      randomInt: deps.randomInt,
      stored: deps.objects,
    }),
    controllerRevisionKind,
    daemonSetKind,
    deploymentKind,
    replicaSetKind,
    leaseKind,
    endpointSliceKind,
    priorityClassKind,
    runtimeClassKind,
    csiDriverKind,
    csiNodeKind,
    csiStorageCapacityKind,
    storageClassKind,
    volumeAttachmentKind,
    volumeAttributesClassKind,
    ...rbacKinds,
    ...createReviewKinds(deps),
  ];
}

import { objectKey } from "../../../api/object.ts";
import {
  annotations,
  classOfClaim,
  hasAnnotation,
  isOwnedByPod,
  type StoredClaim,
} from "../../controllers/persistent-volume-binder/claims.ts";
import type { PodClaim, PodInfo } from "../pod-info.ts";
import type { StorageView } from "./storage-view.ts";

/** A pod's claims by what is to be done for them. */
export interface SortedClaims {
  readonly bound: readonly StoredClaim[];
  /** Of a class that waits for the first pod: the scheduler chooses the volume or the node of a new one. */
  readonly delayed: readonly StoredClaim[];
  /** They ought to be bound without the scheduler. */
  readonly immediate: readonly StoredClaim[];
}

/** Informer key of the claim behind a volume. */
export function claimKey(pod: PodInfo, { name }: PodClaim): string {
  return objectKey(pod.namespace, name);
}

/** How the API says that a claim is not there. */
export function claimNotFound(name: string): string {
  return `persistentvolumeclaim "${name}" not found`;
}

/** Bound in both directions, which only the controller declares. */
export function isFullyBound(claim: StoredClaim): boolean {
  return (claim.spec?.volumeName ?? "") !== "" && hasAnnotation(claim, annotations.bindCompleted);
}

/** Why a pod cannot run anywhere because of one of its claims, in kube-scheduler's words. */
function refusal(pod: PodInfo, wanted: PodClaim, view: StorageView): string | undefined {
  const { name, isEphemeral } = wanted;
  const claim = view.claim(claimKey(pod, wanted));
  if (claim === undefined) {
    // Right after the pod was made that is as it should be.
    return isEphemeral
      ? `waiting for ephemeral volume controller to create the persistentvolumeclaim "${name}"`
      : claimNotFound(name);
  }
  if (claim.status?.phase === "Lost")
    return `persistentvolumeclaim "${name}" bound to non-existent persistentvolume "${claim.spec?.volumeName ?? ""}"`;
  if (claim.metadata.deletionTimestamp !== undefined)
    return `persistentvolumeclaim "${name}" is being deleted`;
  if (isEphemeral && !isOwnedByPod(claim, pod.pod)) {
    const key = claimKey(pod, wanted);
    return `PVC ${key} was not created for pod ${pod.namespace}/${pod.pod.metadata.name} (pod is not owner)`;
  }
  return undefined;
}

/** The first reason why a claim of the pod keeps it from every node. */
export function claimsRefusal(pod: PodInfo, view: StorageView): string | undefined {
  for (const wanted of pod.claims) {
    const reason = refusal(pod, wanted, view);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

function waitsForPod(claim: StoredClaim, view: StorageView): boolean {
  const name = classOfClaim(claim);
  if (name === "") return false;
  return view.storageClass(name)?.volumeBindingMode === "WaitForFirstConsumer";
}

/** The claims of a pod that {@link claimsRefusal} has nothing against. */
export function sortClaims(pod: PodInfo, view: StorageView): SortedClaims {
  const bound: StoredClaim[] = [];
  const delayed: StoredClaim[] = [];
  const immediate: StoredClaim[] = [];
  for (const wanted of pod.claims) {
    const claim = view.claim(claimKey(pod, wanted));
    if (claim === undefined) continue;
    if (isFullyBound(claim)) bound.push(claim);
    // One that names its volume already is not the scheduler's to bind.
    else if ((claim.spec?.volumeName ?? "") === "" && waitsForPod(claim, view)) delayed.push(claim);
    else immediate.push(claim);
  }
  return { bound, delayed, immediate };
}

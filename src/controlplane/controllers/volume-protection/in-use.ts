import type { Stored } from "../../../api/object.ts";
import type { Pod } from "../../../api/types.gen.ts";
import {
  isOwnedByPod,
  type StoredClaim,
  type StoredVolume,
} from "../persistent-volume-binder/claims.ts";

/** The kubelet is done with it, or it was deleted by force: only finalizers keep the object. */
function isShutDown(pod: Stored<Pod>): boolean {
  const { deletionTimestamp, deletionGracePeriodSeconds } = pod.metadata;
  return deletionTimestamp !== undefined && deletionGracePeriodSeconds === 0;
}

/**
 * Whether the pod keeps the claim from being deleted. A pod without a node does not: the kubelet that gets it will not
 * start it with a claim that is being deleted.
 */
export function keepsClaim(pod: Stored<Pod>, claim: StoredClaim): boolean {
  if ((pod.spec?.nodeName ?? "") === "") return false;
  if (pod.metadata.namespace !== claim.metadata.namespace) return false;
  return (pod.spec?.volumes ?? []).some((volume) => {
    if (volume.persistentVolumeClaim?.claimName === claim.metadata.name) return true;
    // A finalizer of the pod may itself wait for this claim to go.
    if (volume.ephemeral === undefined || isShutDown(pod)) return false;
    return (
      `${pod.metadata.name}-${volume.name}` === claim.metadata.name && isOwnedByPod(claim, pod)
    );
  });
}

/** What is to be done about the finalizer of an object that is protected while it is used. */
export type ProtectionStep = "add" | "remove" | "none";

/** `inUse` is only asked when the answer matters. */
export function decideProtection(
  object: StoredClaim | StoredVolume,
  finalizer: string,
  inUse: () => boolean,
): ProtectionStep {
  const { deletionTimestamp, finalizers = [] } = object.metadata;
  const protectedNow = finalizers.includes(finalizer);
  if (deletionTimestamp === undefined) return protectedNow ? "none" : "add";
  return protectedNow && !inUse() ? "remove" : "none";
}

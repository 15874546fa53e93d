import { compareQuantities, quantityProblem } from "../../../api/quantity.ts";
import type { PersistentVolumeClaimStatus } from "../../../api/types.gen.ts";
import {
  annotations,
  hasAnnotation,
  isBoundTo,
  type StoredClaim,
  type StoredVolume,
  storageOf,
} from "./claims.ts";

function withAnnotation<T extends StoredClaim | StoredVolume>(object: T, name: string): T {
  const { metadata } = object;
  const annotated = { ...metadata.annotations, [name]: "yes" };
  return { ...object, metadata: { ...metadata, annotations: annotated } };
}

/** The volume as it refers to the claim; the same object when it already does. */
export function boundVolume(volume: StoredVolume, claim: StoredClaim): StoredVolume {
  const { namespace, name, uid, resourceVersion } = claim.metadata;
  const ref = volume.spec?.claimRef;
  if (ref?.uid === uid && ref.name === name && ref.namespace === namespace) return volume;
  const bound: StoredVolume = {
    ...volume,
    spec: {
      ...volume.spec,
      claimRef: {
        apiVersion: "v1",
        kind: "PersistentVolumeClaim",
        namespace,
        name,
        uid,
        resourceVersion,
      },
    },
  };
  // A volume that a person reserved for the claim stays reserved when the claim lets go of it.
  return isBoundTo(volume, claim) ? bound : withAnnotation(bound, annotations.boundByController);
}

/** The volume without its claim, or, where a person reserved it, without that one claim's uid. */
export function unboundVolume(volume: StoredVolume): StoredVolume {
  const { metadata, spec } = volume;
  if (!hasAnnotation(volume, annotations.boundByController)) {
    const { uid: _uid, resourceVersion: _version, ...reserved } = spec?.claimRef ?? {};
    return { ...volume, spec: { ...spec, claimRef: reserved } };
  }
  const { [annotations.boundByController]: _bound, ...kept } = metadata.annotations ?? {};
  const { claimRef: _ref, ...free } = spec ?? {};
  return { ...volume, metadata: { ...metadata, annotations: kept }, spec: free };
}

/** The claim as it refers to the volume; the same object when it already does. */
export function boundClaim(claim: StoredClaim, volume: StoredVolume): StoredClaim {
  let bound = claim;
  if (claim.spec?.volumeName !== volume.metadata.name) {
    bound = { ...bound, spec: { ...claim.spec, volumeName: volume.metadata.name } };
    if (!hasAnnotation(bound, annotations.boundByController))
      bound = withAnnotation(bound, annotations.boundByController);
  }
  return hasAnnotation(bound, annotations.bindCompleted)
    ? bound
    : withAnnotation(bound, annotations.bindCompleted);
}

function sameModes(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  return JSON.stringify(a ?? []) === JSON.stringify(b ?? []);
}

/** Status of a claim that is not, or no longer, bound; undefined when it is that already. */
export function unboundStatus(
  claim: StoredClaim,
  phase: "Pending" | "Lost",
): PersistentVolumeClaimStatus | undefined {
  const {
    accessModes,
    capacity,
    currentVolumeAttributesClassName: attributesClass,
    ...rest
  } = claim.status ?? {};
  const shown = accessModes !== undefined || capacity !== undefined;
  if (rest.phase === phase && !shown && attributesClass === undefined) return undefined;
  return { ...rest, phase };
}

/**
 * Status of a bound claim; undefined when it is that already. The capacity is set when the claim becomes bound and not
 * touched later: while a volume is being expanded both differ on purpose.
 */
export function boundStatus(
  claim: StoredClaim,
  volume: StoredVolume,
): PersistentVolumeClaimStatus | undefined {
  const old = claim.status ?? {};
  const becoming = old.phase !== "Bound";
  const next: PersistentVolumeClaimStatus = {
    ...old,
    phase: "Bound",
    accessModes: volume.spec?.accessModes,
  };
  if (becoming) {
    const before = volume.metadata.annotations?.[annotations.preResizeCapacity];
    if (before !== undefined && quantityProblem(before) === undefined)
      next.capacity = { ...old.capacity, storage: before };
    else if (
      old.capacity?.["storage"] === undefined ||
      compareQuantities(storageOf(old.capacity), storageOf(volume.spec?.capacity)) !== 0
    )
      next.capacity = volume.spec?.capacity;
    if (old.phase === "Pending")
      next.currentVolumeAttributesClassName = volume.spec?.volumeAttributesClassName;
  }
  const changed =
    becoming || !sameModes(old.accessModes, next.accessModes) || old.capacity !== next.capacity;
  return changed ? next : undefined;
}

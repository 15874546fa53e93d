import {
  annotations,
  claimKeyOf,
  hasAnnotation,
  isComplete,
  type StoredClaim,
  type StoredVolume,
} from "./claims.ts";
import type { Remark } from "./decide-claim.ts";
import { volumeModesDiffer } from "./match.ts";

/** The next step with a volume. */
export type VolumeStep =
  | { readonly kind: "phase"; readonly phase: "Available" | "Bound" }
  /** The claim's own turn comes next. */
  | { readonly kind: "wakeClaim"; readonly key: string }
  /** Bound for good to a claim of the other mode: neither can go on. */
  | { readonly kind: "mismatch"; readonly onVolume: Remark; readonly onClaim: Remark }
  /** Its claim is bound elsewhere: back to the free ones. */
  | { readonly kind: "unbind" }
  /** Its claim is gone: Released, then what the reclaim policy says. */
  | { readonly kind: "release" };

/** Whether the phase already says that the claim is gone. */
export function isReleased(volume: StoredVolume): boolean {
  return volume.status?.phase === "Released" || volume.status?.phase === "Failed";
}

/**
 * What is to be done with a volume now.
 *
 * @param claim The very claim that the volume refers to, undefined when that does not exist (any more).
 */
export function decideVolume(volume: StoredVolume, claim: StoredClaim | undefined): VolumeStep {
  const ref = volume.spec?.claimRef;
  if (ref === undefined || !isComplete(ref)) return { kind: "phase", phase: "Available" };
  if (claim === undefined) return { kind: "release" };
  const { name } = volume.metadata;
  const volumeName = claim.spec?.volumeName ?? "";
  if (volumeName === name) return { kind: "phase", phase: "Bound" };
  if (volumeName === "") {
    if (!volumeModesDiffer(claim, volume)) return { kind: "wakeClaim", key: claimKeyOf(ref) };
    const said = (message: string): Remark => ({
      type: "Warning",
      reason: "VolumeMismatch",
      message,
    });
    return {
      kind: "mismatch",
      onVolume: said(
        `Cannot bind PersistentVolume to requested PersistentVolumeClaim "${claim.metadata.name}" due to incompatible volumeMode.`,
      ),
      onClaim: said(
        `Cannot bind PersistentVolume "${name}" to requested PersistentVolumeClaim due to incompatible volumeMode.`,
      ),
    };
  }
  // Made for this claim alone, which took another: nobody else can want it.
  const madeForClaim =
    hasAnnotation(volume, annotations.provisionedBy) &&
    volume.spec?.persistentVolumeReclaimPolicy === "Delete";
  return madeForClaim ? { kind: "release" } : { kind: "unbind" };
}

/** What happens to a released volume. */
export type ReclaimStep =
  /** It stays for people to look after, or its provisioner deletes it. */
  { readonly kind: "leave" } | { readonly kind: "fail"; readonly remark: Remark };

/** What the reclaim policy asks of this controller: what it cannot do makes the volume Failed. */
export function decideReclaim(volume: StoredVolume): ReclaimStep {
  const { spec, metadata } = volume;
  if ((metadata.annotations?.[annotations.migratedTo] ?? "") !== "") return { kind: "leave" };
  const fail = (reason: string, message: string): ReclaimStep => ({
    kind: "fail",
    remark: { type: "Warning", reason, message },
  });
  switch (spec?.persistentVolumeReclaimPolicy) {
    case "Retain":
      return { kind: "leave" };
    case "Recycle":
      return fail("VolumeFailedRecycle", "No recycler plugin found for the volume!");
    case "Delete": {
      const provisioner = metadata.annotations?.[annotations.provisionedBy] ?? "";
      if (provisioner.startsWith("kubernetes.io/"))
        return fail("VolumeFailedDelete", `no volume plugin matched name: ${provisioner}`);
      if (provisioner !== "" || spec.csi !== undefined) return { kind: "leave" };
      return fail(
        "VolumeFailedDelete",
        `error getting deleter volume plugin for volume "${metadata.name}": no deletable volume plugin matched`,
      );
    }
    case undefined:
    default:
      return fail(
        "VolumeUnknownReclaimPolicy",
        "Volume has unrecognized PersistentVolumeReclaimPolicy",
      );
  }
}

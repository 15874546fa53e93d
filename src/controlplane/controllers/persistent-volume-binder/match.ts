import { compareQuantities, value } from "../../../api/quantity.ts";
import { matchesSelector } from "../../../api/selectors.ts";
import {
  classOfClaim,
  classOfVolume,
  isBoundTo,
  type StoredClaim,
  type StoredVolume,
  storageOf,
} from "./claims.ts";

const defaultMode = "Filesystem";

/** Whether one is a file system and the other a raw block device. */
export function volumeModesDiffer(claim: StoredClaim, volume: StoredVolume): boolean {
  return (claim.spec?.volumeMode ?? defaultMode) !== (volume.spec?.volumeMode ?? defaultMode);
}

function offersAccessModes(volume: StoredVolume, claim: StoredClaim): boolean {
  const offered = new Set<string>(volume.spec?.accessModes);
  return (claim.spec?.accessModes ?? []).every((mode) => offered.has(mode));
}

function attributesClassesDiffer(claim: StoredClaim, volume: StoredVolume): boolean {
  return (
    (claim.spec?.volumeAttributesClassName ?? "") !== (volume.spec?.volumeAttributesClassName ?? "")
  );
}

/** Why a claim cannot have the volume that it asks for by name, in upstream's words; undefined when it can. */
export function whyUnsuitable(volume: StoredVolume, claim: StoredClaim): string | undefined {
  if (volume.metadata.deletionTimestamp !== undefined)
    return `the volume is marked for deletion "${volume.metadata.name}"`;
  // Whole bytes on both sides: a volume of 1 byte is enough for a claim of half a byte.
  if (value(storageOf(volume.spec?.capacity)) < value(storageOf(claim.spec?.resources?.requests)))
    return "requested PV is too small";
  if (classOfVolume(volume) !== classOfClaim(claim)) return "storageClassName does not match";
  if (attributesClassesDiffer(claim, volume)) return "volumeAttributesClassName does not match";
  if (volumeModesDiffer(claim, volume)) return "incompatible volumeMode";
  if (!offersAccessModes(volume, claim)) return "incompatible accessMode";
  return undefined;
}

/** Whether a volume may be given to a claim that did not ask for it by name. */
function isFree(volume: StoredVolume, claim: StoredClaim): boolean {
  const selector = claim.spec?.selector;
  return (
    volume.spec?.claimRef === undefined &&
    volume.status?.phase === "Available" &&
    (selector === undefined || matchesSelector(selector, volume.metadata.labels)) &&
    classOfVolume(volume) === classOfClaim(claim)
  );
}

/**
 * The volume for a claim: one that is reserved for it, else the smallest free one that is big enough, with the fewest
 * access modes beyond what is asked for. With `delayed` only a reserved one: the scheduler chooses among the others.
 */
export function findVolume(
  claim: StoredClaim,
  volumes: Iterable<StoredVolume>,
  { delayed }: { readonly delayed: boolean },
): StoredVolume | undefined {
  const requested = storageOf(claim.spec?.resources?.requests);
  const suitable = [...volumes].filter(
    (volume) =>
      volume.metadata.deletionTimestamp === undefined &&
      compareQuantities(storageOf(volume.spec?.capacity), requested) >= 0 &&
      !volumeModesDiffer(claim, volume) &&
      !attributesClassesDiffer(claim, volume) &&
      offersAccessModes(volume, claim),
  );
  const reserved = suitable.find((volume) => isBoundTo(volume, claim));
  if (reserved !== undefined || delayed) return reserved;
  const modes = ({ spec }: StoredVolume): number => new Set(spec?.accessModes).size;
  return suitable
    .filter((volume) => isFree(volume, claim))
    .toSorted(
      (a, b) =>
        modes(a) - modes(b) ||
        compareQuantities(storageOf(a.spec?.capacity), storageOf(b.spec?.capacity)) ||
        (a.metadata.name < b.metadata.name ? -1 : 1),
    )[0];
}

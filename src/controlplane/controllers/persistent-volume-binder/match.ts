import { compareQuantities, type Quantity, value } from "../../../api/quantity.ts";
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
  let best: Candidate | undefined;
  for (const volume of volumes) {
    // First of all: there may be thousands, nearly all somebody's, and quantities are dear to read.
    if (!isBoundTo(volume, claim) && (delayed || !isFree(volume, claim))) continue;
    const candidate = {
      volume,
      modes: new Set(volume.spec?.accessModes).size,
      size: storageOf(volume.spec?.capacity),
    };
    if (!suits(candidate, claim, requested)) continue;
    if (isBoundTo(volume, claim)) return volume;
    if (best === undefined || isBetter(candidate, best)) best = candidate;
  }
  return best?.volume;
}

interface Candidate {
  readonly volume: StoredVolume;
  /** How many access modes it offers. */
  readonly modes: number;
  readonly size: Quantity;
}

function suits({ volume, size }: Candidate, claim: StoredClaim, requested: Quantity): boolean {
  return (
    volume.metadata.deletionTimestamp === undefined &&
    !volumeModesDiffer(claim, volume) &&
    !attributesClassesDiffer(claim, volume) &&
    offersAccessModes(volume, claim) &&
    compareQuantities(size, requested) >= 0
  );
}

function isBetter(a: Candidate, b: Candidate): boolean {
  const order = a.modes - b.modes || compareQuantities(a.size, b.size);
  return order === 0 ? a.volume.metadata.name < b.volume.metadata.name : order < 0;
}

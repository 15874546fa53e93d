import { isLocalVolume, isOnNode, localVolumes } from "../../../api/local-volumes.ts";
import type { Stored } from "../../../api/object.ts";
import { compareQuantities } from "../../../api/quantity.ts";
import type { Node } from "../../../api/types.gen.ts";
import {
  type StoredClaim,
  type StoredVolume,
  storageOf,
} from "../persistent-volume-binder/claims.ts";

/** What the control plane does about one of our volumes. */
export type VolumeCare =
  | { readonly kind: "none" }
  /** Nobody needs it any more: its node removes the data and then lets it go. */
  | { readonly kind: "delete" }
  /** It is to go, and nobody is there who could remove the data. */
  | { readonly kind: "stranded"; readonly message: string }
  /** The claim asks for more than the volume says it has. */
  | { readonly kind: "expand"; readonly storage: string | number };

function hostnames(volume: StoredVolume): string {
  const terms = volume.spec?.nodeAffinity?.required?.nodeSelectorTerms ?? [];
  return terms
    .flatMap(({ matchExpressions = [] }) => matchExpressions.flatMap(({ values = [] }) => values))
    .join(", ");
}

/** @param claim The very claim that the volume is bound to, where there is one. */
export function decideCare(
  volume: StoredVolume,
  claim: StoredClaim | undefined,
  nodes: Iterable<Stored<Node>>,
): VolumeCare {
  if (!isLocalVolume(volume)) return { kind: "none" };
  if (volume.metadata.deletionTimestamp !== undefined) return careForDeleted(volume, nodes);
  if (claim !== undefined) return careForBound(volume, claim);
  const { phase } = volume.status ?? {};
  const released = phase === "Released" || phase === "Failed";
  const unwanted = released && volume.spec?.persistentVolumeReclaimPolicy === "Delete";
  return { kind: unwanted ? "delete" : "none" };
}

function careForDeleted(volume: StoredVolume, nodes: Iterable<Stored<Node>>): VolumeCare {
  if (!(volume.metadata.finalizers ?? []).includes(localVolumes.finalizer)) return { kind: "none" };
  for (const { metadata } of nodes)
    if (isOnNode(volume, { name: metadata.name, labels: metadata.labels })) return { kind: "none" };
  return {
    kind: "stranded",
    message:
      `the node that has the data (${hostnames(volume)}: ${volume.spec?.local?.path ?? ""}) is not in the cluster; ` +
      `when it will not come back, remove the finalizer ${localVolumes.finalizer}`,
  };
}

function careForBound(volume: StoredVolume, claim: StoredClaim): VolumeCare {
  if (claim.status?.phase !== "Bound") return { kind: "none" };
  const wanted = claim.spec?.resources?.requests;
  const has = volume.spec?.capacity;
  const grows =
    compareQuantities(storageOf(wanted), storageOf(has)) > 0 ||
    // The claim was not told the last time.
    compareQuantities(storageOf(has), storageOf(claim.status.capacity)) > 0;
  return grows ? { kind: "expand", storage: larger(wanted, has) } : { kind: "none" };
}

type Amounts = Readonly<Record<string, string | number>> | undefined;

/** The larger amount of storage, as it is written. */
function larger(a: Amounts, b: Amounts): string | number {
  return (
    (compareQuantities(storageOf(a), storageOf(b)) >= 0 ? a?.["storage"] : b?.["storage"]) ?? "0"
  );
}

import type { Quantity } from "../../../api/quantity.ts";
import { compareQuantities, parseQuantity } from "../../../api/quantity.ts";
import { matchesNodeTerm, matchesSelector } from "../../../api/selectors.ts";
import type { TopologySelectorTerm } from "../../../api/types.gen.ts";
import {
  annotations,
  classOfClaim,
  classOfVolume,
  isBoundTo,
  type StoredClaim,
  type StoredClass,
  type StoredVolume,
  storageOf,
} from "../../controllers/persistent-volume-binder/claims.ts";
import { volumeModesDiffer } from "../../controllers/persistent-volume-binder/match.ts";
import type { StoredNode } from "../snapshot.ts";
import type { SortedClaims } from "./pod-claims.ts";
import type { StorageView } from "./storage-view.ts";

/** In kube-scheduler's words. */
export const volumeReasons = {
  bind: "node(s) didn't find available persistent volumes to bind",
  affinity: "node(s) didn't match PersistentVolume's node affinity",
  space: "node(s) did not have enough free storage",
  missing: "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
} as const;

/** A class of this provisioner has only volumes that people make. */
const noProvisioner = "kubernetes.io/no-provisioner";

/** What is to be done so that a pod has its volumes on a node. */
export interface VolumePlan {
  /** Volumes that are there, and the claims they are given to. */
  readonly bindings: readonly { readonly claim: StoredClaim; readonly volume: StoredVolume }[];
  /** Claims for which volumes are to be made. */
  readonly provisions: readonly StoredClaim[];
}

export type VolumesOnNode =
  | { readonly kind: "plan"; readonly plan: VolumePlan }
  | { readonly kind: "conflict"; readonly reasons: readonly string[] };

/** Whether a volume can be reached from a node. */
export function isReachable(volume: StoredVolume, node: StoredNode): boolean {
  const required = volume.spec?.nodeAffinity?.required;
  if (required === undefined) return true;
  const { name, labels } = node.metadata;
  return required.nodeSelectorTerms.some((term) => matchesNodeTerm(term, { name, labels }));
}

/** Whether a volume is nobody else's, alive, large enough, and of the claim's kind. Cheap questions first. */
function canServe(volume: StoredVolume, claim: StoredClaim, requested: Quantity): boolean {
  return (
    (volume.spec?.claimRef === undefined || isBoundTo(volume, claim)) &&
    volume.metadata.deletionTimestamp === undefined &&
    !volumeModesDiffer(claim, volume) &&
    (claim.spec?.volumeAttributesClassName ?? "") ===
      (volume.spec?.volumeAttributesClassName ?? "") &&
    compareQuantities(storageOf(volume.spec?.capacity), requested) >= 0
  );
}

function isFree(volume: StoredVolume, claim: StoredClaim): boolean {
  const selector = claim.spec?.selector;
  const offered = new Set<string>(volume.spec?.accessModes);
  return (
    volume.spec?.claimRef === undefined &&
    volume.status?.phase === "Available" &&
    classOfVolume(volume) === classOfClaim(claim) &&
    (selector === undefined || matchesSelector(selector, volume.metadata.labels)) &&
    (claim.spec?.accessModes ?? []).every((mode) => offered.has(mode))
  );
}

/** The volumes that a claim may get, wherever they are. */
interface Candidates {
  /** Reserved for the claim: it gets this one or none. */
  readonly reserved: StoredVolume | undefined;
  /** The smallest first; among equals by name. */
  readonly free: readonly StoredVolume[];
}

function candidatesFor(claim: StoredClaim, volumes: Iterable<StoredVolume>): Candidates {
  const requested = storageOf(claim.spec?.resources?.requests);
  const suitable = [...volumes].filter((volume) => canServe(volume, claim, requested));
  const reserved = suitable.find((volume) => isBoundTo(volume, claim));
  if (reserved !== undefined) return { reserved, free: [] };
  const free = suitable
    .filter((volume) => isFree(volume, claim))
    .map((volume) => ({ volume, size: storageOf(volume.spec?.capacity) }))
    .toSorted(
      (a, b) =>
        compareQuantities(a.size, b.size) ||
        (a.volume.metadata.name < b.volume.metadata.name ? -1 : 1),
    )
    .map(({ volume }) => volume);
  return { reserved, free };
}

/** A pod's claims with all that can be worked out before a node is looked at. */
export interface PreparedClaims {
  readonly bound: readonly StoredClaim[];
  /** The smallest claim first, so that it does not take the volume that only a larger one needs. */
  readonly delayed: readonly { readonly claim: StoredClaim; readonly candidates: Candidates }[];
}

/** What the nodes are then compared by. */
export function prepareClaims({ bound, delayed }: SortedClaims, view: StorageView): PreparedClaims {
  return {
    bound,
    delayed: delayed.toSorted(bySize).map((claim) => ({
      claim,
      candidates: candidatesFor(claim, view.volumesOfClass(classOfClaim(claim))),
    })),
  };
}

function volumeOn(
  node: StoredNode,
  { reserved, free }: Candidates,
  taken: ReadonlySet<string>,
): StoredVolume | undefined {
  if (reserved !== undefined) return isReachable(reserved, node) ? reserved : undefined;
  return free.find((volume) => !taken.has(volume.metadata.name) && isReachable(volume, node));
}

function inTopology(node: StoredNode, terms: readonly TopologySelectorTerm[] = []): boolean {
  if (terms.length === 0) return true;
  const labels = node.metadata.labels ?? {};
  return terms.some(
    // A term without conditions selects nothing.
    ({ matchLabelExpressions = [] }) =>
      matchLabelExpressions.length > 0 &&
      matchLabelExpressions.every(({ key, values }) => {
        const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
        return value !== undefined && values.includes(value);
      }),
  );
}

/** Whether the driver, when it says how much is left, has enough for the claim where the node reaches it (KEP-1472). */
function hasSpace(
  claim: StoredClaim,
  { metadata, provisioner }: StoredClass,
  node: StoredNode,
  view: StorageView,
): boolean {
  if (view.csiDriver(provisioner)?.spec.storageCapacity !== true) return true;
  const requested = storageOf(claim.spec?.resources?.requests);
  for (const { storageClassName, nodeTopology, maximumVolumeSize, capacity } of view.capacities()) {
    const limit = maximumVolumeSize ?? capacity;
    if (storageClassName !== metadata.name || limit === undefined) continue;
    const isEnough = compareQuantities(parseQuantity(String(limit)), requested) >= 0;
    if (isEnough && matchesSelector(nodeTopology, node.metadata.labels)) return true;
  }
  return false;
}

/** Why no volume can be made for a claim on the node; undefined when one can. */
function provisionConflict(
  claim: StoredClaim,
  node: StoredNode,
  view: StorageView,
): string | undefined {
  const storageClass = view.storageClass(classOfClaim(claim));
  const provisioner = storageClass?.provisioner ?? "";
  if (storageClass === undefined || provisioner === "" || provisioner === noProvisioner)
    return volumeReasons.bind;
  if (!inTopology(node, storageClass.allowedTopologies)) return volumeReasons.bind;
  return hasSpace(claim, storageClass, node, view) ? undefined : volumeReasons.space;
}

function boundConflict(
  claims: readonly StoredClaim[],
  node: StoredNode,
  view: StorageView,
): string | undefined {
  for (const claim of claims) {
    const volume = view.volume(claim.spec?.volumeName ?? "");
    if (volume === undefined) return volumeReasons.missing;
    if (!isReachable(volume, node)) return volumeReasons.affinity;
  }
  return undefined;
}

function bySize(a: StoredClaim, b: StoredClaim): number {
  const size = (claim: StoredClaim): Quantity => storageOf(claim.spec?.resources?.requests);
  return compareQuantities(size(a), size(b));
}

/** Volumes for claims that wait for the scheduler, or why there are none. */
function planFor(
  claims: PreparedClaims["delayed"],
  node: StoredNode,
  view: StorageView,
): VolumePlan | string {
  const bindings: { claim: StoredClaim; volume: StoredVolume }[] = [];
  const provisions: StoredClaim[] = [];
  const taken = new Set<string>();
  for (const { claim, candidates } of claims) {
    const selected = claim.metadata.annotations?.[annotations.selectedNode];
    if (selected !== undefined) {
      if (selected !== node.metadata.name) return volumeReasons.bind;
      provisions.push(claim);
      continue;
    }
    const volume = volumeOn(node, candidates, taken);
    if (volume === undefined) provisions.push(claim);
    else {
      taken.add(volume.metadata.name);
      bindings.push({ claim, volume });
    }
  }
  for (const claim of provisions) {
    const conflict = provisionConflict(claim, node, view);
    if (conflict !== undefined) return conflict;
  }
  return { bindings, provisions };
}

/** Whether a pod can have its volumes on a node, and by what. Pure. */
export function volumesOn(
  node: StoredNode,
  claims: PreparedClaims,
  view: StorageView,
): VolumesOnNode {
  const bound = boundConflict(claims.bound, node, view);
  const found = planFor(claims.delayed, node, view);
  // Which order: as kube-scheduler lists them.
  const reasons = [
    bound === volumeReasons.affinity ? bound : undefined,
    typeof found === "string" ? found : undefined,
    bound === volumeReasons.missing ? bound : undefined,
  ].filter((reason) => reason !== undefined);
  if (typeof found === "string" || reasons.length > 0) return { kind: "conflict", reasons };
  return { kind: "plan", plan: found };
}

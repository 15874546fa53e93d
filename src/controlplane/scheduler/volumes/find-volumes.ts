import { keyOf } from "../../../api/object.ts";
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

function canServe(volume: StoredVolume, claim: StoredClaim): boolean {
  const requested = storageOf(claim.spec?.resources?.requests);
  return (
    volume.metadata.deletionTimestamp === undefined &&
    compareQuantities(storageOf(volume.spec?.capacity), requested) >= 0 &&
    !volumeModesDiffer(claim, volume) &&
    (claim.spec?.volumeAttributesClassName ?? "") === (volume.spec?.volumeAttributesClassName ?? "")
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

/**
 * The volume on a node for a claim: one that is reserved for it, else the smallest that is free and big enough; among
 * equals the first by name. A reserved one that the node does not reach leaves no choice.
 */
export function findVolumeOn(
  node: StoredNode,
  claim: StoredClaim,
  volumes: Iterable<StoredVolume>,
): StoredVolume | undefined {
  let smallest: StoredVolume | undefined;
  for (const volume of volumes) {
    if (!canServe(volume, claim)) continue;
    if (isBoundTo(volume, claim)) return isReachable(volume, node) ? volume : undefined;
    if (!isFree(volume, claim) || !isReachable(volume, node)) continue;
    if (smallest === undefined) smallest = volume;
    else {
      const order =
        compareQuantities(storageOf(volume.spec?.capacity), storageOf(smallest.spec?.capacity)) ||
        (volume.metadata.name < smallest.metadata.name ? -1 : 1);
      if (order < 0) smallest = volume;
    }
  }
  return smallest;
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
  const size = (claim: StoredClaim): ReturnType<typeof storageOf> =>
    storageOf(claim.spec?.resources?.requests);
  return compareQuantities(size(a), size(b));
}

/** Volumes for claims that wait for the scheduler, and why there are none. */
function planFor(
  claims: readonly StoredClaim[],
  node: StoredNode,
  view: StorageView,
): VolumePlan | string {
  const bindings: { claim: StoredClaim; volume: StoredVolume }[] = [];
  const provisions: StoredClaim[] = [];
  const taken = new Set<string>();
  // The smallest claim first, so that it does not take the volume that only a larger one needs.
  for (const claim of claims.toSorted(bySize)) {
    const selected = claim.metadata.annotations?.[annotations.selectedNode];
    if (selected !== undefined) {
      if (selected !== node.metadata.name) return volumeReasons.bind;
      provisions.push(claim);
      continue;
    }
    const candidates = view
      .volumesOfClass(classOfClaim(claim))
      .filter(({ metadata }) => !taken.has(metadata.name));
    const volume = findVolumeOn(node, claim, candidates);
    if (volume === undefined) provisions.push(claim);
    else {
      taken.add(keyOf(volume));
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
  claims: SortedClaims,
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

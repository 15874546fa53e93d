import type { Stored } from "./object.ts";
import { matchesNodeTerm, type SelectableNode } from "./selectors.ts";
import type { PersistentVolume } from "./types.gen.ts";

/**
 * Volumes that are directories of a node, made for claims. The control plane makes the PersistentVolume and asks for its
 * deletion; the node that it names makes the directory, and removes it before it lets the object go.
 */
export const localVolumes = {
  /** In StorageClasses, and in `pv.kubernetes.io/provisioned-by`. */
  provisioner: "remora.io/local",
  /** On a volume: its data is, or may be, on the node. */
  finalizer: "remora.io/local-data",
  /** On a Node: the directory below which it keeps volumes. */
  directoryAnnotation: "remora.io/local-volumes",
  /** On a Node: `enforced`, or why the capacity of its volumes is not. */
  capacityAnnotation: "remora.io/local-volumes-capacity",
  capacityEnforced: "enforced",
  /** On a claim: `NODE:PATH` of its data, for people. */
  dataAnnotation: "remora.io/local-volume",
} as const;

const provisionedBy = "pv.kubernetes.io/provisioned-by";

/** Whether our provisioner made the volume. */
export function isLocalVolume(volume: Stored<PersistentVolume>): boolean {
  return (
    volume.metadata.annotations?.[provisionedBy] === localVolumes.provisioner &&
    volume.spec?.local !== undefined
  );
}

/** Whether a volume is on this node; one without an affinity is on none. */
export function isOnNode(volume: Stored<PersistentVolume>, node: SelectableNode): boolean {
  const terms = volume.spec?.nodeAffinity?.required?.nodeSelectorTerms ?? [];
  return terms.some((term) => matchesNodeTerm(term, node));
}

import { basename, join } from "node:path";

import { isLocalVolume, isOnNode, localVolumes } from "../../api/local-volumes.ts";
import type { Stored } from "../../api/object.ts";
import { parseQuantity, value } from "../../api/quantity.ts";
import type { SelectableNode } from "../../api/selectors.ts";
import type { PersistentVolume } from "../../api/types.gen.ts";

const inUseFinalizer = "kubernetes.io/pv-protection";

/** What the node owes a volume. */
export type DataStep =
  /** Not ours, or not for now. */
  | { readonly kind: "none" }
  /** Made for this node, and yet not where this node keeps volumes: nothing is touched. */
  | { readonly kind: "foreign"; readonly path: string }
  /** The directory is there, with so many bytes of room. */
  | { readonly kind: "keep"; readonly path: string; readonly bytes: bigint }
  /** The data goes, then the object. */
  | { readonly kind: "remove"; readonly path: string }
  /** The object goes, the data stays for people. */
  | { readonly kind: "release" };

/** Whether `path` is the volume's directory directly below ours, written in no roundabout way. */
function isDataPath(path: string, directory: string, volumeName: string): boolean {
  const name = basename(path);
  return (
    path === join(directory, name) && (name === volumeName || name.startsWith(`${volumeName}_`))
  );
}

/** @param directory Where this node keeps volumes. */
export function decideData(
  volume: Stored<PersistentVolume>,
  node: SelectableNode,
  directory: string,
): DataStep {
  const { metadata, spec = {}, status } = volume;
  const { finalizers = [] } = metadata;
  if (!isLocalVolume(volume) || !isOnNode(volume, node)) return { kind: "none" };
  const deleting = metadata.deletionTimestamp !== undefined;
  if (deleting && !finalizers.includes(localVolumes.finalizer)) return { kind: "none" };
  const path = spec.local?.path ?? "";
  if (!isDataPath(path, directory, metadata.name)) return { kind: "foreign", path };
  if (!deleting)
    return {
      kind: "keep",
      path,
      bytes: value(parseQuantity(String(spec.capacity?.["storage"] ?? "0"))),
    };
  // A claim still has it, whatever was done to the finalizers.
  if (finalizers.includes(inUseFinalizer) || status?.phase === "Bound") return { kind: "none" };
  return spec.persistentVolumeReclaimPolicy === "Delete"
    ? { kind: "remove", path }
    : { kind: "release" };
}

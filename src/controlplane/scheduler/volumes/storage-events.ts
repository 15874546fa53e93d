import type { Change } from "../../../api/informer-types.ts";
import type { StoredVolume } from "../../controllers/persistent-volume-binder/claims.ts";
import type { Informers } from "../../controllers/shared/informers.ts";
import type { ClusterEvent } from "../cluster-events.ts";

/** The caches that placing pods with claims needs. */
export type StorageInformers = Pick<
  Informers,
  | "persistentVolumes"
  | "persistentVolumeClaims"
  | "storageClasses"
  | "csiDrivers"
  | "csiNodes"
  | "csiStorageCapacities"
  | "volumeAttachments"
>;

/** Who wants to know. None of them may throw. */
export interface StorageListener {
  volumeChanged(change: Change<StoredVolume>): void;
  claimChanged(): void;
  /** What may help pods that wait for a node. */
  happened(events: readonly ClusterEvent[]): void;
}

/** What of a member makes a difference, when only one does. */
function differs<T>(change: Change<T>, part: (object: T) => unknown): boolean {
  if (change.kind !== "updated") return true;
  return JSON.stringify(part(change.object)) !== JSON.stringify(part(change.previous));
}

/** Tells of what happens to volumes, claims and drivers; returns what ends that. */
export function subscribeToStorage(
  informers: StorageInformers,
  listener: StorageListener,
): readonly (() => void)[] {
  const happened = (...events: readonly ClusterEvent[]): void => listener.happened(events);
  const unlessDeleted =
    (event: ClusterEvent) =>
    ({ kind }: Change<unknown>): void => {
      if (kind !== "deleted") happened(event);
    };
  return [
    informers.persistentVolumes.subscribe((change) => {
      listener.volumeChanged(change);
      if (change.kind !== "deleted") happened("volume-changed");
    }),
    informers.persistentVolumeClaims.subscribe((change) => {
      listener.claimChanged();
      if (change.kind !== "deleted") happened(`claim:${change.key}`);
    }),
    // A class keeps how it binds; where its volumes may be can change.
    informers.storageClasses.subscribe((change) => {
      if (change.kind === "deleted") return;
      if (differs(change, ({ allowedTopologies }) => allowedTopologies))
        happened("storage-class-changed");
    }),
    informers.csiNodes.subscribe(unlessDeleted("csi-node-changed")),
    informers.csiDrivers.subscribe(unlessDeleted("csi-driver-changed")),
    informers.csiStorageCapacities.subscribe(unlessDeleted("csi-capacity-changed")),
    informers.volumeAttachments.subscribe(({ kind }) => {
      if (kind === "deleted") happened("attachment-left");
    }),
  ];
}

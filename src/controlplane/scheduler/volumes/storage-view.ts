import type { Stored } from "../../../api/object.ts";
import type {
  CSIDriver,
  CSINode,
  CSIStorageCapacity,
  VolumeAttachment,
} from "../../../api/types.gen.ts";
import type {
  StoredClaim,
  StoredClass,
  StoredVolume,
} from "../../controllers/persistent-volume-binder/claims.ts";

/**
 * What a scheduling decision sees of storage: the caches, and over them what the scheduler has decided and the API does
 * not show yet.
 */
export interface StorageView {
  /** @param key `namespace/name`. */
  claim(key: string): StoredClaim | undefined;
  volume(name: string): StoredVolume | undefined;
  /** Every volume of a class; "" are those of none. */
  volumesOfClass(name: string): readonly StoredVolume[];
  storageClass(name: string): StoredClass | undefined;
  csiDriver(name: string): Stored<CSIDriver> | undefined;
  csiNode(name: string): Stored<CSINode> | undefined;
  capacities(): Iterable<Stored<CSIStorageCapacity>>;
  attachments(): Iterable<Stored<VolumeAttachment>>;
}

/** A cluster without any storage: no claim is ever found. */
export const noStorage: StorageView = {
  claim: () => undefined,
  volume: () => undefined,
  volumesOfClass: () => [],
  storageClass: () => undefined,
  csiDriver: () => undefined,
  csiNode: () => undefined,
  capacities: () => [],
  attachments: () => [],
};

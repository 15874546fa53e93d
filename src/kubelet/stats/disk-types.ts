import type { OwnVolume } from "./own-volumes.ts";

/** A filesystem as a whole. */
export interface Filesystem {
  /** When it was asked, milliseconds since the epoch. */
  readonly timeMs: number;
  readonly capacityBytes: number;
  readonly availableBytes: number;
  readonly usedBytes: number;
  /** Undefined where there is no table of them (btrfs). */
  readonly inodes: { readonly total: number; readonly free: number } | undefined;
}

/** What a directory and everything below it takes, as du(1) counts. */
export interface TreeUsage {
  readonly timeMs: number;
  readonly bytes: number;
  readonly inodes: number;
}

export interface VolumeUsage {
  readonly name: string;
  /** Counts as the pod's ephemeral storage. */
  readonly ephemeral: boolean;
  readonly claim: string | undefined;
  readonly filesystem: Filesystem;
  readonly usage: TreeUsage | undefined;
}

/** Disks of one pod, as last measured. What was not measured yet is absent. */
export interface PodDisks {
  readonly volumes: readonly VolumeUsage[];
  /** Those with room of their own. */
  readonly own?: readonly OwnVolume[];
  /** By container id. */
  readonly writableLayers: ReadonlyMap<string, TreeUsage>;
  /** By container name: the log files of all its attempts. */
  readonly logs: ReadonlyMap<string, TreeUsage>;
  /** The hosts file. */
  readonly files: TreeUsage | undefined;
}

export interface Disks {
  /** Of the kubelet's root directory. */
  readonly node: Filesystem | undefined;
  /** Of the engine's directory. */
  readonly images: Filesystem | undefined;
  /** Bytes of all images. */
  readonly imageBytes: number | undefined;
  /** By pod uid. */
  readonly pods: ReadonlyMap<string, PodDisks>;
}

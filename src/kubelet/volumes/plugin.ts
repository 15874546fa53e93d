import type { PersistentVolume, PersistentVolumeClaim, Volume } from "../../api/types.gen.ts";
import type { PodAddresses } from "../spec/field-values.ts";
import type { AssignedPod, VolumeFigures } from "../types.ts";
import type { MountTable } from "./mount-table.ts";

/** A volume of a pod after every name in it was followed. */
export interface VolumeSpec {
  /** `spec.volumes[].name`: what containers mount it by. */
  readonly name: string;
  /** As the pod says. */
  readonly volume: Volume;
  /** Behind a claim (`persistentVolumeClaim`, `ephemeral`): what it is bound to. */
  readonly persistent?: {
    readonly claim: PersistentVolumeClaim;
    readonly volume: PersistentVolume;
  };
  /** No container may write to it, whatever its mount says. */
  readonly readOnly: boolean;
}

/** Where a plug-in works for one volume of one pod. */
export interface SetUpContext {
  readonly pod: AssignedPod;
  readonly addresses: PodAddresses;
  /**
   * `ROOT/pods/UID/volumes/PLUGIN/NAME`, of a raw block volume `ROOT/pods/UID/volumeDevices/PLUGIN/NAME`; its parent
   * exists. NAME is the PersistentVolume's, where there is one.
   */
  readonly path: string;
  readonly signal: AbortSignal;
  /** What was mounted when this look at the pod began: one reading of the table for all its volumes. */
  readonly mounts?: () => MountTable;
}

/** A volume that containers can be given. */
export interface PreparedVolume {
  /** What a container binds; of a raw block volume the device node. */
  readonly hostPath: string;
  readonly readOnly: boolean;
  /**
   * `tree`: `spec.securityContext.fsGroup` still has to be applied to all files below {@link hostPath}; `done`: it does
   * not apply to this volume, or the plug-in has seen to it.
   */
  readonly ownership: "tree" | "done";
  /** A group that the pod's processes are in because of this volume (annotation `pv.beta.kubernetes.io/gid`). */
  readonly gid?: number;
}

/** What a crash leaves: a directory of some plug-in. */
export interface VolumeOnDisk {
  readonly podUID: string;
  /** Last part of {@link path}. */
  readonly name: string;
  readonly path: string;
}

/**
 * One type of volume. Everything may be repeated at any time and begun by another process than the one that ends it: no
 * memory counts, only the directory, the mount table and what the plug-in keeps beside its mounts.
 */
export interface VolumePlugin {
  /** Below `volumes/`, as other tools expect it, for example `kubernetes.io~empty-dir`. */
  readonly directory: string;
  /** Whether this is the plug-in of the volume. The first of the table that says so has it. */
  supports(spec: VolumeSpec): boolean;
  /**
   * Makes the volume ready and its content current.
   *
   * @throws {VolumeError} that becomes the FailedMount event; tried again later.
   */
  setUp(spec: VolumeSpec, context: SetUpContext): Promise<PreparedVolume>;
  /**
   * Undoes what unmounting everything at and below `path` and removing the directory would not: called before both, after
   * all containers of the pod have stopped.
   */
  tearDown?(at: VolumeOnDisk, signal: AbortSignal): Promise<void>;
  /**
   * How full a volume is that has room of its own; absent, or undefined, for one that has not. Nothing but this call may
   * wait for it.
   */
  figures?(
    spec: VolumeSpec,
    prepared: PreparedVolume,
    signal: AbortSignal,
  ): Promise<VolumeFigures | undefined>;
}

/**
 * Follows the claim of a volume (`persistentVolumeClaim`, `ephemeral`) to what it is bound to.
 *
 * @throws {VolumeError} while it cannot be used, with upstream's words: they end the FailedMount event.
 */
export type ResolveClaim = (
  pod: AssignedPod,
  volume: Volume,
  signal: AbortSignal,
) => Promise<VolumeSpec>;

/**
 * Gives all files of a volume to `spec.securityContext.fsGroup`; called for those whose {@link PreparedVolume.ownership}
 * is `tree`, each time they are set up, when the pod has an fsGroup.
 */
export type ApplyOwnership = (
  request: {
    readonly pod: AssignedPod;
    readonly spec: VolumeSpec;
    readonly prepared: PreparedVolume;
  },
  signal: AbortSignal,
) => Promise<void>;

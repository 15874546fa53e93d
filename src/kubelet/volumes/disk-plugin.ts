import type { EventRecorder } from "../../api/event-types.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import { podTarget } from "../pods/event-target.ts";
import type { StepHook } from "../steps.ts";
import type { AssignedPod } from "../types.ts";
import { FilesystemMismatchError } from "./disk-mount.ts";
import type { HostPrograms } from "./host-programs.ts";
import type { KernelPaths } from "./kernel-devices.ts";
import { missingFlags, mountOptions } from "./mount-options.ts";
import type { Mounter } from "./mounter.ts";
import { VolumeError } from "./payload.ts";
import type { VolumeSpec } from "./plugin.ts";

/** How controllers keep a disk from being on two nodes at once: by names in the status of nodes. */
export interface DiskAttachments {
  /** The node's status names the volume from now on, for this pod. */
  hold(name: string, podUID: string): void;
  /** @throws {VolumeError} while the controllers have not given the volume to this node. */
  waitFor(name: string, signal: AbortSignal): Promise<void>;
  /** The pod has it no more. @param gone Nothing of it is left on this node. */
  letGo(name: string, podUID: string, gone: boolean): void;
  /** A name that the status had before this process began stays while `onDisk` says so. */
  keepWhile(onDisk: (name: string) => boolean): void;
}

/** What plug-ins of disks and of network file systems work with. */
export interface DiskPluginDeps {
  readonly config: Pick<AgentConfig, "rootDir">;
  readonly clock: Clock;
  readonly events?: EventRecorder;
  readonly logger: Logger;
  readonly mounter: Mounter;
  readonly programs: HostPrograms;
  readonly step: StepHook;
  readonly kernel?: KernelPaths;
  /** Default: nobody but this node has its disks. */
  readonly attachments?: DiskAttachments;
}

/** Whether only one node at a time may have the volume: its modes allow no other. */
export function isExclusive({ persistent }: VolumeSpec): boolean {
  const modes = persistent?.volume.spec?.accessModes ?? [];
  return modes.length > 0 && !modes.includes("ReadWriteMany") && !modes.includes("ReadOnlyMany");
}

/** What mount(8) is given for a volume: the PersistentVolume's own, and `ro` where nobody may write. */
export function volumeOptions(spec: VolumeSpec, readOnly: boolean): readonly string[] {
  const own = mountOptions(spec);
  return readOnly && missingFlags(["ro"], own).length > 0 ? [...own, "ro"] : own;
}

/** @throws {VolumeError} when the path climbs. */
export function checkNoBacksteps(path: string): void {
  if (path.split("/").includes("..")) {
    throw new VolumeError(`invalid path: ${path} must not contain '..'`);
  }
}

/** Tells the PersistentVolume when its disk holds something else than it says; passes all errors on. */
export async function tellingMismatch<T>(
  { events }: Pick<DiskPluginDeps, "events">,
  { persistent }: VolumeSpec,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { metadata } = persistent?.volume ?? {};
    if (error instanceof FilesystemMismatchError && metadata?.name !== undefined) {
      const { name, uid = "" } = metadata;
      events?.event(
        { apiVersion: "v1", kind: "PersistentVolume", namespace: "", name, uid },
        "Warning",
        "FailedMountOnFilesystemMismatch",
        `MountVolume failed for volume "${name}" ${error.message}`,
      );
    }
    throw error;
  }
}

/** Tells a pod something about a volume that is no failure. */
export function warnPod(
  { events }: Pick<DiskPluginDeps, "events">,
  pod: AssignedPod,
  reason: string,
  message: string,
): void {
  events?.event(podTarget(pod), "Warning", reason, message);
}

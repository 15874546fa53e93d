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

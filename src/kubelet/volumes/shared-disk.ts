import { join } from "node:path";

import { type DiskMount, type DiskMountDeps, formatAndMount } from "./disk-mount.ts";
import type { StepHook } from "../steps.ts";
import { makeDirectory } from "./make-directory.ts";
import type { Mounter } from "./mounter.ts";
import { podsDirectory } from "./pod-paths.ts";
import { removeEmpty, unmountAll } from "./volume-bind.ts";

/**
 * Mounts a disk at the one place from which all pods of the node are shown it. Mounted already is success.
 *
 * @throws {VolumeError}
 */
export async function mountShared(
  deps: DiskMountDeps & { readonly step: StepHook },
  disk: DiskMount,
  signal: AbortSignal,
): Promise<void> {
  const mounted = deps.mounter.table().at(disk.target);
  if (mounted !== undefined) {
    // A pod that only reads came first. Its own mount stays read-only.
    if (disk.readOnly || !mounted.superOptions.includes("ro")) return;
    await deps.step("mountVolume");
    const { source, type } = mounted;
    const options = ["remount", "rw"];
    await deps.mounter.mount({ source, target: disk.target, type, options }, signal);
    return;
  }
  await makeDirectory(disk.target, 0o750);
  await deps.step("mountVolume");
  await formatAndMount(deps, disk, signal);
}

/** Takes a shared mount down. Call when no pod is shown it any more, with its volume locked. */
export async function unmountShared(
  { mounter, step }: { readonly mounter: Mounter; readonly step: StepHook },
  target: string,
  signal: AbortSignal,
): Promise<void> {
  if (mounter.table().at(target) !== undefined) {
    await step("unmountVolume");
    await unmountAll(mounter, target, signal);
  }
  await removeEmpty(target);
}

/**
 * Where pods other than that of `path` have the same volume mounted: paths with the same last parts below the
 * directories of pods.
 */
export function otherPodMounts(mounter: Mounter, rootDir: string, path: string): readonly string[] {
  const pods = podsDirectory(rootDir);
  const [, ...tail] = path.slice(pods.length + 1).split("/");
  const suffix = `/${join(...tail)}`;
  return mounter
    .table()
    .below(pods)
    .map((entry) => entry.path)
    .filter((other) => other !== path && other.endsWith(suffix));
}

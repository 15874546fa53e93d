import { rmdir } from "node:fs/promises";

import { errorCode } from "../../lib/errors.ts";
import type { StepHook } from "../steps.ts";
import { makeDirectory } from "./make-directory.ts";
import { missingFlags } from "./mount-options.ts";
import type { Mounter } from "./mounter.ts";
import { VolumeError } from "./payload.ts";

export interface VolumeBindDeps {
  readonly mounter: Mounter;
  readonly step: StepHook;
}

export interface VolumeBind {
  /** What the pod is shown. */
  readonly source: string;
  /** Where the pod's volume is; made if it is not there. */
  readonly path: string;
  /** Mount options; `ro` among them for a volume that nobody may write to. */
  readonly options: readonly string[];
}

/**
 * Shows a directory at the pod's path of a volume. What is mounted there already is left, except that flags that it lacks
 * are put right: a bind gets them in a second step, before which a process may have ended.
 *
 * @throws {VolumeError}
 */
export async function bindVolume(
  { mounter, step }: VolumeBindDeps,
  { options, path, source }: VolumeBind,
  signal: AbortSignal,
): Promise<void> {
  if (mounter.table().at(path) === undefined) {
    await makeDirectory(path, 0o750);
    await step("mountVolume");
    await mounter.bind(source, path, signal);
  }
  const present = mounter.table().at(path)?.options ?? [];
  const missing = missingFlags(options, present);
  if (missing.length === 0) return;
  // A remount takes away what it does not name.
  const all = [...present.filter((flag) => flag !== "rw"), ...missing];
  await step("mountVolume");
  await mounter.mount(
    { source, target: path, type: "none", options: ["remount", "bind", ...all] },
    signal,
  );
}

/** Unmounts everything that lies at `path`, one on top of the other. */
export async function unmountAll(
  mounter: Mounter,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const top = mounter.table().at(path);
    if (top === undefined) return;
    await mounter.unmount(path, signal);
    if (mounter.table().at(path)?.id === top.id) {
      throw new VolumeError(`still mounted: ${path}`);
    }
  }
}

/**
 * Removes a directory if it is empty and there. Never more than that: what is inside may be somebody's data.
 *
 * @returns Whether it is gone.
 */
export async function removeEmpty(path: string): Promise<boolean> {
  try {
    await rmdir(path);
    return true;
  } catch (error) {
    const code = errorCode(error) ?? "";
    if (!["ENOENT", "ENOTDIR", "ENOTEMPTY", "EBUSY"].includes(code)) throw error;
    return code === "ENOENT";
  }
}

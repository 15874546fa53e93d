import { readFileSync } from "node:fs";
import { unlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import type { StepHook } from "../steps.ts";
import { fileStatus } from "./file-status.ts";
import { type HostPrograms, runChecked } from "./host-programs.ts";
import { type KernelPaths, namesIn } from "./kernel-devices.ts";
import { makeDirectory } from "./make-directory.ts";
import type { Mounter } from "./mounter.ts";
import { VolumeError } from "./payload.ts";
import { removeEmpty, unmountAll } from "./volume-bind.ts";

export interface BlockMapDeps {
  readonly mounter: Mounter;
  readonly programs: HostPrograms;
  readonly step: StepHook;
  readonly kernel?: KernelPaths;
}

const losetupMs = 30_000;

/** Whether a pod's directory of a volume is that of a raw block volume: others hold files that are not ours. */
export function isDevicePath(path: string): boolean {
  return basename(dirname(dirname(path))) === "volumeDevices";
}

/** The device node inside a pod's directory of a raw block volume. */
export function mappedDevice(path: string): string {
  return join(path, "device");
}

/** Loop devices that hold a file at or below `path` open, by the kernel's own list. */
export function loopDevices(path: string, { sys = "/sys" }: KernelPaths = {}): readonly string[] {
  return namesIn(join(sys, "block")).flatMap((name) => {
    if (!name.startsWith("loop")) return [];
    const text = readIfThere(join(sys, "block", name, "loop/backing_file")) ?? "";
    const file = text.replace(/\n$/, "").replace(/ \(deleted\)$/, "");
    return file === path || file.startsWith(`${path}/`) ? [`/dev/${name}`] : [];
  });
}

/** Of a loop device that is free there is none. */
function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/**
 * Shows a pod a block device: its node is bound to a file in the pod's directory, and a loop device holds it open, so
 * that the kernel gives its number to no other disk while the pod may use it.
 *
 * @returns The bound node: what containers are given.
 * @throws {VolumeError}
 */
export async function mapDevice(
  { kernel = {}, mounter, programs, step }: BlockMapDeps,
  {
    device,
    path,
    readOnly,
  }: { readonly device: string; readonly path: string; readonly readOnly: boolean },
  signal: AbortSignal,
): Promise<string> {
  const wanted = await fileStatus(programs, device, signal);
  if (wanted.kind !== "blockDevice") throw new VolumeError(`${device} is not a block device`);
  const node = mappedDevice(path);
  if (mounter.table().at(node) === undefined) {
    await makeDirectory(path, 0o750);
    await writeFile(node, "", { flag: "a", mode: 0o600 });
    await step("mountVolume");
    await mounter.bind(device, node, signal);
  }
  const present = await fileStatus(programs, node, signal);
  if (present.device !== wanted.device) {
    throw new VolumeError(
      `${device} is device ${wanted.device} now, but the pod has ${present.device}`,
    );
  }
  if (loopDevices(node, kernel).length === 0) {
    await step("mountVolume");
    const flags = readOnly ? ["--read-only"] : [];
    await runChecked(programs, ["losetup", ...flags, "-f", node], losetupMs, signal);
  }
  return node;
}

/** Undoes {@link mapDevice}. Not mapped is success. */
export async function unmapDevice(
  { kernel = {}, mounter, programs, step }: BlockMapDeps,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  // Never inside what is mounted: there it would be a file of the volume.
  if (!isDevicePath(path) || mounter.table().at(path) !== undefined) {
    throw new VolumeError(`${path} is not the directory of a raw block volume`);
  }
  const node = mappedDevice(path);
  for (const loop of loopDevices(node, kernel)) {
    await step("unmountVolume");
    await runChecked(programs, ["losetup", "-d", loop], losetupMs, signal);
  }
  if (mounter.table().at(node) !== undefined) {
    await step("unmountVolume");
    await unmountAll(mounter, node, signal);
  }
  await unlink(node).catch((error: unknown) => {
    if (errorCode(error) !== "ENOENT") throw error;
  });
  await removeEmpty(path);
}

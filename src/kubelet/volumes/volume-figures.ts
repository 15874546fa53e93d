import { readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { join } from "node:path";

import type { VolumeFigures } from "../types.ts";
import { isBlock } from "./claims.ts";
import { fileStatus } from "./file-status.ts";
import { type HostPrograms, runChecked } from "./host-programs.ts";
import type { KernelPaths } from "./kernel-devices.ts";
import { mayHang, type Mounter } from "./mounter.ts";
import type { VolumeSpec } from "./plugin.ts";

export interface FigureDeps {
  readonly mounter: Mounter;
  readonly programs: HostPrograms;
  readonly kernel?: KernelPaths;
}

const askMs = 10_000;
const sectorBytes = 512;

interface Blocks {
  readonly size: number;
  readonly total: number;
  readonly free: number;
  readonly available: number;
  readonly inodes: number;
  readonly freeInodes: number;
}

function figuresOf({ available, free, freeInodes, inodes, size, total }: Blocks): VolumeFigures {
  return {
    capacityBytes: total * size,
    availableBytes: available * size,
    usedBytes: (total - free) * size,
    // A file system without a table of them (btrfs) says 0.
    ...(inodes === 0
      ? {}
      : { inodes: { total: inodes, free: freeInodes, used: inodes - freeInodes } }),
  };
}

/**
 * The file system at a path. One that may hang is asked by another process.
 *
 * @throws When it does not answer.
 */
export async function filesystemFigures(
  { mounter, programs }: FigureDeps,
  path: string,
  signal: AbortSignal,
): Promise<VolumeFigures> {
  const mount = mounter.table().containing(path);
  if (mount !== undefined && !mayHang(mount)) {
    const { bavail, bfree, blocks, bsize, ffree, files } = await statfs(path);
    return figuresOf({
      size: bsize,
      total: blocks,
      free: bfree,
      available: bavail,
      inodes: files,
      freeInodes: ffree,
    });
  }
  const argv = ["stat", "-f", "--format=%S %b %f %a %c %d", "--", path] as const;
  const text = await runChecked(programs, argv, askMs, signal);
  const [size = 0, total = 0, free = 0, available = 0, inodes = 0, freeInodes = 0] = text
    .trim()
    .split(" ")
    .map(Number);
  return figuresOf({ size, total, free, available, inodes, freeInodes });
}

/** A block device: its size is all that anybody can tell. */
async function deviceFigures(
  { kernel = {}, programs }: FigureDeps,
  node: string,
  signal: AbortSignal,
): Promise<VolumeFigures | undefined> {
  const { device, kind } = await fileStatus(programs, node, signal);
  if (kind !== "blockDevice") return undefined;
  const [major = 0, minor = 0] = device.split(":").map((part) => Number.parseInt(part, 16));
  const file = join(kernel.sys ?? "/sys", `dev/block/${major}:${minor}/size`);
  return { capacityBytes: Number(readFileSync(file, "utf8")) * sectorBytes };
}

/** A volume that may be either. */
export async function diskFigures(
  deps: FigureDeps,
  spec: VolumeSpec,
  hostPath: string,
  signal: AbortSignal,
): Promise<VolumeFigures | undefined> {
  return isBlock(spec)
    ? deviceFigures(deps, hostPath, signal)
    : filesystemFigures(deps, hostPath, signal);
}

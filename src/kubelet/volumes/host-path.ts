import { lstat, mkdir, open, stat } from "node:fs/promises";
import type { Stats } from "node:fs";

import type { HostPathVolumeSource } from "../../api/types.gen.ts";
import { errorCode } from "../../lib/errors.ts";
import { VolumeError } from "./payload.ts";

async function statOrMissing(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

interface Check {
  readonly test: (stats: Stats) => boolean;
  readonly noun: string;
}

const checks: Readonly<Record<string, Check>> = {
  Directory: { test: (stats) => stats.isDirectory(), noun: "directory" },
  File: { test: (stats) => stats.isFile(), noun: "file" },
  Socket: { test: (stats) => stats.isSocket(), noun: "socket file" },
  CharDevice: { test: (stats) => stats.isCharacterDevice(), noun: "character device" },
  BlockDevice: { test: (stats) => stats.isBlockDevice(), noun: "block device" },
};

async function make(path: string, type: string): Promise<void> {
  if (type === "FileOrCreate") {
    const file = await open(path, "a", 0o644);
    await file.close();
  } else {
    // The empty type checks nothing, but the engine refuses a source that is not there.
    await mkdir(path, { recursive: true, mode: 0o755 });
  }
}

/**
 * Makes what the type allows to make and checks the rest. Returns the path to bind.
 *
 * @throws {VolumeError} when the path is not of the wanted type.
 */
export async function setUpHostPath(source: HostPathVolumeSource): Promise<string> {
  const { path } = source;
  const type: string = source.type ?? "";
  const creates = type === "" || type.endsWith("OrCreate");
  if (creates && (await statOrMissing(path)) === undefined) {
    // A dangling link is not ours to fill.
    if (await isLink(path)) throw new VolumeError(`hostPath ${path} is a dangling symbolic link`);
    await make(path, type);
  }
  const check = checks[type.replace("OrCreate", "")];
  if (check === undefined) return path;
  const stats = await statOrMissing(path);
  if (stats === undefined || !check.test(stats)) {
    throw new VolumeError(`hostPath type check failed: ${path} is not a ${check.noun}`);
  }
  return path;
}

async function isLink(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isSymbolicLink();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

import { lstat, open, stat } from "node:fs/promises";
import type { Stats } from "node:fs";

import type { HostPathVolumeSource } from "../../api/types.gen.ts";
import { errorCode } from "../../lib/errors.ts";
import { makeDirectory } from "./make-directory.ts";
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

const directory: Check = { test: (stats) => stats.isDirectory(), noun: "directory" };
const file: Check = { test: (stats) => stats.isFile(), noun: "file" };

/** By type; of those that end in OrCreate, only when there is something already. */
const checks: Readonly<Record<string, Check>> = {
  Directory: directory,
  DirectoryOrCreate: directory,
  File: file,
  FileOrCreate: file,
  Socket: { test: (stats) => stats.isSocket(), noun: "socket file" },
  CharDevice: { test: (stats) => stats.isCharacterDevice(), noun: "character device" },
  BlockDevice: { test: (stats) => stats.isBlockDevice(), noun: "block device" },
};

async function make(path: string, type: string): Promise<void> {
  if (type === "FileOrCreate") {
    try {
      // Its directory is not made, and a link that appears meanwhile is not followed.
      const made = await open(path, "wx", 0o644);
      await made.close();
    } catch (error) {
      if (errorCode(error) !== "EEXIST") throw error;
    }
  } else {
    // The empty type checks nothing, but somebody has to make the directory: a runtime would, as root's with 0755.
    await makeDirectory(path, 0o755);
  }
}

async function isLink(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isSymbolicLink();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

async function makeIfMissing(path: string, type: string): Promise<void> {
  if ((await statOrMissing(path)) !== undefined) return;
  // A dangling link is not ours to fill.
  if (await isLink(path)) throw new VolumeError(`hostPath ${path} is a dangling symbolic link`);
  await make(path, type);
}

/** What cannot even be looked at is not what it should be, as upstream says it. */
async function checkType(path: string, { noun, test }: Check): Promise<void> {
  const stats = await stat(path).catch(() => undefined);
  if (stats !== undefined && test(stats)) return;
  throw new VolumeError(`hostPath type check failed: ${path} is not a ${noun}`);
}

/**
 * Makes what the type allows to make and checks the rest. Returns the path to bind.
 *
 * @throws {VolumeError} when the path cannot be used, or is not of the wanted type.
 */
export async function setUpHostPath(source: HostPathVolumeSource): Promise<string> {
  const { path } = source;
  const type: string = source.type ?? "";
  const check = checks[type];
  if (path.split("/").includes("..")) {
    throw new VolumeError(`invalid HostPath \`${path}\`: must not contain '..'`);
  }
  if (!path.startsWith("/")) throw new VolumeError(`hostPath ${path} is not an absolute path`);
  if (type !== "" && check === undefined) {
    throw new VolumeError(`${type} is an invalid volume type`);
  }
  if (type === "" || type.endsWith("OrCreate")) await makeIfMissing(path, type);
  if (check !== undefined) await checkType(path, check);
  return path;
}

import { constants } from "node:fs";
import {
  chmod,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readlink,
  realpath,
  rmdir,
  stat,
  unlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join, relative } from "node:path";

import { errorCode, errorMessage } from "../../lib/errors.ts";
import { makeDirectory } from "./make-directory.ts";
import type { Mounter } from "./mounter.ts";
import { VolumeError } from "./payload.ts";

// Linux's O_PATH; Node does not name it. The descriptor only identifies the inode.
const O_PATH = 0o10000000;
const { O_NOFOLLOW, O_DIRECTORY } = constants;

/** Opens `name` inside the directory behind `parent` without following a link. */
async function openAt(parent: FileHandle, name: string, flags: number): Promise<FileHandle> {
  return open(`/proc/self/fd/${parent.fd}/${name}`, O_PATH | O_NOFOLLOW | flags);
}

async function walk(root: string, parts: readonly string[]): Promise<FileHandle> {
  let handle = await open(root, O_PATH | O_DIRECTORY);
  for (const [index, part] of parts.entries()) {
    const last = index === parts.length - 1;
    try {
      const next = await openAt(handle, part, last ? 0 : O_DIRECTORY);
      await handle.close();
      handle = next;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }
  const stats = await handle.stat();
  if (!stats.isSymbolicLink()) return handle;
  // O_PATH|O_NOFOLLOW opens a link itself: it appeared after the path was resolved.
  await handle.close();
  throw new VolumeError(`subpath ${parts.join("/")} changed into a symbolic link`);
}

/** The real path of the longest part of `subPath` that exists, and what is left of it. */
async function resolveExisting(
  volume: string,
  parts: readonly string[],
): Promise<{ readonly path: string; readonly rest: readonly string[] }> {
  for (let length = parts.length; length > 0; length -= 1) {
    try {
      const path = await realpath(join(volume, ...parts.slice(0, length)));
      return { path, rest: parts.slice(length) };
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }
  return { path: volume, rest: parts };
}

function partsWithin(volume: string, path: string, subPath: string): readonly string[] {
  const inside = relative(volume, path);
  if (inside === "") return [];
  const parts = inside.split("/");
  if (parts[0] === "..") {
    throw new VolumeError(`subpath "${subPath}" not within volume path`);
  }
  return parts;
}

/** Makes the missing directories one by one, each inside the directory that was just opened. */
async function makeMissing(
  volume: string,
  existing: readonly string[],
  missing: readonly string[],
): Promise<void> {
  if (missing.length === 0) return;
  const mode = (await stat(volume)).mode & 0o7777;
  let parts = [...existing];
  for (const name of missing) {
    const parent = await walk(volume, parts);
    try {
      const path = `/proc/self/fd/${parent.fd}/${name}`;
      await mkdir(path, { mode }).catch((error: unknown) => {
        if (errorCode(error) !== "EEXIST") throw error;
      });
      const made = await openAt(parent, name, O_DIRECTORY);
      // mkdir obeys the umask and drops set-id bits, the volume's mode does not.
      await chmod(`/proc/self/fd/${made.fd}`, mode);
      await made.close();
    } finally {
      await parent.close();
    }
    parts = [...parts, name];
  }
}

/** The parts of a path inside a volume, checked as text. */
function wantedParts(subPath: string): readonly string[] {
  const wanted = subPath.split("/").filter((part) => part !== "" && part !== ".");
  if (subPath.startsWith("/") || wanted.includes("..")) {
    throw new VolumeError(`subpath "${subPath}" must be relative and must not contain ".."`);
  }
  return wanted;
}

/**
 * Opens something inside a volume as a mere name of it (O_PATH), so that no symbolic link leads out of the volume.
 * Undefined when it is not there. The caller closes it.
 *
 * @throws {VolumeError} when the path leaves the volume.
 */
export async function openInVolume(
  volumePath: string,
  path: string,
): Promise<FileHandle | undefined> {
  const wanted = wantedParts(path);
  const volume = await realpath(volumePath);
  const resolved = await resolveExisting(volume, wanted);
  if (resolved.rest.length > 0) return undefined;
  return walk(volume, partsWithin(volume, resolved.path, path));
}

async function isSameFile(handle: FileHandle, path: string): Promise<boolean> {
  const [wanted, found] = await Promise.all([
    handle.stat({ bigint: true }),
    lstat(path, { bigint: true }),
  ]);
  return wanted.dev === found.dev && wanted.ino === found.ino;
}

/** What is bound over; false when there is something already. */
async function makePlaceholder(target: string, isDirectory: boolean): Promise<boolean> {
  try {
    if (isDirectory) await mkdir(target, { mode: 0o750 });
    else await writeFile(target, "", { flag: "wx", mode: 0o640 });
    return true;
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
    return false;
  }
}

async function removePlaceholder(target: string): Promise<void> {
  try {
    await rmdir(target);
  } catch (error) {
    if (errorCode(error) !== "ENOTDIR") throw error;
    await unlink(target);
  }
}

async function bindOpened(
  handle: FileHandle,
  target: string,
  mounter: Mounter,
  signal: AbortSignal,
): Promise<void> {
  const isDirectory = (await handle.stat()).isDirectory();
  await makeDirectory(dirname(target), 0o750);
  if (!(await makePlaceholder(target, isDirectory))) {
    if (mounter.table().at(target) !== undefined) {
      if (await isSameFile(handle, target)) return;
      // What a container of before was shown has been replaced: one that starts now gets what is there now.
      await mounter.unmount(target, signal);
    }
    // It may have been a file and be a directory now.
    await removePlaceholder(target);
    await makePlaceholder(target, isDirectory);
  }
  // mount(8) is another process: it reaches our descriptor by our process id.
  const self = await readlink("/proc/self");
  await mounter.bind(`/proc/${self}/fd/${handle.fd}`, target, signal);
}

/**
 * Binds `subPath` of a volume to `target` so that no symbolic link, present or appearing meanwhile, leads out of the
 * volume (CVE-2017-1002101). Missing directories are made with the volume's own mode.
 *
 * @throws {VolumeError} when the path leaves the volume.
 */
export async function bindSubPath(
  volumePath: string,
  subPath: string,
  target: string,
  mounter: Mounter,
  signal: AbortSignal,
): Promise<void> {
  const wanted = wantedParts(subPath);
  try {
    const volume = await realpath(volumePath);
    const { path, rest } = await resolveExisting(volume, wanted);
    const existing = partsWithin(volume, path, subPath);
    await makeMissing(volume, existing, rest);
    const handle = await walk(volume, [...existing, ...rest]);
    try {
      await bindOpened(handle, target, mounter, signal);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof VolumeError) throw error;
    throw new VolumeError(`failed to prepare subPath "${subPath}": ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

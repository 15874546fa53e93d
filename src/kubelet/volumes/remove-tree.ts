import { constants, readFileSync } from "node:fs";
import { type FileHandle, open, opendir, rmdir, unlink } from "node:fs/promises";

import { errorCode, errorMessage } from "../../lib/errors.ts";
import { VolumeError } from "./payload.ts";

// Linux's O_PATH; Node does not name it. The descriptor only identifies the inode.
const O_PATH = 0o10000000;
const { O_DIRECTORY, O_NOFOLLOW } = constants;

/** Removes a directory with all that is in it; not there is success. */
export type RemoveTree = (path: string, signal: AbortSignal) => Promise<void>;

/** A directory that is open, and how a person would call it. */
interface OpenDirectory {
  readonly handle: FileHandle;
  readonly path: string;
}

/** Removal came to something that is not to be removed. */
class Foreign extends VolumeError {}

/** Which mount an open descriptor is in: only the kernel's own word counts, a path may be swapped at any time. */
function mountID(handle: FileHandle): string {
  const text = readFileSync(`/proc/self/fdinfo/${handle.fd}`, "latin1");
  const found = /^mnt_id:\s*(\d+)$/m.exec(text)?.[1];
  if (found === undefined) throw new VolumeError("the kernel does not tell mounts apart");
  return found;
}

function within({ handle }: OpenDirectory, name: string): string {
  return `/proc/self/fd/${handle.fd}/${name}`;
}

async function openDirectory(path: string): Promise<FileHandle> {
  return open(path, O_PATH | O_NOFOLLOW | O_DIRECTORY);
}

async function gone(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}

/** Removes what is in a directory, and nothing that is in another mount. */
class Removal {
  readonly #mount: string;
  readonly #signal: AbortSignal;

  constructor(mount: string, signal: AbortSignal) {
    this.#mount = mount;
    this.#signal = signal;
  }

  async #empty(directory: OpenDirectory): Promise<void> {
    this.#signal.throwIfAborted();
    const entries = await opendir(`/proc/self/fd/${directory.handle.fd}`);
    for await (const entry of entries) {
      // What the type is not told of is tried as a file first.
      if (entry.isDirectory()) await this.directory(directory, entry.name);
      else await this.#file(directory, entry.name);
    }
  }

  async #file(parent: OpenDirectory, name: string): Promise<void> {
    this.#signal.throwIfAborted();
    try {
      await gone(unlink(within(parent, name)));
    } catch (error) {
      if (errorCode(error) !== "EISDIR") throw failure(`${parent.path}/${name}`, error);
      await this.directory(parent, name);
    }
  }

  async directory(parent: OpenDirectory, name: string): Promise<void> {
    const path = `${parent.path}/${name}`;
    let handle: FileHandle;
    try {
      handle = await openDirectory(within(parent, name));
    } catch (error) {
      if (errorCode(error) === "ENOENT") return;
      // A link or a file has taken its place: what is removed is that, not what it leads to.
      if (errorCode(error) !== "ENOTDIR" && errorCode(error) !== "ELOOP")
        throw failure(path, error);
      await gone(unlink(within(parent, name)));
      return;
    }
    try {
      if (mountID(handle) !== this.#mount) throw new Foreign(`${path} is mounted`);
      await this.#empty({ handle, path });
    } finally {
      await handle.close();
    }
    try {
      await gone(rmdir(within(parent, name)));
    } catch (error) {
      throw failure(path, error);
    }
  }
}

function failure(path: string, cause: unknown): VolumeError {
  if (errorCode(cause) === "EBUSY") return new Foreign(`${path} is mounted`, { cause });
  return new VolumeError(`cannot remove ${path}: ${errorMessage(cause)}`, { cause });
}

/**
 * Removes a tree by descriptors: no link is followed, whoever swaps names meanwhile, and it ends before anything that is
 * in another mount than its root's parent.
 *
 * @throws {VolumeError} naming the exact path where it stopped.
 */
export async function removeTree(path: string, signal: AbortSignal): Promise<void> {
  const slash = path.lastIndexOf("/");
  const name = path.slice(slash + 1);
  if (!path.startsWith("/") || name === "" || name === "." || name === "..") {
    throw new VolumeError(`${path} is no directory that could be removed`);
  }
  let parent: FileHandle;
  try {
    parent = await openDirectory(slash === 0 ? "/" : path.slice(0, slash));
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw failure(path, error);
  }
  try {
    const removal = new Removal(mountID(parent), signal);
    await removal.directory({ handle: parent, path: path.slice(0, slash) }, name);
  } finally {
    await parent.close();
  }
}

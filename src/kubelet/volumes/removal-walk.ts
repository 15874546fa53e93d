import {
  close,
  closeSync,
  constants,
  type Dir,
  open,
  opendirSync,
  openSync,
  readFileSync,
  rename,
  renameSync,
  rmdir,
  rmdirSync,
  unlink,
  unlinkSync,
} from "node:fs";
import { opendir } from "node:fs/promises";
import { promisify } from "node:util";

import { errorCode, errorMessage, isAbort } from "../../lib/errors.ts";
import { VolumeError } from "./payload.ts";

type Awaitable<T> = T | Promise<T>;

/** A name in a directory, its bytes as latin1 text: not every name is UTF-8. */
interface Entry {
  readonly name: string;
  isDirectory(): boolean;
}

/** What a removal asks of the file system. Failures are Node's. */
export interface RemovalFiles {
  open(path: string | Buffer, flags: number): Awaitable<number>;
  close(fd: number): Awaitable<void>;
  openNames(directory: string): Awaitable<Dir>;
  nextName(directory: Dir): Awaitable<Entry | null>;
  closeNames(directory: Dir): Awaitable<void>;
  unlink(path: string | Buffer): Awaitable<void>;
  rmdir(path: string | Buffer): Awaitable<void>;
  rename(from: string | Buffer, to: string | Buffer): Awaitable<void>;
}

const names = { encoding: "latin1", bufferSize: 256 } as const;

const openAsync = promisify(open);
const rmdirAsync = promisify(rmdir);

/** Other threads wait for the disk. */
export const asyncRemoval: RemovalFiles = {
  open: async (path, flags) => openAsync(path, flags),
  close: promisify(close),
  openNames: async (directory) => opendir(directory, names),
  nextName: async (directory) => directory.read(),
  closeNames: async (directory) => directory.close(),
  unlink: promisify(unlink),
  rmdir: async (path) => rmdirAsync(path),
  rename: promisify(rename),
};

/** For a process that does nothing else. */
export const syncRemoval: RemovalFiles = {
  open: (path, flags) => openSync(path, flags),
  close: closeSync,
  openNames: (directory) => opendirSync(directory, names),
  nextName: (directory) => directory.readSync(),
  closeNames: (directory) => directory.closeSync(),
  unlink: unlinkSync,
  rmdir: (path) => rmdirSync(path),
  rename: renameSync,
};

export interface RemovalOptions {
  readonly files: RemovalFiles;
  readonly signal: AbortSignal;
  /** Called with the number of entries met, for each; false ends the removal. */
  readonly seen: (entries: number) => boolean;
}

// Linux's O_PATH; Node does not name it. The descriptor only identifies the inode.
const O_PATH = 0o10000000;
const { O_DIRECTORY, O_NOFOLLOW } = constants;

/** Each level holds a descriptor; what lies deeper is brought up to the root first. */
const maxDepth = 64;
/** Somebody may still be writing; after so many passes he is left to it. */
const maxPasses = 3;

/** Which mount an open descriptor is in: only the kernel's own word counts, a path may be swapped at any time. */
export function mountID(fd: number): string {
  const text = readFileSync(`/proc/self/fdinfo/${fd}`, "latin1");
  const found = /^mnt_id:\s*(\d+)$/m.exec(text)?.[1];
  if (found === undefined) throw new VolumeError("the kernel does not tell mounts apart");
  return found;
}

/** A directory that is open, and what a person would call it. */
interface OpenDirectory {
  readonly fd: number;
  readonly path: string;
  readonly depth: number;
}

const plain = /^[\u0020-\u007e]*$/;

/** The path of a name in an open directory, for the kernel. */
function within({ fd }: OpenDirectory, name: string): string | Buffer {
  const path = `/proc/self/fd/${fd}/${name}`;
  return plain.test(name) ? path : Buffer.from(path, "latin1");
}

/** The same for people: one line, whatever the bytes are. */
function shown({ path }: OpenDirectory, name: string): string {
  const text = Buffer.from(name, "latin1").toString("utf8");
  const line = text.replaceAll(/[\p{Cc}\\]/gu, (each) => {
    return `\\x${each.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
  return `${path}/${line}`;
}

function failure(path: string, cause: unknown): Error {
  if (cause instanceof VolumeError || (cause instanceof Error && isAbort(cause))) return cause;
  if (errorCode(cause) === "EBUSY") {
    return new VolumeError(`${path} is in use or mounted: it was left alone`, { cause });
  }
  return new VolumeError(`cannot remove ${path}: ${errorMessage(cause)}`, { cause });
}

function isOneOf(error: unknown, ...codes: readonly string[]): boolean {
  return codes.includes(errorCode(error) ?? "");
}

class Removal {
  readonly #options: RemovalOptions;
  /** All that is removed is in this mount. */
  readonly #mount: string;
  #root: OpenDirectory | undefined;
  #lifted = 0;
  entries = 0;
  complete = true;

  constructor(mount: string, options: RemovalOptions) {
    this.#mount = mount;
    this.#options = options;
  }

  async directory(parent: OpenDirectory, name: string): Promise<void> {
    const { files } = this.#options;
    const path = shown(parent, name);
    try {
      if (parent.depth >= maxDepth && (await this.#lift(parent, name))) return;
      const fd = await files.open(within(parent, name), O_PATH | O_NOFOLLOW | O_DIRECTORY);
      const opened = { fd, path, depth: parent.depth + 1 };
      this.#root ??= opened;
      try {
        if (mountID(fd) !== this.#mount) {
          throw new VolumeError(`${path} is a mount point: it was left alone`);
        }
        await this.#emptyAndRemove(opened, parent, name);
      } finally {
        await files.close(fd);
      }
    } catch (error) {
      if (isOneOf(error, "ENOENT")) return;
      // A link or a file has taken its place: that is removed, not what it leads to.
      if (!isOneOf(error, "ENOTDIR", "ELOOP")) throw failure(path, error);
      await this.#file(parent, name);
    }
  }

  async #emptyAndRemove(opened: OpenDirectory, parent: OpenDirectory, name: string): Promise<void> {
    for (let passes = 0; ;) {
      const lifted = this.#lifted;
      await this.#empty(opened);
      if (!this.complete) return;
      // What was brought up to here was not put there by a stranger.
      if (this.#lifted === lifted) passes += 1;
      try {
        await this.#options.files.rmdir(within(parent, name));
        return;
      } catch (error) {
        if (!isOneOf(error, "ENOTEMPTY") || passes >= maxPasses) throw error;
      }
    }
  }

  /** A tree may be deeper than a process may have descriptors: its lower part becomes a part of the root's first level. */
  async #lift(parent: OpenDirectory, name: string): Promise<boolean> {
    const root = this.#root;
    if (root === undefined) return false;
    this.#lifted += 1;
    try {
      const target = within(root, `..lifted-${this.#lifted}`);
      await this.#options.files.rename(within(parent, name), target);
      return true;
    } catch (error) {
      // Its own quota, or the name is taken.
      if (isOneOf(error, "EXDEV", "ENOTEMPTY", "EEXIST")) return false;
      throw error;
    }
  }

  async #empty(directory: OpenDirectory): Promise<void> {
    const { files, seen, signal } = this.#options;
    // The descriptor only names the directory; this opens what it names.
    const listing = await files.openNames(`/proc/self/fd/${directory.fd}`);
    try {
      for (;;) {
        const entry = await files.nextName(listing);
        if (entry === null) return;
        signal.throwIfAborted();
        this.entries += 1;
        this.complete &&= seen(this.entries);
        if (!this.complete) return;
        if (entry.isDirectory()) await this.directory(directory, entry.name);
        else await this.#file(directory, entry.name);
      }
    } finally {
      await files.closeNames(listing);
    }
  }

  async #file(parent: OpenDirectory, name: string): Promise<void> {
    try {
      await this.#options.files.unlink(within(parent, name));
    } catch (error) {
      if (isOneOf(error, "ENOENT")) return;
      if (!isOneOf(error, "EISDIR")) throw failure(shown(parent, name), error);
      await this.directory(parent, name);
    }
  }
}

/**
 * Removes the tree `name` in the directory `parent`, by descriptors: whoever moves and links files about meanwhile leads
 * it nowhere else. It stops before anything that is in another mount than `parent`.
 *
 * @returns How many entries it met, and whether it is through.
 * @throws {VolumeError} with the exact path where it stopped; `AbortError`.
 */
export async function removeEntry(
  parent: string,
  name: string,
  options: RemovalOptions,
): Promise<{ readonly entries: number; readonly complete: boolean }> {
  const { files } = options;
  let fd: number;
  try {
    fd = await files.open(parent, O_PATH | O_DIRECTORY);
  } catch (error) {
    if (isOneOf(error, "ENOENT")) return { entries: 0, complete: true };
    throw failure(parent, error);
  }
  try {
    const removal = new Removal(mountID(fd), options);
    await removal.directory({ fd, path: parent, depth: 0 }, Buffer.from(name).toString("latin1"));
    return removal;
  } finally {
    await files.close(fd);
  }
}

import {
  chmod,
  chmodSync,
  close,
  closeSync,
  constants,
  fchmod,
  fchmodSync,
  fchown,
  fchownSync,
  fstat,
  fstatSync,
  lchown,
  lchownSync,
  lstat,
  lstatSync,
  open,
  openSync,
  readdirSync,
  type Stats,
} from "node:fs";
import { readdir } from "node:fs/promises";
import { promisify } from "node:util";

import { errorCode, errorMessage } from "../../lib/errors.ts";

type Awaitable<T> = T | Promise<T>;

/** What a walk asks of the file system. Names are bytes: not every one is text. Failures are Node's. */
export interface TreeFiles {
  open(path: Buffer, flags: number): Awaitable<number>;
  close(fd: number): Awaitable<void>;
  names(directory: string): Awaitable<readonly Buffer[]>;
  lstat(path: Buffer): Awaitable<Stats>;
  fstat(fd: number): Awaitable<Stats>;
  lchown(path: Buffer, gid: number): Awaitable<void>;
  fchown(fd: number, gid: number): Awaitable<void>;
  fchmod(fd: number, mode: number): Awaitable<void>;
  /** Follows links. */
  chmod(path: string, mode: number): Awaitable<void>;
}

/** For a user id: leave it. */
const unchanged = -1;

const asyncLchown = promisify(lchown);
const asyncFchown = promisify(fchown);

/** Other threads wait for the disk. */
export const asyncTree: TreeFiles = {
  open: async (path, flags) => promisify(open)(path, flags),
  close: promisify(close),
  names: async (directory) => readdir(directory, { encoding: "buffer" }),
  lstat: async (path) => promisify(lstat)(path),
  fstat: async (fd) => promisify(fstat)(fd),
  lchown: async (path, gid) => asyncLchown(path, unchanged, gid),
  fchown: async (fd, gid) => asyncFchown(fd, unchanged, gid),
  fchmod: promisify(fchmod),
  chmod: async (path, mode) => promisify(chmod)(path, mode),
};

/** For a process that does nothing else. */
export const syncTree: TreeFiles = {
  open: (path, flags) => openSync(path, flags),
  close: closeSync,
  names: (directory) => readdirSync(directory, { encoding: "buffer" }),
  lstat: (path) => lstatSync(path),
  fstat: (fd) => fstatSync(fd),
  lchown: (path, gid) => lchownSync(path, unchanged, gid),
  fchown: (fd, gid) => fchownSync(fd, unchanged, gid),
  fchmod: fchmodSync,
  chmod: chmodSync,
};

/** Whose a tree is to become, and what the group may do. */
export interface GroupOwnership {
  readonly gid: number;
  /** The group may read and no more. */
  readonly readOnly: boolean;
}

export interface WalkOptions {
  readonly files: TreeFiles;
  readonly signal: AbortSignal;
  /** Called with the number of entries seen, for each; false ends the walk. */
  readonly seen: (entries: number) => boolean;
}

export interface WalkResult {
  /** Files, directories and links that were looked at. */
  readonly entries: number;
  /** False when `seen` ended the walk. */
  readonly complete: boolean;
  /** What could not be changed; the walk goes on, as a file system may not know owners. */
  readonly failures: number;
  /** The first of them. */
  readonly problem: string | undefined;
}

// Linux's O_PATH; Node does not name it. The descriptor only identifies the inode.
const O_PATH = 0o10000000;
const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;

/** Each level holds one descriptor. */
const maxDepth = 2000;
const setIDBits = 0o6000;
const slash = Buffer.from("/");

/** The permission bits that the group gets, at the least. */
function groupBits({ readOnly }: GroupOwnership, isDirectory: boolean): number {
  return (readOnly ? 0o440 : 0o660) | (isDirectory ? 0o2110 : 0);
}

/** Whether the root of a volume is already as a walk would leave it: then so is the rest (`OnRootMismatch`). */
export function rootMatches(stats: Stats, wanted: GroupOwnership): boolean {
  const bits = groupBits(wanted, true);
  return stats.isDirectory() && stats.gid === wanted.gid && (stats.mode & bits) === bits;
}

class Walk {
  readonly #wanted: GroupOwnership;
  readonly #options: WalkOptions;
  entries = 0;
  complete = true;
  failures = 0;
  problem: string | undefined;

  constructor(wanted: GroupOwnership, options: WalkOptions) {
    this.#wanted = wanted;
    this.#options = options;
  }

  /** `path` ends in a name that no link is followed by; what is before it, a descriptor holds. */
  async visit(path: Buffer, depth: number): Promise<void> {
    const { files, seen, signal } = this.#options;
    signal.throwIfAborted();
    this.entries += 1;
    if (!seen(this.entries)) {
      this.complete = false;
      return;
    }
    let stats: Stats;
    try {
      stats = await files.lstat(path);
    } catch (error) {
      // Removed by somebody meanwhile.
      if (errorCode(error) === "ENOENT") return;
      throw error;
    }
    if (stats.isDirectory()) await this.#directory(path, depth);
    else await this.#tryTo(() => this.#other(path, stats));
  }

  /** A directory after what is in it: an interrupted walk must not leave a root that looks finished. */
  async #directory(path: Buffer, depth: number): Promise<void> {
    const { files } = this.#options;
    if (depth > maxDepth) throw new Error(`more than ${maxDepth} directories inside each other`);
    let fd: number;
    try {
      fd = await files.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK);
    } catch (error) {
      // It is something else by now.
      if (["ENOENT", "ENOTDIR", "ELOOP"].includes(errorCode(error) ?? "")) return;
      throw error;
    }
    try {
      const here = `/proc/self/fd/${fd}`;
      const prefix = Buffer.concat([Buffer.from(here), slash]);
      for (const name of await files.names(here)) {
        await this.visit(Buffer.concat([prefix, name]), depth + 1);
        if (!this.complete) return;
      }
      await this.#tryTo(() => this.#ownDirectory(fd));
    } finally {
      await files.close(fd);
    }
  }

  async #ownDirectory(fd: number): Promise<void> {
    const { files } = this.#options;
    const { gid, mode } = await files.fstat(fd);
    const bits = groupBits(this.#wanted, true);
    const foreign = gid !== this.#wanted.gid;
    if (foreign) await files.fchown(fd, this.#wanted.gid);
    const wanted = (mode | bits) & 0o7777;
    if (foreign || wanted !== (mode & 0o7777)) await files.fchmod(fd, wanted);
  }

  async #other(path: Buffer, stats: Stats): Promise<void> {
    const { files } = this.#options;
    const foreign = stats.gid !== this.#wanted.gid;
    if (foreign) await files.lchown(path, this.#wanted.gid);
    // A link has no permissions of its own.
    if (stats.isSymbolicLink()) return;
    const wanted = (stats.mode | groupBits(this.#wanted, false)) & 0o7777;
    // A new owner costs a program its set-id bits.
    const stripped = foreign && (stats.mode & setIDBits) !== 0;
    if (wanted === (stats.mode & 0o7777) && !stripped) return;
    const fd = await files.open(path, O_PATH | O_NOFOLLOW);
    try {
      const found = await files.fstat(fd);
      // Another file has taken the name: its maker knows its mode.
      if (found.ino !== stats.ino || found.dev !== stats.dev || found.isSymbolicLink()) return;
      await files.chmod(`/proc/self/fd/${fd}`, wanted);
    } finally {
      await files.close(fd);
    }
  }

  async #tryTo(change: () => Promise<void>): Promise<void> {
    try {
      await change();
    } catch (error) {
      if (errorCode(error) === "ENOENT") return;
      this.failures += 1;
      this.problem ??= errorMessage(error);
    }
  }
}

/**
 * Gives everything at and below `root` to a group. Goes by directory descriptors: whoever moves and links files about
 * meanwhile leads it nowhere else. What is right already is left alone.
 *
 * @throws Node's errors for what cannot be read; `AbortError`.
 */
export async function giveToGroup(
  root: string,
  wanted: GroupOwnership,
  options: WalkOptions,
): Promise<WalkResult> {
  const walk = new Walk(wanted, options);
  await walk.visit(Buffer.from(root), 0);
  const { complete, entries, failures, problem } = walk;
  return { complete, entries, failures, problem };
}

import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
} from "node:fs";
import { join } from "node:path";

import { errorCode } from "../../lib/errors.ts";

/** A file that stays open: reading it again costs a fifth of opening it. */
export interface OpenFile {
  /** What it says now; undefined when what it tells about has gone. */
  text(): string | undefined;
  close(): void;
}

/**
 * cgroupfs, procfs and sysfs: the kernel answers from memory, so all of it is synchronous. Paths are absolute. Whatever
 * has gone (a cgroup, a process) reads as undefined or empty; other failures are thrown.
 */
export interface KernelFiles {
  text(path: string): string | undefined;
  /** Names in a directory. */
  names(path: string): readonly string[];
  /** Where a symbolic link points. */
  target(path: string): string | undefined;
  /** When the entry was made, milliseconds since the epoch. */
  madeAt(path: string): number | undefined;
  open(path: string): OpenFile | undefined;
}

/** No such file; a file of a process or a cgroup that has ended; no controller here; not for files of this kind. */
const gone = new Set(["ENOENT", "ESRCH", "ENODEV", "ENOTDIR", "EOPNOTSUPP", "EINVAL"]);

function unlessGone<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch (error) {
    if (gone.has(errorCode(error) ?? "")) return otherwise;
    throw error;
  }
}

/** Larger than any file that is read again and again. */
const buffer = Buffer.alloc(32 * 1024);

/** @param root Directory that stands for `/`: tests have recordings of other machines there. */
export function kernelFiles(root = "/"): KernelFiles {
  const at = (path: string): string => (root === "/" ? path : join(root, path));
  return {
    text: (path) => unlessGone(() => readFileSync(at(path), "latin1"), undefined),
    names: (path) => unlessGone(() => readdirSync(at(path)), []),
    target: (path) => unlessGone(() => readlinkSync(at(path)), undefined),
    madeAt: (path) => unlessGone(() => statSync(at(path)).mtimeMs, undefined),
    open(path) {
      const fd = unlessGone(() => openSync(at(path), "r"), undefined);
      if (fd === undefined) return undefined;
      return {
        text: () =>
          unlessGone(() => {
            const length = readSync(fd, buffer, 0, buffer.length, 0);
            return buffer.toString("latin1", 0, length);
          }, undefined),
        close: () => closeSync(fd),
      };
    },
  };
}

import { closeSync, openSync, readdirSync, readlinkSync, readSync, statSync } from "node:fs";
import { join } from "node:path";

import { errorCode } from "../../lib/errors.ts";

/** A file that stays open: reading it again costs a fifth of opening it. */
export interface OpenFile {
  /** What it says now, as far as the kernel gives it at once; undefined when what it tells about has gone. */
  text(): string | undefined;
  /** The values of some keys of a flat keyed file, without making a text of all the others. */
  values(keys: readonly string[]): readonly (number | undefined)[] | undefined;
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

/** A whole file. What readFileSync does besides (a stat, a buffer of its own) takes a third of its time. */
function readWhole(path: string): string {
  const fd = openSync(path, "r");
  try {
    let text = "";
    for (;;) {
      const length = readSync(fd, buffer, 0, buffer.length, null);
      if (length === 0) return text;
      text += buffer.toString("latin1", 0, length);
    }
  } finally {
    closeSync(fd);
  }
}

const newline = 0x0a;
const zero = 0x30;

/** The number behind `key` at the beginning of a line; undefined when there is no such line. */
function valueIn(bytes: Buffer, key: string): number | undefined {
  const prefix = `${key} `;
  let at = 0;
  do {
    at = bytes.indexOf(prefix, at, "latin1");
    if (at < 0) return undefined;
    at += prefix.length;
  } while (at > prefix.length && bytes[at - prefix.length - 1] !== newline);
  let value = 0;
  for (let byte = bytes[at]; byte !== undefined && byte >= zero; byte = bytes[(at += 1)]) {
    value = value * 10 + (byte - zero);
  }
  return value;
}

/** @param root Directory that stands for `/`: tests have recordings of other machines there. */
export function kernelFiles(root = "/"): KernelFiles {
  const at = (path: string): string => (root === "/" ? path : join(root, path));
  return {
    text: (path) => unlessGone(() => readWhole(at(path)), undefined),
    names: (path) => unlessGone(() => readdirSync(at(path)), []),
    target: (path) => unlessGone(() => readlinkSync(at(path)), undefined),
    madeAt: (path) => unlessGone(() => statSync(at(path)).mtimeMs, undefined),
    open(path) {
      const fd = unlessGone(() => openSync(at(path), "r"), undefined);
      if (fd === undefined) return undefined;
      const fill = (): Buffer | undefined => {
        try {
          return buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, 0));
        } catch (error) {
          if (gone.has(errorCode(error) ?? "")) return undefined;
          throw error;
        }
      };
      return {
        text: () => fill()?.toString("latin1"),
        values(keys) {
          const bytes = fill();
          return bytes === undefined ? undefined : keys.map((key) => valueIn(bytes, key));
        },
        close: () => closeSync(fd),
      };
    },
  };
}

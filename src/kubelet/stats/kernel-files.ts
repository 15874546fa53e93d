import { closeSync, openSync, readdirSync, readlinkSync, readSync, statSync } from "node:fs";
import { join } from "node:path";

import { errorCode } from "../../lib/errors.ts";

/** A file that stays open: reading it again costs a fifth of opening it. */
export interface OpenFile {
  /** What it says now, as far as the kernel gives it at once; undefined when what it tells about has gone. */
  text(): string | undefined;
  /** The number that is all it says. Hundreds are read per scrape, so no text is made of any. */
  count(): number | undefined;
  /** The value of a key of a flat keyed file; 0 when it has no such key, undefined when it has gone. */
  value(key: string): number | undefined;
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

/** The number that begins at this place of the buffer. */
function numberAt(start: number, end: number): number {
  let value = 0;
  for (let at = start; at < end; at += 1) {
    const digit = (buffer[at] ?? 0) - zero;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
  }
  return value;
}

/** The number behind `key` at the beginning of a line of the buffer; 0 when there is no such line. */
function valueOf(key: string, end: number): number {
  const prefix = `${key} `;
  for (let at = buffer.indexOf(prefix, 0, "latin1"); at >= 0 && at < end;) {
    if (at === 0 || buffer[at - 1] === newline) return numberAt(at + prefix.length, end);
    at = buffer.indexOf(prefix, at + prefix.length, "latin1");
  }
  return 0;
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
      /** Bytes that are in the buffer now. */
      const fill = (): number | undefined => {
        try {
          return readSync(fd, buffer, 0, buffer.length, 0);
        } catch (error) {
          if (gone.has(errorCode(error) ?? "")) return undefined;
          throw error;
        }
      };
      return {
        text() {
          const length = fill();
          return length === undefined ? undefined : buffer.toString("latin1", 0, length);
        },
        count() {
          const length = fill();
          return length === undefined ? undefined : numberAt(0, length);
        },
        value(key) {
          const length = fill();
          return length === undefined ? undefined : valueOf(key, length);
        },
        close: () => closeSync(fd),
      };
    },
  };
}

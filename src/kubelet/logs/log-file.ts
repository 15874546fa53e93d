import { type FileHandle, open } from "node:fs/promises";

import { errorCode } from "../../lib/errors.ts";

/** Where the last lines of a log begin. */
export type TailPosition =
  /** In this file; it stands there now. */
  | { readonly kind: "found" }
  /** The file has only this many lines. */
  | { readonly kind: "short"; readonly lines: number };

/** One open file of a log. It stays readable when the engine renames, compresses or removes it. */
export interface LogFile {
  readonly inode: bigint;
  readonly compressed: boolean;
  /** The next whole lines, a chunk of them; undefined at the (present) end of the file. */
  read(): Promise<Buffer | undefined>;
  /** What stands behind the last newline. */
  rest(): Promise<Buffer>;
  /**
   * Moves to where the last `lines` lines begin, if they do so in this file.
   *
   * @param continued Lines were found in newer files: an open record at the end of this one belongs to the first line there, which
   * has been counted already.
   */
  seekTail(lines: number, continued: boolean): Promise<TailPosition>;
  /** Time of the last write, milliseconds since the epoch. */
  modifiedAt(): Promise<number>;
  /** Equal for a file and for the same file compressed, once it does not grow any more. */
  fingerprint(): Promise<string>;
  close(): Promise<void>;
}

/** Bytes read at a time. */
export const chunkBytes = 128 * 1024;
/** A record is at most 16 KiB of text, six times that when every byte is escaped; more is damage. */
export const maxLineBytes = 1024 * 1024;
/** Bytes that tell one file from another: the first record at least begins in them. */
export const fingerprintBytes = 4096;
export const newline = 0x0a;

/** Opens a file to read it; undefined when there is no such file. */
export async function openIfThere(
  path: string,
): Promise<{ readonly handle: FileHandle; readonly inode: bigint } | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
  const { ino } = await handle.stat({ bigint: true });
  return { handle, inode: ino };
}

import type { FileHandle } from "node:fs/promises";

import {
  chunkBytes,
  fingerprintBytes,
  type LogFile,
  maxLineBytes,
  newline,
  openIfThere,
  type TailPosition,
} from "./log-file.ts";
import { TailSearch } from "./tail-search.ts";

/** A log file as the engine writes it, read by position. */
export class PlainLogFile implements LogFile {
  readonly compressed = false;
  readonly inode: bigint;
  readonly #handle: FileHandle;
  /** Where the line begins that is read next. */
  #position = 0;
  /** The line there is damage, longer than any record: it is left out up to its end. */
  #skipping = false;
  /** Bytes in the file when it was last asked. */
  #size = 0;
  /** The chunk at {@link #position}, on its way while the one before is worked on. */
  #ahead: Promise<Buffer> | undefined;

  private constructor(handle: FileHandle, inode: bigint) {
    this.#handle = handle;
    this.inode = inode;
  }

  /** Undefined when there is no such file. */
  static async open(path: string): Promise<PlainLogFile | undefined> {
    const opened = await openIfThere(path);
    return opened && new PlainLogFile(opened.handle, opened.inode);
  }

  async close(): Promise<void> {
    await this.#takeAhead()?.catch(() => undefined);
    await this.#handle.close();
  }

  async modifiedAt(): Promise<number> {
    return (await this.#handle.stat()).mtimeMs;
  }

  async fingerprint(): Promise<string> {
    const { size } = await this.#handle.stat();
    return `${size} ${(await this.#readAt(0, fingerprintBytes)).toString("latin1")}`;
  }

  async read(): Promise<Buffer | undefined> {
    for (;;) {
      const lines = await this.#readLines();
      if (lines !== "again") return lines;
    }
  }

  async #readLines(): Promise<Buffer | "again" | undefined> {
    let bytes = await (this.#takeAhead() ?? this.#readAt(this.#position, chunkBytes));
    let end = bytes.lastIndexOf(newline) + 1;
    if (end === 0 && bytes.length === chunkBytes) {
      bytes = await this.#readAt(this.#position, maxLineBytes);
      end = bytes.lastIndexOf(newline) + 1;
      if (end === 0 && bytes.length === maxLineBytes) {
        this.#position += maxLineBytes;
        this.#skipping = true;
        return "again";
      }
    }
    if (end === 0) return this.#atEnd();
    this.#position += end;
    if (this.#size - this.#position >= chunkBytes) {
      this.#ahead = this.#readAt(this.#position, chunkBytes);
      // Whoever takes it sees why it failed; nobody may.
      this.#ahead.catch(() => undefined);
    }
    if (!this.#skipping) return bytes.subarray(0, end);
    this.#skipping = false;
    return bytes.subarray(bytes.indexOf(newline) + 1, end);
  }

  #takeAhead(): Promise<Buffer> | undefined {
    const ahead = this.#ahead;
    this.#ahead = undefined;
    return ahead;
  }

  #atEnd(): "again" | undefined {
    if (this.#size >= this.#position) return undefined;
    // Truncated in place (json-file with a single file): what is there now is all new.
    this.#position = 0;
    this.#skipping = false;
    return this.#size === 0 ? undefined : "again";
  }

  async rest(): Promise<Buffer> {
    const bytes = await this.#readAt(this.#position, maxLineBytes);
    this.#position += bytes.length;
    return this.#skipping ? Buffer.alloc(0) : bytes;
  }

  async seekTail(lines: number, continued: boolean): Promise<TailPosition> {
    const search = new TailSearch(lines, continued);
    this.#size = (await this.#handle.stat()).size;
    // One for the whole search: what it has found does not refer to it.
    let buffer = Buffer.allocUnsafe(2 * chunkBytes);
    /** Bytes at its beginning that belong to a line which begins further back. */
    let carried = 0;
    for (let end = this.#size; end > 0;) {
      const length = Math.min(chunkBytes, end);
      if (length + carried > buffer.length) {
        buffer = Buffer.concat([buffer, Buffer.allocUnsafe(buffer.length)]);
      }
      buffer.copyWithin(length, 0, carried);
      const { bytesRead } = await this.#handle.read(buffer, 0, length, end - length);
      // Truncated in place meanwhile: there is nothing left of what was searched.
      if (bytesRead < length) break;
      const bytes = buffer.subarray(0, length + carried);
      end -= length;
      const first = end === 0 ? 0 : bytes.indexOf(newline) + 1;
      // Not one newline in the chunk: the line goes on further back.
      if (first === 0 && end > 0) {
        carried = bytes.length > maxLineBytes ? 0 : bytes.length;
        continue;
      }
      if (search.scan(bytes, first, end)) {
        this.#position = search.position;
        return { kind: "found" };
      }
      carried = first;
    }
    return { kind: "short", lines: search.finish() };
  }

  /** At most `length` bytes, fewer at the end of the file. A follower mostly stands there, and needs no buffer. */
  async #readAt(position: number, length: number): Promise<Buffer> {
    if (position + length > this.#size) this.#size = (await this.#handle.stat()).size;
    const buffer = Buffer.allocUnsafe(Math.max(0, Math.min(length, this.#size - position)));
    if (buffer.length === 0) return buffer;
    const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, position);
    if (bytesRead < buffer.length) this.#size = (await this.#handle.stat()).size;
    return buffer.subarray(0, bytesRead);
  }
}

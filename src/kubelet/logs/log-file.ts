import { type FileHandle, open } from "node:fs/promises";

import { errorCode } from "../../lib/errors.ts";
import { endsLine, type LogRecord, parseLogLine } from "./log-line.ts";

const chunkBytes = 64 * 1024;
/** A record is at most 16 KiB of text, six times that when every byte is escaped; more is damage. */
const maxLineBytes = 1024 * 1024;
const newline = 10;

/** One open log file, read forward by position. Keeps following its inode when the engine renames it. */
export class LogFile {
  readonly inode: bigint;
  readonly #handle: FileHandle;
  #position = 0;
  #carry: Buffer = Buffer.alloc(0);
  #skipping = false;

  private constructor(handle: FileHandle, inode: bigint) {
    this.#handle = handle;
    this.inode = inode;
  }

  /** Undefined when there is no such file. */
  static async open(path: string): Promise<LogFile | undefined> {
    let handle: FileHandle;
    try {
      handle = await open(path, "r");
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    }
    const { ino } = await handle.stat({ bigint: true });
    return new LogFile(handle, ino);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  /** Time of the last write, milliseconds since the epoch. */
  async modifiedAt(): Promise<number> {
    return (await this.#handle.stat()).mtimeMs;
  }

  /** Moves to byte `position`, which must be the beginning of a record. */
  seek(position: number): void {
    this.#position = position;
    this.#carry = Buffer.alloc(0);
  }

  /** The next records, at most a chunk of them; undefined at the (present) end of the file. */
  async read(): Promise<readonly LogRecord[] | undefined> {
    const buffer = Buffer.allocUnsafe(chunkBytes);
    const { bytesRead } = await this.#handle.read(buffer, 0, chunkBytes, this.#position);
    if (bytesRead === 0) {
      const { size } = await this.#handle.stat();
      if (size >= this.#position) return undefined;
      // Truncated in place (json-file with a single file): what is there now is all new.
      this.seek(0);
      return [];
    }
    this.#position += bytesRead;
    return this.#split(buffer.subarray(0, bytesRead));
  }

  /** What the writer left without a newline at the end, when it happens to be complete. */
  rest(): readonly LogRecord[] {
    const record = parseLogLine(this.#carry);
    this.#carry = Buffer.alloc(0);
    return record === undefined ? [] : [record];
  }

  #split(chunk: Buffer): LogRecord[] {
    const bytes = this.#carry.length === 0 ? chunk : Buffer.concat([this.#carry, chunk]);
    const records: LogRecord[] = [];
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(newline, start);
      if (end < 0) break;
      const record = this.#skipping ? undefined : parseLogLine(bytes.subarray(start, end));
      this.#skipping = false;
      if (record !== undefined) records.push(record);
      start = end + 1;
    }
    this.#carry = bytes.subarray(start);
    if (this.#carry.length > maxLineBytes) {
      this.#carry = Buffer.alloc(0);
      this.#skipping = true;
    }
    return records;
  }

  /**
   * Searches backwards for the place where the last `lines` lines begin.
   *
   * @param continued Lines were found in newer files: an open record at the end of this one belongs to the first line there, which
   * has been counted already.
   */
  async findTail(lines: number, continued: boolean): Promise<TailPosition> {
    const { size } = await this.#handle.stat();
    const search = new TailSearch(lines, continued);
    let end = size;
    let carry: Buffer = Buffer.alloc(0);
    while (end > 0) {
      const length = Math.min(chunkBytes, end);
      const buffer = Buffer.allocUnsafe(length);
      const { bytesRead } = await this.#handle.read(buffer, 0, length, end - length);
      end -= length;
      const bytes = Buffer.concat([buffer.subarray(0, bytesRead), carry]);
      const first = end === 0 ? 0 : bytes.indexOf(newline) + 1;
      // Not one newline in the chunk: the line goes on further back.
      if (first === 0 && end > 0) {
        carry = bytes.length > maxLineBytes ? Buffer.alloc(0) : bytes;
        continue;
      }
      if (search.scan(bytes, first, end)) return { kind: "found", position: search.position };
      carry = bytes.subarray(0, first);
    }
    return { kind: "short", lines: search.finish() };
  }
}

export type TailPosition =
  | { readonly kind: "found"; readonly position: number }
  /** The file has only this many lines. */
  | { readonly kind: "short"; readonly lines: number };

/** Counts beginnings of lines from the end of a file towards its start. */
class TailSearch {
  readonly #continued: boolean;
  #wanted: number;
  /** 1 when the newest line goes on in the newer file, where it was counted. */
  #shared = 0;
  #begun = 0;
  /** Position of the record looked at last, which begins a line if the one before it ends one. */
  #candidate: number | undefined;
  position = 0;

  constructor(wanted: number, continued: boolean) {
    this.#wanted = wanted;
    this.#continued = continued;
  }

  /** Looks at the whole lines of `bytes` from index `first`; `offset` is the file position of `bytes[0]`. */
  scan(bytes: Buffer, first: number, offset: number): boolean {
    let end = bytes.length;
    while (end > first) {
      const previous = end - 2 >= first ? bytes.lastIndexOf(newline, end - 2) : -1;
      const start = previous < first ? first : previous + 1;
      const stop = bytes[end - 1] === newline ? end - 1 : end;
      const record = parseLogLine(bytes.subarray(start, stop));
      if (record !== undefined && this.#take(record, offset + start, offset + end)) return true;
      end = start;
    }
    return false;
  }

  #take(record: LogRecord, position: number, end: number): boolean {
    if (this.#candidate === undefined) {
      if (this.#continued && !endsLine(record)) this.#shared = 1;
      this.#wanted += this.#shared;
      if (this.#wanted === 0) this.#candidate = end;
    } else if (endsLine(record)) {
      this.#begun += 1;
    }
    if (this.#begun === this.#wanted) {
      this.position = this.#candidate ?? end;
      return true;
    }
    this.#candidate = position;
    return false;
  }

  /** Lines in the whole file, its first record beginning one. */
  finish(): number {
    return this.#candidate === undefined ? 0 : this.#begun + 1 - this.#shared;
  }
}

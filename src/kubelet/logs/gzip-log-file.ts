import type { FileHandle } from "node:fs/promises";
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";

import { errorCode } from "../../lib/errors.ts";
import { LineEnds } from "./line-ends.ts";
import {
  chunkBytes,
  fingerprintBytes,
  type LogFile,
  maxLineBytes,
  newline,
  openIfThere,
  type TailPosition,
} from "./log-file.ts";

/** A rotated log file that the engine has compressed (`compress` of json-file): read from its beginning only. */
export class GzipLogFile implements LogFile {
  readonly compressed = true;
  readonly inode: bigint;
  readonly #handle: FileHandle;
  /** Lines left out at the beginning. */
  #skipLines = 0;
  #chunks: AsyncIterator<Buffer> | undefined;
  #carry: Buffer = Buffer.alloc(0);

  private constructor(handle: FileHandle, inode: bigint) {
    this.#handle = handle;
    this.inode = inode;
  }

  /** Undefined when there is no such file. */
  static async open(path: string): Promise<GzipLogFile | undefined> {
    const opened = await openIfThere(path);
    return opened && new GzipLogFile(opened.handle, opened.inode);
  }

  async close(): Promise<void> {
    await this.#chunks?.return?.();
    await this.#handle.close();
  }

  async modifiedAt(): Promise<number> {
    return (await this.#handle.stat()).mtimeMs;
  }

  async fingerprint(): Promise<string> {
    let head: Buffer = Buffer.alloc(0);
    let size = 0;
    for await (const chunk of this.#inflate()) {
      if (head.length < fingerprintBytes) head = Buffer.concat([head, chunk]);
      size += chunk.length;
    }
    return `${size} ${head.toString("latin1", 0, Math.min(head.length, fingerprintBytes))}`;
  }

  async read(): Promise<Buffer | undefined> {
    this.#chunks ??= this.#wantedLines()[Symbol.asyncIterator]();
    const next = await this.#chunks.next();
    return next.done === true ? undefined : next.value;
  }

  rest(): Promise<Buffer> {
    const bytes = this.#carry;
    this.#carry = Buffer.alloc(0);
    return Promise.resolve(bytes);
  }

  async seekTail(lines: number, continued: boolean): Promise<TailPosition> {
    const counter = new LineCounter();
    for await (const chunk of this.#lines()) counter.scan(chunk, Number.POSITIVE_INFINITY);
    const shared = continued && !counter.ended ? 1 : 0;
    const begun = counter.begun - shared;
    // With exactly as many, the first may go on further back, in an older file.
    if (begun <= lines) return { kind: "short", lines: begun };
    this.#skipLines = begun - lines;
    return { kind: "found" };
  }

  async *#wantedLines(): AsyncGenerator<Buffer> {
    const counter = new LineCounter();
    for await (const chunk of this.#lines()) {
      const at = this.#skipLines === 0 ? 0 : counter.scan(chunk, this.#skipLines);
      if (at < chunk.length) yield chunk.subarray(at);
    }
  }

  /** @yields Whole lines; what is behind the last one is left in the carry. */
  async *#lines(): AsyncGenerator<Buffer> {
    this.#carry = Buffer.alloc(0);
    for await (const chunk of this.#inflate()) {
      const bytes = this.#carry.length === 0 ? chunk : Buffer.concat([this.#carry, chunk]);
      const end = bytes.lastIndexOf(newline) + 1;
      this.#carry = bytes.subarray(end);
      if (this.#carry.length > maxLineBytes) this.#carry = Buffer.alloc(0);
      if (end > 0) yield bytes.subarray(0, end);
    }
  }

  async *#inflate(): AsyncGenerator<Buffer> {
    const source = Readable.from(this.#compressed());
    const gunzip = createGunzip();
    // The error, if there is one, comes out of the loop below.
    pipeline(source, gunzip, () => undefined);
    try {
      for await (const chunk of gunzip as Readable & AsyncIterable<Buffer>) yield chunk;
    } catch (error) {
      // A host crash may have cut it: what came out before is as good as ever.
      if (!errorCode(error)?.startsWith("Z_")) throw error;
    } finally {
      source.destroy();
      gunzip.destroy();
    }
  }

  async *#compressed(): AsyncGenerator<Buffer> {
    for (let position = 0; ;) {
      const buffer = Buffer.allocUnsafe(chunkBytes);
      const { bytesRead } = await this.#handle.read(buffer, 0, chunkBytes, position);
      if (bytesRead === 0) return;
      position += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }
}

/** Counts beginnings of lines from the start of a log on. */
class LineCounter {
  readonly #lineEnds = new LineEnds();
  begun = 0;
  /** The last record ended its line. */
  ended = true;

  /** Goes through whole lines until more than `most` have begun. Returns the index of the one that is too many. */
  scan(chunk: Buffer, most: number): number {
    let start = 0;
    while (start < chunk.length && this.begun <= most) {
      const end = chunk.indexOf(newline, start);
      const ends = this.#lineEnds.of(chunk, start, end);
      if (ends !== undefined) {
        if (this.ended) this.begun += 1;
        if (this.begun > most) break;
        this.ended = ends;
      }
      start = end + 1;
    }
    return this.begun > most ? start : chunk.length;
  }
}

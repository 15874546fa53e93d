import { createReadStream, createWriteStream } from "node:fs";
import { appendFile, open, rename, rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { setImmediate as tick } from "node:timers/promises";
import { createGzip } from "node:zlib";

export interface WriterOptions {
  /** Bytes after which the file is rotated, looked at before each record as Docker does. */
  readonly maxSize: number;
  readonly maxFiles: number;
  readonly compress: boolean;
  /** 0 <= n < 1 */
  readonly random: () => number;
  /** Awaited before each rotation. */
  readonly beforeRotation: () => Promise<void>;
}

/** The longest part of a line that one record holds: Docker's copier has a buffer of this size. */
const partBytes = 16 * 1024;

/**
 * Writes a log as Docker's json-file driver does: records of at most 16 KiB, rotation by renaming from the oldest file
 * to the newest and then opening a new one, compression of what was renamed, with pauses at random between all steps,
 * so that a reader sees every state in between.
 */
export class JsonLogWriter {
  readonly #path: string;
  readonly #options: WriterOptions;
  #size = 0;
  #nanos = 0n;
  /** The text in each file that is there, oldest first. */
  readonly #kept: string[] = [""];
  /** How often it was rotated. */
  rotations = 0;
  /** All text that was ever written. */
  text = "";

  constructor(path: string, options: WriterOptions) {
    this.#path = path;
    this.#options = options;
  }

  /** What a reader that comes now can find. */
  get kept(): string {
    return this.#kept.join("");
  }

  /** Writes one line, without its newline in `text`. */
  async writeLine(text: string, stream: "stdout" | "stderr" = "stdout"): Promise<void> {
    const line = `${text}\n`;
    for (let at = 0; at < line.length; at += partBytes) {
      await this.#writeRecord(line.slice(at, at + partBytes), stream);
    }
  }

  async #writeRecord(log: string, stream: string): Promise<void> {
    if (this.#size >= this.#options.maxSize) {
      await this.#options.beforeRotation();
      await this.#rotate();
    }
    this.#nanos += 1000n + BigInt(Math.floor(this.#options.random() * 1000));
    const fraction = String(this.#nanos % 1_000_000_000n).padStart(9, "0");
    const second = new Date(Number(this.#nanos / 1_000_000_000n) * 1000).toISOString().slice(0, 19);
    const time = `${second}.${fraction}Z`.replace(/\.?0*Z$/, "Z");
    const record = `${JSON.stringify({ log, stream, time })}\n`;
    await this.#pause();
    await appendFile(this.#path, record);
    this.text += log;
    this.#kept.push(`${this.#kept.pop() ?? ""}${log}`);
    this.#size += Buffer.byteLength(record);
  }

  async #rotate(): Promise<void> {
    const { compress, maxFiles } = this.#options;
    const suffix = compress ? ".gz" : "";
    for (let age = maxFiles - 1; age > 1; age -= 1) {
      await this.#move(`${this.#path}.${age - 1}${suffix}`, `${this.#path}.${age}${suffix}`);
    }
    await this.#move(this.#path, `${this.#path}.1`);
    await (await open(this.#path, "w")).close();
    this.#size = 0;
    this.rotations += 1;
    this.#kept.push("");
    if (this.#kept.length > maxFiles) this.#kept.shift();
    if (!compress) return;
    await this.#pause();
    const from = `${this.#path}.1`;
    await pipeline(createReadStream(from), createGzip(), createWriteStream(`${from}.gz`));
    await this.#pause();
    await rm(from);
  }

  async #move(from: string, to: string): Promise<void> {
    await this.#pause();
    await rename(from, to).catch((error: unknown) => {
      if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
    });
  }

  async #pause(): Promise<void> {
    for (let left = Math.floor(this.#options.random() * 4); left > 0; left -= 1) await tick();
  }
}

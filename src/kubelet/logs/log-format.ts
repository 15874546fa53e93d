import { parseLogLine } from "./log-line.ts";
import { RecordDecoder } from "./record-decoder.ts";

export interface LogFormat {
  readonly timestamps: boolean;
  readonly stream: "all" | "stdout" | "stderr";
  /** {@link fixedTimestamp}; older records are left out. */
  readonly since: string | undefined;
  /** Output ends after this many bytes. */
  readonly limitBytes: number | undefined;
}

const newline = 0x0a;
/** Of a {@link fixedTimestamp}. */
const stampBytes = 30;

/** Turns a json-file log into the bytes a client of the log endpoint reads; remembers open lines and the byte limit. */
export class LogFormatter {
  readonly #format: LogFormat;
  readonly #since: Buffer | undefined;
  readonly #decoder = new RecordDecoder();
  /** Whether the last record of a stream did not end its line. */
  readonly #open = { stdout: false, stderr: false };
  readonly #stamp = Buffer.alloc(stampBytes + 1, " ");
  #remaining: number;
  #target: Buffer = Buffer.alloc(0);
  #used = 0;

  constructor(format: LogFormat) {
    this.#format = format;
    this.#since = format.since === undefined ? undefined : Buffer.from(format.since);
    this.#remaining = format.limitBytes ?? Number.POSITIVE_INFINITY;
  }

  /** The byte limit is reached; nothing more will come out. */
  get full(): boolean {
    return this.#remaining <= 0;
  }

  /** Bytes to send for whole lines of a log file; may be empty. The last newline may be missing. */
  write(lines: Buffer): Buffer {
    // A record is longer than what comes of it: its names take more room than a timestamp.
    this.#target = Buffer.allocUnsafe(lines.length);
    this.#used = 0;
    let start = 0;
    while (start < lines.length && !this.full) {
      const found = lines.indexOf(newline, start);
      const end = found < 0 ? lines.length : found;
      if (!this.#decode(lines, start, end)) this.#parse(lines.subarray(start, end));
      start = end + 1;
    }
    return this.#target.subarray(0, this.#used);
  }

  #decode(lines: Buffer, start: number, end: number): boolean {
    const { timestamps } = this.#format;
    const decoder = this.#decoder;
    const textAt = this.#used + (timestamps ? this.#stamp.length : 0);
    if (!decoder.decode(lines, start, end, this.#target, textAt)) return false;
    if (timestamps || this.#since !== undefined) {
      this.#setStamp(lines, decoder.timeAt, decoder.timeEnd);
    }
    this.#finish(decoder.stream, textAt, decoder.textEnd);
    return true;
  }

  /** The long way, for what was not written as usual. */
  #parse(line: Buffer): void {
    const record = parseLogLine(line);
    if (record === undefined) return;
    const text = Buffer.from(record.text);
    const textAt = this.#used + (this.#format.timestamps ? this.#stamp.length : 0);
    // Bytes that are no UTF-8 have each become the three of U+FFFD.
    const excess = textAt - this.#used + text.length - line.length;
    if (excess > 0) this.#target = Buffer.concat([this.#target, Buffer.allocUnsafe(excess)]);
    text.copy(this.#target, textAt);
    this.#stamp.write(record.time, "latin1");
    this.#finish(record.stream, textAt, textAt + text.length);
  }

  /** Keeps the text at `textAt`, with its time in front when it begins a line, if it is wanted. */
  #finish(stream: "stdout" | "stderr", textAt: number, textEnd: number): void {
    if (
      this.#since !== undefined &&
      this.#stamp.compare(this.#since, 0, stampBytes, 0, stampBytes) < 0
    ) {
      return;
    }
    if (this.#format.stream !== "all" && this.#format.stream !== stream) return;
    // A line longer than the writer's buffer arrives in parts; only its beginning carries a time.
    const continues = this.#open[stream];
    this.#open[stream] = textEnd === textAt || this.#target[textEnd - 1] !== newline;
    const from = this.#used;
    if (!this.#format.timestamps) this.#used = textEnd;
    else if (continues) {
      this.#target.copyWithin(from, textAt, textEnd);
      this.#used = from + textEnd - textAt;
    } else {
      this.#target.set(this.#stamp, from);
      this.#used = textEnd;
    }
    this.#used = Math.min(this.#used, from + this.#remaining);
    this.#remaining -= this.#used - from;
  }

  /** Fills the fraction up to nine digits. */
  #setStamp(lines: Buffer, at: number, end: number): void {
    const stamp = this.#stamp;
    const given = end - at - 1;
    for (let index = 0; index < stampBytes - 1; index += 1) {
      stamp[index] = index < given ? (lines[at + index] ?? 0) : index === 19 ? 0x2e : 0x30;
    }
    stamp[stampBytes - 1] = 0x5a;
  }
}

import { endsLine, type LogRecord } from "./log-line.ts";

export interface LogFormat {
  readonly timestamps: boolean;
  readonly stream: "all" | "stdout" | "stderr";
  /** {@link fixedTimestamp}; older records are left out. */
  readonly since: string | undefined;
  /** Output ends after this many bytes. */
  readonly limitBytes: number | undefined;
}

/** Turns records into the bytes a client of the log endpoint reads; remembers open lines and the byte limit. */
export class LogFormatter {
  readonly #format: LogFormat;
  readonly #openLines = new Set<string>();
  #remaining: number;

  constructor(format: LogFormat) {
    this.#format = format;
    this.#remaining = format.limitBytes ?? Number.POSITIVE_INFINITY;
  }

  /** The byte limit is reached; nothing more will come out. */
  get full(): boolean {
    return this.#remaining <= 0;
  }

  /** Bytes to send for `records`; may be empty. */
  write(records: readonly LogRecord[]): Buffer {
    let text = "";
    for (const record of records) text += this.#text(record);
    const bytes = Buffer.from(text);
    const kept = bytes.subarray(0, Math.min(bytes.length, this.#remaining));
    this.#remaining -= kept.length;
    return kept;
  }

  #text(record: LogRecord): string {
    const { since, stream, timestamps } = this.#format;
    if (since !== undefined && record.time < since) return "";
    if (stream !== "all" && record.stream !== stream) return "";
    // A line longer than the writer's buffer arrives in parts; only its beginning carries a time.
    const continues = this.#openLines.has(record.stream);
    if (endsLine(record)) this.#openLines.delete(record.stream);
    else this.#openLines.add(record.stream);
    return timestamps && !continues ? `${record.time} ${record.text}` : record.text;
  }
}

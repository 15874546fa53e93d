import { chunkBytes, newline } from "./log-file.ts";
import { endsLine, parseLogLine } from "./log-line.ts";
import { RecordDecoder } from "./record-decoder.ts";

/** Tells of records whether they end a line, without making anything of them. */
export class LineEnds {
  readonly #decoder = new RecordDecoder();
  #text: Buffer = Buffer.allocUnsafe(chunkBytes);

  /** Whether the record `bytes[start, end)` ends a line of the container's output; undefined when it is no record. */
  of(bytes: Buffer, start: number, end: number): boolean | undefined {
    if (end - start > this.#text.length) this.#text = Buffer.allocUnsafe(end - start);
    if (this.#decoder.decode(bytes, start, end, this.#text, 0)) {
      const { textEnd } = this.#decoder;
      return textEnd > 0 && this.#text[textEnd - 1] === newline;
    }
    const record = parseLogLine(bytes.subarray(start, end));
    return record === undefined ? undefined : endsLine(record);
  }
}

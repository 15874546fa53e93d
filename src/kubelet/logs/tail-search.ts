import { LineEnds } from "./line-ends.ts";
import { newline } from "./log-file.ts";

/** Counts beginnings of lines from the end of a file towards its start. */
export class TailSearch {
  readonly #continued: boolean;
  readonly #lineEnds = new LineEnds();
  #wanted: number;
  /** 1 when the newest line goes on in the newer file, where it was counted. */
  #shared = 0;
  #begun = 0;
  /** Position of the record looked at last, which begins a line if the one before it ends one. */
  #candidate: number | undefined;
  /** Where the lines begin, once they are found. */
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
      const ends = this.#lineEnds.of(bytes, start, stop);
      if (ends !== undefined && this.#take(ends, offset + start, offset + end)) return true;
      end = start;
    }
    return false;
  }

  #take(ends: boolean, position: number, end: number): boolean {
    if (this.#candidate === undefined) {
      if (this.#continued && !ends) this.#shared = 1;
      this.#wanted += this.#shared;
      if (this.#wanted === 0) this.#candidate = end;
    } else if (ends) {
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

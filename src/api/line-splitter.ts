/**
 * Cuts a stream of chunks into lines without ever holding more than the unfinished one. Splitting is done on bytes, so
 * that a character cut in half by a chunk border survives.
 */
export class LineSplitter {
  #pending: Buffer[] = [];

  /**
   * Takes in the next chunk.
   *
   * @yields the lines that `chunk` completes, without their newline; empty lines are left out.
   */
  *push(chunk: Buffer): Generator<string, void, undefined> {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(10, start);
      if (end < 0) break;
      const line = this.#complete(chunk.subarray(start, end));
      start = end + 1;
      if (line !== "") yield line;
    }
    if (start < chunk.length) this.#pending.push(chunk.subarray(start));
  }

  /** Whether bytes of an unfinished line are held. */
  get unfinished(): boolean {
    return this.#pending.length > 0;
  }

  #complete(tail: Buffer): string {
    if (this.#pending.length === 0) return tail.toString("utf8").trim();
    const whole = Buffer.concat([...this.#pending, tail]);
    this.#pending = [];
    return whole.toString("utf8").trim();
  }
}

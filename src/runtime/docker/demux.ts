export type OutputStream = "stdout" | "stderr";

export interface OutputChunk {
  readonly stream: OutputStream;
  readonly chunk: Uint8Array;
}

const headerBytes = 8;

/**
 * Splits the engine's multiplexed stream: frames of `[type, 0, 0, 0, length as uint32 BE, payload]`. Types 0 and 1 are
 * stdout, 2 is stderr, 3 is an error of the engine itself and goes to stderr.
 *
 * Iterative and without copies: payloads are views of the chunks, and a frame that spans chunks is passed on in parts.
 */
export class FrameParser {
  readonly #header = Buffer.alloc(headerBytes);
  #headerFill = 0;
  #remaining = 0;
  #stream: OutputStream = "stdout";

  /** True between frames: the only place where a whole stream may end. */
  get atBoundary(): boolean {
    return this.#remaining === 0 && this.#headerFill === 0;
  }

  push(chunk: Uint8Array): OutputChunk[] {
    const out: OutputChunk[] = [];
    let at = 0;
    while (at < chunk.length) {
      if (this.#remaining > 0) {
        const end = Math.min(at + this.#remaining, chunk.length);
        out.push({ stream: this.#stream, chunk: chunk.subarray(at, end) });
        this.#remaining -= end - at;
        at = end;
        continue;
      }
      const end = Math.min(at + headerBytes - this.#headerFill, chunk.length);
      this.#header.set(chunk.subarray(at, end), this.#headerFill);
      this.#headerFill += end - at;
      at = end;
      if (this.#headerFill === headerBytes) {
        this.#headerFill = 0;
        this.#stream = this.#header.readUInt8(0) >= 2 ? "stderr" : "stdout";
        this.#remaining = this.#header.readUInt32BE(4);
      }
    }
    return out;
  }
}

/** Above this many waiting bytes the sender is told to stop. */
const highWaterBytes = 256 * 1024;

/** Bytes from a socket's callback to one consumer, with a say on when the socket has to stop. */
export class ByteQueue implements AsyncIterable<Uint8Array> {
  readonly #chunks: Uint8Array[] = [];
  readonly #onFlow: (flowing: boolean) => void;
  #bytes = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  /** @param onFlow Told `false` when too much waits, `true` when it may come again. */
  constructor(onFlow: (flowing: boolean) => void) {
    this.#onFlow = onFlow;
  }

  push(chunk: Uint8Array): void {
    if (this.#ended || chunk.length === 0) return;
    const before = this.#bytes;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (before <= highWaterBytes && this.#bytes > highWaterBytes) this.#onFlow(false);
    this.#wake?.();
  }

  /** No more will come; what waits can still be read. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** Nobody will read what waits: it is dropped, and the socket need not stop any more. */
  discard(): void {
    const full = this.#bytes > highWaterBytes;
    this.#chunks.length = 0;
    this.#bytes = 0;
    this.end();
    if (full) this.#onFlow(true);
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        const before = this.#bytes;
        this.#bytes -= chunk.length;
        if (before > highWaterBytes && this.#bytes <= highWaterBytes) this.#onFlow(true);
        yield chunk;
      } else if (this.#ended) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    }
  }
}

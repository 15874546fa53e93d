import { once } from "node:events";
import { PassThrough } from "node:stream";

import type { StreamSession } from "../../../src/runtime/types.ts";

/** A process as a test scripts it. */
export class FakeSession implements StreamSession {
  readonly stdin = new PassThrough({ highWaterMark: 1024 });
  readonly sizes: { width: number; height: number }[] = [];
  aborted = false;
  stdinClosed = false;
  readonly #output = new PassThrough({ objectMode: true, highWaterMark: 4 });
  readonly #exit = Promise.withResolvers<number | undefined>();
  readonly #abort = Promise.withResolvers<undefined>();
  readonly exitCode = this.#exit.promise;
  readonly whenAborted = this.#abort.promise;

  readonly output = this.#read();

  async *#read(): AsyncGenerator<{ stream: "stdout" | "stderr"; chunk: Uint8Array }> {
    for await (const item of this.#output) {
      yield item as { stream: "stdout" | "stderr"; chunk: Uint8Array };
    }
  }

  /** Writes as the process does; waits when nobody reads. */
  async print(stream: "stdout" | "stderr", chunk: string | Uint8Array): Promise<void> {
    if (this.#output.write({ stream, chunk: Buffer.from(chunk) })) return;
    await once(this.#output, "drain");
  }

  exit(code: number | undefined): void {
    this.#output.end();
    this.#exit.resolve(code);
  }

  async writeStdin(chunk: Uint8Array): Promise<void> {
    if (!this.stdin.write(chunk)) await once(this.stdin, "drain");
  }

  closeStdin(): void {
    this.stdinClosed = true;
    this.stdin.end();
  }

  async resize(size: { readonly width: number; readonly height: number }): Promise<void> {
    this.sizes.push({ ...size });
  }

  async abort(): Promise<void> {
    this.aborted = true;
    this.#abort.resolve(undefined);
    this.exit(137);
  }
}

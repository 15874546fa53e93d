import type { Duplex } from "node:stream";
import { once } from "node:events";

import { RuntimeError } from "../errors.ts";
import type { StreamSession } from "../types.ts";
import { FrameParser, type OutputChunk } from "./demux.ts";

export interface SessionOptions {
  readonly stream: Duplex;
  readonly tty: boolean;
  readonly stdin: boolean;
  /**
   * Where the end of the input cannot be passed on, it ends the session: as soon as no output has come during such a
   * wait. Absent, the process sees the end of its input.
   */
  readonly linger?: () => Promise<void>;
  readonly resize: (size: { readonly width: number; readonly height: number }) => Promise<void>;
  /** Asked once, when the output has ended. */
  readonly exitCode: () => Promise<number | undefined>;
  /** Ends the process, before the connection is closed. */
  readonly kill: () => Promise<void>;
  readonly signal: AbortSignal;
}

const refusalPrefix = "OCI runtime exec failed";

function isRefusal(chunk: Uint8Array): boolean {
  return Buffer.from(chunk.buffer, chunk.byteOffset, Math.min(chunk.length, 64))
    .toString("latin1")
    .trimStart()
    .startsWith(refusalPrefix);
}

/** The two-way stream of one exec or attach. */
export class DockerSession implements StreamSession {
  readonly exitCode: Promise<number | undefined>;
  readonly output: AsyncIterable<OutputChunk>;
  readonly #options: SessionOptions;
  readonly #settle: (code: number | undefined) => void;
  readonly #fail: (error: unknown) => void;
  readonly #onAbort = (): void => void this.abort();
  #aborted: Promise<void> | undefined;
  /** Pieces of output. */
  #seen = 0;
  #finishing: Promise<void> | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
    this.exitCode = promise;
    this.#settle = resolve;
    this.#fail = reject;
    // Whoever only reads the output must not be ended by an unobserved rejection.
    promise.catch(() => undefined);
    this.output = this.#read();
    // Errors surface in the read loop; a late EPIPE of a write has no other listener.
    options.stream.on("error", () => undefined);
    if (options.signal.aborted) void this.abort();
    else options.signal.addEventListener("abort", this.#onAbort, { once: true });
    if (!options.stdin) options.stream.end();
  }

  async writeStdin(chunk: Uint8Array): Promise<void> {
    const { stream } = this.#options;
    if (stream.destroyed || stream.writableEnded) {
      throw new RuntimeError("WrongState", "standard input of the session is closed");
    }
    if (stream.write(chunk)) return;
    const done = new AbortController();
    try {
      await Promise.race([
        once(stream, "drain", { signal: done.signal }),
        once(stream, "close", { signal: done.signal }),
      ]);
    } catch {
      // The connection broke: the output's reader is told.
    } finally {
      done.abort();
    }
  }

  closeStdin(): void {
    const { linger, stream } = this.#options;
    if (linger !== undefined) void this.#hangUpWhenQuiet(linger).catch(() => undefined);
    else if (!stream.destroyed && !stream.writableEnded) stream.end();
  }

  async resize(size: { readonly width: number; readonly height: number }): Promise<void> {
    await this.#options.resize(size);
  }

  async abort(): Promise<void> {
    this.#aborted ??= this.#end();
    return this.#aborted;
  }

  /** Closes the connection only: what output is still under way is lost, the process is left alone. */
  hangUp(): void {
    this.#aborted ??= Promise.resolve();
    this.#options.stream.destroy();
  }

  async #hangUpWhenQuiet(linger: () => Promise<void>): Promise<void> {
    for (let seen = -1; seen !== this.#seen;) {
      seen = this.#seen;
      await linger();
    }
    this.hangUp();
  }

  async #end(): Promise<void> {
    try {
      await this.#options.kill();
    } finally {
      this.#options.stream.destroy();
      this.#options.signal.removeEventListener("abort", this.#onAbort);
      // Nobody may be reading the output any more; the exit code is owed all the same.
      void this.#finish();
    }
  }

  async *#read(): AsyncGenerator<OutputChunk, void> {
    let finished = false;
    try {
      yield* this.#chunks();
      finished = true;
    } finally {
      this.#options.signal.removeEventListener("abort", this.#onAbort);
      // The consumer left early: nobody will ask for the rest.
      if (!finished) this.#options.stream.destroy();
      await this.#finish();
    }
  }

  async *#chunks(): AsyncGenerator<OutputChunk, void> {
    const parser = new FrameParser();
    const { tty } = this.#options;
    let held: OutputChunk | undefined;
    let first = true;
    for await (const bytes of this.#bytes()) {
      const chunks: OutputChunk[] = tty ? [{ stream: "stdout", chunk: bytes }] : parser.push(bytes);
      for (const chunk of chunks) {
        if (held !== undefined) {
          yield held;
          held = undefined;
        }
        // A command that cannot be started is told as output; the exit code decides what it was.
        if (first && isRefusal(chunk.chunk)) held = chunk;
        else yield chunk;
        first = false;
      }
    }
    if (held === undefined) return;
    await this.#finish();
    const code = await this.exitCode.catch(() => undefined);
    const refused = code === 126 || code === 127;
    yield refused ? { stream: "stderr", chunk: held.chunk } : held;
  }

  async *#bytes(): AsyncGenerator<Uint8Array, void> {
    try {
      for await (const chunk of this.#options.stream) {
        this.#seen += 1;
        yield chunk as Uint8Array;
      }
    } catch (error) {
      // After abort the connection is torn by ourselves.
      if (this.#aborted !== undefined) return;
      throw new RuntimeError("Unavailable", "the connection of the session broke", {
        cause: error,
      });
    }
  }

  async #finish(): Promise<void> {
    this.#finishing ??= this.#options.exitCode().then(this.#settle, this.#fail);
    await this.#finishing;
  }
}

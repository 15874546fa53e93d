import { Duplex } from "node:stream";

import { emptyHeaderBlock, HeaderReader, SpdyError, type SpdyHeaders } from "./spdy-headers.ts";

const control = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  ping: 6,
  goAway: 7,
  headers: 8,
} as const;
const flagFin = 1;
const resetCancel = 5;
const maxFrameBytes = 4 * 1024 * 1024;
/** What one stream may hold back before the whole connection waits: the peer does no flow control. */
const streamBufferBytes = 1024 * 1024;

/** One stream that the peer opened. */
export interface SpdyStream {
  readonly headers: SpdyHeaders;
  /** Reads what the peer sends, writes to it; each side half-closes on its own. */
  readonly duplex: Duplex;
  /** Ends both directions at once, without a word about why. */
  reset(): void;
}

interface OpenStream extends SpdyStream {
  readonly id: number;
  drained: (() => void) | undefined;
}

/**
 * The server's side of SPDY/3.1 as Kubernetes clients speak it: they open streams, we answer each. Only what they use
 * is implemented; priorities, settings and windows are read over, as their own library does.
 */
export class SpdyConnection {
  readonly #transport: Duplex;
  readonly #onStream: (stream: SpdyStream) => void;
  readonly #streams = new Map<number, OpenStream>();
  readonly #headers = new HeaderReader();
  readonly #gone = new AbortController();
  #replied = false;

  /** @param onStream Called for each new stream, after its reply. Must not throw. */
  constructor(transport: Duplex, onStream: (stream: SpdyStream) => void) {
    this.#transport = transport;
    this.#onStream = onStream;
    // A reset connection shows in its close.
    transport.on("error", () => undefined);
    transport.once("close", () => {
      this.#gone.abort();
    });
  }

  /** Aborts when the connection is over. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Reads frames until the peer ends the connection or breaks the protocol. Never rejects. */
  async run(): Promise<void> {
    let rest: Buffer = Buffer.alloc(0);
    try {
      for await (const chunk of this.#transport) {
        if (!Buffer.isBuffer(chunk)) throw new SpdyError("the transport carries no bytes");
        rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
        rest = await this.#frames(rest);
      }
    } catch {
      // Torn or broken: there is nobody left to tell, the streams below learn it.
    } finally {
      this.#transport.destroy();
      this.#gone.abort();
      this.#headers.close();
      for (const stream of this.#streams.values()) stream.duplex.destroy();
      this.#streams.clear();
    }
  }

  /** Says goodbye and closes when all that was written has gone out. */
  close(): void {
    this.#control(control.goAway, 0, Buffer.alloc(8));
    this.#transport.end();
  }

  async #frames(bytes: Buffer): Promise<Buffer> {
    let rest = bytes;
    while (rest.length >= 8) {
      const length = rest.readUIntBE(5, 3);
      if (length > maxFrameBytes) throw new SpdyError("a frame is too large");
      if (rest.length < 8 + length) break;
      const head = rest.subarray(0, 8);
      const payload = rest.subarray(8, 8 + length);
      rest = rest.subarray(8 + length);
      const first = head.readUInt8(0);
      if (first >= 0x80) await this.#controlFrame(head.readUInt16BE(2), head.readUInt8(4), payload);
      else await this.#dataFrame(head.readUInt32BE(0), head.readUInt8(4), payload);
    }
    return rest;
  }

  async #dataFrame(id: number, flags: number, payload: Buffer): Promise<void> {
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.duplex.destroyed) return;
    if (payload.length > 0 && !stream.duplex.push(Buffer.from(payload))) {
      await new Promise<void>((resolve) => {
        stream.drained = resolve;
      });
    }
    if ((flags & flagFin) !== 0) stream.duplex.push(null);
  }

  async #controlFrame(type: number, flags: number, payload: Buffer): Promise<void> {
    switch (type) {
      case control.synStream:
        await this.#open(streamID(payload), flags, payload.subarray(10));
        return;
      case control.headers:
        // Must be read although nobody wants it: the blocks share one compression context.
        await this.#headers.read(payload.subarray(4));
        return;
      case control.rstStream:
        this.#streams.get(streamID(payload))?.duplex.destroy();
        return;
      case control.ping:
        // Odd numbers are the peer's own pings, even ones its answers.
        if (payload.length === 4 && payload.readUInt32BE(0) % 2 === 1) {
          this.#control(control.ping, 0, payload);
        }
        return;
      default:
    }
  }

  async #open(id: number, flags: number, block: Buffer): Promise<void> {
    const headers = await this.#headers.read(block);
    if (this.#streams.has(id)) throw new SpdyError("a stream was opened twice");
    const duplex = new Duplex({
      allowHalfOpen: true,
      readableHighWaterMark: streamBufferBytes,
      read: () => {
        stream.drained?.();
        stream.drained = undefined;
      },
      write: (chunk: Buffer, _encoding, done) => {
        this.#data(id, chunk, 0, done);
      },
      final: (done) => {
        this.#data(id, Buffer.alloc(0), flagFin, done);
      },
      destroy: (error, done) => {
        this.#streams.delete(id);
        stream.drained?.();
        done(error);
      },
    });
    // Ends of the peer's making; whoever reads or writes gets them as well.
    duplex.on("error", () => undefined);
    const stream: OpenStream = {
      id,
      headers,
      duplex,
      drained: undefined,
      reset: () => {
        if (duplex.destroyed) return;
        this.#control(control.rstStream, 0, Buffer.concat([uint32(id), uint32(resetCancel)]));
        duplex.destroy();
      },
    };
    this.#streams.set(id, stream);
    if ((flags & flagFin) !== 0) duplex.push(null);
    const reply = Buffer.concat([uint32(id), emptyHeaderBlock(!this.#replied)]);
    this.#replied = true;
    this.#control(control.synReply, 0, reply);
    this.#onStream(stream);
  }

  #control(type: number, flags: number, payload: Buffer): void {
    if (!this.#transport.writable) return;
    const head = Buffer.alloc(8);
    head.writeUInt16BE(0x8003, 0);
    head.writeUInt16BE(type, 2);
    head.writeUInt32BE(payload.length, 4);
    head.writeUInt8(flags, 4);
    this.#transport.write(Buffer.concat([head, payload]));
  }

  #data(id: number, payload: Buffer, flags: number, done: (error?: Error | null) => void): void {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(id, 0);
    head.writeUInt32BE(payload.length, 4);
    head.writeUInt8(flags, 4);
    this.#transport.write(Buffer.concat([head, payload]), done);
  }
}

function streamID(payload: Buffer): number {
  if (payload.length < 4) throw new SpdyError("a frame ends early");
  return payload.readUInt32BE(0) % 0x80000000;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value, 0);
  return bytes;
}

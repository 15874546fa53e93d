import { Duplex } from "node:stream";

import type { Clock } from "../../../lib/clock.ts";
import { Heartbeat } from "./heartbeat.ts";
import {
  control,
  controlFrame,
  dataHead,
  flagFin,
  FrameParser,
  resetReason,
  type SpdyFrame,
  uint32,
} from "./spdy-frames.ts";
import { emptyHeaderBlock, HeaderReader, SpdyError, type SpdyHeaders } from "./spdy-headers.ts";

/** Open at a time: a port-forward uses two for each connection. More are refused one by one. */
const maxStreams = 4096;
/**
 * Clients do no flow control: what a slow stream's reader does not take is held back here, and beyond these bounds
 * nothing more is read from the connection. The first bound is one stream's, the second that of all together.
 */
const maxStreamBytes = 1024 * 1024;
const maxHeldBytes = 8 * 1024 * 1024;
/** Answers that the peer has not taken yet, such as those to a flood of pings. */
const maxAnswerBytes = 64 * 1024;
const maxFrameBytes = 1024 * 1024;
const closeDeadlineMs = 10_000;

/** One stream that the peer opened. */
export interface SpdyStream {
  /** Odd, and each greater than the one before. */
  readonly id: number;
  readonly headers: SpdyHeaders;
  /**
   * Reads what the peer sends, writes to it; each side half-closes on its own. Destroyed before both have, it is reset:
   * the peer learns that something is missing, not what.
   */
  readonly duplex: Duplex;
}

export interface SpdyOptions {
  readonly transport: Duplex;
  readonly clock: Clock;
  /** Called for each new stream, after its reply. Must not throw. */
  readonly onStream: (stream: SpdyStream) => void;
}

interface OpenStream extends SpdyStream {
  /** The peer has said its last byte. */
  finished: boolean;
  /** Either side has reset it. */
  wasReset: boolean;
}

type Done = (error?: Error | null) => void;

/**
 * The server's side of SPDY/3.1 as Kubernetes clients speak it: they open streams, we answer each. Only what they use
 * is implemented; priorities, settings and windows are read over, as their own library does.
 */
export class SpdyConnection {
  readonly #options: SpdyOptions;
  readonly #transport: Duplex;
  readonly #streams = new Map<number, OpenStream>();
  /** Their readers are slower than the peer. */
  readonly #full = new Set<Duplex>();
  readonly #headers = new HeaderReader();
  readonly #gone = new AbortController();
  readonly #heartbeat: Heartbeat;
  #pings = 0;
  #lastID = 0;
  #replied = false;
  #answerBytes = 0;
  #wake: (() => void) | undefined;
  /** Writes that wait for the transport, in order. */
  #blocked: Done[] = [];
  #closing = false;

  constructor(options: SpdyOptions) {
    this.#options = options;
    const { transport } = options;
    this.#transport = transport;
    const beat = (): void => {
      // Ours are even.
      this.#pings += 2;
      this.#control(control.ping, uint32(this.#pings));
    };
    this.#heartbeat = new Heartbeat({ clock: options.clock, beat, gone: this.gone });
    // A reset connection shows in its close.
    transport.on("error", () => undefined);
    transport.on("drain", () => {
      this.#unblock(null);
    });
    transport.once("close", () => {
      this.#end();
    });
  }

  /** Aborts when the connection is over. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Reads frames until the peer ends the connection or breaks the protocol. Never rejects. */
  async run(): Promise<void> {
    const parser = new FrameParser();
    try {
      for await (const chunk of this.#transport) {
        if (!Buffer.isBuffer(chunk)) throw new SpdyError("the transport carries no bytes");
        for (const frame of parser.push(chunk)) {
          const busy = this.#take(frame);
          if (busy !== undefined) await busy;
          if (this.#gone.signal.aborted) break;
        }
      }
    } catch {
      // Torn or broken: there is nobody left to tell, the streams below learn it.
    } finally {
      this.#transport.destroy();
      this.#end();
      this.#headers.close();
    }
  }

  /** Says goodbye and closes when all that was written has gone out, or after a while in any case. */
  close(): void {
    if (this.#closing || !this.#transport.writable) return;
    this.#closing = true;
    this.#control(control.goAway, uint32(this.#lastID, 0));
    this.#transport.end();
    void this.#options.clock.sleep(closeDeadlineMs, this.gone).then(
      () => this.#transport.destroy(),
      () => undefined,
    );
  }

  /** Nothing more comes or goes: whoever reads or writes a stream is told now, not when its turn would have come. */
  #end(): void {
    if (this.#gone.signal.aborted) return;
    this.#gone.abort();
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const { duplex } of streams) duplex.destroy();
    this.#unblock(new SpdyError("the connection is closed"));
    this.#wake?.();
  }

  #unblock(error: Error | null): void {
    const waiting = this.#blocked;
    this.#blocked = [];
    for (const done of waiting) done(error);
  }

  /** A promise when the frame after this one has to wait. */
  #take(frame: SpdyFrame): Promise<void> | undefined {
    if (frame.kind === "control") return this.#controlFrame(frame);
    this.#dataFrame(frame.id, frame.payload, frame.fin);
    return this.#crowded() ? this.#room() : undefined;
  }

  #dataFrame(id: number, payload: Buffer, fin: boolean): void {
    const stream = this.#streams.get(id);
    if (stream === undefined && (id > this.#lastID || id % 2 === 0)) {
      throw new SpdyError("data for a stream that was never opened");
    }
    // Under way while the stream was being reset.
    if (stream === undefined || stream.duplex.destroyed) return;
    const { duplex } = stream;
    if (stream.finished) {
      this.#reset(stream, resetReason.protocolError);
      return;
    }
    if (payload.length > 0 && !duplex.push(payload)) this.#full.add(duplex);
    if (fin) finish(stream);
  }

  #crowded(): boolean {
    if (this.#answerBytes > maxAnswerBytes) return true;
    let held = 0;
    for (const { readableLength } of this.#full) {
      if (readableLength > maxStreamBytes) return true;
      held += readableLength;
    }
    return held > maxHeldBytes;
  }

  async #room(): Promise<void> {
    if (!this.#crowded()) return;
    this.#heartbeat.start();
    while (this.#crowded() && !this.gone.aborted) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#wake = undefined;
    this.#heartbeat.stop();
  }

  async #controlFrame({
    type,
    flags,
    payload,
  }: Extract<SpdyFrame, { kind: "control" }>): Promise<void> {
    switch (type) {
      case control.synStream:
        await this.#open(streamID(payload), (flags & flagFin) !== 0, payload.subarray(10));
        break;
      case control.headers:
        // Must be read although nobody wants it: the blocks share one compression context.
        await this.#headers.read(payload.subarray(4));
        break;
      case control.rstStream: {
        const stream = this.#streams.get(streamID(payload));
        if (stream === undefined) break;
        stream.wasReset = true;
        stream.duplex.destroy();
        break;
      }
      case control.ping:
        // Odd numbers are the peer's own pings, even ones its answers.
        if (payload.length === 4 && payload.readUInt32BE(0) % 2 === 1) {
          this.#control(control.ping, payload);
        }
        break;
      default:
    }
    await this.#room();
  }

  async #open(id: number, fin: boolean, block: Buffer): Promise<void> {
    const headers = await this.#headers.read(block);
    if (id % 2 === 0 || id <= this.#lastID) throw new SpdyError("a stream's number is out of turn");
    this.#lastID = id;
    if (this.#closing || this.#streams.size >= maxStreams) {
      this.#control(control.rstStream, uint32(id, resetReason.refusedStream));
      return;
    }
    const stream = this.#newStream(id, headers);
    this.#streams.set(id, stream);
    this.#control(control.synReply, Buffer.concat([uint32(id), emptyHeaderBlock(!this.#replied)]));
    this.#replied = true;
    if (fin) finish(stream);
    this.#options.onStream(stream);
  }

  #newStream(id: number, headers: SpdyHeaders): OpenStream {
    const duplex = new Duplex({
      allowHalfOpen: true,
      read: () => {
        if (this.#full.delete(duplex)) this.#wake?.();
      },
      write: (chunk: Buffer, _encoding, done) => {
        this.#data(id, chunk, 0, done);
      },
      final: (done) => {
        this.#data(id, Buffer.alloc(0), flagFin, done);
      },
      destroy: (error, done) => {
        this.#streams.delete(id);
        if (this.#full.delete(duplex)) this.#wake?.();
        if (!stream.finished || !duplex.writableFinished) this.#reset(stream, resetReason.cancel);
        done(error);
      },
    });
    // Ends of the peer's making; whoever reads or writes gets them as well.
    duplex.on("error", () => undefined);
    const stream: OpenStream = {
      id,
      headers,
      duplex,
      finished: false,
      wasReset: false,
    };
    return stream;
  }

  #reset(stream: OpenStream, reason: number): void {
    if (stream.wasReset) return;
    stream.wasReset = true;
    this.#control(control.rstStream, uint32(stream.id, reason));
    stream.duplex.destroy();
  }

  #control(type: number, payload: Uint8Array): void {
    if (!this.#transport.writable) return;
    const frame = controlFrame(type, 0, payload);
    this.#answerBytes += frame.length;
    this.#transport.write(frame, () => {
      this.#answerBytes -= frame.length;
      if (this.#answerBytes <= maxAnswerBytes) this.#wake?.();
    });
  }

  #data(id: number, payload: Buffer, flags: number, done: Done): void {
    const transport = this.#transport;
    if (!transport.writable) {
      done(new SpdyError("the connection is closed"));
      return;
    }
    // Head and payload go out in one piece, without a copy of the payload here.
    transport.cork();
    for (let at = 0; at < payload.length || at === 0; at += maxFrameBytes) {
      const piece = payload.subarray(at, at + maxFrameBytes);
      transport.write(dataHead(id, flags, piece.length));
      if (piece.length > 0) transport.write(piece);
    }
    transport.uncork();
    if (transport.writableNeedDrain) this.#blocked.push(done);
    else done();
  }
}

function finish(stream: OpenStream): void {
  stream.finished = true;
  stream.duplex.push(null);
}

function streamID(payload: Buffer): number {
  if (payload.length < 4) throw new SpdyError("a frame ends early");
  return payload.readUInt32BE(0) % 0x80000000;
}

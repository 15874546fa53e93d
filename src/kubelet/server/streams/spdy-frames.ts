import { SpdyError } from "./spdy-headers.ts";

/** Types of control frames that Kubernetes clients send or get (SPDY/3.1, section 2.6). */
export const control = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  ping: 6,
  goAway: 7,
  headers: 8,
} as const;

/** The sender's last frame on its stream. */
export const flagFin = 1;

/** Reasons in a RST_STREAM. */
export const resetReason = { protocolError: 1, refusedStream: 3, cancel: 5 } as const;

export type SpdyFrame =
  | {
      readonly kind: "control";
      readonly type: number;
      readonly flags: number;
      readonly payload: Buffer;
    }
  /** A piece of a data frame: large ones are passed on as they come. `fin` is set on the last piece only. */
  | {
      readonly kind: "data";
      readonly id: number;
      readonly payload: Buffer;
      readonly fin: boolean;
    };

const headBytes = 8;
/** Those of real clients have a few hundred bytes; data frames may be of any size, they are never collected. */
const maxControlBytes = 64 * 1024;
const empty = Buffer.alloc(0);

/** Cuts a byte stream into frames, however it arrives. Payloads are views of the chunks where that is possible. */
export class FrameParser {
  readonly #head = Buffer.alloc(headBytes);
  #headFill = 0;
  /** Of the frame that has begun; its payload's bytes that are still to come. */
  #left = 0;
  #parts: Buffer[] = [];

  /**
   * Takes bytes. What it gives must be read to its end before the next.
   *
   * @yields The frames, or pieces of them, that the bytes complete.
   * @throws {SpdyError} while iterating, for a control frame that is too large or of another version of SPDY.
   */
  *push(chunk: Buffer): Generator<SpdyFrame, void> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#headFill < headBytes) {
        const end = Math.min(at + headBytes - this.#headFill, chunk.length);
        chunk.copy(this.#head, this.#headFill, at, end);
        this.#headFill += end - at;
        at = end;
        if (this.#headFill < headBytes) return;
        this.#left = this.#begin();
        if (this.#left > 0) continue;
        yield this.#frame(empty);
        continue;
      }
      const end = Math.min(at + this.#left, chunk.length);
      const part = chunk.subarray(at, end);
      this.#left -= end - at;
      at = end;
      if (this.#isControl && this.#left > 0) this.#parts.push(part);
      else yield this.#frame(part);
    }
  }

  get #isControl(): boolean {
    return this.#head.readUInt8(0) >= 0x80;
  }

  /** Length of the payload. */
  #begin(): number {
    const length = this.#head.readUIntBE(5, 3);
    if (!this.#isControl) return length;
    if (this.#head.readUInt16BE(0) !== 0x8003) throw new SpdyError("a frame is not of SPDY/3");
    if (length > maxControlBytes) throw new SpdyError("a control frame is too large");
    return length;
  }

  #frame(part: Buffer): SpdyFrame {
    const whole = this.#left === 0;
    if (whole) this.#headFill = 0;
    const flags = this.#head.readUInt8(4);
    if (!this.#isControl) {
      const fin = whole && (flags & flagFin) !== 0;
      return { kind: "data", id: this.#head.readUInt32BE(0), payload: part, fin };
    }
    const payload = this.#parts.length === 0 ? part : Buffer.concat([...this.#parts, part]);
    this.#parts = [];
    return { kind: "control", type: this.#head.readUInt16BE(2), flags, payload };
  }
}

/** A control frame as it goes out. */
export function controlFrame(type: number, flags: number, payload: Uint8Array): Buffer {
  const frame = Buffer.alloc(headBytes + payload.length);
  frame.writeUInt16BE(0x8003, 0);
  frame.writeUInt16BE(type, 2);
  frame.writeUInt32BE(payload.length, 4);
  frame.writeUInt8(flags, 4);
  frame.set(payload, headBytes);
  return frame;
}

/** What stands before the payload of a data frame. @param length Below 2^24. */
export function dataHead(id: number, flags: number, length: number): Buffer {
  const head = Buffer.allocUnsafe(headBytes);
  head.writeUInt32BE(id, 0);
  head.writeUInt32BE(length, 4);
  head.writeUInt8(flags, 4);
  return head;
}

export function uint32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, 4 * index);
  return bytes;
}

import { constants, createInflate, type Inflate } from "node:zlib";

import { RemoraError } from "../../../lib/errors.ts";
import { spdyDictionary } from "./spdy-dictionary.ts";

/** The peer broke the protocol; its connection is closed. */
export class SpdyError extends RemoraError {
  readonly code = "REMORA_SPDY";
}

/** Names are lower case, as the peer has to send them. */
export type SpdyHeaders = ReadonlyMap<string, string>;

const maxHeaderBytes = 64 * 1024;
const tooLarge = "a header block is too large";

/** Reads the header blocks of one direction: they share one compression context, so order matters. */
export class HeaderReader {
  readonly #inflate: Inflate;
  #output: Buffer[] = [];
  #outputBytes = 0;

  constructor() {
    this.#inflate = createInflate({ dictionary: spdyDictionary, flush: constants.Z_SYNC_FLUSH });
    this.#inflate.on("data", (chunk: Buffer) => {
      this.#output.push(chunk);
      this.#outputBytes += chunk.length;
      // A few kilobytes can stand for gigabytes: stopped while they come.
      if (this.#outputBytes > maxHeaderBytes) this.#inflate.destroy(new SpdyError(tooLarge));
    });
    // Reported by the write's own callback.
    this.#inflate.on("error", () => undefined);
  }

  /** @throws {SpdyError} for a block that cannot be decompressed or is no list of headers. */
  async read(block: Buffer): Promise<SpdyHeaders> {
    if (this.#inflate.destroyed) throw new SpdyError("a header block follows a damaged one");
    this.#output = [];
    this.#outputBytes = 0;
    await new Promise<void>((resolve, reject) => {
      const fail = (error: Error): void => {
        const known = error instanceof SpdyError;
        reject(known ? error : new SpdyError("a header block is damaged", { cause: error }));
      };
      this.#inflate.once("error", fail);
      this.#inflate.write(block, (error) => {
        this.#inflate.off("error", fail);
        if (error == null) resolve();
        else fail(error);
      });
    });
    if (this.#outputBytes > maxHeaderBytes) throw new SpdyError(tooLarge);
    return parseHeaders(Buffer.concat(this.#output));
  }

  close(): void {
    this.#inflate.destroy();
  }
}

function parseHeaders(bytes: Buffer): SpdyHeaders {
  const headers = new Map<string, string>();
  let at = 0;
  const number = (): number => {
    if (at + 4 > bytes.length) throw new SpdyError("a header block ends early");
    at += 4;
    return bytes.readUInt32BE(at - 4);
  };
  const text = (): string => {
    const length = number();
    if (at + length > bytes.length) throw new SpdyError("a header block ends early");
    at += length;
    return bytes.toString("utf8", at - length, at);
  };
  const count = number();
  for (let index = 0; index < count; index += 1) {
    const name = text().toLowerCase();
    headers.set(name, text());
  }
  return headers;
}

function adler32(bytes: Buffer): number {
  let [a, b] = [1, 0];
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b * 65536 + a;
}

/** The zlib header of a stream that starts with the dictionary (RFC 1950). */
function zlibHeader(): Buffer {
  const header = Buffer.from([0x78, 0x20, 0, 0, 0, 0]);
  header.writeUInt32BE(adler32(spdyDictionary), 2);
  const check = header.readUInt16BE(0) % 31;
  header.writeUInt8(0x20 + ((31 - check) % 31), 1);
  return header;
}

/**
 * A block without headers, for the reply to a new stream, stored and not compressed: then no compressor is needed. The
 * empty block at its end makes the peer's decompressor hand it over at once.
 *
 * @param first The first block of the connection opens the zlib stream.
 */
export function emptyHeaderBlock(first: boolean): Buffer {
  const stored = Buffer.from([0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
  const flush = Buffer.from([0, 0, 0, 0xff, 0xff]);
  return Buffer.concat([...(first ? [zlibHeader()] : []), stored, flush]);
}

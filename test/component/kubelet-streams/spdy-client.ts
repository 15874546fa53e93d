import type { Duplex } from "node:stream";
import { constants, createDeflate } from "node:zlib";

import { spdyDictionary } from "../../../src/kubelet/server/streams/spdy-dictionary.ts";

/** One stream as its client sees it. */
export class ClientStream {
  readonly id: number;
  readonly #client: SpdyClient;
  readonly #received: Buffer[] = [];
  readonly #end = Promise.withResolvers<Buffer>();
  readonly #reset = Promise.withResolvers<number>();
  receivedBytes = 0;
  /** Called for each piece instead of keeping it. */
  onData: ((payload: Buffer) => void) | undefined;

  constructor(client: SpdyClient, id: number) {
    this.#client = client;
    this.id = id;
    // A test may wait for one of them only.
    this.#end.promise.catch(() => undefined);
  }

  /** All that came, when the server has ended its half; rejects when the stream was reset or the connection lost. */
  get ended(): Promise<Buffer> {
    return this.#end.promise;
  }

  /** The reason of the server's reset. */
  get wasReset(): Promise<number> {
    return this.#reset.promise;
  }

  write(payload: string | Uint8Array): Promise<void> {
    return this.#client.data(this.id, payload, 0);
  }

  end(payload: string | Uint8Array = ""): Promise<void> {
    return this.#client.data(this.id, payload, 1);
  }

  reset(): void {
    this.#client.control(3, Buffer.concat([word(this.id), word(5)]));
  }

  take(payload: Buffer, fin: boolean): void {
    this.receivedBytes += payload.length;
    if (this.onData === undefined) this.#received.push(payload);
    else this.onData(payload);
    if (fin) this.#end.resolve(Buffer.concat(this.#received));
  }

  lost(error: Error, reason?: number): void {
    this.#end.reject(error);
    if (reason !== undefined) this.#reset.resolve(reason);
  }
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** A SPDY/3.1 client, written apart from the server's code: opens streams as Kubernetes' clients do. */
export class SpdyClient {
  readonly #transport: Duplex;
  readonly #streams = new Map<number, ClientStream>();
  readonly #deflate = createDeflate({ dictionary: spdyDictionary, flush: constants.Z_SYNC_FLUSH });
  readonly #replied = new Map<number, () => void>();
  /** Numbers of the pings that the server sent or answered. */
  readonly pings: number[] = [];
  saidGoodbye = false;
  #nextID = 1;
  #rest: Buffer = Buffer.alloc(0);
  #opening: Promise<unknown> = Promise.resolve();

  constructor(transport: Duplex) {
    this.#transport = transport;
    // One for each stream that is being opened or written.
    transport.setMaxListeners(0);
    transport.on("error", () => undefined);
    transport.on("data", (chunk: Buffer) => {
      this.#take(chunk);
    });
    transport.on("close", () => {
      this.#deflate.destroy();
      for (const stream of this.#streams.values()) stream.lost(new Error("connection lost"));
    });
  }

  get transport(): Duplex {
    return this.#transport;
  }

  /** Opens a stream; resolves with the server's reply. */
  async open(headers: Readonly<Record<string, string>>, fin = false): Promise<ClientStream> {
    const id = this.#nextID;
    this.#nextID += 2;
    const stream = new ClientStream(this, id);
    this.#streams.set(id, stream);
    const replied = new Promise<void>((resolve) => this.#replied.set(id, resolve));
    // One compression context: blocks leave in the order in which they were made.
    const sent = this.#syn(this.#opening, id, headers, fin);
    this.#opening = sent;
    await sent;
    const closed = new Promise((resolve) => this.#transport.once("close", resolve));
    await Promise.race([replied, stream.wasReset, closed]);
    return stream;
  }

  async #syn(
    before: Promise<unknown>,
    id: number,
    headers: Readonly<Record<string, string>>,
    fin: boolean,
  ): Promise<void> {
    await before;
    const block = await this.block(headers);
    this.control(1, Buffer.concat([word(id), word(0), Buffer.alloc(2), block]), fin ? 1 : 0);
  }

  /** A header block, the next of the connection. */
  async block(headers: Readonly<Record<string, string>>): Promise<Buffer> {
    const entries = Object.entries(headers);
    const parts = [word(entries.length)];
    for (const text of entries.flat()) {
      const bytes = Buffer.from(text);
      parts.push(word(bytes.length), bytes);
    }
    const out: Buffer[] = [];
    const collect = (chunk: Buffer): number => out.push(chunk);
    this.#deflate.on("data", collect);
    await new Promise((resolve) => this.#deflate.write(Buffer.concat(parts), resolve));
    this.#deflate.off("data", collect);
    return Buffer.concat(out);
  }

  control(type: number, payload: Buffer, flags = 0): void {
    const head = Buffer.alloc(8);
    head.writeUInt16BE(0x8003, 0);
    head.writeUInt16BE(type, 2);
    head.writeUInt32BE(payload.length, 4);
    head.writeUInt8(flags, 4);
    this.#transport.write(Buffer.concat([head, payload]));
  }

  async data(id: number, payload: string | Uint8Array, flags: number): Promise<void> {
    const bytes = Buffer.from(payload);
    const head = Buffer.alloc(8);
    head.writeUInt32BE(id, 0);
    head.writeUInt32BE(bytes.length, 4);
    head.writeUInt8(flags, 4);
    this.#transport.write(head);
    if (this.#transport.write(bytes) || this.#transport.destroyed) return;
    // `once` would fail with the connection, which is the test's own doing.
    await new Promise((resolve) => {
      this.#transport.once("drain", resolve);
      this.#transport.once("close", resolve);
    });
  }

  #take(chunk: Buffer): void {
    let rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (rest.length >= 8) {
      const length = rest.readUIntBE(5, 3);
      if (rest.length < 8 + length) break;
      this.#frame(rest.subarray(0, 8), rest.subarray(8, 8 + length));
      rest = rest.subarray(8 + length);
    }
    this.#rest = rest;
  }

  #frame(head: Buffer, payload: Buffer): void {
    if (head.readUInt8(0) < 0x80) {
      const fin = (head.readUInt8(4) & 1) !== 0;
      this.#streams.get(head.readUInt32BE(0))?.take(payload, fin);
      return;
    }
    const first = payload.readUInt32BE(0);
    switch (head.readUInt16BE(2)) {
      case 2:
        this.#replied.get(first)?.();
        break;
      case 3:
        this.#streams.get(first)?.lost(new Error("stream was reset"), payload.readUInt32BE(4));
        break;
      case 6:
        this.pings.push(first);
        break;
      case 7:
        this.saidGoodbye = true;
        break;
      default:
    }
  }
}

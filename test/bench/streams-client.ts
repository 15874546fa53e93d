// What clients of the node's API do at the least, for test/bench/streams.ts: so that what is measured is the node.
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect, type TLSSocket } from "node:tls";
import { constants, createDeflate } from "node:zlib";

import { WebSocket } from "ws";
import { parse } from "yaml";

import { spdyDictionary } from "../../src/kubelet/server/streams/spdy-dictionary.ts";

export interface Credentials {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** The administrator's, out of a kubeconfig. */
export async function credentialsOf(kubeconfig: string): Promise<Credentials> {
  const config = parse(await readFile(kubeconfig, "utf8")) as {
    readonly users: readonly { readonly user: Readonly<Record<string, string>> }[];
  };
  const user = config.users[0]?.user ?? {};
  const bytes = (name: string): Buffer => Buffer.from(user[name] ?? "", "base64");
  return { cert: bytes("client-certificate-data"), key: bytes("client-key-data") };
}

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** A TLS connection. The server's name is not checked: not what is measured. */
export async function dialTls(at: Address, credentials?: Credentials): Promise<TLSSocket> {
  const socket = connect({ ...at, ...credentials, rejectUnauthorized: false });
  await once(socket, "secureConnect");
  return socket;
}

/** Runs a command by WebSocket, as kubectl does. */
export async function execOnce(
  at: Address,
  path: string,
  credentials: Credentials,
): Promise<{
  readonly exitCode: number;
  /** The exit code is known then, the connection not yet closed. */
  readonly ms: number;
}> {
  const start = performance.now();
  let ms = Number.NaN;
  const socket = new WebSocket(`wss://${at.host}:${at.port}${path}`, ["v5.channel.k8s.io"], {
    ...credentials,
    rejectUnauthorized: false,
    perMessageDeflate: false,
  });
  let status = "";
  socket.on("message", (data: Buffer) => {
    if (data[0] !== 3 || data.length === 1) return;
    status += data.subarray(1).toString();
    ms = performance.now() - start;
  });
  await once(socket, "close");
  const ended = JSON.parse(status) as {
    readonly status: string;
    readonly details?: { readonly causes?: readonly { readonly message: string }[] };
  };
  const code = Number(ended.details?.causes?.[0]?.message ?? Number.NaN);
  return { exitCode: ended.status === "Success" ? 0 : code, ms };
}

/** Bytes in and out of one exec by WebSocket. */
export async function execBytes(
  at: Address,
  path: string,
  credentials: Credentials,
  upload: number,
): Promise<number> {
  const socket = new WebSocket(`wss://${at.host}:${at.port}${path}`, ["v5.channel.k8s.io"], {
    ...credentials,
    rejectUnauthorized: false,
    perMessageDeflate: false,
  });
  let received = 0;
  socket.on("message", (data: Buffer) => {
    if (data[0] === 1) received += data.length - 1;
  });
  const closed = once(socket, "close");
  await once(socket, "open");
  const message = Buffer.alloc(32 * 1024 + 1);
  for (let left = upload; left > 0; left -= message.length - 1) {
    const sent = new Promise((resolve) => socket.send(message, resolve));
    if (socket.bufferedAmount > 256 * 1024) await sent;
  }
  if (upload > 0) socket.send(Buffer.of(255, 0));
  await closed;
  return received;
}

/** A port-forward by SPDY that counts what it gets and sends zeros. */
export class Forwarding {
  readonly #socket: TLSSocket;
  readonly #deflate = createDeflate({ dictionary: spdyDictionary, flush: constants.Z_SYNC_FLUSH });
  readonly #received = new Map<number, number>();
  readonly #ended = new Map<number, () => void>();
  readonly #head = Buffer.alloc(8);
  #headFill = 0;
  #left = 0;
  #nextID = 1;
  #requests = 0;
  #opening: Promise<unknown> = Promise.resolve();

  private constructor(socket: TLSSocket) {
    this.#socket = socket;
    socket.setMaxListeners(0);
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      this.#take(chunk);
    });
  }

  static async open(at: Address, path: string, credentials: Credentials): Promise<Forwarding> {
    const socket = await dialTls(at, credentials);
    socket.write(
      `POST ${path} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n` +
        "X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n",
    );
    const [answer] = (await once(socket, "data")) as [Buffer];
    if (!answer.toString().startsWith("HTTP/1.1 101")) throw new Error(answer.toString());
    return new Forwarding(socket);
  }

  close(): void {
    this.#deflate.destroy();
    this.#socket.destroy();
  }

  /** One connection: sends `upload` zeros, ends its half, and waits for the other. @returns Bytes received. */
  async connection(port: number, upload: number): Promise<number> {
    const requestid = String((this.#requests += 1));
    const error = await this.#open({ streamtype: "error", port: String(port), requestid });
    this.#data(error, Buffer.alloc(0), true);
    const data = await this.#open({ streamtype: "data", port: String(port), requestid });
    const ended = new Promise<void>((resolve) => this.#ended.set(data, resolve));
    const chunk = Buffer.alloc(64 * 1024);
    for (let left = upload; left > 0; left -= chunk.length) {
      if (!this.#data(data, chunk, false)) await once(this.#socket, "drain");
    }
    this.#data(data, Buffer.alloc(0), true);
    await ended;
    return this.#received.get(data) ?? 0;
  }

  /** One after the other: header blocks share one compression context. */
  async #open(headers: Readonly<Record<string, string>>): Promise<number> {
    const opening = this.#syn(this.#opening, headers);
    this.#opening = opening;
    return opening;
  }

  async #syn(before: Promise<unknown>, headers: Readonly<Record<string, string>>): Promise<number> {
    await before;
    const id = this.#nextID;
    this.#nextID += 2;
    const texts = Object.entries(headers).flat();
    const words = [Buffer.from([0, 0, 0, texts.length / 2])];
    for (const text of texts) words.push(Buffer.from([0, 0, 0, text.length]), Buffer.from(text));
    const out: Buffer[] = [];
    const collect = (piece: Buffer): number => out.push(piece);
    this.#deflate.on("data", collect);
    await new Promise((resolve) => this.#deflate.write(Buffer.concat(words), resolve));
    this.#deflate.off("data", collect);
    const block = Buffer.concat(out);
    const frame = Buffer.alloc(18);
    frame.writeUInt32BE(0x8003_0001, 0);
    frame.writeUInt32BE(10 + block.length, 4);
    frame.writeUInt32BE(id, 8);
    this.#socket.write(Buffer.concat([frame, block]));
    return id;
  }

  #data(id: number, payload: Buffer, fin: boolean): boolean {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(id, 0);
    head.writeUInt32BE(payload.length, 4);
    if (fin) head.writeUInt8(1, 4);
    this.#socket.cork();
    this.#socket.write(head);
    const room = payload.length === 0 || this.#socket.write(payload);
    this.#socket.uncork();
    return room;
  }

  #take(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      if (this.#left > 0) {
        const bytes = Math.min(this.#left, chunk.length - at);
        this.#left -= bytes;
        at += bytes;
        this.#count(bytes);
      } else {
        const end = Math.min(at + 8 - this.#headFill, chunk.length);
        chunk.copy(this.#head, this.#headFill, at, end);
        this.#headFill += end - at;
        at = end;
        if (this.#headFill < 8) return;
        this.#left = this.#head.readUIntBE(5, 3);
        if (this.#left === 0) this.#count(0);
        else this.#headFill = 8;
      }
      if (this.#left === 0) this.#headFill = 0;
    }
  }

  #count(bytes: number): void {
    if (this.#head.readUInt8(0) >= 0x80) return;
    const id = this.#head.readUInt32BE(0);
    this.#received.set(id, (this.#received.get(id) ?? 0) + bytes);
    if (this.#left === 0 && this.#head.readUInt8(4) === 1) this.#ended.get(id)?.();
  }
}

/** The same without Remora: one TLS connection. */
export async function tlsConnection(at: Address, upload: number): Promise<number> {
  const socket = await dialTls(at);
  let received = 0;
  socket.on("data", (chunk: Buffer) => (received += chunk.length));
  // socat resets rather than ends some of its connections; what did not come is missed by the caller.
  socket.on("error", () => undefined);
  const ended = new Promise((resolve) => socket.once("end", resolve).once("close", resolve));
  const chunk = Buffer.alloc(64 * 1024);
  for (let left = upload; left > 0; left -= chunk.length) {
    if (!socket.write(chunk)) await once(socket, "drain");
  }
  if (upload > 0) socket.end();
  await ended;
  socket.destroy();
  return received;
}

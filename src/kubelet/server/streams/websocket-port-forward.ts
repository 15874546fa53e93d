import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";

import { type RawData, type WebSocket, WebSocketServer } from "ws";

import type { Clock } from "../../../lib/clock.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { ByteQueue } from "./byte-queue.ts";
import type { Heartbeat } from "./heartbeat.ts";
import { pongs } from "./websocket-channels.ts";
import { channelMessage, setFlow } from "./websocket-frames.ts";
import { HttpRefusal } from "../http-refusal.ts";

/** Best first. */
const protocols = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
const maxPayload = 16 * 1024 * 1024;
/** Of each port's pair of channels. */
const dataChannel = 0;
const errorChannel = 1;

const upgrader = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  clientTracking: false,
  maxPayload,
  handleProtocols: (offered) => protocols.find((name) => offered.has(name)) ?? false,
});

export interface WebSocketForwardOptions {
  /** Connects to a port of the pod. */
  readonly dial: (port: number, signal: AbortSignal) => Promise<Duplex>;
  /** What the error channel says when that fails. */
  readonly failure: (port: number, error: unknown) => string;
  readonly clock: Clock;
}

/** The repeated or comma-separated `port` parameter. @throws {HttpRefusal} 400 */
export function forwardedPorts(query: URLSearchParams): readonly number[] {
  const texts = query.getAll("port");
  if (texts.length === 0) throw new HttpRefusal(400, 'query parameter "port" is required');
  return texts
    .flatMap((text) => text.split(","))
    .map((text) => {
      const port = /^\d+$/.test(text) ? Number(text) : 0;
      if (port > 0 && port < 65_536) return port;
      throw new HttpRefusal(400, `unable to parse "${text}" as a port`);
    });
}

function acceptWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<WebSocket> {
  const offered = (request.headers["sec-websocket-protocol"] ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  if (offered.length > 0 && !offered.some((name) => protocols.includes(name))) {
    const known = ["SPDY/3.1+portforward.k8s.io", ...protocols].join(", ");
    throw new HttpRefusal(
      400,
      `unable to upgrade: no common sub-protocol; this node speaks SPDY/3.1 and ${known}`,
    );
  }
  return new Promise((resolve, reject) => {
    socket.once("close", () => {
      reject(new HttpRefusal(400, "the client left during the handshake"));
    });
    upgrader.handleUpgrade(request, socket, head, resolve);
  });
}

/**
 * Port-forward by numbered channels: two for each port, data and error, each beginning with the port as two bytes,
 * little end first. One connection per port; the session ends with the last of them.
 *
 * @throws {HttpRefusal} while it still can be answered in HTTP.
 */
export async function serveWebSocketForward(
  options: WebSocketForwardOptions,
  upgrade: { request: IncomingMessage; socket: Duplex; head: Buffer; url: URL },
  signal: AbortSignal,
): Promise<void> {
  const { request, socket, head, url } = upgrade;
  const ports = forwardedPorts(url.searchParams);
  const session = new ForwardSession(await acceptWebSocket(request, socket, head), ports, options);
  await session.run(signal);
}

function toBuffer(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return Buffer.isBuffer(data) ? data : Buffer.from(data);
}

class ForwardSession {
  readonly #socket: WebSocket;
  readonly #base64: boolean;
  readonly #ports: readonly number[];
  readonly #queues: readonly ByteQueue[];
  readonly #full = new Set<number>();
  readonly #gone = new AbortController();
  readonly #options: WebSocketForwardOptions;
  readonly #heartbeat: Heartbeat;

  constructor(socket: WebSocket, ports: readonly number[], options: WebSocketForwardOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#heartbeat = pongs(socket, options.clock, this.#gone.signal);
    this.#base64 = socket.protocol === "v4.base64.channel.k8s.io";
    this.#ports = ports;
    this.#queues = ports.map((_, index) => new ByteQueue((flowing) => this.#flow(index, flowing)));
    socket.on("message", (data) => {
      this.#receive(toBuffer(data));
    });
    // Followed by close, which tells all that matters.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      for (const queue of this.#queues) queue.end();
      this.#gone.abort();
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const terminate = (): void => this.#socket.terminate();
    signal.addEventListener("abort", terminate, { once: true });
    if (signal.aborted) terminate();
    try {
      await Promise.all(this.#ports.map((port, index) => this.#forward(port, index)));
      this.#socket.close(1000);
    } finally {
      signal.removeEventListener("abort", terminate);
    }
  }

  /** The socket rests while any of its ports cannot take more. */
  #flow(index: number, flowing: boolean): void {
    if (flowing) this.#full.delete(index);
    else this.#full.add(index);
    setFlow(this.#socket, this.#heartbeat, this.#full.size === 0);
  }

  #receive(message: Buffer): void {
    const found = channelMessage(message, this.#base64);
    if (found === undefined) return;
    const { number, payload } = found;
    // Nothing is read from an error channel.
    if (number % 2 === dataChannel) this.#queues[number / 2]?.push(payload);
  }

  async #forward(port: number, index: number): Promise<void> {
    const options = this.#options;
    const number = Buffer.alloc(2);
    number.writeUInt16LE(port);
    let target: Duplex | undefined;
    try {
      await this.#send(index, dataChannel, number);
      await this.#send(index, errorChannel, number);
      target = await options.dial(port, this.#gone.signal);
      const source = target;
      const queue = this.#queues[index] ?? [];
      const up = pipeline(queue, source, { signal: this.#gone.signal });
      // The client has no way to end its half: the connection is over when the pod ends its own.
      up.catch(() => undefined);
      const down: AsyncIterable<Uint8Array> = source;
      for await (const chunk of down) {
        await this.#send(index, dataChannel, chunk);
      }
    } catch (error) {
      if (this.#gone.signal.aborted) return;
      const text = Buffer.from(options.failure(port, error));
      await this.#send(index, errorChannel, text).catch(() => undefined);
    } finally {
      // Others go on: what still comes for this one is thrown away.
      this.#queues[index]?.discard();
      target?.destroy();
    }
  }

  #send(index: number, channel: number, payload: Uint8Array): Promise<void> {
    const number = index * 2 + channel;
    const message = this.#base64
      ? `${number}${Buffer.from(payload).toString("base64")}`
      : Buffer.concat([Buffer.of(number), payload]);
    return new Promise((resolve, reject) => {
      this.#socket.send(message, (error) => {
        if (error == null) resolve();
        else reject(new Error(errorMessage(error), { cause: error }));
      });
    });
  }
}

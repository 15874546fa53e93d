import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";

import { type RawData, type WebSocket, WebSocketServer } from "ws";

import type { Clock } from "../../../lib/clock.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { ByteQueue } from "./byte-queue.ts";
import { Heartbeat } from "./heartbeat.ts";
import { channelMessage, setFlow } from "./websocket-frames.ts";
import { HttpRefusal } from "../http-refusal.ts";
import {
  parseResize,
  type RemoteChannels,
  type SessionStatus,
  type StreamOptions,
  type TerminalSize,
} from "./remote-command.ts";

const channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4 } as const;
/** v5: the message `[255, n]` closes channel n. */
const closeSignal = 255;

interface Dialect {
  readonly name: string;
  readonly base64: boolean;
  /** The error channel carries a Status; before v4 it was plain text. */
  readonly jsonStatus: boolean;
  readonly halfClose: boolean;
}

function dialect(name: string, traits: Partial<Omit<Dialect, "name">>): Dialect {
  return { name, base64: false, jsonStatus: true, halfClose: false, ...traits };
}

/** Best first. The nameless one is what a client speaks that offers nothing. */
const dialects: readonly Dialect[] = [
  dialect("v5.channel.k8s.io", { halfClose: true }),
  dialect("v4.channel.k8s.io", {}),
  dialect("v4.base64.channel.k8s.io", { base64: true }),
  dialect("channel.k8s.io", { jsonStatus: false }),
  dialect("base64.channel.k8s.io", { base64: true, jsonStatus: false }),
  dialect("", { jsonStatus: false }),
];

/** The best dialect both sides know; undefined when there is none. */
export function chooseDialect(offered: readonly string[]): Dialect | undefined {
  const names = offered.length === 0 ? [""] : offered;
  return dialects.find(({ name }) => names.includes(name));
}

function offeredProtocols(request: IncomingMessage): string[] {
  return (request.headers["sec-websocket-protocol"] ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

/** Largest message a client may send; clients cut their input into 32 KiB pieces. */
const maxPayload = 16 * 1024 * 1024;
/** Output that the client has not taken yet; beyond it the process has to wait. */
const maxBufferedBytes = 256 * 1024;

const upgrader = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  clientTracking: false,
  maxPayload,
  // Else the first offer would win, which may be a bearer token.
  handleProtocols: (offered) => chooseDialect([...offered])?.name ?? false,
});

/** Ends the handshake and gives the channels. @throws {HttpRefusal} when no sub-protocol fits. */
export function acceptWebSocket(
  { request, socket, head }: { request: IncomingMessage; socket: Duplex; head: Buffer },
  options: StreamOptions,
  clock: Clock,
): Promise<RemoteChannels> {
  const chosen = chooseDialect(offeredProtocols(request));
  if (chosen === undefined) {
    const known = dialects.flatMap(({ name }) => (name === "" ? [] : [name])).join(", ");
    throw new HttpRefusal(
      400,
      `unable to upgrade: no common sub-protocol; this node speaks ${known}`,
    );
  }
  return new Promise((resolve, reject) => {
    socket.once("close", () => {
      reject(new HttpRefusal(400, "the client left during the handshake"));
    });
    upgrader.handleUpgrade(request, socket, head, (webSocket) => {
      resolve(new WebSocketChannels({ socket: webSocket, chosen, options, clock }));
    });
  });
}

function toBuffer(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return Buffer.isBuffer(data) ? data : Buffer.from(data);
}

/** Answers to pings that have not been read yet (RFC 6455, 5.5.3: a pong may come unasked). */
export function pongs(socket: WebSocket, clock: Clock, gone: AbortSignal): Heartbeat {
  const beat = (): void => {
    if (socket.readyState === socket.OPEN) socket.pong();
  };
  return new Heartbeat({ clock, beat, gone });
}

interface ChannelsOptions {
  readonly socket: WebSocket;
  readonly chosen: Dialect;
  readonly options: StreamOptions;
  readonly clock: Clock;
}

class WebSocketChannels implements RemoteChannels {
  readonly #socket: WebSocket;
  readonly #dialect: Dialect;
  readonly #gone = new AbortController();
  readonly #stdin: ByteQueue;
  readonly #heartbeat: Heartbeat;
  #size: TerminalSize | undefined;
  #onResize: ((size: TerminalSize) => void) | undefined;

  constructor({ socket, chosen, options, clock }: ChannelsOptions) {
    this.#socket = socket;
    this.#dialect = chosen;
    this.#heartbeat = pongs(socket, clock, this.gone);
    this.#stdin = new ByteQueue((flowing) => {
      this.#flow(flowing);
    });
    socket.on("message", (data) => {
      this.#receive(toBuffer(data));
    });
    // Followed by close, which tells all that matters.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.#stdin.end();
      this.#gone.abort();
    });
    // An empty message tells a client without data that the session is open.
    const first = options.stdout ? "stdout" : options.stderr ? "stderr" : "error";
    socket.send(this.#message(channel[first], Buffer.alloc(0)));
  }

  get stdin(): AsyncIterable<Uint8Array> {
    return this.#stdin;
  }

  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  onResize(listener: (size: TerminalSize) => void): void {
    this.#onResize = listener;
    if (this.#size !== undefined) listener(this.#size);
  }

  send(stream: "stdout" | "stderr", chunk: Uint8Array): Promise<void> | undefined {
    const message = this.#message(channel[stream], chunk);
    if (this.#socket.bufferedAmount <= maxBufferedBytes) {
      this.#socket.send(message, () => undefined);
      return undefined;
    }
    return new Promise((resolve) => {
      this.#socket.send(message, () => {
        resolve();
      });
    });
  }

  async finish(status: SessionStatus): Promise<void> {
    const { jsonStatus } = this.#dialect;
    const text = jsonStatus
      ? JSON.stringify(status)
      : status.status === "Failure"
        ? (status.message ?? "")
        : undefined;
    const sent =
      text === undefined ? undefined : this.#sent(this.#message(channel.error, Buffer.from(text)));
    this.#socket.close(1000);
    // The client's answer to the close is behind what it still sends.
    this.#stdin.discard();
    await sent;
  }

  #sent(message: string | Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.send(message, (error) => {
        if (error == null) resolve();
        else reject(new Error(errorMessage(error), { cause: error }));
      });
    });
  }

  #flow(flowing: boolean): void {
    setFlow(this.#socket, this.#heartbeat, flowing);
  }

  #receive(message: Buffer): void {
    if (this.#dialect.halfClose && message[0] === closeSignal) {
      if (message[1] === channel.stdin) this.#stdin.end();
      return;
    }
    const found = channelMessage(message, this.#dialect.base64);
    if (found === undefined) return;
    const { number, payload } = found;
    if (number === channel.stdin) this.#stdin.push(payload);
    else if (number === channel.resize) this.#resize(payload.toString("utf8"));
  }

  #resize(text: string): void {
    for (const line of text.split("\n")) {
      const size = parseResize(line);
      if (size === undefined) continue;
      this.#size = size;
      this.#onResize?.(size);
    }
  }

  #message(number: number, payload: Uint8Array): string | Buffer {
    return this.#dialect.base64
      ? `${number}${Buffer.from(payload).toString("base64")}`
      : Buffer.concat([Buffer.of(number), payload]);
  }
}

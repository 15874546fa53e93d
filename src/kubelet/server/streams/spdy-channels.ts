import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";

import type { Clock } from "../../../lib/clock.ts";
import { HttpRefusal } from "../http-refusal.ts";
import {
  parseResize,
  type RemoteChannels,
  type SessionStatus,
  type StreamOptions,
  type TerminalSize,
} from "./remote-command.ts";
import { SpdyConnection, type SpdyStream } from "./spdy-connection.ts";
import { chooseStreamProtocol, switchToSpdy } from "./spdy-upgrade.ts";

/** Best first. Upstream's own list ends at v4 too: v5's half-close is SPDY's FIN. */
const protocols = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const withResize = new Set(["v4.channel.k8s.io", "v3.channel.k8s.io"]);
const streamsDeadlineMs = 30_000;
/** No terminal's size takes more. */
const maxResizeLength = 1024;

/** Ends the handshake and waits for the client's streams. @throws {HttpRefusal} before the upgrade only. */
export async function acceptSpdy(
  { request, socket, head }: { request: IncomingMessage; socket: Duplex; head: Buffer },
  options: StreamOptions,
  clock: Clock,
): Promise<RemoteChannels> {
  const protocol = chooseStreamProtocol(request, protocols);
  const expected = new Set(["error"]);
  if (options.stdin) expected.add("stdin");
  if (options.stdout) expected.add("stdout");
  if (options.stderr) expected.add("stderr");
  if (options.tty && withResize.has(protocol)) expected.add("resize");
  switchToSpdy(socket, head, protocol);
  const streams = new Map<string, SpdyStream>();
  const complete = Promise.withResolvers<undefined>();
  const connection = new SpdyConnection({
    transport: socket,
    clock,
    onStream: (stream) => {
      const type = stream.headers.get("streamtype") ?? "";
      if (!expected.has(type) || streams.has(type)) {
        stream.duplex.destroy();
        return;
      }
      streams.set(type, stream);
      if (streams.size === expected.size) complete.resolve(undefined);
    },
  });
  void connection.run();
  const waiting = new AbortController();
  const over = AbortSignal.any([connection.gone, waiting.signal]);
  try {
    await Promise.race([
      complete.promise,
      clock.sleep(streamsDeadlineMs, over).then(() => {
        throw new HttpRefusal(400, "the client did not open all its streams in time");
      }),
    ]);
  } catch (error) {
    connection.close();
    throw error;
  } finally {
    waiting.abort();
  }
  return new SpdyChannels(connection, streams, protocol === "v4.channel.k8s.io");
}

async function* nothing(): AsyncGenerator<Uint8Array> {
  // A session without standard input: its stream was never asked for.
}

class SpdyChannels implements RemoteChannels {
  readonly #connection: SpdyConnection;
  readonly #streams: ReadonlyMap<string, SpdyStream>;
  readonly #jsonStatus: boolean;
  readonly stdin: AsyncIterable<Uint8Array>;
  #size: TerminalSize | undefined;
  #onResize: ((size: TerminalSize) => void) | undefined;

  constructor(
    connection: SpdyConnection,
    streams: ReadonlyMap<string, SpdyStream>,
    jsonStatus: boolean,
  ) {
    this.#connection = connection;
    this.#streams = streams;
    this.#jsonStatus = jsonStatus;
    this.stdin = streams.get("stdin")?.duplex ?? nothing();
    this.#readResizes(streams.get("resize")?.duplex);
  }

  get gone(): AbortSignal {
    return this.#connection.gone;
  }

  onResize(listener: (size: TerminalSize) => void): void {
    this.#onResize = listener;
    if (this.#size !== undefined) listener(this.#size);
  }

  send(stream: "stdout" | "stderr", chunk: Uint8Array): Promise<void> | undefined {
    const duplex = this.#streams.get(stream)?.duplex;
    if (duplex === undefined || !duplex.writable || duplex.write(chunk)) return undefined;
    return drained(duplex);
  }

  async finish(status: SessionStatus): Promise<void> {
    const error = this.#streams.get("error")?.duplex;
    const text = this.#jsonStatus ? JSON.stringify(status) : (status.message ?? "");
    if (text !== "") error?.write(text);
    await Promise.all([...this.#streams.values()].map(({ duplex }) => ended(duplex)));
    this.#connection.close();
  }

  #readResizes(duplex: Duplex | undefined): void {
    let rest = "";
    duplex?.on("data", (chunk: Buffer) => {
      const lines = (rest + chunk.toString("utf8")).split("\n");
      rest = (lines.pop() ?? "").slice(0, maxResizeLength);
      for (const line of lines) {
        const size = parseResize(line);
        if (size === undefined) continue;
        this.#size = size;
        this.#onResize?.(size);
      }
    });
  }
}

function drained(duplex: Duplex): Promise<void> {
  return new Promise((resolve) => {
    const over = (): void => {
      duplex.off("drain", over);
      duplex.off("close", over);
      resolve();
    };
    duplex.on("drain", over);
    duplex.on("close", over);
  });
}

function ended(duplex: Duplex): Promise<void> {
  return new Promise((resolve) => {
    if (duplex.destroyed) resolve();
    else {
      duplex.once("close", resolve);
      duplex.end(resolve);
    }
  });
}

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type Server } from "node:net";
import type { Duplex } from "node:stream";
import { describe, it } from "node:test";

import { type RawData, WebSocket } from "ws";

import { HttpRefusal } from "../../../src/kubelet/server/http-refusal.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import {
  forwardedPorts,
  serveWebSocketForward,
} from "../../../src/kubelet/server/streams/websocket-port-forward.ts";

const protocol = "v4.channel.k8s.io";

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** Serves forwarding with `dial` and runs `use` with its address; resolves when all sessions have ended. */
async function serving(
  dial: (port: number) => Promise<Duplex>,
  use: (url: string) => Promise<void>,
): Promise<void> {
  const server = createServer();
  const sessions: Promise<void>[] = [];
  const failure = (port: number, error: unknown): string => `port ${port}: ${String(error)}`;
  const { signal } = new AbortController();
  server.on("upgrade", (request, socket, head) => {
    const url = new URL(request.url ?? "", "http://node");
    sessions.push(
      serveWebSocketForward(
        { dial, failure, clock: systemClock },
        { request, socket, head, url },
        signal,
      ),
    );
  });
  const port = await listen(server);
  try {
    await use(`ws://127.0.0.1:${port}/portForward/ns/pod`);
    await Promise.all(sessions);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Everything the node sends until it closes, by channel. */
async function receive(socket: WebSocket): Promise<ReadonlyMap<number, Buffer>> {
  const channels = new Map<number, Buffer>();
  socket.on("message", (data: RawData) => {
    assert(Buffer.isBuffer(data));
    const number = data.readUInt8(0);
    const before = channels.get(number) ?? Buffer.alloc(0);
    channels.set(number, Buffer.concat([before, data.subarray(1)]));
  });
  await once(socket, "close");
  return channels;
}

describe("port-forward by WebSocket channels", () => {
  it("begins each channel with its port and carries bytes both ways", async () => {
    const echo = createTcpServer((socket) => {
      socket.once("data", (chunk) => socket.end(`got ${chunk.toString()}`));
    });
    const target = await listen(echo);
    const dialed: number[] = [];
    const dial = async (port: number): Promise<Duplex> => {
      dialed.push(port);
      const socket = connect(target, "127.0.0.1");
      await once(socket, "connect");
      return socket;
    };
    await serving(dial, async (url) => {
      const socket = new WebSocket(`${url}?port=80&port=443`, [protocol]);
      const all = receive(socket);
      await once(socket, "open");
      socket.send(Buffer.from("\u0000one"));
      socket.send(Buffer.from("\u0002two"));
      const channels = await all;
      assert.deepEqual(channels.get(0), Buffer.from("\x50\x00got one", "latin1"));
      assert.deepEqual(channels.get(1), Buffer.from("\x50\x00", "latin1"));
      assert.deepEqual(channels.get(2), Buffer.from("\xbb\x01got two", "latin1"));
      assert.deepEqual(channels.get(3), Buffer.from("\xbb\x01", "latin1"));
    });
    await new Promise((resolve) => echo.close(resolve));
    assert.deepEqual(new Set(dialed), new Set([80, 443]));
  });

  it("says on the error channel that nobody listens", async () => {
    const dial = async (): Promise<Duplex> => {
      throw new Error("refused");
    };
    await serving(dial, async (url) => {
      const channels = await receive(new WebSocket(`${url}?port=80`, [protocol]));
      assert.equal(channels.get(1)?.subarray(2).toString(), "port 80: Error: refused");
      assert.equal(channels.get(0)?.length, 2);
    });
  });

  it("lets the connection to the pod go when the client leaves", async () => {
    const silent = createTcpServer();
    const target = await listen(silent);
    const accepted = once(silent, "connection");
    const dial = async (): Promise<Duplex> => connect(target, "127.0.0.1");
    await serving(dial, async (url) => {
      const socket = new WebSocket(`${url}?port=80`, [protocol]);
      await accepted;
      socket.terminate();
    });
    // Closes only once the connection is gone.
    await new Promise((resolve) => silent.close(resolve));
  });

  it("wants at least one port, and only ports", () => {
    assert.deepEqual(forwardedPorts(new URLSearchParams("port=1,2&port=3")), [1, 2, 3]);
    for (const query of ["", "port=", "port=0", "port=http", "port=65536"]) {
      assert.throws(() => forwardedPorts(new URLSearchParams(query)), HttpRefusal, query);
    }
  });
});

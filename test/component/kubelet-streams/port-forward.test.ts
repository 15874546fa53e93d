import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { buffer, text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, it } from "node:test";

import { DialError } from "../../../src/kubelet/server/streams/pod-dialer.ts";
import { ManualClock, until } from "../api/manual-clock.ts";
import { dialHere, TestNode } from "./node.ts";
import type { ClientStream, SpdyClient } from "./spdy-client.ts";

const path = "/portForward/default/web";

interface Pair {
  readonly error: ClientStream;
  readonly data: ClientStream;
}

let requests = 0;

/** One connection as kubectl asks for it: the error stream's own half ends at once. */
async function forward(client: SpdyClient, port: number): Promise<Pair> {
  const headers = { port: String(port), requestid: String((requests += 1)) };
  const error = await client.open({ ...headers, streamtype: "error" });
  await error.end();
  return { error, data: await client.open({ ...headers, streamtype: "data" }) };
}

/** A server in the pod; each connection is the test's. */
class PodServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(serve: (socket: Socket) => void): Promise<PodServer> {
    const server = createServer({ allowHalfOpen: true });
    const pod = new PodServer(server);
    server.on("connection", (socket) => {
      socket.on("error", () => undefined);
      pod.#sockets.add(socket);
      socket.on("close", () => pod.#sockets.delete(socket));
      serve(socket);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return pod;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get connections(): number {
    return this.#sockets.size;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }
}

/** Sends something when the client has ended its half. */
function answer(socket: Socket, reply: (all: string) => string): void {
  let all = "";
  socket.on("data", (chunk: Buffer) => (all += chunk.toString("latin1")));
  socket.on("end", () => socket.end(reply(all)));
}

/** A pod's server that leaves everything to the test, with its next connection. */
async function silent(): Promise<{ pod: PodServer; accepted: Promise<Socket> }> {
  const { promise, resolve } = Promise.withResolvers<Socket>();
  return { pod: await PodServer.start(resolve), accepted: promise };
}

let clock: ManualClock;
let node: TestNode;
let dials: Socket[];

beforeEach(async () => {
  clock = new ManualClock();
  dials = [];
  node = await TestNode.start({
    clock,
    dial: async (_at, port) => {
      if (port === 1) throw new DialError("connect ECONNREFUSED 127.0.0.1:1");
      const socket = await dialHere(port);
      dials.push(socket);
      return socket;
    },
  });
});
afterEach(async () => {
  await node[Symbol.asyncDispose]();
  // Whatever happened: no connection to a pod is left.
  assert.ok(dials.every(({ destroyed }) => destroyed));
});

const carriers = {
  SPDY: () => node.spdyClient(path, "portforward.k8s.io"),
  "SPDY inside of a WebSocket": () => node.tunnel(path),
};

/** Resolves when `count()` has not changed for a while. */
async function settled(count: () => number): Promise<number> {
  for (let before = -1; before !== count();) {
    before = count();
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  return count();
}

for (const [name, connect] of Object.entries(carriers)) {
  describe(`port-forward by ${name}`, () => {
    it("ends each half on its own: the client first", async () => {
      await using pod = await PodServer.start((socket) => {
        answer(socket, (all) => `got ${all}`);
      });
      const client = await connect();
      const { data, error } = await forward(client, pod.port);
      await data.write("hel");
      await data.end("lo");
      assert.equal((await data.ended).toString(), "got hello");
      assert.equal((await error.ended).toString(), "");
      client.transport.destroy();
    });

    it("ends each half on its own: the pod first", async () => {
      const { pod, accepted } = await silent();
      await using _ = pod;
      const client = await connect();
      const { data, error } = await forward(client, pod.port);
      const socket = await accepted;
      socket.end("goodbye");
      assert.equal((await data.ended).toString(), "goodbye");
      await data.end("and thanks");
      assert.equal(await text(socket), "and thanks");
      assert.equal((await error.ended).toString(), "");
      client.transport.destroy();
    });

    it("a reset by the client is a reset to the pod, and nobody else's", async () => {
      const { pod, accepted } = await silent();
      await using _ = pod;
      await using other = await PodServer.start((socket) => socket.pipe(socket));
      const client = await connect();
      const healthy = await forward(client, other.port);
      const { data } = await forward(client, pod.port);
      const socket = await accepted;
      const broken = once(socket, "error");
      await data.write("x");
      await once(socket, "data");
      data.reset();
      const [error] = (await broken) as [NodeJS.ErrnoException];
      assert.equal(error.code, "ECONNRESET");
      await healthy.data.end("still here");
      assert.equal((await healthy.data.ended).toString(), "still here");
      client.transport.destroy();
    });

    it("a reset by the pod is a reset to the client, without a word, and nobody else's", async () => {
      const { pod, accepted } = await silent();
      await using _ = pod;
      await using other = await PodServer.start((socket) => socket.pipe(socket));
      const client = await connect();
      const healthy = await forward(client, other.port);
      const { data, error } = await forward(client, pod.port);
      const socket = await accepted;
      await data.write("x");
      await once(socket, "data");
      socket.resetAndDestroy();
      await data.wasReset;
      assert.equal((await error.ended).toString(), "");
      await healthy.data.end("still here");
      assert.equal((await healthy.data.ended).toString(), "still here");
      client.transport.destroy();
    });

    it("a port nobody listens on is told on the error stream, and nobody else's trouble", async () => {
      await using other = await PodServer.start((socket) => socket.pipe(socket));
      const client = await connect();
      const healthy = await forward(client, other.port);
      const { data, error } = await forward(client, 1);
      await data.wasReset;
      assert.equal(
        (await error.ended).toString(),
        "error forwarding port 1 to pod web_default, uid : uid-1: connect ECONNREFUSED 127.0.0.1:1",
      );
      await healthy.data.end("still here");
      assert.equal((await healthy.data.ended).toString(), "still here");
      client.transport.destroy();
    });

    it("a pod that reads slowly gets every byte, and holds its client back", async () => {
      const { pod, accepted } = await silent();
      await using _ = pod;
      const client = await connect();
      const { data } = await forward(client, pod.port);
      const socket = await accepted;
      socket.pause();
      const chunk = Buffer.alloc(256 * 1024, "remora.");
      let written = 0;
      const writing = (async () => {
        for (; written < 200; written += 1) await data.write(chunk);
        await data.end();
      })();
      assert.ok((await settled(() => written)) < 150, `${written} of 200 chunks were taken`);
      const got = await buffer(socket);
      await writing;
      assert.equal(got.length, 200 * chunk.length);
      socket.end();
      await data.ended;
      client.transport.destroy();
    });

    it("a client that reads slowly holds the pod back, and loses nothing", async () => {
      const { pod, accepted } = await silent();
      await using _ = pod;
      const client = await connect();
      const { data } = await forward(client, pod.port);
      const socket = await accepted;
      client.transport.pause();
      const chunk = Buffer.alloc(256 * 1024, "remora.");
      let written = 0;
      const writing = (async () => {
        for (; written < 200; written += 1) {
          if (!socket.write(chunk)) await once(socket, "drain");
        }
        socket.end();
      })();
      assert.ok((await settled(() => written)) < 150, `${written} of 200 chunks were taken`);
      client.transport.resume();
      assert.equal((await data.ended).length, 200 * chunk.length);
      await writing;
      client.transport.destroy();
    });

    it("when the client leaves, every connection to the pod is broken off", async () => {
      await using pod = await PodServer.start((socket) => {
        socket.resume();
        socket.write("hello");
      });
      const client = await connect();
      const pairs = await Promise.all([1, 2, 3].map(() => forward(client, pod.port)));
      await until(() => pairs.every(({ data }) => data.receivedBytes === 5), "greetings");
      client.transport.destroy();
      await node.idle();
      await until(() => pod.connections === 0, "no connections");
    });

    it("also while the pod takes nothing any more: that shows within seconds", async () => {
      const { pod, accepted } = await silent();
      await using _ = pod;
      const client = await connect();
      const { data } = await forward(client, pod.port);
      (await accepted).pause();
      const over = new AbortController();
      const writing = (async () => {
        for (let chunk = 0; chunk < 100 && !over.signal.aborted; chunk += 1) {
          await data.write(Buffer.alloc(256 * 1024));
        }
      })();
      await until(() => clock.sleeping && clock.sleeps.includes(1000), "the connection to stall");
      over.abort();
      client.transport.destroy();
      await writing;
      while (node.sessions > 0) {
        clock.advance(5000);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    });

    it("carries 500 connections at once; those that fail end no other", async () => {
      await using pod = await PodServer.start((socket) => {
        answer(socket, (all) => all.toUpperCase());
      });
      await using rude = await PodServer.start((socket) => socket.resetAndDestroy());
      const client = await connect();
      const outcomes = await Promise.all(
        Array.from({ length: 500 }, async (_, number) => {
          const port = number % 50 === 7 ? 1 : number % 50 === 9 ? rude.port : pod.port;
          const { data } = await forward(client, port);
          await data.end(`connection ${number}`);
          return data.ended.then(String, () => "lost");
        }),
      );
      const wanted = outcomes.map((_, number) =>
        [7, 9].includes(number % 50) ? "lost" : `CONNECTION ${number}`,
      );
      assert.deepEqual(outcomes, wanted);
      client.transport.destroy();
    });
  });
}

describe("pairs of streams", () => {
  it("without request ids belong together by their numbers", async () => {
    await using pod = await PodServer.start((socket) => socket.pipe(socket));
    const client = await node.spdyClient(path, "portforward.k8s.io");
    const port = String(pod.port);
    for (const text of ["one", "two"]) {
      await (await client.open({ streamtype: "error", port })).end();
      const data = await client.open({ streamtype: "data", port });
      await data.end(text);
      assert.equal((await data.ended).toString(), text);
    }
    client.transport.destroy();
  });

  it("that are never completed are reset after thirty seconds", async () => {
    const client = await node.spdyClient(path, "portforward.k8s.io");
    const half = await client.open({ streamtype: "error", port: "80", requestid: "1" });
    await until(() => clock.sleeping, "a deadline");
    clock.advance(30_000);
    await half.wasReset;
    client.transport.destroy();
  });

  for (const headers of [
    { streamtype: "data" },
    { streamtype: "data", port: "0" },
    { streamtype: "data", port: "65536" },
    { streamtype: "data", port: "8o" },
    { streamtype: "other", port: "80" },
    { port: "80" },
  ]) {
    it(`${JSON.stringify(headers)} is none: the stream is reset, the connection stays`, async () => {
      const client = await node.spdyClient(path, "portforward.k8s.io");
      await (
        await client.open(headers)
      ).wasReset;
      const half = await client.open({ streamtype: "error", port: "80", requestid: "1" });
      const twice = await client.open({ streamtype: "error", port: "80", requestid: "1" });
      await twice.wasReset;
      half.reset();
      client.transport.destroy();
    });
  }
});

describe("port-forward by numbered channels", () => {
  it("a port whose pod takes nothing does not keep the others from ending", async () => {
    const { pod, accepted } = await silent();
    await using _ = pod;
    await using echo = await PodServer.start((socket) => socket.pipe(socket));
    const socket = node.webSocket(`${path}?port=${pod.port}&port=${echo.port}`, [
      "v4.channel.k8s.io",
    ]);
    let echoed = 0;
    socket.on("message", (data: Buffer) => {
      if (data[0] === 2) echoed += data.length - 1;
    });
    await once(socket, "open");
    const stuck = await accepted;
    stuck.pause();
    for (let chunk = 0; chunk < 40; chunk += 1) {
      socket.send(Buffer.concat([Buffer.of(0), Buffer.alloc(256 * 1024)]));
    }
    await until(() => clock.sleeping && clock.sleeps.includes(1000), "the connection to stall");
    socket.send(Buffer.from("\u0002hello"));
    // The stuck one ends; what waits behind it gets through.
    stuck.resetAndDestroy();
    await until(() => echoed === 2 + 5, "the echo");
    socket.terminate();
  });
});

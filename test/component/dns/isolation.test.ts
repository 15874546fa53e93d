import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { connect } from "node:net";
import { describe, it } from "node:test";
import { Worker } from "node:worker_threads";

import { encode } from "dns-packet";

import { askTCP } from "../../../src/dns/exchange.ts";
import { freePort } from "../../fakes/name-server.ts";
import { name, oneService, RealThread } from "./real-thread.ts";

const flooder = "127.0.5.1";

/** One address may ask 200 at once and 20 a second. */
async function withLimits(): Promise<RealThread> {
  const sourceLimits = { perSecond: 20, burst: 200, most: 64 };
  const server = new RealThread(await freePort(), { sourceLimits }, oneService("10.96.0.7"));
  await server.listening;
  return server;
}

function question(id: number): Buffer {
  return encode({ type: "query", id, flags: 0x100, questions: [{ name, type: "A" }] });
}

async function boundTo(address: string, port: number): Promise<Socket> {
  const socket = createSocket("udp4");
  socket.bind(0, address);
  await once(socket, "listening");
  socket.connect(port, "127.0.0.1");
  await once(socket, "connect");
  return socket;
}

/** Asks 50 000 times a second from another thread of this process, or as often as the machine can, until it is ended. */
class Flood implements AsyncDisposable {
  readonly #worker: Worker;

  constructor(port: number) {
    this.#worker = new Worker(
      `const { workerData: { message, port, address } } = require("node:worker_threads");
       const socket = require("node:dgram").createSocket("udp4");
       const more = () => { for (let i = 0; i < 55; i += 1) socket.send(message); setTimeout(more, 1); };
       socket.on("error", () => {});
       socket.bind(0, address, () => socket.connect(port, "127.0.0.1", more));`,
      { eval: true, workerData: { message: question(1), port, address: flooder } },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let turn = 0; !condition(); turn += 1) {
    assert.ok(turn < 5000, what);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

describe("one address that asks without end", () => {
  it("is answered as much as it may ask, and said once", async () => {
    await using server = await withLimits();
    const socket = await boundTo(flooder, server.port);
    let answered = 0;
    socket.on("message", () => (answered += 1));
    for (let id = 0; id < 3000; id += 1) {
      socket.send(question(id));
      if (id % 50 === 0) await new Promise(setImmediate);
    }
    await until(() => server.counts.limited > 100, "nothing was limited");
    await until(() => answered >= 200, "not even the burst was answered");
    const { udp, limited, replies } = server.counts;
    assert.equal(udp, limited + (replies[0] ?? 0));
    await until(() => server.logged.length > 0, "not said");
    const said = server.logged.filter(({ fields }) => fields?.["address"] === flooder);
    assert.equal(said.length, 1);
    assert.match(said[0]?.msg ?? "", /asks more than/);
    socket.close();
  });

  it("takes neither answers from others nor turns from the agent's own thread", async () => {
    await using server = await withLimits();
    await using _flood = new Flood(server.port);
    await until(() => server.counts.limited > 2000, "no flood");
    const before = server.counts;
    // The agent's thread does its own work between all this.
    let turns = 0;
    const turning = setInterval(() => (turns += 1), 1);
    const socket = await boundTo("127.0.5.2", server.port);
    let answered = 0;
    for (let id = 0; id < 100; id += 1) {
      const reply = once(socket, "message");
      socket.send(question(id));
      const patience = new Promise<undefined>((resolve) => setTimeout(resolve, 300, undefined));
      if ((await Promise.race([reply, patience])) !== undefined) answered += 1;
    }
    clearInterval(turning);
    socket.close();
    assert.ok(answered >= 90, `${answered} of 100`);
    assert.ok(turns > 0);
    assert.ok(server.logged.length < 5, "the agent's thread hears of each question");
    const flooded = server.counts.limited - before.limited;
    assert.ok(flooded > 100, `the flood had ended: ${flooded}`);
    // By TCP as well.
    const message = question(7);
    const outgoing = { message, id: 7, question: message.subarray(12) };
    const at = { address: "127.0.0.1", port: server.port };
    await askTCP(at, outgoing, AbortSignal.timeout(5000));
  });

  it("by TCP: is cut off, and keeps no more than its share of connections", async () => {
    await using server = await withLimits();
    // `once` would fail with a connection that is reset.
    const closeOf = (socket: ReturnType<typeof connect>): Promise<unknown> =>
      new Promise((resolve) => socket.on("close", resolve));
    const open = async (): Promise<ReturnType<typeof connect>> => {
      const socket = connect({ host: "127.0.0.1", port: server.port, localAddress: flooder });
      socket.on("error", () => undefined);
      await once(socket, "connect");
      return socket;
    };
    const sockets = [];
    for (let index = 0; index < 64; index += 1) sockets.push(await open());
    const refused = await open();
    await closeOf(refused);
    const others = sockets.filter(({ destroyed }) => !destroyed);
    assert.equal(others.length, 64);
    const [first] = sockets;
    assert.ok(first !== undefined);
    const message = question(7);
    const length = Buffer.alloc(2);
    length.writeUInt16BE(message.length);
    first.resume();
    const closed = closeOf(first);
    for (let turn = 0; turn < 400; turn += 1) first.write(Buffer.concat([length, message]));
    await closed;
    assert.equal(server.counts.limited, 1);
    for (const socket of sockets) socket.destroy();
    // What it gives back it may have again.
    const again = async (): Promise<boolean> => {
      const socket = await open();
      const ended = closeOf(socket).then(() => false);
      const stayed = new Promise<boolean>((resolve) => setTimeout(resolve, 20, true));
      const stays = await Promise.race([ended, stayed]);
      socket.destroy();
      return stays;
    };
    for (let turn = 0; !(await again()); turn += 1) assert.ok(turn < 100, "stays closed");
  });
});

// Bytes that no client would send, at both framings. fast-check prints seed and path of what fails; the time limits are
// budgets, not expectations.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { PassThrough } from "node:stream";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import * as fc from "fast-check";

import { ManualClock } from "../api/manual-clock.ts";
import { FakeSession } from "./fake-session.ts";
import { clientFrame, dialHere, TestNode } from "./node.ts";
import { SpdyClient } from "./spdy-client.ts";

const budgetMs = 1200;
const limits = { plugins: [fc.interruptAfterTimeLimit(budgetMs)], numRuns: 2000 };
const exec = "/exec/default/web/c?command=sh&input=1&output=1&error=1";

let node: TestNode;
let target: { port: number; close(): Promise<void> };

before(async () => {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  target = {
    port: typeof address === "object" && address !== null ? address.port : 0,
    close: async () => {
      server.close();
      await once(server, "close");
    },
  };
  node = await TestNode.start({
    clock: new ManualClock(),
    open: async (signal) => {
      const session = new FakeSession();
      session.stdin.resume();
      signal.addEventListener("abort", () => void session.abort(), { once: true });
      await session.print("stdout", "hello");
      return session;
    },
    dial: async () => dialHere(target.port),
  });
});
after(async () => {
  await node[Symbol.asyncDispose]();
  await target.close();
});

function descriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

/** Sockets close a few turns after their last byte. */
async function noneLeft(before: number): Promise<void> {
  for (let tries = 0; descriptors() > before + 2 && tries < 200; tries += 1) await delay(10);
  assert.ok(descriptors() <= before + 2, `${descriptors()} descriptors, ${before} before`);
}

/** Nothing of the session is left; the node goes on. */
async function over(socket: { destroy(): unknown }): Promise<void> {
  socket.destroy();
  await node.idle();
}

/** Parts of a valid conversation, and what may be done to them. */
const damage = fc.record({
  at: fc.nat(400),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 12 }),
  how: fc.constantFrom("replace", "insert", "cut" as const),
});

function damaged(
  bytes: Buffer,
  changes: readonly { at: number; bytes: Uint8Array; how: string }[],
): Buffer {
  let out = bytes;
  for (const change of changes) {
    const at = change.at % (out.length + 1);
    const skip = change.how === "insert" ? 0 : change.bytes.length;
    const put = change.how === "cut" ? Buffer.alloc(0) : change.bytes;
    out = Buffer.concat([out.subarray(0, at), put, out.subarray(at + skip)]);
  }
  return out;
}

/** Everything that a client of SPDY says in a short session, as bytes. */
async function conversation(headers: readonly Readonly<Record<string, string>>[]): Promise<Buffer> {
  const out = new PassThrough();
  const said: Buffer[] = [];
  const write = out.write.bind(out) as (chunk: Buffer) => boolean;
  out.write = ((chunk: Buffer) => {
    said.push(chunk);
    return write(Buffer.alloc(0));
  }) as typeof out.write;
  const client = new SpdyClient(out);
  for (const [index, each] of headers.entries()) {
    const block = await client.block(each);
    const head = Buffer.alloc(10);
    head.writeUInt32BE(2 * index + 1);
    client.control(1, Buffer.concat([head, block]));
  }
  await client.data(1, "some bytes", 0);
  client.control(6, Buffer.from([0, 0, 0, 1]));
  await client.data(3, "more bytes", 1);
  client.control(3, Buffer.from([0, 0, 0, 1, 0, 0, 0, 5]));
  client.control(7, Buffer.alloc(8));
  out.destroy();
  return Buffer.concat(said);
}

async function feedSpdy(path: string, protocol: string, bytes: Buffer): Promise<void> {
  const client = await node.spdyClient(path, protocol);
  client.transport.write(bytes);
  // Until the node has ended it, or has had the time to look at it.
  await new Promise((resolve) => setImmediate(resolve));
  await over(client.transport);
}

async function feedWebSocket(path: string, protocol: string, bytes: Buffer): Promise<void> {
  const socket = node.webSocket(path, [protocol]);
  await once(socket, "open");
  const { _socket: raw } = socket as unknown as { readonly _socket: Socket };
  raw.write(bytes);
  await new Promise((resolve) => setImmediate(resolve));
  await over(raw);
}

describe("bytes that no client would send", () => {
  it("as SPDY: noise", async () => {
    const before = descriptors();
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 500 }), fc.boolean(), async (bytes, control) => {
        // Half of it begins like a control frame, to get past the first look.
        const start = control ? Buffer.from([0x80, 3]) : Buffer.alloc(0);
        const noise = Buffer.concat([start, bytes]);
        await feedSpdy("/portForward/default/web", "portforward.k8s.io", noise);
      }),
      limits,
    );
    await noneLeft(before);
  });

  for (const [name, path, protocol, headers] of [
    [
      "port-forward",
      "/portForward/default/web",
      "portforward.k8s.io",
      [
        { streamtype: "error", port: "80", requestid: "1" },
        { streamtype: "data", port: "80", requestid: "1" },
      ],
    ],
    [
      "exec",
      exec,
      "v4.channel.k8s.io",
      ["error", "stdin", "stdout", "stderr"].map((streamtype) => ({ streamtype })),
    ],
  ] as const) {
    it(`as SPDY: a damaged ${name}`, async () => {
      const whole = await conversation(headers);
      const before = descriptors();
      await fc.assert(
        fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 4 }), async (changes) => {
          await feedSpdy(path, protocol, damaged(whole, changes));
        }),
        limits,
      );
      await noneLeft(before);
    });
  }

  it("as WebSocket: noise, and frames of any kind with anything in them", async () => {
    const before = descriptors();
    const frame = fc.record({ opcode: fc.nat(15), payload: fc.uint8Array({ maxLength: 200 }) });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(
          [exec, "v5.channel.k8s.io"] as const,
          [exec, "v4.base64.channel.k8s.io"] as const,
          [exec, "channel.k8s.io"] as const,
          ["/portForward/default/web?port=80", "v4.channel.k8s.io"] as const,
        ),
        fc.oneof(
          fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
          fc
            .array(frame, { maxLength: 8 })
            .map((list) =>
              Buffer.concat(list.map((each) => clientFrame(each.opcode, each.payload))),
            ),
        ),
        async ([path, protocol], bytes) => {
          await feedWebSocket(path, protocol, bytes);
        },
      ),
      limits,
    );
    await noneLeft(before);
  });

  it("inside a tunnel: a damaged port-forward", async () => {
    const whole = await conversation([
      { streamtype: "error", port: "80", requestid: "1" },
      { streamtype: "data", port: "80", requestid: "1" },
    ]);
    await fc.assert(
      fc.asyncProperty(fc.array(damage, { maxLength: 4 }), fc.nat(100), async (changes, cut) => {
        const { transport } = await node.tunnel("/portForward/default/web");
        const bytes = damaged(whole, changes);
        transport.write(bytes.subarray(0, cut));
        transport.write(bytes.subarray(cut));
        await new Promise((resolve) => setImmediate(resolve));
        await over(transport);
      }),
      limits,
    );
  });

  it("leave a node that still serves", async () => {
    const client = await node.spdyClient("/portForward/default/web", "portforward.k8s.io");
    const headers = { port: "80", requestid: "1" };
    await (await client.open({ ...headers, streamtype: "error" })).end();
    const data = await client.open({ ...headers, streamtype: "data" });
    await data.end("still here");
    assert.equal((await data.ended).toString(), "still here");
    await over(client.transport);
  });
});

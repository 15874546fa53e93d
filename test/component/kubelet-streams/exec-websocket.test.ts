import assert from "node:assert/strict";
import { once } from "node:events";
import type { ClientRequest, IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";

import type { WebSocket } from "ws";

import { systemClock } from "../../../src/lib/clock.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import type { StreamSession } from "../../../src/runtime/types.ts";
import { FakeSession } from "./fake-session.ts";
import { TestNode } from "./node.ts";

let node: TestNode;
let open: () => Promise<StreamSession>;
const opened: unknown[] = [];

before(async () => {
  node = await TestNode.start({
    open: async (_signal, ...call) => {
      opened.push(call);
      return open();
    },
  });
});
after(async () => {
  await node[Symbol.asyncDispose]();
});

async function refusalOf(socket: WebSocket): Promise<number> {
  const [asked, response] = (await once(socket, "unexpected-response")) as [
    ClientRequest,
    IncomingMessage,
  ];
  asked.destroy();
  return response.statusCode ?? 0;
}

/** All that comes on each channel until the server closes. */
async function collect(socket: WebSocket): Promise<Map<number, string>> {
  const channels = new Map<number, string>();
  socket.on("message", (data: Buffer) => {
    const number = data[0] ?? -1;
    channels.set(number, `${channels.get(number) ?? ""}${data.subarray(1).toString()}`);
  });
  await once(socket, "close");
  return channels;
}

describe("exec over WebSocket", () => {
  test("both outputs, standard input with half-close, and the exit code arrive (v5)", async () => {
    const session = new FakeSession();
    open = async () => session;
    opened.length = 0;
    const socket = node.webSocket(
      "/exec/default/web/c?command=sh&command=-c&input=1&output=1&error=1",
      ["v5.channel.k8s.io", "v4.channel.k8s.io"],
    );
    const channels = collect(socket);
    await once(socket, "open");
    assert.equal(socket.protocol, "v5.channel.k8s.io");
    socket.send(Buffer.from("\0in"));
    socket.send(Buffer.from("\0put"));
    socket.send(Buffer.of(255, 0));
    assert.equal(await text(session.stdin), "input");
    await session.print("stdout", "out");
    await session.print("stderr", "err");
    session.exit(7);
    const all = await channels;
    assert.equal(all.get(1), "out");
    assert.equal(all.get(2), "err");
    assert.deepEqual(JSON.parse(all.get(3) ?? ""), {
      metadata: {},
      status: "Failure",
      message: "command terminated with non-zero exit code: exit status 7",
      reason: "NonZeroExitCode",
      details: { causes: [{ reason: "ExitCode", message: "7" }] },
    });
    assert.deepEqual(opened, [["exec", "id", { command: ["sh", "-c"], stdin: true, tty: false }]]);
    assert.equal(session.aborted, false);
  });

  test("success is a Status; before v4 it is silence", async () => {
    for (const [protocol, status] of [
      ["v4.channel.k8s.io", '{"metadata":{},"status":"Success"}'],
      ["channel.k8s.io", undefined],
    ] as const) {
      const session = new FakeSession();
      open = async () => session;
      const socket = node.webSocket("/exec/default/web/c?command=true&output=1", [protocol]);
      const channels = collect(socket);
      session.exit(0);
      assert.equal((await channels).get(3), status);
    }
  });

  test("base64 dialects carry text", async () => {
    const session = new FakeSession();
    open = async () => session;
    const socket = node.webSocket("/exec/default/web/c?command=cat&input=1&output=1", [
      "v4.base64.channel.k8s.io",
    ]);
    const channels = collect(socket);
    await once(socket, "open");
    socket.send(`0${Buffer.from("hi").toString("base64")}`);
    const [chunk] = (await once(session.stdin, "data")) as [Buffer];
    assert.equal(chunk.toString(), "hi");
    await session.print("stdout", "ho");
    session.exit(0);
    assert.equal((await channels).get(0x31), Buffer.from("ho").toString("base64"));
  });

  test("a terminal's sizes are passed on", async () => {
    const session = new FakeSession();
    open = async () => session;
    const socket = node.webSocket("/exec/default/web/c?command=sh&input=1&output=1&tty=1", [
      "v5.channel.k8s.io",
    ]);
    const channels = collect(socket);
    await once(socket, "open");
    socket.send(Buffer.from('\u0004{"Width":80,"Height":24}\n'));
    socket.send(Buffer.from("\0x"));
    await once(session.stdin, "readable");
    assert.deepEqual(session.sizes, [{ width: 80, height: 24 }]);
    session.exit(0);
    await channels;
  });

  test("the process is killed when the client leaves", async () => {
    const session = new FakeSession();
    open = async () => session;
    const socket = node.webSocket("/exec/default/web/c?command=sh&output=1");
    await once(socket, "open");
    await session.print("stdout", "x");
    await once(socket, "message");
    socket.terminate();
    await session.whenAborted;
    assert.equal(session.aborted, true);
  });

  test("a client that does not read makes the process wait, and loses nothing", async () => {
    const session = new FakeSession();
    open = async () => session;
    const socket = node.webSocket("/exec/default/web/c?command=yes&output=1");
    await once(socket, "open");
    socket.pause();
    let printed = 0;
    const chunk = Buffer.alloc(256 * 1024, 120);
    const printing = (async () => {
      for (; printed < 128; printed += 1) await session.print("stdout", chunk);
      session.exit(0);
    })();
    // Whatever the kernel's buffers take: it comes to a rest well before the 32 MiB are through.
    for (let before = -1; before !== printed;) {
      before = printed;
      await systemClock.sleep(40, new AbortController().signal);
    }
    assert.ok(printed < 100, `${printed} chunks were taken from the process`);
    let received = 0;
    socket.on("message", (data: Buffer) => {
      if (data[0] === 1) received += data.length - 1;
    });
    socket.resume();
    await once(socket, "close");
    await printing;
    assert.equal(received, 128 * chunk.length);
  });

  test("a failure to start is told as an internal error", async () => {
    open = async () => {
      throw new RuntimeError("StartFailed", 'exec: "nope": not found', { exitCode: 127 });
    };
    const socket = node.webSocket("/exec/default/web/c?command=nope&output=1", [
      "v4.channel.k8s.io",
    ]);
    const status: unknown = JSON.parse((await collect(socket)).get(3) ?? "");
    assert.ok(isRecord(status));
    assert.equal(status["reason"], "InternalError");
    assert.match(String(status["message"]), /error executing command in container: .*nope/);
  });

  for (const [path, status] of [
    ["/exec/default/none/c?command=sh&output=1", 404],
    ["/exec/default/web/missing?command=sh&output=1", 500],
    ["/exec/default/web/c?command=sh", 400],
    ["/exec/default/web/c?output=1", 400],
  ] as const) {
    test(`${path} is refused with ${status} before the handshake`, async () => {
      assert.equal(await refusalOf(node.webSocket(path)), status);
    });
  }
});

test("attach follows the container's own terminal and stdin", async () => {
  for (const [container, options] of [
    ["terminal", { stdin: true, tty: true }],
    ["closed", { stdin: false, tty: false }],
  ] as const) {
    const session = new FakeSession();
    open = async () => session;
    opened.length = 0;
    const socket = node.webSocket(`/attach/default/web/${container}?input=1&output=1&error=1`, [
      "v5.channel.k8s.io",
    ]);
    const channels = collect(socket);
    session.exit(undefined);
    await channels;
    assert.deepEqual(opened, [["attach", "id", options]]);
  }
});

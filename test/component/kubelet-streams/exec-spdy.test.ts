import assert from "node:assert/strict";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, it } from "node:test";

import { isRecord } from "../../../src/lib/guard.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import type { StreamSession } from "../../../src/runtime/types.ts";
import { ManualClock, until } from "../api/manual-clock.ts";
import { FakeSession } from "./fake-session.ts";
import { TestNode } from "./node.ts";
import type { ClientStream, SpdyClient } from "./spdy-client.ts";

const all = "command=sh&input=1&output=1&error=1";
const v4 = "v4.channel.k8s.io";

type Name = "error" | "stdin" | "stdout" | "stderr" | "resize";

let clock: ManualClock;
let node: TestNode;
let session: FakeSession;
let open: (signal: AbortSignal) => Promise<StreamSession>;

beforeEach(async () => {
  clock = new ManualClock();
  session = new FakeSession();
  open = async () => session;
  node = await TestNode.start({ open: (signal) => open(signal), clock });
});
afterEach(async () => {
  await node[Symbol.asyncDispose]();
});

async function openStreams<N extends Name>(
  client: SpdyClient,
  names: readonly N[],
): Promise<Record<N, ClientStream>> {
  const opened = await Promise.all(
    names.map(async (name) => [name, await client.open({ streamtype: name })] as const),
  );
  return Object.fromEntries(opened) as Record<N, ClientStream>;
}

describe("exec over SPDY", () => {
  for (const protocol of [v4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]) {
    it(`${protocol}: both outputs, input with half-close, and how it ended`, async () => {
      const answer = await node.spdy(`/exec/default/web/c?${all}`, [protocol, "unknown"]);
      assert.ok("client" in answer);
      assert.equal(answer.protocol, protocol);
      const { client } = answer;
      const streams = await openStreams(client, ["error", "stdin", "stdout", "stderr"]);
      await streams.stdin.write("in");
      await streams.stdin.end("put");
      assert.equal(await text(session.stdin), "input");
      await session.print("stdout", "out");
      await session.print("stderr", "err");
      session.exit(7);
      assert.equal((await streams.stdout.ended).toString(), "out");
      assert.equal((await streams.stderr.ended).toString(), "err");
      const status = (await streams.error.ended).toString();
      const message = "command terminated with non-zero exit code: exit status 7";
      if (protocol === v4) {
        assert.deepEqual(JSON.parse(status), {
          metadata: {},
          status: "Failure",
          message,
          reason: "NonZeroExitCode",
          details: { causes: [{ reason: "ExitCode", message: "7" }] },
        });
      } else assert.equal(status, message);
      client.transport.end();
      await node.idle();
      assert.ok(client.saidGoodbye);
      assert.equal(session.aborted, false);
    });
  }

  it("success is a Status in v4 and silence before", async () => {
    for (const [protocol, want] of [
      [v4, '{"metadata":{},"status":"Success"}'],
      ["v3.channel.k8s.io", ""],
    ] as const) {
      session = new FakeSession();
      const client = await node.spdyClient("/exec/default/web/c?command=true&output=1", protocol);
      const { error } = await openStreams(client, ["error", "stdout"]);
      session.exit(0);
      assert.equal((await error.ended).toString(), want);
      client.transport.destroy();
    }
  });

  it("the best protocol of both is chosen; without a common one the answer says what there is", async () => {
    const answer = await node.spdy(`/exec/default/web/c?${all}`, ["v5.channel.k8s.io", v4]);
    assert.ok("client" in answer);
    assert.equal(answer.protocol, v4);
    answer.client.transport.destroy();
    const refused = await node.spdy(`/exec/default/web/c?${all}`, ["v9.channel.k8s.io"]);
    assert.ok("status" in refused);
    assert.equal(refused.status, 403);
    assert.match(refused.body, /client supports \[v9.channel.k8s.io\], server accepts \[v4/);
  });

  it("sizes of the terminal come newline by newline, however they are cut", async () => {
    const client = await node.spdyClient("/exec/default/web/c?command=sh&output=1&tty=1", v4);
    const { resize } = await openStreams(client, ["error", "stdout", "resize"]);
    await resize.write('{"Width":80,"Hei');
    await resize.write('ght":24}\nnonsense\n{"Width":1,"Height":2}\n');
    await until(() => session.sizes.length === 2, "two sizes");
    assert.deepEqual(session.sizes, [
      { width: 80, height: 24 },
      { width: 1, height: 2 },
    ]);
    session.exit(0);
    client.transport.destroy();
  });

  it("a failure to start is told on the error stream", async () => {
    open = () => Promise.reject(new RuntimeError("StartFailed", "no such file"));
    const client = await node.spdyClient("/exec/default/web/c?command=nope&output=1", v4);
    const { error } = await openStreams(client, ["error", "stdout"]);
    const status: unknown = JSON.parse((await error.ended).toString());
    assert.ok(isRecord(status));
    assert.equal(status["reason"], "InternalError");
    assert.match(String(status["message"]), /error executing command in container: no such file/);
    client.transport.destroy();
  });

  it("streams that were not asked for are reset, the others go on", async () => {
    const client = await node.spdyClient("/exec/default/web/c?command=sh&output=1", v4);
    const [odd, unasked] = await Promise.all([
      client.open({ streamtype: "surprise" }),
      client.open({ streamtype: "stdin" }),
    ]);
    await Promise.all([odd.wasReset, unasked.wasReset]);
    const { stdout } = await openStreams(client, ["error", "stdout"]);
    await (
      await client.open({ streamtype: "stdout" })
    ).wasReset;
    await session.print("stdout", "x");
    session.exit(0);
    assert.equal((await stdout.ended).toString(), "x");
    client.transport.destroy();
  });

  it("a client that does not open its streams is left after thirty seconds", async () => {
    const client = await node.spdyClient("/exec/default/web/c?command=sh&output=1", v4);
    await openStreams(client, ["error"]);
    await until(() => clock.sleeping, "a deadline");
    clock.advance(30_000);
    await once(client.transport, "end");
    client.transport.destroy();
    await node.idle();
  });

  it("pings are answered, also between frames of data", async () => {
    const client = await node.spdyClient(`/exec/default/web/c?${all}`, v4);
    const { stdin } = await openStreams(client, ["error", "stdin", "stdout", "stderr"]);
    await stdin.write("x");
    for (const number of [1, 3]) {
      const payload = Buffer.alloc(4);
      payload.writeUInt32BE(number);
      client.control(6, payload);
    }
    await until(() => client.pings.length === 2, "two answers");
    assert.deepEqual(client.pings, [1, 3]);
    session.exit(0);
    client.transport.destroy();
  });
});

describe("a client that leaves its exec over SPDY", () => {
  for (const [how, leave] of [
    ["resets its connection", (client: SpdyClient) => client.transport.destroy()],
    ["ends its connection", (client: SpdyClient) => client.transport.end()],
    [
      "speaks another protocol",
      (client: SpdyClient) => client.transport.write("GET / HTTP/1.1\r\n"),
    ],
  ] as const) {
    it(`${how}: its process is killed`, async () => {
      const client = await node.spdyClient(`/exec/default/web/c?${all}`, v4);
      const { stdout } = await openStreams(client, ["error", "stdin", "stdout", "stderr"]);
      await session.print("stdout", "x");
      await until(() => stdout.receivedBytes === 1, "output");
      leave(client);
      await session.whenAborted;
      await node.idle();
    });
  }

  it("while the process is being started: what comes of it is ended", async () => {
    const started = Promise.withResolvers<StreamSession>();
    const asked = Promise.withResolvers<undefined>();
    open = () => {
      asked.resolve(undefined);
      return started.promise;
    };
    const client = await node.spdyClient("/exec/default/web/c?command=sh&output=1", v4);
    await openStreams(client, ["error", "stdout"]);
    await asked.promise;
    client.transport.destroy();
    await once(client.transport, "close");
    started.resolve(session);
    await session.whenAborted;
    await node.idle();
  });

  it("while its process takes no input: that shows within seconds", async () => {
    const client = await node.spdyClient(`/exec/default/web/c?${all}`, v4);
    const { stdin } = await openStreams(client, ["error", "stdin", "stdout", "stderr"]);
    // More than is held back for it: the connection is not read any more, so its end is not seen either.
    const writing = stdin.write(Buffer.alloc(12 * 1024 * 1024));
    await until(() => clock.sleeping, "the input to stall");
    client.transport.destroy();
    await writing;
    const aborted = session.whenAborted.then(() => true);
    while (!(await Promise.race([aborted, tick()]))) clock.advance(5000);
    await node.idle();
  });
});

async function tick(): Promise<boolean> {
  await new Promise((resolve) => setTimeout(resolve, 2));
  return false;
}

describe("slow ends of an exec over SPDY", () => {
  it("a process that reads slowly gets every byte, and holds its client back", async () => {
    const client = await node.spdyClient(`/exec/default/web/c?${all}`, v4);
    const { stdin } = await openStreams(client, ["error", "stdin", "stdout", "stderr"]);
    const chunk = Buffer.alloc(64 * 1024, "remora.");
    let written = 0;
    const writing = (async () => {
      for (; written < 256; written += 1) await stdin.write(chunk);
      await stdin.end();
    })();
    for (let before = -1; before !== written;) {
      before = written;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    assert.ok(written < 200, `${written} of 256 chunks were taken`);
    let read = 0;
    for await (const piece of session.stdin) read += (piece as Buffer).length;
    await writing;
    assert.equal(read, 256 * chunk.length);
    session.exit(0);
    client.transport.destroy();
  });

  it("a client that reads slowly makes the process wait, and loses nothing", async () => {
    const client = await node.spdyClient(`/exec/default/web/c?${all}`, v4);
    const { stdout } = await openStreams(client, ["error", "stdin", "stdout", "stderr"]);
    client.transport.pause();
    const chunk = Buffer.alloc(256 * 1024, "remora.");
    let printed = 0;
    const printing = (async () => {
      for (; printed < 96; printed += 1) await session.print("stdout", chunk);
      session.exit(0);
    })();
    for (let before = -1; before !== printed;) {
      before = printed;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    assert.ok(printed < 80, `${printed} of 96 chunks were taken`);
    client.transport.resume();
    assert.equal((await stdout.ended).length, 96 * chunk.length);
    await printing;
    client.transport.destroy();
  });
});

describe("what exec refuses before anything is upgraded", () => {
  for (const [path, status, body] of [
    [`/exec/default/none/c?${all}`, 404, /pod does not exist/],
    [`/exec/default/web/other-uid/c?${all}`, 404, /pod does not exist/],
    [`/exec/default/web/uid-1/none?${all}`, 500, /container not found \("none"\)/],
    ["/exec/default/web/c?command=sh", 400, /at least 1 of stdin, stdout, stderr/],
    [`/exec/default?${all}`, 404, /not found/],
    [`/exec/default/web/c/d/e?${all}`, 404, /not found/],
    [`/exec/default/%zz/c?${all}`, 400, /encoded/],
    ["/portForward/default/none", 404, /pod does not exist/],
    ["/portForward/default/web/other-uid", 404, /pod does not exist/],
    ["/portForward/default/web/uid-1/x", 404, /not found/],
  ] as const) {
    it(`${path}: ${status}`, async () => {
      const answer = await node.spdy(path, [v4, "portforward.k8s.io"]);
      assert.ok("status" in answer, "it was accepted");
      assert.equal(answer.status, status);
      assert.match(answer.body, body);
    });
  }

  it("with the right uid it is accepted", async () => {
    const client = await node.spdyClient(`/exec/default/web/uid-1/c?${all}`, v4);
    client.transport.destroy();
  });
});

import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { Agent, createServer } from "node:https";
import { type AddressInfo, connect as connectTcp, type Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";

import type { ApiClient } from "../../../src/api/client.ts";
import { type ServerBounds, serverBounds } from "../../../src/kubelet/server/bounds.ts";
import { Connections } from "../../../src/kubelet/server/connections.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { NodeUnderTest, TestCA } from "./node-under-test.ts";

const bounds: Partial<ServerBounds> = { maxStrangers: 8, maxHeaderSize: 32 * 1024 };
const impatient: Partial<ServerBounds> = {
  handshakeTimeout: 400,
  headersTimeout: 400,
  requestTimeout: 450,
  connectionsCheckingInterval: 50,
};

describe("what callers may cost", () => {
  const node = new NodeUnderTest();
  const hasty = new NodeUnderTest();
  before(async () => {
    await node.start({}, { bounds });
    await hasty.start({}, { bounds: impatient });
  });
  after(async () => {
    await node.stop();
    await hasty.stop();
  });

  function tcp({ port } = node): Socket {
    const socket = connectTcp(port, "127.0.0.1");
    socket.on("error", () => undefined);
    return socket;
  }

  async function tls(options: ConnectionOptions = {}): Promise<TLSSocket> {
    const socket = connect({
      port: node.port,
      host: "127.0.0.1",
      rejectUnauthorized: false,
      ...options,
    });
    socket.on("error", () => undefined);
    await once(socket, "secureConnect");
    return socket;
  }

  /** What the node answers to these bytes until it hangs up. */
  async function answerTo(bytes: string, options?: ConnectionOptions): Promise<string> {
    const socket = await tls(options);
    socket.write(bytes);
    return heard(socket);
  }

  /** All that comes until the connection is over, also when it is cut off. */
  async function heard(socket: TLSSocket): Promise<string> {
    let all = "";
    socket.on("data", (chunk: Buffer) => {
      all += chunk.toString();
    });
    socket.once("end", () => socket.end());
    await new Promise((resolve) => socket.once("close", resolve));
    return all;
  }

  async function wellStill(): Promise<void> {
    assert.equal((await node.get("/healthz", node.admin)).status, 200);
  }

  test("who never speaks is hung up on", async () => {
    const socket = tcp(hasty).resume();
    await once(socket, "close");
  });

  test("a handshake that does not end is ended", async () => {
    const socket = tcp(hasty).resume();
    // The beginning of a ClientHello of 512 bytes.
    socket.write(Buffer.from("160301020001", "hex"));
    await once(socket, "close");
  });

  test("who speaks TLS and then nothing, or a byte now and then, is hung up on", async () => {
    assert.match(await heard(await tls({ port: hasty.port })), /^HTTP\/1\.1 408 /);
    const slow = await tls({ port: hasty.port });
    slow.write("GET /pods HTTP/1.1\r\nHost: node\r\n");
    const stop = new AbortController();
    const dripping = (async () => {
      while (!stop.signal.aborted) {
        slow.write("X: y\r\n");
        await systemClock.sleep(20, stop.signal).catch(() => undefined);
      }
    })();
    assert.match(await heard(slow), /^HTTP\/1\.1 408 /);
    stop.abort();
    await dripping;
  });

  test("strangers make room for each other, oldest first, and never for those who are known", async () => {
    const known = new Agent({ keepAlive: true, maxSockets: 1 });
    assert.equal((await node.get("/pods", node.admin, { agent: known })).status, 200);
    const crowd = Array.from({ length: 30 }, () => tcp());
    let closed = 0;
    for (const socket of crowd) socket.resume().once("close", () => (closed += 1));
    while (closed < crowd.length - 8) await systemClock.sleep(5, new AbortController().signal);
    assert.equal((await node.get("/pods", node.admin, { agent: known })).status, 200);
    known.destroy();
    await wellStill();
    for (const socket of crowd) socket.destroy();
    while (closed < crowd.length) await systemClock.sleep(5, new AbortController().signal);
  });

  test("a request for which there is no room is refused", async () => {
    const long = "x".repeat(40 * 1024);
    for (const request of [
      `GET /${long} HTTP/1.1\r\nHost: node\r\n\r\n`,
      `GET / HTTP/1.1\r\nHost: node\r\nX: ${long}\r\n\r\n`,
      `GET / HTTP/1.1\r\nHost: node\r\n${"X: y\r\n".repeat(10_000)}\r\n`,
    ]) {
      assert.match(await answerTo(request), /^HTTP\/1\.1 431 /);
    }
    await wellStill();
  });

  test("headers beyond what is kept take no right along", async () => {
    const bytes = `GET /pods HTTP/1.1\r\nHost: node\r\n${"X: y\r\n".repeat(2500)}Authorization: Bearer good-x\r\nConnection: close\r\n\r\n`;
    assert.match(await answerTo(bytes), /^HTTP\/1\.1 4(01|03|31) /);
  });

  test("what is no HTTP gets 400", async () => {
    for (const bytes of [
      "hello\r\n\r\n",
      "\0\0\0\0",
      "GET / HTTP/9.9\r\n\r\n",
      "GET /pods HTTP/1.1\r\n\r\n",
      "GET /pods HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]) {
      assert.match(await answerTo(bytes), /^HTTP\/1\.1 400 /, JSON.stringify(bytes));
    }
  });

  test("a method nobody has, and CONNECT, lead nowhere", async () => {
    const head = "HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    assert.match(await answerTo(`PURGE /pods ${head}`, node.admin), /^HTTP\/1\.1 405 /);
    assert.equal(await answerTo(`CONNECT 127.0.0.1:22 ${head}`, node.admin), "");
  });

  test("a body is not waited for, nor asked for", async () => {
    const head = "GET /healthz HTTP/1.1\r\nHost: node\r\nContent-Length: 1000000\r\n";
    const answer = await answerTo(`${head}\r\nbegin`, node.admin);
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(answer, /\r\nConnection: close\r\n/);
    const patient = await answerTo(`${head}Expect: 100-continue\r\n\r\n`, node.admin);
    assert.match(patient, /^HTTP\/1\.1 200 OK\r\n/);
    const chunks =
      "POST /run/ns/none/c HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    assert.match(await answerTo(chunks, node.admin), /^HTTP\/1\.1 404 [^]*pod does not exist$/);
  });

  test("pipelined requests are answered in order, and only so many of them", async () => {
    const one = "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n";
    const last = "GET /configz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    const answer = await answerTo(one.repeat(4) + last, node.admin);
    assert.equal(answer.match(/HTTP\/1\.1 200 OK/g)?.length, 5);
    assert.match(answer, /kubeletconfig[^]*$/);
    const many = await answerTo(one.repeat(5000), node.admin);
    assert((many.match(/HTTP\/1\.1 200 OK/g)?.length ?? 0) < 100);
    await wellStill();
  });

  test("an upgrade behind an unanswered request is hung up on", async () => {
    const upgrade =
      "GET /exec/ns/web/c?command=x&output=1 HTTP/1.1\r\nHost: node\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    const answer = await answerTo(
      `GET /runningpods/ HTTP/1.1\r\nHost: node\r\n\r\n${upgrade}`,
      node.admin,
    );
    assert.doesNotMatch(answer, / 101 /);
    await wellStill();
  });

  test("an upgrade whose client leaves during the look-ups leaves nothing", async () => {
    for (let time = 0; time < 20; time += 1) {
      const socket = await tls(node.ca.issue("viewer"));
      socket.write(
        "GET /exec/ns/web/c?command=x&output=1 HTTP/1.1\r\nHost: node\r\nConnection: upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
      );
      socket.destroy();
    }
    await wellStill();
  });

  for (const [what, path, headers] of [
    ["without a protocol", "/exec/ns/web/c?command=x&output=1", "Upgrade: tcp"],
    ["without its key", "/exec/ns/web/c?command=x&output=1", "Upgrade: websocket"],
    ["for another pod", "/exec/ns/none/c?command=x&output=1", "Upgrade: websocket"],
    ["for another uid", "/exec/ns/web/uid-2/c?command=x&output=1", "Upgrade: SPDY/3.1"],
    ["for another container", "/attach/ns/web/x?output=1", "Upgrade: SPDY/3.1"],
    ["without a command", "/exec/ns/web/c?output=1", "Upgrade: SPDY/3.1"],
    ["for no stream", "/attach/ns/web/c", "Upgrade: SPDY/3.1"],
    ["to a pod that is not there", "/portForward/ns/none", "Upgrade: SPDY/3.1"],
  ] as const) {
    test(`an upgrade ${what} is refused and hung up on`, async () => {
      const bytes = `GET ${path} HTTP/1.1\r\nHost: node\r\nConnection: upgrade\r\n${headers}\r\n\r\n`;
      assert.match(await answerTo(bytes, node.admin), /^HTTP\/1\.1 (400|403|404|500) /);
    });
  }
});

test("a refused upgrade does not stay half-open", async () => {
  const node = await new NodeUnderTest().start();
  try {
    const raw = connectTcp({ port: node.port, host: "127.0.0.1", allowHalfOpen: true });
    // Unlike a client that connects by itself, one on a given socket need not end its side.
    const options = { socket: raw, allowHalfOpen: true, rejectUnauthorized: false, ...node.admin };
    const socket = connect(options);
    const head = "HTTP/1.1\r\nHost: node\r\nConnection: upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
    socket.write(`POST /exec/ns/none/c?command=x&output=1 ${head}`);
    let answer = "";
    socket.on("data", (chunk: Buffer) => (answer += chunk.toString()));
    // It keeps sending, and never ends its side.
    socket.once("end", () => socket.write("and another thing"));
    const over = new Promise((resolve) => socket.once("error", resolve).once("close", resolve));
    const stop = new AbortController();
    const dripping = (async () => {
      while (!stop.signal.aborted) {
        await systemClock.sleep(20, stop.signal).catch(() => undefined);
        if (socket.writable) socket.write("x");
      }
    })();
    await over;
    stop.abort();
    await dripping;
    socket.destroy();
    assert.match(answer, /^HTTP\/1\.1 404 [^]*pod does not exist$/);
  } finally {
    await node.stop();
  }
});

describe("hanging up on networks that are not let in", () => {
  test("happens before a byte is read", async () => {
    const { cert, key } = new TestCA("ca").issue("node", [], { usages: ["server"] });
    const server = createServer({ cert, key }, () => assert.fail("it was let in"));
    const seen: string[] = [];
    new Connections((remote, local) => {
      seen.push(`${remote} to ${local}`);
      return false;
    }, serverBounds).watch(server);
    server.on("tlsClientError", () => undefined);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    for (let time = 0; time < 20; time += 1) {
      const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false });
      let secured = false;
      socket.once("secureConnect", () => (secured = true));
      socket.on("error", () => undefined);
      await new Promise((resolve) => socket.once("close", resolve));
      assert.equal(secured, false);
    }
    server.close();
    await once(server, "close");
    assert.deepEqual(new Set(seen), new Set(["127.0.0.1 to 127.0.0.1"]));
  });

  test("never happens to this machine", async () => {
    const node = await new NodeUnderTest().start({ kubeletPeerCIDRs: ["192.0.2.0/24"] });
    try {
      assert.equal((await node.get("/healthz", node.admin)).status, 200);
    } finally {
      await node.stop();
    }
  });
});

test("a flood of unknown tokens asks the API server a few at a time", async () => {
  let running = 0;
  let most = 0;
  const client: ApiClient = {
    request: async () => {
      running += 1;
      most = Math.max(most, running);
      await systemClock.sleep(1, new AbortController().signal);
      running -= 1;
      return { status: { authenticated: false } };
    },
    watch: () => {
      throw new Error("nothing is watched");
    },
  };
  const node = await new NodeUnderTest().start({}, { client });
  const agent = new Agent({ maxSockets: 100 });
  try {
    const statuses = await Promise.all(
      Array.from({ length: 100 }, (_all, at) =>
        node.get("/pods", { token: `t${at}` }, { agent }).then(({ status }) => status),
      ),
    );
    assert.deepEqual(new Set(statuses), new Set([401]));
    assert(most <= 16, `${most} at once`);
  } finally {
    agent.destroy();
    await node.stop();
  }
});

test("stopping does not wait for those who never say anything", async () => {
  const node = await new NodeUnderTest().start();
  const socket = connectTcp(node.port, "127.0.0.1");
  socket.on("error", () => undefined);
  await once(socket, "connect");
  const closed = once(socket.resume(), "close");
  await node.stop();
  await closed;
});

test("thousands of bad requests leave no descriptor behind", async () => {
  const openFiles = (): number => readdirSync("/proc/self/fd").length;
  const quick = { headersTimeout: 50, requestTimeout: 60, connectionsCheckingInterval: 20 };
  const node = await new NodeUnderTest().start({}, { bounds: quick });
  const settled = async (): Promise<void> => {
    const { signal } = new AbortController();
    for (let tries = 0; tries < 300; tries += 1) {
      if (openFiles() <= before) return;
      await systemClock.sleep(10, signal);
    }
  };
  node.agent.destroy();
  await systemClock.sleep(50, new AbortController().signal);
  const before = openFiles();
  const viewer = node.ca.issue("viewer");
  const upgrade = "HTTP/1.1\r\nHost: node\r\nConnection: upgrade\r\nUpgrade:";
  const bad: readonly string[] = [
    "hello\r\n\r\n",
    "GET /pods HTTP/1.1\r\nHost: node\r\n\r\n",
    "GET /pods HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer unknown\r\n\r\n",
    `GET /exec/ns/none/c?command=x&output=1 ${upgrade} websocket\r\n\r\n`,
    `POST /exec/ns/web/c?command=x ${upgrade} SPDY/3.1\r\n\r\n`,
    `POST /portForward/ns/none ${upgrade} SPDY/3.1\r\n\r\n`,
    "GET /containerLogs/ns/web/c HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n",
    "GET /%zz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n",
    "",
  ];
  const clients: readonly ConnectionOptions[] = [{}, node.admin, viewer];
  // Not once(): it takes the error of a connection that is cut off for its own.
  const closing = (socket: Socket): Promise<void> =>
    new Promise((resolve) => socket.once("close", () => resolve()));
  const one = async (at: number): Promise<void> => {
    // Handshakes are dear, so only every fourth gets that far.
    if (at % 4 !== 0) {
      const raw = connectTcp(node.port, "127.0.0.1");
      raw.on("error", () => undefined);
      const closed = closing(raw);
      await once(raw, "connect");
      if (at % 4 === 1) raw.destroy();
      else raw.end(at % 4 === 2 ? "GET / HTTP/1.0\r\n\r\n" : Buffer.from("160301020001", "hex"));
      raw.resume();
      await closed;
      return;
    }
    const socket = connect({
      port: node.port,
      host: "127.0.0.1",
      rejectUnauthorized: false,
      ...clients[(at / 4) % clients.length],
    });
    socket.on("error", () => undefined);
    const closed = closing(socket);
    // Some leave at once, some when they were answered, some never say a word.
    socket.once("secureConnect", () => {
      socket.write(bad[(at / 4) % bad.length] ?? "");
      if (at % 20 === 0) socket.destroy();
    });
    socket.once("data", () => socket.end());
    await closed;
  };
  try {
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < 2400) await one((next += 1));
    };
    await Promise.all(Array.from({ length: 40 }, worker));
    assert.equal((await node.get("/healthz", node.admin, { agent: false })).status, 200);
    await settled();
    assert(openFiles() <= before, `${before} files open before, ${openFiles()} after`);
  } finally {
    await node.stop();
  }
});

test("the bounds leave room for what clients do", () => {
  // kubectl exec sends its command in the request's line; an argument may have 128 KiB.
  assert(serverBounds.maxHeaderSize > 128 * 1024);
  // An API server's transport closes what was idle for 90 s; hanging up first would lose requests.
  assert(serverBounds.keepAliveTimeout >= 90_000);
});

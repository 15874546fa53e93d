import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import type { ClientRequest, IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import { createServer } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";

import { WebSocket } from "ws";

import type { ApiClient, ApiRequest } from "../../../src/api/client.ts";
import { createNodeServer } from "../../../src/kubelet/server/server.ts";
import type { ContainerLookup, PodView } from "../../../src/kubelet/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import type { ContainerRuntime, StreamSession } from "../../../src/runtime/types.ts";
import { FakeSession } from "./fake-session.ts";
import { agentConfig, type TestPki, testPki } from "./fixtures.ts";

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}

async function answerOf(response: IncomingMessage): Promise<Answer> {
  return { status: response.statusCode ?? 0, body: await text(response) };
}

/** The API server as the node's server sees it: knows one token, and who may do what. */
class FakeReviews implements ApiClient {
  readonly asked: string[] = [];
  readonly allowed = new Set<string>();

  async request({ path, body }: ApiRequest): Promise<unknown> {
    const spec = isRecord(body) && isRecord(body["spec"]) ? body["spec"] : {};
    if (path.endsWith("/tokenreviews")) {
      this.asked.push(`token ${String(spec["token"])}`);
      return spec["token"] === "good"
        ? { status: { authenticated: true, user: { username: "scraper", groups: ["g"] } } }
        : { status: { authenticated: false } };
    }
    const attributes = isRecord(spec["resourceAttributes"]) ? spec["resourceAttributes"] : {};
    const right = `${String(spec["user"])} ${String(attributes["verb"])} ${String(attributes["subresource"])}`;
    this.asked.push(right);
    return { status: { allowed: this.allowed.has(right) } };
  }

  watch(): AsyncIterable<unknown> {
    throw new Error("the node's server watches nothing");
  }
}

interface Client {
  readonly cert?: Buffer;
  readonly key?: Buffer;
  readonly token?: string;
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

describe("the node's server", () => {
  const stop = new AbortController();
  const reviews = new FakeReviews();
  const agent = new Agent({ keepAlive: false });
  let pki: TestPki;
  let port = 0;
  let healthzPort = 0;
  let running: Promise<void>;
  let admin: Client;
  let logPath = "";
  let openSession: () => Promise<StreamSession> = async () => new FakeSession();
  const opened: unknown[] = [];

  const found: ContainerLookup = {
    kind: "found",
    containerID: "id1",
    running: false,
    tty: false,
    stdin: true,
  };
  const lookups: Readonly<Record<string, ContainerLookup>> = {
    "ns/web/c": found,
    "ns/web/terminal": { ...found, tty: true },
    "ns/web/closed": { ...found, stdin: false },
    "ns/web/missing": { kind: "containerNotFound" },
    "ns/web/waiting": { kind: "notStarted", reason: "ContainerCreating" },
  };
  const pods: PodView = {
    pods: () => [],
    healthy: () => undefined,
    findContainer: async ({ namespace, pod, container }) =>
      lookups[`${namespace}/${pod}/${container}`] ?? { kind: "podNotFound" },
  };
  const runtime = {
    containerLogPath: async () => logPath,
    snapshot: async () => new Map(),
    exec: async (id: string, options: unknown) => {
      opened.push(["exec", id, options]);
      return openSession();
    },
    attach: async (id: string, options: unknown) => {
      opened.push(["attach", id, options]);
      return openSession();
    },
  } as unknown as ContainerRuntime;

  before(async () => {
    pki = testPki();
    const credentials = (name: string, subject: string): Client => {
      const { cert, key } = pki.issue(name, subject);
      return { cert: pki.read(cert), key: pki.read(key) };
    };
    const serving = pki.issue("serving", "/CN=node");
    admin = credentials("admin", "/O=system:masters/CN=admin");
    port = await freePort();
    healthzPort = await freePort();
    logPath = join(pki.directory, "c-json.log");
    const line = { log: "hello\n", stream: "stdout", time: "2026-01-01T00:00:00Z" };
    writeFileSync(logPath, `${JSON.stringify(line)}\n`);
    const config = agentConfig(pki.directory, {
      kubeletPort: port,
      kubeletHealthzPort: healthzPort,
      clientCAFile: pki.ca,
      tlsCertFile: serving.cert,
      tlsPrivateKeyFile: serving.key,
    });
    const server = createNodeServer({
      config,
      client: reviews,
      runtime,
      pods,
      node: { node: () => undefined, hostIPs: () => [], subscribe: () => () => undefined },
      clock: systemClock,
      logger: silentLogger,
    });
    running = server.run(stop.signal);
    while ((await get("/healthz", admin).catch(() => undefined)) === undefined) {
      await systemClock.sleep(5, stop.signal);
    }
  });

  after(async () => {
    stop.abort();
    await running;
    agent.destroy();
    pki.remove();
  });

  async function get(path: string, client: Client, method = "GET"): Promise<Answer> {
    const asked = request({
      host: "127.0.0.1",
      port,
      path,
      method,
      agent,
      ca: pki.read(pki.ca),
      ...(client.cert === undefined ? {} : { cert: client.cert, key: client.key }),
      ...(client.token === undefined
        ? {}
        : { headers: { authorization: `Bearer ${client.token}` } }),
    });
    asked.end();
    return new Promise((resolve, reject) => {
      asked.on("error", reject);
      asked.on("response", (response) => {
        resolve(answerOf(response));
      });
    });
  }

  describe("container logs", () => {
    for (const [path, status, body] of [
      ["/containerLogs/ns/web/c", 200, "hello\n"],
      ["/containerLogs/ns/web/c?timestamps=true", 200, "2026-01-01T00:00:00.000000000Z hello\n"],
      ["/containerLogs/ns/web/c?follow=true", 200, "hello\n"],
      ["/containerLogs/ns/none/c", 404, 'pod "none" does not exist'],
      ["/containerLogs/ns/web/missing", 404, 'container "missing" not found in pod "web"'],
      [
        "/containerLogs/ns/web/waiting",
        400,
        'container "waiting" in pod "web" is waiting to start: ContainerCreating',
      ],
      [
        "/containerLogs/ns/web/waiting?previous=true",
        400,
        'previous terminated container "waiting" in pod "web" not found',
      ],
      ["/containerLogs/ns/web/c?tailLines=-1", 422, '{"message": "Invalid request."}'],
    ] as const) {
      test(`${path} answers ${status}`, async () => {
        assert.deepEqual(await get(path, admin), { status, body });
      });
    }
  });

  function dial(path: string, client: Client, protocols: string[] = []): WebSocket {
    return new WebSocket(`wss://127.0.0.1:${port}${path}`, protocols, {
      ca: pki.read(pki.ca),
      cert: client.cert,
      key: client.key,
    });
  }

  async function refusalOf(socket: WebSocket): Promise<number> {
    socket.on("error", () => undefined);
    const [asked, response] = (await once(socket, "unexpected-response")) as [
      ClientRequest,
      IncomingMessage,
    ];
    asked.destroy();
    return response.statusCode ?? 0;
  }

  /** All that comes on each channel until the server closes. */
  function collect(socket: WebSocket): Promise<Map<number, string>> {
    const channels = new Map<number, string>();
    socket.on("message", (data: Buffer) => {
      const number = data[0] ?? -1;
      channels.set(number, `${channels.get(number) ?? ""}${data.subarray(1).toString()}`);
    });
    return once(socket, "close").then(() => channels);
  }

  describe("exec over WebSocket", () => {
    test("both outputs, standard input with half-close, and the exit code arrive (v5)", async () => {
      const session = new FakeSession();
      openSession = async () => session;
      opened.length = 0;
      const socket = dial("/exec/ns/web/c?command=sh&command=-c&input=1&output=1&error=1", admin, [
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
      ]);
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
      assert.deepEqual(opened, [
        ["exec", "id1", { command: ["sh", "-c"], stdin: true, tty: false }],
      ]);
      assert.equal(session.aborted, false);
    });

    test("success is a Status; before v4 it is silence", async () => {
      for (const [protocol, status] of [
        ["v4.channel.k8s.io", '{"metadata":{},"status":"Success"}'],
        ["channel.k8s.io", undefined],
      ] as const) {
        const session = new FakeSession();
        openSession = async () => session;
        const socket = dial("/exec/ns/web/c?command=true&output=1", admin, [protocol]);
        const channels = collect(socket);
        session.exit(0);
        assert.equal((await channels).get(3), status);
      }
    });

    test("base64 dialects carry text", async () => {
      const session = new FakeSession();
      openSession = async () => session;
      const socket = dial("/exec/ns/web/c?command=cat&input=1&output=1", admin, [
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
      openSession = async () => session;
      const socket = dial("/exec/ns/web/c?command=sh&input=1&output=1&tty=1", admin, [
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
      openSession = async () => session;
      const socket = dial("/exec/ns/web/c?command=sh&output=1", admin);
      await once(socket, "open");
      await session.print("stdout", "x");
      await once(socket, "message");
      socket.terminate();
      await session.whenAborted;
      assert.equal(session.aborted, true);
    });

    test("a client that does not read makes the process wait, and loses nothing", async () => {
      const session = new FakeSession();
      openSession = async () => session;
      const socket = dial("/exec/ns/web/c?command=yes&output=1", admin);
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
        await systemClock.sleep(40, stop.signal);
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
      openSession = async () => {
        throw new RuntimeError("StartFailed", 'exec: "nope": not found', { exitCode: 127 });
      };
      const socket = dial("/exec/ns/web/c?command=nope&output=1", admin, ["v4.channel.k8s.io"]);
      const status: unknown = JSON.parse((await collect(socket)).get(3) ?? "");
      assert.ok(isRecord(status));
      assert.equal(status["reason"], "InternalError");
      assert.match(String(status["message"]), /error executing command in container: .*nope/);
    });

    for (const [path, status] of [
      ["/exec/ns/none/c?command=sh&output=1", 404],
      ["/exec/ns/web/missing?command=sh&output=1", 500],
      ["/exec/ns/web/c?command=sh", 400],
      ["/exec/ns/web/c?output=1", 400],
      ["/exec/ns/web?command=sh&output=1", 404],
      ["/nowhere", 404],
    ] as const) {
      test(`${path} is refused with ${status} before the handshake`, async () => {
        assert.equal(await refusalOf(dial(path, admin)), status);
      });
    }
  });

  test("attach follows the container's own terminal and stdin", async () => {
    for (const [container, options] of [
      ["terminal", { stdin: true, tty: true }],
      ["closed", { stdin: false, tty: false }],
    ] as const) {
      const session = new FakeSession();
      openSession = async () => session;
      opened.length = 0;
      const socket = dial(`/attach/ns/web/${container}?input=1&output=1&error=1`, admin, [
        "v5.channel.k8s.io",
      ]);
      const channels = collect(socket);
      session.exit(undefined);
      await channels;
      assert.deepEqual(opened, [["attach", "id1", options]]);
    }
  });
});

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { after, before, describe, test } from "node:test";

import type { HTTPGetAction, Probe } from "../../../src/api/types.gen.ts";
import type { ProbeOutcome } from "../../../src/kubelet/pods/probe-types.ts";
import { runProbe } from "../../../src/kubelet/pods/run-probe.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import { makePki } from "../api/tls.ts";

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const { signal } = new AbortController();
let answer: Answer = () => undefined;
let port = 0;
const seen: IncomingMessage[] = [];
const server = createServer((request, response) => {
  seen.push(request);
  answer(request, response);
});

async function listen(listener: Server): Promise<number> {
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  return (listener.address() as AddressInfo).port;
}

function run(probe: Probe, podIP = "127.0.0.1"): Promise<ProbeOutcome> {
  const container = {
    name: "web",
    image: "app:1",
    ports: [{ name: "http", containerPort: port }],
    env: [{ name: "WHO", value: "me" }],
  };
  const execSync = (): Promise<never> =>
    Promise.reject(new RuntimeError("WrongState", "not running"));
  const metadata = { name: "pod", namespace: "ns", uid: "uid-1", resourceVersion: "1" };
  return runProbe(
    { runtime: { execSync }, clock: systemClock },
    probe,
    {
      pod: { metadata },
      entry: { role: "regular", container },
      containerID: "web-0",
      startedAt: 0,
      podIP,
      started: true,
    },
    signal,
  );
}

async function get(action: Partial<HTTPGetAction>, how: Answer): Promise<ProbeOutcome> {
  answer = how;
  seen.length = 0;
  return run({ httpGet: { port, ...action } });
}

const status =
  (code: number, headers: Readonly<Record<string, string>> = {}, body = ""): Answer =>
  (_, response) => {
    response.writeHead(code, headers).end(body);
  };

describe("an HTTP probe", () => {
  before(async () => {
    port = await listen(server);
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });

  const outcomes: readonly {
    readonly name: string;
    readonly how: Answer;
    readonly outcome: ProbeOutcome;
  }[] = [
    { name: "200 is a success", how: status(200), outcome: { kind: "success" } },
    { name: "299 is a success", how: status(299), outcome: { kind: "success" } },
    {
      name: "400 is a failure that names the code and not the body",
      how: status(400, {}, "secret"),
      outcome: { kind: "failure", output: "HTTP probe failed with statuscode: 400" },
    },
    {
      name: "a redirect to another host is a warning",
      how: status(302, { location: "http://elsewhere.test/" }, "moved"),
      outcome: {
        kind: "warning",
        output: "Probe terminated redirects, Response body: moved",
      },
    },
    {
      name: "a redirect to nowhere is a warning",
      how: status(301, {}, "lost"),
      outcome: { kind: "warning", output: "Probe terminated redirects, Response body: lost" },
    },
    {
      name: "a redirect on the same host is followed",
      how: (request, response) => {
        const there = request.url === "/there?a=b";
        response.writeHead(there ? 200 : 307, { location: "/there?a=b" }).end();
      },
      outcome: { kind: "success" },
    },
    {
      name: "the tenth redirect is one too many",
      how: status(302, { location: "/again" }),
      outcome: { kind: "failure", output: 'Get "/again": stopped after 10 redirects' },
    },
  ];
  for (const { how, name, outcome } of outcomes) {
    test(name, async () => {
      assert.deepEqual(await get({}, how), outcome);
      assert(seen.length <= 10);
    });
  }

  test("asks as the kubelet does, on a connection of its own", async () => {
    await get({ path: "/health z?a=ü#part" }, status(200));
    const [request] = seen;
    assert.equal(request?.method, "GET");
    assert.equal(request.url, "/health%20z?a=%C3%BC");
    assert.equal(request.headers["user-agent"], "kube-probe/1.36");
    assert.equal(request.headers.accept, "*/*");
    assert.equal(request.headers.connection, "close");
    assert.equal(request.headers["accept-encoding"], undefined);
    assert.equal(request.headers.host, `127.0.0.1:${port}`);
  });

  test("sends the headers that it is given: repeated, other defaults, none, another host", async () => {
    const httpHeaders = [
      { name: "x-one", value: "1" },
      { name: "X-One", value: "2" },
      { name: "user-agent", value: "mine" },
      { name: "Accept", value: "" },
      { name: "Host", value: "example.test" },
    ];
    await get({ httpHeaders }, status(200));
    const [request] = seen;
    assert.equal(request?.headers["x-one"], "1, 2");
    assert.equal(request.headers["user-agent"], "mine");
    assert.equal(request.headers.accept, undefined);
    assert.equal(request.headers.host, "example.test");
  });

  test("reads no more than 10 KiB of an endless body", async () => {
    const endless: Answer = (_, response) => {
      response.writeHead(302, { location: "http://elsewhere.test/" });
      const more = (): void => {
        if (!response.destroyed) response.write("x".repeat(4096), () => setImmediate(more));
      };
      more();
    };
    const outcome = await get({}, endless);
    assert(outcome.kind === "warning");
    assert.equal(
      outcome.output.length,
      "Probe terminated redirects, Response body: ".length + 10_240,
    );
  });

  test("finds a port by its name, and errs where there is none of that name", async () => {
    assert.deepEqual(await get({ port: "http" }, status(200)), { kind: "success" });
    assert.equal((await get({ port: "nope" }, status(200))).kind, "error");
  });

  test("gives up after its timeout, also when the body does not end", async () => {
    const stuck: Answer = (_, response) => {
      response.writeHead(200).write("x");
    };
    answer = stuck;
    const outcome = await run({ httpGet: { port }, timeoutSeconds: 1 });
    assert.deepEqual(outcome, {
      kind: "failure",
      output: `Get "http://127.0.0.1:${port}/": context deadline exceeded (Client.Timeout exceeded while awaiting headers)`,
    });
  });

  test("takes any certificate, and says when the server speaks no TLS", async () => {
    const pki = makePki();
    const secure = createTlsServer({ key: pki.server.key, cert: pki.server.cert }, (_, response) =>
      response.end(),
    );
    const tls = await listen(secure);
    try {
      const scheme = "HTTPS";
      assert.deepEqual(await run({ httpGet: { port: tls, scheme } }), { kind: "success" });
      assert.deepEqual(await run({ httpGet: { port, scheme } }), {
        kind: "failure",
        output: `Get "https://127.0.0.1:${port}/": http: server gave HTTP response to HTTPS client`,
      });
    } finally {
      secure.closeAllConnections();
      secure.close();
    }
  });

  test("goes to the host that it names", async () => {
    answer = status(200);
    assert.deepEqual(await run({ httpGet: { port, host: "127.0.0.1" } }, "192.0.2.1"), {
      kind: "success",
    });
  });
});

describe("a TCP probe", () => {
  test("succeeds when somebody listens; the failure names address and cause", async () => {
    const listener = createTcpServer((socket) => socket.on("error", () => undefined));
    const open = await listen(listener);
    assert.deepEqual(await run({ tcpSocket: { port: open } }), { kind: "success" });
    listener.close();
    await once(listener, "close");
    assert.deepEqual(await run({ tcpSocket: { port: open } }), {
      kind: "failure",
      output: `dial tcp 127.0.0.1:${open}: connect: connection refused`,
    });
    const http = await run({ httpGet: { port: open, path: "/x" } });
    assert.deepEqual(http, {
      kind: "failure",
      output: `Get "http://127.0.0.1:${open}/x": dial tcp 127.0.0.1:${open}: connect: connection refused`,
    });
  });
});

describe("a probe that cannot be made", () => {
  test("errs: no handler, or an engine that refuses the command", async () => {
    assert.deepEqual(await run({}), {
      kind: "error",
      message: "missing probe handler for ns/pod:web",
    });
    assert.deepEqual(await run({ exec: { command: ["true"] } }), {
      kind: "error",
      message: "not running",
    });
  });
});

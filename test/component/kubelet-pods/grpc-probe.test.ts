import assert from "node:assert/strict";
import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import {
  createServer as createTcpServer,
  type AddressInfo,
  type Server,
  type Socket,
} from "node:net";
import { describe, it } from "node:test";

import { systemClock } from "../../../src/lib/clock.ts";
import { grpcProbe, type GrpcProbeOutcome } from "../../../src/kubelet/pods/grpc-probe.ts";

const serving = Buffer.from([0, 0, 0, 0, 2, 0x08, 1]);
const notServing = Buffer.from([0, 0, 0, 0, 2, 0x08, 2]);

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return port;
}

type Pause = (ms: number, signal: AbortSignal) => Promise<void>;

async function probe(
  port: number,
  service = "",
  timeoutMs = 2000,
  sleep: Pause = (ms, signal) => systemClock.sleep(ms, signal),
): Promise<GrpcProbeOutcome> {
  const call = { host: "127.0.0.1", port, service, userAgent: "kube-probe/1.36", timeoutMs };
  return grpcProbe(call, { sleep }, AbortSignal.timeout(timeoutMs));
}

/** Runs `check` against an HTTP/2 server whose streams `answer` gets, with all they sent. */
async function withServer(
  answer: (stream: ServerHttp2Stream, path: string, body: Buffer) => void,
  check: (port: number) => Promise<void>,
): Promise<void> {
  const server = createServer();
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", () => undefined);
  });
  server.on("stream", (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on("error", () => undefined);
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => answer(stream, headers[":path"] ?? "", Buffer.concat(chunks)));
  });
  const port = await listen(server);
  try {
    await check(port);
  } finally {
    for (const session of sessions) session.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** What a gRPC server sends: headers, one message unless there is none, trailers with the status. */
function reply(stream: ServerHttp2Stream, message: Buffer, status = 0, text = ""): void {
  const trailers = { "grpc-status": String(status), "grpc-message": text };
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers(trailers));
  stream.end(message);
}

describe("a grpc probe", () => {
  it("succeeds when the service says SERVING, and asks for the service by name", async () => {
    const seen: string[] = [];
    await withServer(
      (stream, path, body) => {
        seen.push(path, body.toString("hex"));
        reply(stream, serving);
      },
      async (port) => {
        assert.deepEqual(await probe(port, "liveness"), { kind: "success" });
        assert.deepEqual(await probe(port), { kind: "success" });
      },
    );
    const path = "/grpc.health.v1.Health/Check";
    const named = `000000000a0a08${Buffer.from("liveness").toString("hex")}`;
    assert.deepEqual(seen, [path, named, path, "0000000000"]);
  });

  it("fails with the status when the service says anything else", async () => {
    await withServer(
      (stream) => reply(stream, notServing),
      async (port) => {
        const output = 'service unhealthy (responded with "NOT_SERVING")';
        assert.deepEqual(await probe(port), { kind: "failure", output });
      },
    );
  });

  it("tells an error of the call from a server that has no health service", async () => {
    const answers = [
      { code: 12, text: "unknown service grpc.health.v1.Health" },
      { code: 5, text: "unknown service" },
    ];
    const outputs: string[] = [];
    for (const { code, text } of answers) {
      await withServer(
        (stream) => reply(stream, Buffer.alloc(0), code, text),
        async (port) => {
          const outcome = await probe(port);
          assert(outcome.kind === "failure");
          outputs.push(outcome.output);
        },
      );
    }
    assert.deepEqual(outputs, [
      "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service grpc.health.v1.Health",
      "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
    ]);
  });

  it("counts an HTTP/2 server without gRPC as failed", async () => {
    await withServer(
      (stream) => {
        stream.respond({ ":status": 503 });
        stream.end("no");
      },
      async (port) => {
        const output =
          "error: health rpc probe failed: rpc error: code = Unavailable desc = unexpected HTTP status code received from server: 503";
        assert.deepEqual(await probe(port), { kind: "failure", output });
      },
    );
  });

  it("gives a call up that is not answered in time", async () => {
    await withServer(
      () => undefined,
      async (port) => {
        const outcome = await probe(port, "", 40);
        const output = "timeout: health rpc did not complete within 0s";
        assert.deepEqual(outcome, { kind: "failure", output });
      },
    );
  });

  it("fails at its deadline where the listener speaks no HTTP/2", async () => {
    const sockets = new Set<Socket>();
    const server = createTcpServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => undefined);
    });
    const port = await listen(server);
    const outcome = await probe(port, "", 40);
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    const output = `timeout: failed to connect service "127.0.0.1:${port}" within 0s: context deadline exceeded`;
    assert.deepEqual(outcome, { kind: "failure", output });
  });

  it("asks again at a closed port until its deadline, with growing pauses, and only then fails", async () => {
    const server = createTcpServer();
    const port = await listen(server);
    await new Promise((resolve) => server.close(resolve));
    const pauses: number[] = [];
    const stop = new AbortController();
    const call = { host: "127.0.0.1", port, service: "", userAgent: "x", timeoutMs: 3000 };
    const sleep: Pause = async (ms, signal) => {
      pauses.push(ms);
      if (pauses.length === 3) stop.abort();
      signal.throwIfAborted();
    };
    const outcome = await grpcProbe(call, { sleep }, stop.signal);
    const output = `timeout: failed to connect service "127.0.0.1:${port}" within 3s: context deadline exceeded`;
    assert.deepEqual(outcome, { kind: "failure", output });
    assert.deepEqual(pauses, [1000, 1600, 2560]);
  });

  it("succeeds when the server begins to listen, or to speak HTTP/2, before its deadline", async () => {
    const closing = createTcpServer((socket) => socket.destroy());
    const port = await listen(closing);
    const server = createServer();
    const sessions = new Set<ServerHttp2Session>();
    server.on("session", (session) => sessions.add(session));
    server.on("stream", (stream) => reply(stream, serving));
    let pauses = 0;
    const outcome = await probe(port, "", 2000, async () => {
      pauses += 1;
      if (pauses === 1) await new Promise((resolve) => closing.close(resolve));
      else await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    });
    for (const session of sessions) session.destroy();
    await new Promise((resolve) => server.close(resolve));
    assert.deepEqual(outcome, { kind: "success" });
    assert.equal(pauses, 2);
  });
});

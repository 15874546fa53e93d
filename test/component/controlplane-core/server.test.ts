import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, request as httpsRequest, type RequestOptions } from "node:https";
import type { IncomingMessage } from "node:http";
import { connect, type ClientHttp2Session, type OutgoingHttpHeaders } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { gunzipSync } from "node:zlib";

import { startHttpServer, type HttpServer } from "../../../src/controlplane/http/server.ts";
import { ensurePKI, type PKI } from "../../../src/controlplane/pki/ensure-pki.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { admin, at, contextAt, pod, world } from "./test-kinds.ts";

const PODS = "/api/v1/namespaces/default/pods";
const dir = await mkdtemp(join(tmpdir(), "remora-server-"));
const { handler, registry, store } = world();
const kubelet: { requests: IncomingMessage[] } = { requests: [] };
let pki: PKI;
let server: HttpServer;
let node: ReturnType<typeof createServer>;

before(async () => {
  pki = await ensurePKI({
    dir,
    nodeName: "n1",
    apiServerNames: ["127.0.0.1"],
    nodeNames: ["127.0.0.1"],
    now: Date.now(),
  });
  node = createServer(
    {
      cert: pki.kubeletServing.certPEM,
      key: pki.kubeletServing.keyPEM,
      ca: pki.caPEM,
      requestCert: true,
      rejectUnauthorized: true,
      allowHalfOpen: true,
    },
    (request, response) => {
      kubelet.requests.push(request);
      response.writeHead(200, { "content-type": "text/plain" });
      response.write("line 1\n");
      response.end("line 2\n");
    },
  );
  node.on("upgrade", (request: IncomingMessage, socket: Duplex) => {
    kubelet.requests.push(request);
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ",
    );
    // Echoes, and answers the end of the input after it: half-close must come through.
    socket.on("data", (chunk: Buffer) => socket.write(chunk));
    socket.on("end", () => socket.end("bye"));
    socket.on("error", () => socket.destroy());
  });
  node.listen(0, "127.0.0.1");
  await once(node, "listening");
  const address = node.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  server = await startHttpServer({
    handler,
    authenticator: {
      authenticate: ({ certificate, bearerToken }) =>
        certificate !== undefined || bearerToken === "good" ? admin : undefined,
    },
    logger: silentLogger,
    address: "127.0.0.1",
    port: 0,
    tls: { cert: pki.apiServer.certPEM, key: pki.apiServer.keyPEM, clientCA: pki.caPEM },
    kubeletClient: {
      cert: pki.kubeletClient.certPEM,
      key: pki.kubeletClient.keyPEM,
      nodeCA: pki.caPEM,
    },
  });
  registry.create(
    "nodes",
    "",
    {
      metadata: { name: "n1" },
      status: {
        addresses: [{ type: "InternalIP", address: "127.0.0.1" }],
        daemonEndpoints: { kubeletEndpoint: { Port: port } },
      },
    },
    contextAt(Date.now()),
  );
  const spec = {
    nodeName: "n1",
    containers: [
      { name: "c", image: "i" },
      { name: "d", image: "i" },
    ],
  };
  registry.create("pods", "default", pod("web", { spec }), contextAt(Date.now()));
  registry.create("pods", "default", pod("unbound"), contextAt(Date.now()));
});

after(async () => {
  await server.close();
  node.closeAllConnections();
  node.close();
  store.close();
  await rm(dir, { recursive: true, force: true });
});

// Known to tls.connect, not to the types of https.request.
const halfOpen = { allowHalfOpen: true };

function options(path: string, more: RequestOptions = {}): RequestOptions {
  return {
    host: "127.0.0.1",
    port: server.port,
    path,
    ca: pki.caPEM,
    cert: pki.admin.certPEM,
    key: pki.admin.keyPEM,
    agent: false,
    ...halfOpen,
    ...more,
  };
}

async function send(
  path: string,
  more: RequestOptions = {},
  body?: string | Uint8Array,
): Promise<IncomingMessage> {
  const outgoing = httpsRequest(options(path, more));
  outgoing.end(body);
  return new Promise((resolve, reject) => {
    outgoing.once("response", resolve);
    outgoing.once("error", reject);
  });
}

async function json(response: IncomingMessage): Promise<unknown> {
  const value: unknown = JSON.parse(await text(response));
  return value;
}

test("a certificate of the CA and a good token are let in; nobody and a foreign token are not", async () => {
  const status = async (more: RequestOptions) => {
    const response = await send("/api/v1/pods", more);
    response.resume();
    return response.statusCode;
  };
  const nobody = { cert: undefined, key: undefined };
  assert.equal(await status({}), 200);
  assert.equal(await status({ ...nobody, headers: { authorization: "Bearer good" } }), 200);
  assert.equal(await status(nobody), 401);
  assert.equal(await status({ ...nobody, headers: { authorization: "Bearer bad" } }), 401);
});

test("replies carry the headers that clients look for", async () => {
  const response = await send("/api/v1/pods");
  response.resume();
  assert.equal(response.headers["content-type"], "application/json");
  assert.equal(response.headers["cache-control"], "no-cache, private");
  assert.match(String(response.headers["audit-id"]), /^[0-9a-f-]{36}$/);
});

test("large replies are compressed for who asks", async () => {
  const big = { metadata: { name: "big" }, data: { a: "x".repeat(200_000) } };
  registry.create("configmaps", "default", big, contextAt(Date.now()));
  const path = "/api/v1/namespaces/default/configmaps/big";
  const response = await send(path, { headers: { "accept-encoding": "gzip" } });
  assert.equal(response.headers["content-encoding"], "gzip");
  const unpacked: unknown = JSON.parse(gunzipSync(await buffer(response)).toString());
  assert.equal(at(unpacked, "metadata.name"), "big");
  const plain = await send(path);
  assert.equal(plain.headers["content-encoding"], undefined);
  assert.equal(at(await json(plain), "metadata.name"), "big");
});

test("a body above 3 MB is refused with 413", async () => {
  const response = await send(PODS, { method: "POST" }, "x".repeat(3 * 1024 * 1024 + 1)).catch(
    () => undefined,
  );
  // The server may close before all of the body is through.
  if (response !== undefined) assert.equal(at(await json(response), "code"), 413);
});

test("a damaged protobuf body is refused in a sentence", async () => {
  const headers = { "content-type": "application/vnd.kubernetes.protobuf" };
  const damaged = Buffer.concat([Buffer.from("k8s\0"), Buffer.from([0x0a, 0xff, 0x01])]);
  const response = await send(PODS, { method: "POST", headers }, damaged);
  const status = await json(response);
  assert.equal(at(status, "code"), 400);
  assert.match(String(at(status, "message")), /^the protobuf body cannot be decoded: truncated/);
});

test("a watch is streamed line by line and ends with the client", async () => {
  const revision = store.currentRevision;
  const response = await send(`/api/v1/pods?watch=true&resourceVersion=${revision}`);
  registry.create("pods", "default", pod("streamed"), contextAt(Date.now()));
  const chunk = await new Promise<string>((resolve) => {
    response.setEncoding("utf8").once("data", resolve);
  });
  const line: unknown = JSON.parse(chunk);
  assert.equal(at(line, "type"), "ADDED");
  assert.equal(at(line, "object.metadata.name"), "streamed");
  response.destroy();
});

interface Http2Reply {
  readonly status: unknown;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

async function askOver(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body = "",
): Promise<Http2Reply> {
  const stream = session.request(headers, { endStream: body === "" });
  if (body !== "") stream.end(body);
  const answer = await new Promise<Record<string, unknown>>((resolve, reject) => {
    stream.once("response", resolve);
    stream.once("error", reject);
  });
  return { status: answer[":status"], headers: answer, body: await text(stream) };
}

test("over HTTP/2 one connection carries requests, many watches, logs and impersonation", async () => {
  const { port } = server;
  const credentials = { ca: pki.caPEM, cert: pki.admin.certPEM, key: pki.admin.keyPEM };
  const session = connect(`https://127.0.0.1:${port}`, credentials);
  try {
    const listed = await askOver(session, { ":path": PODS });
    assert.equal(listed.status, 200);
    assert.equal(session.alpnProtocol, "h2");
    const posted = await askOver(
      session,
      { ":path": PODS, ":method": "POST", "content-type": "application/json" },
      JSON.stringify(pod("multiplexed")),
    );
    assert.equal(posted.status, 201);
    const revision = store.currentRevision;
    const watches = Array.from({ length: 20 }, () =>
      session.request({ ":path": `/api/v1/pods?watch=true&resourceVersion=${revision}` }),
    );
    await Promise.all(watches.map((watch) => once(watch, "response")));
    registry.create("pods", "default", pod("seen"), contextAt(Date.now()));
    for (const watch of watches) {
      const chunk = await new Promise((resolve) => watch.once("data", resolve));
      assert.equal(at(JSON.parse(String(chunk)), "object.metadata.name"), "seen");
    }
    for (const watch of watches) watch.close();
    const log = await askOver(session, { ":path": `${PODS}/web/log?container=d` });
    assert.equal(log.body, "line 1\nline 2\n");
    const large = await askOver(
      session,
      { ":path": PODS, ":method": "POST" },
      "x".repeat(3 * 1024 * 1024 + 1),
    );
    assert.equal(large.status, 413);
    const acting = await askOver(session, {
      ":path": PODS,
      "impersonate-user": "somebody",
      "impersonate-group": ["a", "b"],
    });
    assert.equal(acting.status, 403);
    assert.equal((await askOver(session, { ":path": PODS })).status, 200);
  } finally {
    session.destroy();
  }
});

test("logs come from the kubelet with the server's own certificate and translated parameters", async () => {
  const response = await send(`${PODS}/web/log?container=d&tailLines=5&timestamps=true&foo=1`, {
    headers: { authorization: "Bearer good" },
  });
  assert.equal(await text(response), "line 1\nline 2\n");
  assert.equal(response.headers["content-type"], "text/plain");
  const seen = kubelet.requests.at(-1);
  assert.equal(seen?.url, "/containerLogs/default/web/d?timestamps=true&tailLines=5");
  assert.equal(seen.headers.authorization, undefined);
});

test("logs are refused when the container is ambiguous or wrong, and empty before a node runs the pod", async () => {
  const message = async (path: string) => at(await json(await send(path)), "message");
  assert.equal(
    await message(`${PODS}/web/log`),
    "a container name must be specified for pod web, choose one of: [c d]",
  );
  assert.equal(
    await message(`${PODS}/web/log?container=x`),
    "container x is not valid for pod web",
  );
  assert.equal(await message(`${PODS}/nope/log`), 'pods "nope" not found');
  assert.equal(
    await message(`${PODS}/web/log?container=c&tailLines=-1`),
    'PodLogOptions "web" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0',
  );
  assert.equal(await text(await send(`${PODS}/unbound/log`)), "");
});

test("an upgraded exec is carried as raw bytes both ways, half-close included", async () => {
  const outgoing = httpsRequest(
    options(`${PODS}/web/exec?container=c&command=sh&command=-c&stdin=true&stdout=true&tty=false`, {
      headers: {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-protocol": "v5.channel.k8s.io",
      },
    }),
  );
  outgoing.end();
  const [, socket, head] = await new Promise<[IncomingMessage, Duplex, Buffer]>(
    (resolve, reject) => {
      outgoing.once("upgrade", (...parts: [IncomingMessage, Duplex, Buffer]) => {
        resolve(parts);
      });
      outgoing.once("error", reject);
    },
  );
  socket.end("ping ");
  const rest = await text(socket);
  assert.equal(head.toString() + rest, "hello ping bye");
  const seen = kubelet.requests.at(-1);
  assert.equal(seen?.url, "/exec/default/web/c?input=1&output=1&command=sh&command=-c");
  assert.equal(seen.headers["sec-websocket-protocol"], "v5.channel.k8s.io");
});

test("an upgrade that is refused answers with a Status", async () => {
  const response = await send(`${PODS}/unbound/exec?command=ls&stdout=true`, {
    headers: { connection: "Upgrade", upgrade: "websocket" },
  });
  assert.equal(response.statusCode, 400);
  assert.equal(at(await json(response), "message"), "pod unbound does not have a host assigned");
});

test("a port in use is said in one sentence", async () => {
  await assert.rejects(
    startHttpServer({
      handler,
      authenticator: { authenticate: () => undefined },
      logger: silentLogger,
      address: "127.0.0.1",
      port: server.port,
      tls: { cert: pki.apiServer.certPEM, key: pki.apiServer.keyPEM, clientCA: pki.caPEM },
    }),
    (error) =>
      error instanceof SetupError && /^port \d+ on 127.0.0.1 is in use: stop/.test(error.message),
  );
});

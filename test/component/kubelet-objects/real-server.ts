import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { ApiClient } from "../../../src/api/client.ts";
import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import type { ApiHandler } from "../../../src/controlplane/http/call.ts";
import { startHttpServer } from "../../../src/controlplane/http/server.ts";
import { ensurePKI } from "../../../src/controlplane/pki/ensure-pki.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { admin, startServer } from "../controlplane-kinds/server.ts";

/** The embedded API server behind TLS on loopback, and a client that speaks to it as the agent does. */
export interface RealServer {
  /** Over the network. */
  readonly client: HttpClient;
  /** Past it. */
  readonly direct: ApiClient;
  /** Connections that are open now. */
  readonly sockets: number;
  /** Connections that were made. */
  readonly connections: number;
  /** Watches that are served now, by query. */
  readonly watches: readonly string[];
  close(): Promise<void>;
}

/** Notes which watches are under way. */
function counting(handler: ApiHandler, open: Set<{ readonly query: string }>): ApiHandler {
  return {
    handle: async (call) => {
      const reply = await handler.handle(call);
      if (reply.kind !== "watch") return reply;
      const entry = { query: call.query.toString() };
      open.add(entry);
      call.signal.addEventListener("abort", () => open.delete(entry), { once: true });
      return reply;
    },
  };
}

/** Forwards to `port` and counts who comes. */
async function countingProxy(port: number): Promise<{
  readonly port: number;
  readonly open: Set<Socket>;
  readonly made: () => number;
  close(): Promise<void>;
}> {
  const open = new Set<Socket>();
  let made = 0;
  const listener = createServer((socket) => {
    made += 1;
    open.add(socket);
    const behind = connect(port, "127.0.0.1");
    socket.pipe(behind).pipe(socket);
    const end = (): void => {
      open.delete(socket);
      socket.destroy();
      behind.destroy();
    };
    for (const each of [socket, behind]) each.on("error", end).on("close", end);
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    open,
    made: () => made,
    close: async () => {
      for (const socket of open) socket.destroy();
      listener.close();
      await once(listener, "close");
    },
  };
}

/** @param http2 False: the client does not offer it, as if the server did not have it. */
export async function startRealServer(http2 = true): Promise<RealServer> {
  const directory = await mkdtemp(join(tmpdir(), "objects-"));
  const behind = startServer();
  const pki = await ensurePKI({
    dir: directory,
    nodeName: "n1",
    apiServerNames: ["127.0.0.1"],
    nodeNames: ["127.0.0.1"],
    now: Date.now(),
  });
  const open = new Set<{ readonly query: string }>();
  const server = await startHttpServer({
    handler: counting(behind.handler, open),
    authenticator: {
      authenticate: ({ bearerToken }) => (bearerToken === "good" ? admin : undefined),
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
  const proxy = await countingProxy(server.port);
  const client = createHttpClient({
    kubeconfig: {
      path: "",
      context: "test",
      namespace: "default",
      cluster: {
        name: "test",
        server: `https://127.0.0.1:${proxy.port}`,
        ca: { kind: "data", pem: pki.caPEM },
        insecureSkipTLSVerify: false,
      },
      user: { name: "test", token: "good" },
    },
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
    http2,
  });
  return {
    client,
    direct: behind.client,
    get sockets() {
      return proxy.open.size;
    },
    get connections() {
      return proxy.made();
    },
    get watches() {
      return [...open].map(({ query }) => query);
    },
    async close() {
      await client.close();
      await proxy.close();
      await server.close();
      behind.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

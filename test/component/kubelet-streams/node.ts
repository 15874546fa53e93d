// A node's streaming routes without TLS and without asking who is there.
import { once } from "node:events";
import { createServer, request, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { Duplex } from "node:stream";

import { WebSocket } from "ws";

import { HttpRefusal, refuseUpgrade } from "../../../src/kubelet/server/http-refusal.ts";
import type { PodDialer } from "../../../src/kubelet/server/streams/pod-dialer.ts";
import { servePortForward } from "../../../src/kubelet/server/streams/port-forward.ts";
import { serveStreaming } from "../../../src/kubelet/server/streams/streaming.ts";
import type { AssignedPod, ContainerLookup, PodView } from "../../../src/kubelet/types.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { ContainerRuntime, PodRecord, StreamSession } from "../../../src/runtime/types.ts";
import { SpdyClient } from "./spdy-client.ts";

const pod = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "web", namespace: "default", uid: "uid-1", resourceVersion: "1" },
  spec: { nodeName: "n1", containers: [{ name: "c", image: "i" }] },
} satisfies AssignedPod;

const found = { kind: "found", containerID: "id", running: true, tty: false, stdin: true } as const;

const containers: Readonly<Record<string, ContainerLookup>> = {
  c: found,
  terminal: { ...found, tty: true },
  closed: { ...found, stdin: false },
};

const pods: PodView = {
  pods: () => [pod],
  healthy: () => undefined,
  findContainer: async ({ pod: name, uid, container }) =>
    name !== "web" || (uid !== undefined && uid !== "uid-1")
      ? { kind: "podNotFound" }
      : (containers[container] ?? { kind: "containerNotFound" }),
};

export interface NodeOptions {
  /** What the runtime answers to exec and attach, and what it was asked. */
  readonly open?: (
    signal: AbortSignal,
    kind: "exec" | "attach",
    containerID: string,
    what: unknown,
  ) => Promise<StreamSession>;
  readonly dial?: PodDialer;
  readonly clock?: Clock;
}

/** Connects to a port of this machine, as a pod on the node's network has it. */
export async function dialHere(port: number): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  await once(socket, "connect");
  return socket;
}

/** A node's port, as its clients see it. */
export class RemoteNode {
  readonly port: number;
  readonly #clients = new Set<Duplex>();

  constructor(port: number) {
    this.port = port;
  }

  /** Ends the clients' connections. */
  hangUp(): void {
    for (const client of this.#clients) client.destroy();
  }

  /** @returns The client, or what the node refused it with. */
  async spdy(
    path: string,
    protocols: readonly string[],
  ): Promise<
    | { readonly client: SpdyClient; readonly protocol: string }
    | { readonly status: number; readonly body: string }
  > {
    const outgoing = request({
      host: "127.0.0.1",
      port: this.port,
      path,
      method: "POST",
      agent: false,
      headers: {
        connection: "Upgrade",
        upgrade: "SPDY/3.1",
        ...(protocols.length === 0 ? {} : { "x-stream-protocol-version": [...protocols] }),
      },
    });
    outgoing.end();
    return new Promise((resolve, reject) => {
      outgoing.on("error", reject);
      outgoing.on("response", (response) => {
        let body = "";
        response.on("data", (chunk: Buffer) => (body += chunk.toString()));
        response.on("end", () => {
          resolve({ status: response.statusCode ?? 0, body });
        });
      });
      outgoing.on("upgrade", (response, socket, head) => {
        if (head.length > 0) socket.unshift(head);
        this.#clients.add(socket);
        const protocol = String(response.headers["x-stream-protocol-version"]);
        resolve({ client: new SpdyClient(socket), protocol });
      });
    });
  }

  /** The same for what must not be refused. */
  async spdyClient(path: string, protocol: string): Promise<SpdyClient> {
    const answer = await this.spdy(path, [protocol]);
    if ("client" in answer) return answer.client;
    throw new Error(`refused with ${answer.status}: ${answer.body}`);
  }

  webSocket(path: string, protocols: string[] = []): WebSocket {
    const socket = new WebSocket(`ws://127.0.0.1:${this.port}${path}`, protocols);
    socket.on("error", () => undefined);
    return socket;
  }

  /** A SPDY client inside of WebSocket messages. */
  async tunnel(path: string): Promise<SpdyClient> {
    const incoming = await new Promise<Duplex>((resolve, reject) => {
      const outgoing = request({
        host: "127.0.0.1",
        port: this.port,
        path,
        agent: false,
        headers: {
          connection: "Upgrade",
          upgrade: "websocket",
          "sec-websocket-version": "13",
          "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
          "sec-websocket-protocol": "SPDY/3.1+portforward.k8s.io",
        },
      });
      outgoing.on("error", reject);
      outgoing.on("upgrade", (response, socket, head) => {
        if (head.length > 0) socket.unshift(head);
        const chosen = response.headers["sec-websocket-protocol"];
        if (chosen === "SPDY/3.1+portforward.k8s.io") resolve(socket);
        else reject(new Error(`${String(chosen)} was chosen`));
      });
      outgoing.end();
    });
    this.#clients.add(incoming);
    return new SpdyClient(insideWebSocket(incoming));
  }
}

export class TestNode extends RemoteNode implements AsyncDisposable {
  readonly #server: Server;
  readonly #stop = new AbortController();
  readonly #sessions = new Set<Promise<void>>();

  private constructor(server: Server) {
    super((server.address() as AddressInfo).port);
    this.#server = server;
  }

  static async start(options: NodeOptions): Promise<TestNode> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const node = new TestNode(server);
    const record = {
      sandboxes: [{ ready: true, pid: 1, network: "node" }],
    } as unknown as PodRecord;
    const open = options.open ?? (() => Promise.reject(new Error("no session")));
    const deps = {
      runtime: {
        podRecord: async () => record,
        exec: async (id: string, what: unknown, signal: AbortSignal) =>
          open(signal, "exec", id, what),
        attach: async (id: string, what: unknown, signal: AbortSignal) =>
          open(signal, "attach", id, what),
      } as unknown as ContainerRuntime,
      pods,
      clock: options.clock ?? systemClock,
      logger: silentLogger,
      dial: options.dial ?? (async (_at, port) => dialHere(port)),
    };
    node.#server.on("upgrade", (incoming, socket, head) => {
      socket.on("error", () => undefined);
      const url = new URL(incoming.url ?? "", "http://node");
      const upgrade = { request: incoming, socket, head, url };
      const serve = url.pathname.startsWith("/portForward/") ? servePortForward : serveStreaming;
      const session = serve(deps, upgrade, node.#stop.signal).catch((error: unknown) => {
        const known = error instanceof HttpRefusal;
        refuseUpgrade(socket, known ? error : new HttpRefusal(500, String(error)));
      });
      node.#sessions.add(session);
      void session.finally(() => node.#sessions.delete(session));
    });
    return node;
  }

  /** Sessions that have not ended yet. */
  get sessions(): number {
    return this.#sessions.size;
  }

  /** Resolves when every session has ended. */
  async idle(): Promise<void> {
    while (this.#sessions.size > 0) await Promise.all(this.#sessions);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.hangUp();
    await this.idle();
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}

/** Raw WebSocket framing of a client, unfragmented; a library would not let the sub-protocol's name pass. */
function insideWebSocket(socket: Duplex): Duplex {
  let rest: Buffer = Buffer.alloc(0);
  const duplex = new Duplex({
    read: () => {
      socket.resume();
    },
    write: (chunk: Buffer, _encoding, done) => {
      socket.write(clientFrame(2, chunk), done);
    },
    final: (done) => {
      socket.write(clientFrame(8, Buffer.from([3, 232])), done);
    },
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  socket.on("data", (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      if (rest.length < 2) return;
      const short = rest.readUInt8(1);
      const head = short < 126 ? 2 : short === 126 ? 4 : 10;
      if (rest.length < head) return;
      const length =
        short < 126 ? short : short === 126 ? rest.readUInt16BE(2) : rest.readUInt32BE(6);
      if (rest.length < head + length) return;
      const data = (rest.readUInt8(0) & 0x0f) < 3;
      const payload = rest.subarray(head, head + length);
      rest = rest.subarray(head + length);
      if (data && !duplex.push(payload)) socket.pause();
    }
  });
  socket.on("close", () => duplex.destroy());
  return duplex;
}

/** A masked frame; the mask is zero, which changes nothing. */
export function clientFrame(opcode: number, payload: Uint8Array): Buffer {
  const { length } = payload;
  const size = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const head = Buffer.alloc(2 + size + 4);
  head.writeUInt8(0x80 | opcode, 0);
  head.writeUInt8(0x80 | (size === 0 ? length : size === 2 ? 126 : 127), 1);
  if (size === 2) head.writeUInt16BE(length, 2);
  if (size === 8) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, payload]);
}

import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";

export interface FakeRequest {
  readonly method: string;
  /** Without the version prefix and the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly body: string;
  readonly headers: IncomingMessage["headers"];
}

export type Answer = { readonly status: number; readonly json?: unknown } | "hangUp" | "silence";

/** An engine on a unix socket that answers by script. Disposal closes it and all its connections. */
export class FakeEngine implements AsyncDisposable {
  /** Every request but `/version`, as `METHOD path`. */
  readonly seen: string[] = [];
  readonly requests: FakeRequest[] = [];
  version: unknown = {
    Version: "20.10.24",
    ApiVersion: "1.41",
    MinAPIVersion: "1.12",
    Arch: "amd64",
  };
  answer: (request: FakeRequest) => Answer = () => ({ status: 404, json: { message: "not set" } });
  /** Takes over a response; true when it did. */
  stream: (request: FakeRequest, response: ServerResponse) => boolean = () => false;
  /** Gets the raw connection of an upgraded request. */
  upgraded: (request: FakeRequest, socket: Duplex) => void = (_request, socket) => socket.end();
  readonly #server = createServer();
  #directory = "";

  static async start(): Promise<FakeEngine> {
    const engine = new FakeEngine();
    engine.#directory = await mkdtemp(join(tmpdir(), "remora-fake-engine-"));
    engine.#server.on("request", (request, response) => void engine.#serve(request, response));
    engine.#server.on("upgrade", (request, socket) => engine.#upgrade(request, socket));
    engine.#server.listen(engine.socketPath);
    await once(engine.#server, "listening");
    return engine;
  }

  get socketPath(): string {
    return join(this.#directory, "docker.sock");
  }

  get directory(): string {
    return this.#directory;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #read(message: IncomingMessage): Promise<FakeRequest> {
    const chunks: Buffer[] = [];
    for await (const chunk of message) chunks.push(chunk as Buffer);
    const url = new URL(message.url ?? "/", "http://engine");
    const request = {
      method: message.method ?? "",
      path: url.pathname.replace(/^\/v1\.\d+/, ""),
      query: url.searchParams,
      body: Buffer.concat(chunks).toString("latin1"),
      headers: message.headers,
    };
    if (request.path !== "/version") {
      this.seen.push(`${request.method} ${request.path}`);
      this.requests.push(request);
    }
    return request;
  }

  async #serve(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const request = await this.#read(message);
    if (this.stream(request, response)) return;
    const answer =
      request.path === "/version" ? { status: 200, json: this.version } : this.answer(request);
    if (answer === "silence") return;
    if (answer === "hangUp") {
      response.destroy();
      return;
    }
    response.writeHead(answer.status, { "Content-Type": "application/json" });
    response.end(answer.json === undefined ? undefined : JSON.stringify(answer.json));
  }

  #upgrade(message: IncomingMessage, socket: Duplex): void {
    socket.on("error", () => undefined);
    const url = new URL(message.url ?? "/", "http://engine");
    const request = {
      method: message.method ?? "",
      path: url.pathname.replace(/^\/v1\.\d+/, ""),
      query: url.searchParams,
      body: "",
      headers: message.headers,
    };
    this.seen.push(`${request.method} ${request.path}`);
    message.resume();
    this.upgraded(request, socket);
  }
}

/** One frame of the multiplexed stream. */
export function frame(type: 1 | 2, text: string): Buffer {
  const payload = Buffer.from(text);
  const header = Buffer.alloc(8);
  header.writeUInt8(type, 0);
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}

export const switching =
  "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

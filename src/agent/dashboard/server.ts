import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

import { errorCode, errorMessage, SetupError } from "../../lib/errors.ts";
import type { Asset } from "./assets.ts";
import { type Feed, toldNothing } from "./feed.ts";
import { hasToken, refusal, safetyHeaders } from "./requests.ts";

export interface DashboardOptions {
  readonly address: string;
  /** 0 = a free one. */
  readonly port: number;
  /** What a page has to show to be told anything. */
  readonly token: string;
  readonly feed: Feed;
  readonly assets: ReadonlyMap<string, Asset>;
  readonly limits?: Partial<DashboardLimits>;
}

export interface DashboardLimits {
  /** Pages at a time. */
  readonly pages: number;
  /** Milliseconds between two lines when nothing changes. */
  readonly heartbeatMs: number;
  /** Milliseconds after which a page that does not read is given up. */
  readonly stallMs: number;
}

const usualLimits: DashboardLimits = { pages: 16, heartbeatMs: 10_000, stallMs: 30_000 };

/** The page and what it shows, on one address of this machine. Nothing can be changed through it. */
export class DashboardServer {
  readonly #options: DashboardOptions;
  readonly #limits: DashboardLimits;
  readonly #server: Server;
  readonly #pages = new Set<ServerResponse>();

  constructor(options: DashboardOptions) {
    this.#options = options;
    this.#limits = { ...usualLimits, ...options.limits };
    this.#server = createServer(
      {
        maxHeaderSize: 8 * 1024,
        headersTimeout: 5000,
        requestTimeout: 10_000,
        keepAliveTimeout: 10_000,
        connectionsCheckingInterval: 2000,
      },
      (request, response) => this.#answer(request, response),
    );
    this.#server.maxConnections = 64;
    this.#server.on("clientError", (_, socket) => socket.destroy());
  }

  /**
   * Listens.
   *
   * @returns The port.
   * @throws {SetupError} with the remedy when the port is taken.
   */
  async listen(): Promise<number> {
    const { address, port } = this.#options;
    const listening = Promise.withResolvers<void>();
    this.#server.once("error", listening.reject);
    this.#server.listen({ host: address, port }, listening.resolve);
    try {
      await listening.promise;
    } catch (error) {
      const remedy =
        errorCode(error) === "EADDRINUSE"
          ? "another program has this port: --port 0 takes a free one"
          : errorMessage(error);
      throw new SetupError(`cannot listen on ${address} port ${port}: ${remedy}`, { cause: error });
    }
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends all connections; pages look for the next start. */
  async close(): Promise<void> {
    const closed = Promise.withResolvers<void>();
    this.#server.close(() => closed.resolve());
    this.#server.closeAllConnections();
    await closed.promise;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    for (const [name, value] of Object.entries(safetyHeaders)) response.setHeader(name, value);
    const refused = refusal(request);
    if (refused !== undefined) {
      if (refused.status === 405) response.setHeader("Allow", "GET, HEAD");
      end(response, refused.status, refused.message);
      return;
    }
    const [path = ""] = (request.url ?? "").split("?");
    if (path === "/v1/feed") {
      this.#feedPage(request, response);
      return;
    }
    const asset = this.#options.assets.get(path);
    if (asset === undefined) {
      end(response, 404, "there is no such page");
      return;
    }
    response.writeHead(200, { "Content-Type": asset.type, "Content-Length": asset.body.length });
    response.end(request.method === "HEAD" ? undefined : asset.body);
  }

  #feedPage(request: IncomingMessage, response: ServerResponse): void {
    if (!hasToken(request, this.#options.token)) {
      response.setHeader("WWW-Authenticate", "Bearer");
      end(response, 401, "this needs the token of the address that `remora dashboard` printed");
      return;
    }
    if (this.#pages.size >= this.#limits.pages) {
      end(response, 503, `${this.#limits.pages} pages are open: close one`);
      return;
    }
    response.writeHead(200, { "Content-Type": "application/x-ndjson; charset=utf-8" });
    if (request.method === "HEAD") {
      response.end();
      return;
    }
    this.#tell(response);
  }

  /** Writes a line for each change. One line at most waits for a page; what comes meanwhile is told by the next one. */
  #tell(response: ServerResponse): void {
    const { feed } = this.#options;
    const { heartbeatMs, stallMs } = this.#limits;
    let told = toldNothing;
    let full = false;
    const stalled = (): void => void response.destroy();
    let stall: NodeJS.Timeout | undefined;
    const write = (): void => {
      if (full) return;
      const message = feed.messageFor(told);
      told = message.told;
      full = !response.write(message.line);
      if (full) stall = setTimeout(stalled, stallMs);
    };
    response.on("drain", () => {
      full = false;
      clearTimeout(stall);
      if (feed.hasNews(told)) write();
    });
    const heartbeat = setInterval(write, heartbeatMs);
    this.#pages.add(response);
    const unwatch = feed.watch(write);
    response.once("close", () => {
      unwatch();
      this.#pages.delete(response);
      clearInterval(heartbeat);
      clearTimeout(stall);
    });
    write();
  }
}

function end(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { "Content-Type": "text/plain; charset=utf-8" });
  response.end(`${message}\n`);
}

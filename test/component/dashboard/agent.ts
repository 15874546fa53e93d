import { once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";

import type { NodeSnapshot } from "../../../src/agent/local/types.ts";

/** Stands for an agent: tells on a socket what a test wants it to tell. */
export class FakeAgent {
  readonly #path: string;
  #server: Server | undefined;
  readonly #followers = new Set<ServerResponse>();
  #current: string;
  /** How often a single snapshot was asked for. */
  asked = 0;

  constructor(path: string, first: NodeSnapshot) {
    this.#path = path;
    this.#current = `${JSON.stringify(first)}\n`;
  }

  get followers(): number {
    return this.#followers.size;
  }

  async start(): Promise<void> {
    const server = createServer((request, response) => {
      if (request.url === "/v1/snapshot") {
        this.asked += 1;
        response.end(this.#current);
        return;
      }
      response.writeHead(200, { "Content-Type": "application/x-ndjson" });
      response.write(this.#current);
      this.#followers.add(response);
      response.once("close", () => this.#followers.delete(response));
    });
    this.#server = server;
    server.listen(this.#path);
    await once(server, "listening");
  }

  /** Another state of the node. */
  tell(next: NodeSnapshot): void {
    this.tellText(`${JSON.stringify(next)}\n`);
  }

  tellText(text: string): void {
    this.#current = text;
    for (const follower of this.#followers) follower.write(text);
  }

  /** Ends as an agent does that is stopped: its socket is gone. */
  async stop(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    await closed;
  }
}

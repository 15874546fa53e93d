// The API as a user's program sees it, for test/bench/pods.ts and volumes.ts: TLS, one kept connection, one watch.
import { readFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import { parse } from "yaml";

interface Kubeconfig {
  readonly clusters: readonly {
    readonly cluster: { readonly server: string; readonly "certificate-authority-data": string };
  }[];
  readonly users: readonly {
    readonly user: {
      readonly "client-certificate-data": string;
      readonly "client-key-data": string;
    };
  }[];
}

/** What is looked at of a watched object. */
export interface Seen {
  readonly metadata: { readonly name: string; readonly uid: string };
  readonly spec?: { readonly nodeName?: string };
  readonly status?: {
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

export interface SeenEvent {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  readonly object: Seen;
}

/** An API server, with an administrator's certificate. */
export class Api {
  readonly #agent: Agent;
  readonly #server: string;

  private constructor(server: string, agent: Agent) {
    this.#server = server;
    this.#agent = agent;
  }

  static async fromKubeconfig(path: string): Promise<Api> {
    const config = parse(await readFile(path, "utf8")) as Kubeconfig;
    const [cluster] = config.clusters;
    const [user] = config.users;
    if (cluster === undefined || user === undefined) throw new Error(`${path} names no cluster`);
    const bytes = (text: string): Buffer => Buffer.from(text, "base64");
    const agent = new Agent({
      keepAlive: true,
      ca: bytes(cluster.cluster["certificate-authority-data"]),
      cert: bytes(user.user["client-certificate-data"]),
      key: bytes(user.user["client-key-data"]),
    });
    return new Api(cluster.cluster.server, agent);
  }

  get port(): number {
    return Number(new URL(this.#server).port);
  }

  async #open(method: string, path: string, body: string): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const type = method === "PATCH" ? "application/merge-patch+json" : "application/json";
    const headers = { "content-type": type, accept: "application/json" };
    const outgoing = request(
      `${this.#server}${path}`,
      { agent: this.#agent, method, headers },
      resolve,
    );
    outgoing.on("error", reject);
    outgoing.end(body);
    return promise;
  }

  async #text(method: string, path: string, body: string): Promise<string> {
    const incoming = await this.#open(method, path, body);
    let text = "";
    incoming.setEncoding("utf8");
    for await (const chunk of incoming) text += String(chunk);
    const status = incoming.statusCode ?? 500;
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${text}`);
    return text;
  }

  async call(method: string, path: string, body?: object): Promise<unknown> {
    const sent = body === undefined ? "" : JSON.stringify(body);
    return JSON.parse(await this.#text(method, path, sent));
  }

  /** A page that is no JSON. */
  async text(path: string): Promise<string> {
    return this.#text("GET", path, "");
  }

  /** Calls `onEvent` for each change of the collection from now on. Returns the function that ends it. */
  async watch(path: string, onEvent: (event: SeenEvent) => void): Promise<() => void> {
    const list = (await this.call("GET", path)) as { metadata: { resourceVersion: string } };
    const { resourceVersion } = list.metadata;
    const query = `watch=1&resourceVersion=${resourceVersion}`;
    const incoming = await this.#open("GET", `${path}?${query}`, "");
    incoming.setEncoding("utf8");
    let rest = "";
    incoming.on("data", (chunk: string) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line !== "") onEvent(JSON.parse(line) as SeenEvent);
    });
    // The end is what the returned function asks for.
    incoming.on("error", () => undefined);
    return () => incoming.destroy();
  }

  close(): void {
    this.#agent.destroy();
  }
}

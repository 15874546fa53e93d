import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { Agent, request, type RequestOptions } from "node:https";
import { createServer } from "node:net";
import { text } from "node:stream/consumers";

import type { ApiClient, ApiRequest } from "../../../src/api/client.ts";
import { ApiUnavailableError } from "../../../src/api/errors.ts";
import type { AgentConfig } from "../../../src/config/types.ts";
import { createNodeServer, type NodeServerOptions } from "../../../src/kubelet/server/server.ts";
import type { ContainerLookup, PodView } from "../../../src/kubelet/types.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import {
  certificate,
  certificateAuthority,
  type CertificateRequest,
  privateKeyPEM,
} from "../../../src/lib/x509.ts";
import type { ContainerRuntime } from "../../../src/runtime/types.ts";
import { agentConfig } from "../kubelet-node/fixtures.ts";

export const dayMs = 24 * 3_600_000;

export interface Client {
  readonly cert?: string;
  readonly key?: string;
  readonly token?: string;
}

export interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers: IncomingMessage["headers"];
}

function newKey(): KeyObject {
  return generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
}

/** A CA in memory, and what it signs. */
export class TestCA {
  readonly #key = newKey();
  readonly #name: { readonly commonName: string };
  readonly pem: string;

  constructor(commonName: string) {
    this.#name = { commonName };
    const now = Date.now();
    const validity = { notBefore: now - dayMs, notAfter: now + 10 * dayMs };
    this.pem = certificateAuthority(this.#name, this.#key, validity);
  }

  issue(
    commonName: string,
    organizations: readonly string[] = [],
    more: Partial<CertificateRequest> = {},
  ): { readonly cert: string; readonly key: string } {
    const key = newKey();
    const now = Date.now();
    const cert = certificate(
      {
        subject: { commonName, organizations },
        alternativeNames: ["127.0.0.1", "localhost"],
        usages: ["client"],
        notBefore: now - dayMs / 2,
        notAfter: now + dayMs,
        ...more,
      },
      key,
      { name: this.#name, privateKey: this.#key },
    );
    return { cert, key: privateKeyPEM(key) };
  }
}

/** The API server as the node's server sees it. */
export class FakeReviews implements ApiClient {
  readonly asked: string[] = [];
  /** `USER VERB SUBRESOURCE` */
  readonly allowed = new Set<string>();
  away = false;

  async request({ path, body }: ApiRequest): Promise<unknown> {
    if (this.away) throw new ApiUnavailableError("connect ECONNREFUSED");
    const spec = isRecord(body) && isRecord(body["spec"]) ? body["spec"] : {};
    if (path.endsWith("/tokenreviews")) {
      const token = String(spec["token"]);
      this.asked.push(`token ${token}`);
      // A token is good when it begins so; what follows is its user.
      const [, username] = /^good-(.+)$/.exec(token) ?? [];
      if (username !== undefined) return { status: { authenticated: true, user: { username } } };
      const error = token === "expired" ? { error: "token has expired" } : {};
      return { status: { authenticated: false, ...error } };
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

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}

const found: ContainerLookup = {
  kind: "found",
  containerID: "id1",
  running: true,
  tty: false,
  stdin: true,
};

/** One pod `ns/web` with the container `c`. */
const pods: PodView = {
  pods: () => [],
  healthy: () => undefined,
  findContainer: async ({ namespace, pod, uid, container }) => {
    if (namespace !== "ns" || pod !== "web" || (uid ?? "uid-1") !== "uid-1") {
      return { kind: "podNotFound" };
    }
    return container === "c" ? found : { kind: "containerNotFound" };
  },
};

const runtime = {
  containerLogPath: async () => undefined,
  snapshot: async () => new Map(),
} as unknown as ContainerRuntime;

export class NodeUnderTest {
  readonly ca = new TestCA("ca");
  readonly reviews = new FakeReviews();
  readonly admin = this.ca.issue("admin", ["system:masters"]);
  readonly agent = new Agent({ keepAlive: true, maxSockets: 4 });
  port = 0;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  async start(
    config: Partial<AgentConfig> = {},
    more: Partial<NodeServerOptions> = {},
  ): Promise<this> {
    const serving = this.ca.issue("node", [], { usages: ["server"] });
    this.port = await freePort();
    const server = createNodeServer({
      config: agentConfig("/nonexistent", { kubeletPort: this.port, ...config }),
      client: this.reviews,
      runtime,
      pods,
      node: { node: () => undefined, hostIPs: () => [], subscribe: () => () => undefined },
      clock: systemClock,
      logger: silentLogger,
      clientCA: this.ca.pem,
      tls: { current: () => serving, onChange: () => () => undefined },
      ...more,
    });
    this.#running = server.run(this.#stop.signal);
    await this.#listening();
    return this;
  }

  async #listening(): Promise<void> {
    for (;;) {
      const answered = this.get("/healthz", this.admin).then(
        () => true,
        () => false,
      );
      // A server that cannot start must fail the test, not hang it.
      if (await Promise.race([answered, this.#running.then(() => true)])) return;
      await systemClock.sleep(5, this.#stop.signal);
    }
  }

  async get(
    path: string,
    client: Client,
    more: Omit<RequestOptions, "headers"> & {
      readonly headers?: Readonly<Record<string, string>>;
    } = {},
  ): Promise<Answer> {
    const { cert, key, token } = client;
    const asked = request({
      host: "127.0.0.1",
      port: this.port,
      path,
      agent: this.agent,
      rejectUnauthorized: false,
      ...(cert === undefined ? {} : { cert, key }),
      ...more,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...more.headers,
      },
    });
    asked.end();
    const [response] = (await once(asked, "response")) as [IncomingMessage];
    return {
      status: response.statusCode ?? 0,
      body: await text(response),
      headers: response.headers,
    };
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.agent.destroy();
    await this.#running;
  }
}

/** The machine's clock with a wall clock that can be set, and sleeps that a test ends. */
export class SettableClock implements Clock {
  offsetMs = 0;
  readonly #sleeping = new Set<() => void>();

  now(): number {
    return Date.now() + this.offsetMs;
  }

  monotonic(): number {
    return performance.now() + this.offsetMs;
  }

  sleep(_ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#sleeping.add(resolve);
      const abort = (): void => reject(new DOMException("aborted", "AbortError"));
      if (signal.aborted) abort();
      signal.addEventListener("abort", abort, { once: true });
    });
  }

  /** Ends every sleep there is. */
  tick(): void {
    for (const wake of this.#sleeping) wake();
    this.#sleeping.clear();
  }
}

import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server as HttpsServer } from "node:https";
import { readFile } from "node:fs/promises";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";

import type { ApiClient } from "../../api/client.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { ContainerRuntime } from "../../runtime/types.ts";
import type { NodeView, PodView } from "../types.ts";
import { Authorizer, requestAttributes } from "./authorization.ts";
import { runHealthzServer } from "./healthz.ts";
import { HttpRefusal, refuseUpgrade } from "./http-refusal.ts";
import { Authenticator } from "./identity.ts";
import { listenUntilAborted } from "./listen.ts";
import { dialPod, type PodDialer } from "./streams/pod-dialer.ts";
import { servePortForward } from "./streams/port-forward.ts";
import { refuseDisabled, serveRoute } from "./routes.ts";
import { serveStreaming } from "./streams/streaming.ts";

export interface NodeServerOptions {
  readonly config: AgentConfig;
  /** Identity `system:node:NAME`: asks the API server about tokens and rights. */
  readonly client: ApiClient;
  readonly runtime: ContainerRuntime;
  readonly pods: PodView;
  readonly node: NodeView;
  readonly clock: Clock;
  readonly logger: Logger;
  /** PEM of the CA of client certificates when `config.clientCAFile` is empty. */
  readonly clientCA?: string;
  /** How port-forward reaches a pod; default nsenter. */
  readonly dial?: PodDialer;
  /** More lines for /metrics, in Prometheus text format. */
  readonly metrics?: () => string;
}

export interface NodeServer {
  /**
   * Listens until `signal` aborts, then ends all sessions.
   *
   * @throws {SetupError} a port is in use, or certificate, key or CA cannot be read.
   */
  run(signal: AbortSignal): Promise<void>;
}

/** How often the certificate files are looked at. */
const reloadMs = 10_000;

/** The node's HTTPS server (10250) and its loopback health check (10248). */
export function createNodeServer(options: NodeServerOptions): NodeServer {
  return new KubeletServer(options);
}

interface TlsFiles {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca: string | Buffer | undefined;
}

class KubeletServer implements NodeServer {
  readonly #options: NodeServerOptions;
  readonly #authenticator: Authenticator;
  readonly #authorizer: Authorizer;

  constructor(options: NodeServerOptions) {
    this.#options = options;
    const { client, clock, config } = options;
    this.#authenticator = new Authenticator({ client, clock });
    this.#authorizer = new Authorizer({ client, clock, nodeName: config.nodeName });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { config, pods } = this.#options;
    const files = await this.#readTlsFiles();
    const ended = new AbortController();
    const inner = AbortSignal.any([signal, ended.signal]);
    const server = createServer({
      ...tlsOptions(files),
      minVersion: "TLSv1.2",
      ALPNProtocols: ["http/1.1"],
      requestCert: true,
      rejectUnauthorized: false,
    });
    // A client certificate is checked when its request comes; what breaks before is the client's own trouble.
    server.on("tlsClientError", () => undefined);
    server.on("request", (request, response) => {
      void this.#respond(request, response, inner);
    });
    server.on("upgrade", (request, socket, head) => {
      void this.#upgrade(request, socket, head, inner);
    });
    const parts = [
      listenUntilAborted(server, config.bindAddress, config.kubeletPort, "kubeletPort", inner),
      runHealthzServer({ port: config.kubeletHealthzPort, healthy: () => pods.healthy() }, inner),
      this.#reload(server, files, inner),
    ];
    try {
      await Promise.all(parts);
    } finally {
      // One part that fails takes the others along, and nothing stays behind.
      ended.abort();
      await Promise.allSettled(parts);
    }
  }

  async #readTlsFiles(): Promise<TlsFiles> {
    const { clientCA, config } = this.#options;
    const [cert, key, ca] = await Promise.all([
      readSetupFile(config.tlsCertFile, "tlsCertFile"),
      readSetupFile(config.tlsPrivateKeyFile, "tlsPrivateKeyFile"),
      config.clientCAFile === "" ? clientCA : readSetupFile(config.clientCAFile, "clientCAFile"),
    ]);
    return { cert, key, ca };
  }

  /** Serves renewed certificates to new connections without a restart. */
  async #reload(server: HttpsServer, first: TlsFiles, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    let current = first;
    while (!signal.aborted) {
      await clock.sleep(reloadMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      try {
        const files = await this.#readTlsFiles();
        if (sameFiles(files, current)) continue;
        server.setSecureContext(tlsOptions(files));
        current = files;
        logger.log("info", "serving certificate reloaded");
      } catch (error) {
        // A half-written pair: the old one stays until the new one is whole.
        logger.log("warn", "serving certificate not reloaded", { error: errorMessage(error) });
      }
    }
  }

  async #respond(
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<void> {
    const left = new AbortController();
    response.once("close", () => {
      left.abort();
    });
    const gone = AbortSignal.any([signal, left.signal]);
    try {
      const url = requestURL(request);
      await this.#admit(request, request.socket, url, gone);
      await serveRoute(this.#options, { request, response, url }, gone);
    } catch (error) {
      if (gone.aborted) {
        response.destroy();
        return;
      }
      const refusal = this.#refusal(error);
      // Too late for a status: only a broken connection still tells that something is missing.
      if (response.headersSent) response.destroy();
      else {
        response.writeHead(refusal.status, { "Content-Type": "text/plain; charset=utf-8" });
        response.end(refusal.message);
      }
    }
  }

  async #upgrade(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    signal: AbortSignal,
  ): Promise<void> {
    // Without a listener a connection that is reset while we look things up would end the agent.
    socket.on("error", () => undefined);
    try {
      const url = requestURL(request);
      await this.#admit(request, socket, url, signal);
      refuseDisabled(this.#options.config, url.pathname);
      const upgrade = { request, socket, head, url };
      if (url.pathname.startsWith("/portForward/")) {
        const dial = this.#options.dial ?? dialPod;
        await servePortForward({ ...this.#options, dial }, upgrade, signal);
      } else {
        await serveStreaming(this.#options, upgrade, signal);
      }
    } catch (error) {
      refuseUpgrade(socket, this.#refusal(error));
    } finally {
      if (signal.aborted) socket.destroy();
    }
  }

  /** @throws {HttpRefusal} 401 or 403, with upstream's texts. */
  async #admit(
    request: IncomingMessage,
    socket: Duplex,
    url: URL,
    signal: AbortSignal,
  ): Promise<void> {
    if (!(socket instanceof TLSSocket)) throw new HttpRefusal(401, "Unauthorized");
    const user = await this.#authenticator
      .authenticate(socket, request.headers.authorization, signal)
      .catch((error: unknown) => {
        this.#logUnlessAbort("caller could not be authenticated", error);
        throw new HttpRefusal(401, "Unauthorized", { cause: error });
      });
    if (user === undefined) throw new HttpRefusal(401, "Unauthorized");
    const attributes = requestAttributes(request.method ?? "GET", url.pathname);
    const about = `user=${user.name}, verb=${attributes.verb}, resource=nodes`;
    const subresources = attributes.subresources.join(" ");
    const allowed = await this.#authorizer
      .allowed(user, attributes, signal)
      .catch((error: unknown) => {
        this.#logUnlessAbort("caller could not be authorized", error);
        throw new HttpRefusal(500, `Authorization error (${about}, subresource=${subresources})`, {
          cause: error,
        });
      });
    if (!allowed) {
      throw new HttpRefusal(403, `Forbidden (${about}, subresource(s)=[${subresources}])\n`);
    }
  }

  #logUnlessAbort(msg: string, error: unknown): void {
    if (isAbort(error)) return;
    this.#options.logger.log("warn", msg, { error: errorMessage(error) });
  }

  #refusal(error: unknown): HttpRefusal {
    if (error instanceof HttpRefusal) return error;
    this.#logUnlessAbort("request failed", error);
    return new HttpRefusal(500, errorMessage(error), { cause: error });
  }
}

function tlsOptions({ cert, key, ca }: TlsFiles): {
  cert: Buffer;
  key: Buffer;
  ca: (string | Buffer)[];
} {
  // An empty list, not an absent one: else the machine's public CAs could issue client certificates.
  return { cert, key, ca: ca === undefined || ca.length === 0 ? [] : [ca] };
}

function sameFiles(a: TlsFiles, b: TlsFiles): boolean {
  return a.cert.equals(b.cert) && a.key.equals(b.key) && String(a.ca) === String(b.ca);
}

async function readSetupFile(path: string, option: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new SetupError(
      `${option} ${path === "" ? "is not set" : `"${path}" cannot be read (${errorMessage(error)})`}; set it to a PEM file`,
      { cause: error },
    );
  }
}

function requestURL(request: IncomingMessage): URL {
  const url = URL.parse(request.url ?? "/", "https://node");
  if (url === null) throw new HttpRefusal(400, "the request's target is no URL");
  return url;
}

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
import { accessVerb, Authorizer } from "./authorization.ts";
import { runHealthzServer } from "./healthz.ts";
import { HttpRefusal, refuseUpgrade } from "./http-refusal.ts";
import { Authenticator, type User } from "./identity.ts";
import { listenUntilAborted } from "./listen.ts";
import { dialPod, type PodDialer } from "./streams/pod-dialer.ts";
import { type Access, matchRoute, type Route, type RouteDeps, type RouteMatch } from "./route.ts";
import { routes, unknownPath } from "./routes.ts";

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
  readonly #deps: RouteDeps;

  constructor(options: NodeServerOptions) {
    this.#options = options;
    this.#deps = { ...options, dial: options.dial ?? dialPod };
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
      // What no row streams is answered as the plain request that it also is.
      shouldUpgradeCallback: (request) => opensStream(request),
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
      const { route, params } = await this.#admit(request, request.socket, url, gone);
      if (!("serve" in route)) throw new HttpRefusal(400, "Upgrade request required\n");
      await route.serve(this.#deps, { request, response, url, params }, gone);
    } catch (error) {
      if (gone.aborted) {
        response.destroy();
        return;
      }
      const refusal = this.#refusal(error);
      // Too late for a status: only a broken connection still tells that something is missing.
      if (response.headersSent) response.destroy();
      else {
        response.writeHead(refusal.status, {
          "Content-Type": "text/plain; charset=utf-8",
          ...refusal.headers,
        });
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
      const { route } = await this.#admit(request, socket, url, signal);
      if (!("upgrade" in route)) throw new HttpRefusal(400, "this page is no stream\n");
      await route.upgrade(this.#deps, { request, socket, head, url }, signal);
    } catch (error) {
      refuseUpgrade(socket, this.#refusal(error));
    } finally {
      if (signal.aborted) socket.destroy();
    }
  }

  /**
   * The row that answers a request, when its sender may have it and the row its method.
   *
   * @throws {HttpRefusal} 401, 403, 405 or 404, with upstream's texts.
   */
  async #admit(
    request: IncomingMessage,
    socket: Duplex,
    url: URL,
    signal: AbortSignal,
  ): Promise<RouteMatch> {
    const user = await this.#identify(request, socket, signal);
    const match = matchRoute(routes, unknownPath, url.pathname);
    const method = request.method ?? "GET";
    await this.#authorize(user, method, match.route.access, signal);
    refuseDisabled(this.#options.config, match.route);
    refuseMethod(match.route, method);
    return match;
  }

  async #identify(request: IncomingMessage, socket: Duplex, signal: AbortSignal): Promise<User> {
    if (!(socket instanceof TLSSocket)) throw new HttpRefusal(401, "Unauthorized");
    const user = await this.#authenticator
      .authenticate(socket, request.headers.authorization, signal)
      .catch((error: unknown) => {
        this.#logUnlessAbort("caller could not be authenticated", error);
        throw new HttpRefusal(401, "Unauthorized", { cause: error });
      });
    if (user === undefined) throw new HttpRefusal(401, "Unauthorized");
    return user;
  }

  async #authorize(user: User, method: string, access: Access, signal: AbortSignal): Promise<void> {
    const verb = accessVerb(access, method);
    const about = `user=${user.name}, verb=${verb}, resource=nodes`;
    const subresources = access.subresources.join(" ");
    const allowed = await this.#authorizer
      .allowed(user, verb, access.subresources, signal)
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
  const target = request.url ?? "";
  // Not resolved as a reference: two slashes at its beginning would name another host.
  const url = URL.parse(target.startsWith("/") ? `https://node${target}` : target);
  if (url === null) throw new HttpRefusal(400, "the request's target is no URL");
  return url;
}

/** Whether a request that offers an upgrade is for a page that streams. */
function opensStream(request: IncomingMessage): boolean {
  try {
    const { pathname } = requestURL(request);
    return "upgrade" in matchRoute(routes, unknownPath, pathname).route;
  } catch {
    // Answered with the reason when the request comes to its turn.
    return false;
  }
}

/** @throws {HttpRefusal} 405 or 404 for what is there for debugging only, when that is off. */
function refuseDisabled(
  config: Pick<AgentConfig, "enableDebuggingHandlers">,
  { withoutDebugging }: Route,
): void {
  if (config.enableDebuggingHandlers || withoutDebugging === "served") return;
  if (withoutDebugging === "absent") throw new HttpRefusal(404, "404 page not found\n");
  throw new HttpRefusal(405, "Debug endpoints are disabled.\n");
}

/** @throws {HttpRefusal} 405 naming the methods there are. */
function refuseMethod({ methods }: Route, method: string): void {
  if (methods === "any" || methods.some((known) => known === method)) return;
  throw new HttpRefusal(405, "405: Method Not Allowed", {
    headers: { Allow: methods.join(", ") },
  });
}

import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";

import type { ApiClient } from "../../api/client.ts";
import { ApiError, ApiUnavailableError } from "../../api/errors.ts";
import type { AgentConfig } from "../../config/types.ts";
import { type Clock, within } from "../../lib/clock.ts";
import { errorMessage, isAbort, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { UnderWay } from "../../lib/under-way.ts";
import { Authorizer } from "./authorization.ts";
import { type ServerBounds, serverBounds } from "./bounds.ts";
import { ClientCertificates, parseBundle } from "./client-certificates.ts";
import { Connections, peerFilter } from "./connections.ts";
import { HealthResults } from "../../lib/health-results.ts";
import { runHealthzServer } from "./healthz.ts";
import { HttpRefusal, refuseUpgrade, refusalHeaders } from "./http-refusal.ts";
import { Authenticator, type User } from "./identity.ts";
import { listenUntilAborted } from "./listen.ts";
import { Reviews } from "./reviews.ts";
import { matchRoute, type Route, type RouteDeps, type RouteMatch } from "./route.ts";
import { routes, unknownPath } from "./routes.ts";
import { ServingTls, type TlsMaterial } from "./serving-tls.ts";
import { createPodDialer, type PodDialer } from "./streams/pod-dialer.ts";
import type { TlsSource } from "./tls-source.ts";

export interface NodeServerOptions extends Omit<RouteDeps, "dial" | "health" | "startedAt"> {
  readonly config: AgentConfig;
  /** Identity `system:node:NAME`: asks the API server about tokens and rights. */
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  /** PEM of the CA of client certificates when `config.clientCAFile` is empty. */
  readonly clientCA?: string;
  /** Certificate and key; default the files that `config` names, looked at now and then. */
  readonly tls?: TlsSource;
  /** How port-forward reaches a pod; default nsenter. */
  readonly dial?: PodDialer;
  /** Whether an address is that of one of the cluster's nodes; they are let in besides `config.kubeletPeerCIDRs`. */
  readonly isNode?: (address: string) => boolean;
  /** A socket that is bound to `bindAddress` and `kubeletPort` already, for one {@link NodeServer.run}. */
  readonly listenFd?: number;
  readonly bounds?: Partial<ServerBounds>;
}

export interface NodeServer {
  /**
   * Listens until `signal` aborts, then ends all sessions.
   *
   * @throws {SetupError} a port is in use, certificate, key or CA cannot be read, or nobody at all could get in.
   */
  run(signal: AbortSignal): Promise<void>;
}

/** How long the same trouble is not told again. */
const silenceMs = 10_000;
/** How long the end waits for answers that are under way, and for connections that have not said yet what they want. */
const drainMs = { answers: 1000, strangers: 250 };

/** The node's HTTPS server (10250) and its loopback health check (10248). */
export function createNodeServer(options: NodeServerOptions): NodeServer {
  return new KubeletServer(options);
}

class KubeletServer implements NodeServer {
  readonly #options: NodeServerOptions;
  readonly #deps: RouteDeps;
  readonly #bounds: ServerBounds;
  readonly #connections: Connections;
  readonly #certificates = new ClientCertificates("");
  readonly #authenticator: Authenticator;
  readonly #authorizer: Authorizer;
  readonly #ended = new AbortController();
  readonly #underWay = new UnderWay();
  /** Until when a message is not logged again, by {@link Clock.monotonic}. */
  readonly #silentUntil = new Map<string, number>();

  constructor(options: NodeServerOptions) {
    this.#options = options;
    const { client, clock, config } = options;
    const { authentication, authorization, nodeName } = config;
    const reviews = new Reviews({ client, clock });
    const dial = options.dial ?? createPodDialer(clock, this.#ended.signal);
    this.#deps = { ...options, dial, health: new HealthResults(), startedAt: clock.now() };
    this.#bounds = { ...serverBounds, ...options.bounds };
    const peers = peerFilter(config.kubeletPeerCIDRs, options.isNode);
    this.#connections = new Connections(peers, this.#bounds);
    this.#authenticator = new Authenticator({
      settings: authentication,
      certificates: this.#certificates,
      reviews,
      clock,
    });
    this.#authorizer = new Authorizer({ settings: authorization, nodeName, reviews, clock });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { config } = this.#options;
    const tls = this.#servingTls();
    const material = await tls.read();
    this.#trust(material);
    const inner = AbortSignal.any([signal, this.#ended.signal]);
    const server = createServer({
      ...this.#bounds,
      // Ends the streams of a client whose machine vanished.
      keepAlive: true,
      keepAliveInitialDelay: 15_000,
      ...tls.secureContext(material),
      // Upgrades need it. API servers would take HTTP/2 for the rest, all on one connection, and do without a word when
      // it is not offered; it costs 12 MB, and another protocol to bound.
      ALPNProtocols: ["http/1.1"],
      requestCert: true,
      rejectUnauthorized: false,
      // What no row streams is answered as the plain request that it also is.
      shouldUpgradeCallback: opensStream,
    });
    this.#connections.watch(server);
    // A client certificate is checked when its request comes; what breaks before is the client's own trouble.
    server.on("tlsClientError", () => undefined);
    const answering = new AbortController();
    const respond = (request: IncomingMessage, response: ServerResponse): void => {
      // What has no end of its own ends with us.
      const follows = isFollowing(request);
      if (!follows) response.once("close", this.#underWay.begin());
      void this.#respond(request, response, follows ? inner : answering.signal);
    };
    server.on("request", respond);
    // Nobody's body is read, so nobody is told to go on with it.
    server.on("checkContinue", respond);
    server.on("upgrade", (request, socket, head) => {
      void this.#upgrade(request, socket, head, inner);
    });
    const { bindAddress, kubeletHealthzAddress, kubeletHealthzPort, kubeletPort } = config;
    const place = { address: bindAddress, port: kubeletPort, option: "kubeletPort" };
    const drained = async (): Promise<void> => {
      await this.#drain();
      answering.abort();
      this.#connections.endStrangers();
    };
    const parts = [
      listenUntilAborted(server, { ...place, fd: this.#options.listenFd, drained }, inner),
      runHealthzServer({ address: kubeletHealthzAddress, port: kubeletHealthzPort }, inner),
      tls.run(server, material, (next) => this.#trust(next), inner),
    ];
    try {
      await Promise.all(parts);
    } finally {
      // One part that fails takes the others along, and nothing stays behind.
      this.#ended.abort();
      await Promise.allSettled(parts);
      answering.abort();
    }
  }

  /** Waits for those who came before the end, but not for long. */
  async #drain(): Promise<void> {
    const never = new AbortController().signal;
    await Promise.all([
      within(never, drainMs.answers, async (limited) => this.#underWay.settled(limited)),
      within(never, drainMs.strangers, async (limited) =>
        orAborted(this.#connections.withoutStrangers(), limited),
      ),
    ]);
  }

  #servingTls(): ServingTls {
    const { clientCA, clock, config, logger, tls } = this.#options;
    return new ServingTls({
      config,
      ...(clientCA === undefined ? {} : { clientCA }),
      ...(tls === undefined ? {} : { source: tls }),
      clock,
      logger,
    });
  }

  /** @throws {SetupError} a bundle that cannot be read, or one that is needed and empty. */
  #trust({ clientCA }: TlsMaterial): void {
    const { authentication, clientCAFile } = this.#options.config;
    try {
      // A file that is being written, or damaged: nobody wants to lock everybody out by that.
      if (clientCAFile !== "" && parseBundle(clientCA).length === 0) {
        throw new Error("there is no certificate in it");
      }
      this.#certificates.trust(clientCA);
    } catch (error) {
      throw new SetupError(
        `clientCAFile holds what is no certificate (${errorMessage(error)}); it must be PEM`,
        { cause: error },
      );
    }
    const others = authentication?.webhookEnabled !== false || authentication.anonymousEnabled;
    if (clientCA === "" && others !== true) {
      throw new SetupError(
        "no authentication method configured; set clientCAFile, or enable authentication.webhook",
      );
    }
  }

  async #respond(
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<void> {
    const done = await this.#connections.turn(request.socket);
    if (done === undefined || response.destroyed) {
      request.socket.destroy();
      return;
    }
    const left = new AbortController();
    response.once("close", () => {
      left.abort();
      done();
    });
    // Its end may never come; no page wants one.
    if (hasBody(request)) response.shouldKeepAlive = false;
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
        // Who is not known has no use for a connection that stays.
        if (refusal.status === 401) response.shouldKeepAlive = false;
        response.writeHead(refusal.status, refusalHeaders(refusal)).end(refusal.message);
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
    // The answer to an earlier request would be written into the stream.
    if (this.#connections.busy(request.socket)) {
      socket.destroy();
      return;
    }
    const gone = new AbortController();
    socket.once("close", () => gone.abort());
    const open = AbortSignal.any([signal, gone.signal]);
    try {
      const url = requestURL(request);
      const { route } = await this.#admit(request, socket, url, open);
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
    this.#connections.admit(request.socket);
    const match = matchRoute(routes, unknownPath, url.pathname);
    const method = request.method ?? "GET";
    this.#count(match.route, request, signal);
    await this.#authorizer.authorize(user, method, match.route.access, signal);
    refuseDisabled(this.#options.config, match.route);
    refuseMethod(match.route, method);
    return match;
  }

  /** @param signal Aborts when the answer is through or its connection gone. */
  #count(route: Route, { headers, method = "GET" }: IncomingMessage, signal: AbortSignal): void {
    const { clock, figures } = this.#deps;
    if (figures === undefined) return;
    const path = metricsPath(route);
    const served = { method, path, longRunning: "upgrade" in route };
    const beganAt = clock.monotonic();
    figures.http.began(served);
    if (served.longRunning && headers.upgrade?.toLowerCase() === "websocket") {
      figures.http.webSocket(path.toLowerCase());
    }
    signal.addEventListener(
      "abort",
      () => figures.http.ended(served, (clock.monotonic() - beganAt) / 1000),
      { once: true },
    );
  }

  async #identify(request: IncomingMessage, socket: Duplex, signal: AbortSignal): Promise<User> {
    if (!(socket instanceof TLSSocket)) throw new HttpRefusal(401, "Unauthorized");
    try {
      const user = await this.#authenticator.authenticate(socket, request.headers, signal);
      if (user !== undefined) return user;
    } catch (error) {
      // A credential that does not hold is its sender's trouble; an API server that cannot be asked is ours.
      if (isApiTrouble(error)) this.#logUnlessAbort("caller could not be authenticated", error);
      throw new HttpRefusal(401, "Unauthorized", { cause: error });
    }
    throw new HttpRefusal(401, "Unauthorized");
  }

  /** Whoever calls often enough must not fill the log: each kind of trouble is told now and then. */
  #logUnlessAbort(msg: string, error: unknown): void {
    const { clock, logger } = this.#options;
    const now = clock.monotonic();
    if (isAbort(error) || now < (this.#silentUntil.get(msg) ?? 0)) return;
    this.#silentUntil.set(msg, now + silenceMs);
    logger.log("warn", msg, { error: errorMessage(error) });
  }

  #refusal(error: unknown): HttpRefusal {
    if (error instanceof HttpRefusal) {
      // A refusal of ours that has a cause tells of trouble, not of the caller.
      if (error.status >= 500 && error.cause !== undefined) {
        this.#logUnlessAbort("request failed", error.cause);
      }
      return error;
    }
    this.#logUnlessAbort("request failed", error);
    return new HttpRefusal(500, errorMessage(error), { cause: error });
  }
}

/** Upstream's buckets: the first part of the path, and below `/metrics` two. */
function metricsPath({ path }: Route): string {
  const [, first = "", second = ""] = path.split("/");
  const known = first === "metrics" && second !== "" ? `${first}/${second}` : first;
  return known === "" || known.includes("{") ? "other" : known;
}

function orAborted(settled: Promise<void>, signal: AbortSignal): Promise<void> {
  return Promise.race([
    settled,
    new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => resolve(), { once: true });
    }),
  ]);
}

function isFollowing({ url = "" }: IncomingMessage): boolean {
  return /[?&]follow=(?!false|0)/i.test(url);
}

function isApiTrouble(error: unknown): boolean {
  return error instanceof ApiError || error instanceof ApiUnavailableError;
}

/** @throws {HttpRefusal} 400 for a request line whose target is no path. */
function requestURL(request: IncomingMessage): URL {
  const target = request.url ?? "";
  // Not resolved as a reference: two slashes at its beginning would name another host.
  const url = URL.parse(target.startsWith("/") ? `https://node${target}` : target);
  if (url === null) throw new HttpRefusal(400, "the request's target is no URL");
  return url;
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
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

import type { IncomingMessage, ServerResponse } from "node:http";
import { createSecureServer, type Http2SecureServer } from "node:http2";
import { type AddressInfo, Server as NetServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";

import { errorCode, errorMessage, SetupError } from "../../lib/errors.ts";
import { heldBacklog, listenOn } from "../../lib/listen-on.ts";
import type { Logger } from "../../lib/log.ts";
import { StatusError } from "../status-error.ts";
import type { Authenticator, Authorizer, UserInfo } from "../types.ts";
import type { ApiCall, ApiHandler, ApiReply, CallBody } from "./call.ts";
import { impersonate, impersonationOf } from "./impersonate.ts";
import { Newcomers } from "./newcomers.ts";
import { relayRequest, relayUpgrade, type KubeletClient } from "./node-proxy.ts";
import { isPublicPath } from "./plain-paths.ts";
import { sendReply, upgradeRefusal } from "./send-reply.ts";

export interface HttpServerOptions {
  readonly handler: ApiHandler;
  readonly authenticator: Authenticator;
  /** Decides who may act as somebody else (Impersonate-User); absent: nobody. */
  readonly authorizer?: Authorizer;
  readonly logger: Logger;
  readonly address: string;
  /** 0 = any free port. */
  readonly port: number;
  /** A socket that is bound to that place already, and that somebody else keeps open when we end. */
  readonly fd?: number | undefined;
  /** PEM. Client certificates are verified against `clientCA`. */
  readonly tls: { readonly cert: string; readonly key: string; readonly clientCA: string };
  /** Absent: log, exec and their like answer 502. */
  readonly kubeletClient?: KubeletClient;
}

export interface HttpServer {
  readonly port: number;
  /** Replaces certificate and authority for new connections; open ones stay. */
  setCertificate(tls: HttpServerOptions["tls"]): void;
  /** Replaces that with which nodes are called from now on. */
  setKubeletClient(client: KubeletClient): void;
  /** Ends watches and streams, refuses new requests, resolves when the port is free. */
  close(): Promise<void>;
}

/** A client that goes away in the middle of a handshake leaves a half-open socket behind for this long. */
const handshakeMs = 10_000;
/** How long a connection may be silent before its other end is asked whether it is there. */
const keepAliveMs = 15_000;
const MAX_BODY = 3 * 1024 * 1024;
/** Streams that one client may have open at once: a node watches every object its pods refer to. */
const MAX_STREAMS = 1000;

function tooLarge(): StatusError {
  return new StatusError(
    413,
    "RequestEntityTooLarge",
    `Request entity too large: limit is ${MAX_BODY}`,
  );
}

async function readBytes(request: IncomingMessage): Promise<CallBody | undefined> {
  const contentType = request.headers["content-type"] ?? "";
  if (Number(request.headers["content-length"] ?? 0) > MAX_BODY) throw tooLarge();
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
    length += bytes.length;
    if (length > MAX_BODY) throw tooLarge();
    chunks.push(bytes);
  }
  if (length === 0) return undefined;
  return { kind: "bytes", bytes: Buffer.concat(chunks, length), contentType };
}

/** DER; "refused" when nobody vouches for it. */
type PeerCertificate = Uint8Array | "refused" | undefined;

/** What stays the same from request to request: HTTP/2 wraps its socket anew for each. */
function connectionOf(request: IncomingMessage): object {
  const { stream } = request as { readonly stream?: { readonly session?: object } };
  return stream?.session ?? request.socket;
}

function unauthorized(): StatusError {
  return new StatusError(401, "Unauthorized", "Unauthorized");
}

/** Every header with all its values; HTTP/2 requests have no `headersDistinct`. */
function distinctHeaders(request: IncomingMessage): Record<string, string[]> {
  const { rawHeaders } = request;
  const out: Record<string, string[]> = {};
  for (let index = 0; index + 1 < rawHeaders.length; index += 2)
    (out[(rawHeaders[index] ?? "").toLowerCase()] ??= []).push(rawHeaders[index + 1] ?? "");
  return out;
}

function errorReply(error: unknown): ApiReply {
  const status =
    error instanceof StatusError
      ? error
      : new StatusError(500, "InternalError", `Internal error occurred: ${errorMessage(error)}`);
  return { kind: "object", status: status.status, headers: {}, object: status.toStatus() };
}

class Server {
  readonly #options: HttpServerOptions;
  readonly #stop = new AbortController();
  readonly #peers = new WeakMap<object, { readonly certificate: PeerCertificate }>();
  readonly #running = new Set<Promise<void>>();
  #kubeletClient: KubeletClient | undefined;

  constructor(options: HttpServerOptions) {
    this.#options = options;
    this.#kubeletClient = options.kubeletClient;
  }

  setKubeletClient(client: KubeletClient): void {
    this.#kubeletClient = client;
  }

  stop(): void {
    this.#stop.abort();
  }

  async idle(): Promise<void> {
    await Promise.all(this.#running);
  }

  onRequest(request: IncomingMessage, response: ServerResponse): void {
    this.#track(this.#serve(request, response), () => {
      response.destroy();
    });
  }

  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    // A client that resets the connection is no fault of the server's.
    socket.on("error", () => {
      socket.destroy();
    });
    this.#track(this.#upgrade(request, socket, head), () => {
      socket.destroy();
    });
  }

  #track(work: Promise<void>, onFailure: () => void): void {
    const tracked = work
      .catch((error: unknown) => {
        this.#options.logger.log("warn", "request broke off", { error: errorMessage(error) });
        onFailure();
      })
      .finally(() => {
        this.#running.delete(tracked);
      });
    this.#running.add(tracked);
  }

  /** What the client showed in the handshake: parsed once for each connection, which carries thousands of requests. */
  #peerCertificate(request: IncomingMessage, socket: TLSSocket): PeerCertificate {
    const connection = connectionOf(request);
    const known = this.#peers.get(connection);
    if (known !== undefined) return known.certificate;
    const peer = socket.getPeerCertificate();
    // An empty object is Node's way to say that there is none.
    const sent = Object.keys(peer).length > 0;
    const certificate = !sent ? undefined : socket.authorized ? peer.raw : "refused";
    this.#peers.set(connection, { certificate });
    return certificate;
  }

  /** @throws {StatusError} 401. */
  #user(request: IncomingMessage): UserInfo | undefined {
    const { socket } = request;
    const [scheme = "", token = ""] = (request.headers.authorization ?? "").split(" ");
    const bearerToken = scheme.toLowerCase() === "bearer" && token !== "" ? token : undefined;
    const certificate =
      socket instanceof TLSSocket ? this.#peerCertificate(request, socket) : undefined;
    if (certificate === "refused" && bearerToken === undefined) throw unauthorized();
    const { authenticator, authorizer } = this.#options;
    const user = authenticator.authenticate({
      certificate: certificate === "refused" ? undefined : certificate,
      bearerToken,
    });
    const wanted = impersonationOf(distinctHeaders(request));
    return wanted === undefined ? user : impersonate(user, wanted, authorizer);
  }

  #call(request: IncomingMessage, body: CallBody | undefined, signal: AbortSignal): ApiCall {
    const url = request.url ?? "/";
    const at = url.indexOf("?");
    const path = at < 0 ? url : url.slice(0, at);
    let user: UserInfo | undefined;
    try {
      user = this.#user(request);
    } catch (error) {
      // Health checks answer even to those whose credentials are no longer good.
      if (!isPublicPath(path)) throw error;
    }
    return {
      method: request.method ?? "GET",
      path,
      query: new URLSearchParams(at < 0 ? "" : url.slice(at + 1)),
      accept: request.headers.accept ?? "",
      userAgent: request.headers["user-agent"] ?? "",
      ifNoneMatch: request.headers["if-none-match"] ?? "",
      body,
      user,
      signal,
    };
  }

  #streams(request: IncomingMessage): boolean {
    // Proxied bodies go through as they come; all others are read first.
    return /^\/api\/v1\/(nodes\/[^/]+|namespaces\/[^/]+\/(pods|services)\/[^/]+)\/proxy(\/|\?|$)/.test(
      request.url ?? "",
    );
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once("close", () => {
      gone.abort();
    });
    const signal = AbortSignal.any([gone.signal, this.#stop.signal]);
    const reply = await this.#reply(request, signal);
    if (reply.kind !== "relay") {
      await sendReply(request, response, reply, signal);
      return;
    }
    try {
      const client = this.#kubeletClient;
      await relayRequest(reply.target, request, response, { client, signal });
    } catch (error) {
      if (response.headersSent) throw error;
      const refusal = errorReply(error);
      if (refusal.kind !== "relay") await sendReply(request, response, refusal, signal);
    }
  }

  async #reply(request: IncomingMessage, signal: AbortSignal): Promise<ApiReply> {
    try {
      const body = this.#streams(request) ? undefined : await readBytes(request);
      return await this.#options.handler.handle(this.#call(request, body, signal));
    } catch (error) {
      return errorReply(error);
    }
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const gone = new AbortController();
    socket.once("close", () => {
      gone.abort();
    });
    const signal = AbortSignal.any([gone.signal, this.#stop.signal]);
    let reply: ApiReply;
    try {
      reply = await this.#options.handler.handle({
        ...this.#call(request, undefined, signal),
        upgrade: true,
      });
      if (reply.kind === "relay") {
        const client = this.#kubeletClient;
        await relayUpgrade(reply.target, request, { socket, head }, { client, signal });
        return;
      }
    } catch (error) {
      reply = errorReply(error);
    }
    if (reply.kind === "watch") reply.stream.end();
    socket.end(upgradeRefusal(reply));
  }
}

/**
 * HTTP/2, so that the watches of a client share one connection, and HTTP/1.1 for upgrades (exec, attach, port-forward)
 * and for clients that know nothing else.
 */
function createListener(tls: HttpServerOptions["tls"]): Http2SecureServer {
  return createSecureServer({
    cert: tls.cert,
    key: tls.key,
    ca: tls.clientCA,
    requestCert: true,
    // Bearer tokens come without a certificate; who sends a wrong one gets a 401.
    rejectUnauthorized: false,
    minVersion: "TLSv1.2",
    allowHTTP1: true,
    http1Options: { keepAliveTimeout: 90_000 },
    settings: { maxConcurrentStreams: MAX_STREAMS },
    // A client that has sent all its input still reads the output of exec and port-forward.
    allowHalfOpen: true,
    handshakeTimeout: handshakeMs,
    // A machine whose address is gone says no goodbye.
    keepAlive: true,
    keepAliveInitialDelay: keepAliveMs,
  });
}

/**
 * Serves the API over HTTPS.
 *
 * @throws {SetupError} the address or port cannot be used.
 */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { tls, address, fd, port } = options;
  const server = new Server(options);
  const listener = createListener(tls);
  // Closing the listener waits for its sockets, in the middle of a TLS handshake as well.
  const sockets = new Set<Socket>();
  const newcomers = new Newcomers();
  listener.on("connection", (socket: Socket) => {
    sockets.add(socket);
    newcomers.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  listener.on("secureConnection", (socket: TLSSocket) => {
    // Half-open is for upgraded connections of HTTP/1.1; an HTTP/2 client that ends its side is gone.
    if (socket.alpnProtocol === "h2") socket.allowHalfOpen = false;
  });
  // The requests of both protocols have the same members, as far as they are used here.
  listener.on("request", (request, response) => {
    newcomers.asked(request.socket);
    server.onRequest(request as unknown as IncomingMessage, response as unknown as ServerResponse);
  });
  listener.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    newcomers.asked(request.socket);
    server.onUpgrade(request, socket, head);
  });
  await new Promise<void>((resolve, reject) => {
    listener.once("error", (error) => {
      const taken = errorCode(error) === "EADDRINUSE";
      const text = taken
        ? `port ${port} on ${address} is in use: stop the program that holds it, or choose another port for the API server`
        : `the API server cannot listen on ${address}:${port}: ${errorMessage(error)}`;
      reject(new SetupError(text, { cause: error }));
    });
    if (fd === undefined) listener.listen(listenOn(address, port), resolve);
    else listener.listen({ fd }, heldBacklog, resolve);
  });
  const bound: AddressInfo | string | null = listener.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : port,
    setCertificate: ({ cert, key, clientCA }) => {
      listener.setSecureContext({ cert, key, ca: clientCA });
    },
    setKubeletClient: (client) => {
      server.setKubeletClient(client);
    },
    close: async () => {
      const closed = new Promise<void>((resolve) => {
        listener.once("close", resolve);
      });
      if (fd !== undefined) {
        // Who comes from now on waits for the next server, and who has come is served; HTTP's own close would not do so.
        NetServer.prototype.close.call(listener);
        await newcomers.settled();
      }
      server.stop();
      listener.close();
      await server.idle();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

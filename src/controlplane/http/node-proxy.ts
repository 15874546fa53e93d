import {
  request as httpRequest,
  type ClientRequest,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { request as httpsRequest } from "node:https";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { checkServerIdentity, type PeerCertificate } from "node:tls";

import { errorMessage, isAbort } from "../../lib/errors.ts";
import { badRequest, StatusError } from "../status-error.ts";
import type { RelayTarget } from "./call.ts";

/** How the API server shows itself to kubelets, and how it knows them. */
export interface KubeletClient {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
  /** CA of the kubelets' serving certificates, PEM. Without it they are not verified, as the API server does. */
  readonly nodeCA?: string;
}

/** Headers that belong to one connection, and credentials meant for this server only. */
const notForwarded = new Set([
  "authorization",
  "connection",
  "host",
  "keep-alive",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Characters of a node's refusal that are passed on. */
const maxRefusal = 50_000;

type RawHeaders = Record<string, string | string[]>;

function forwarded(headers: IncomingMessage["headers"]): RawHeaders {
  const out: RawHeaders = {};
  for (const [name, value] of Object.entries(headers))
    // Names with a colon are HTTP/2's request line.
    if (value !== undefined && !/^(:|impersonate-)/.test(name) && !notForwarded.has(name))
      out[name] = value;
  return out;
}

function identityOf(
  target: RelayTarget,
): (host: string, cert: PeerCertificate) => Error | undefined {
  return (_host, cert) => {
    // Kubelet certificates name the node, its address, or both.
    const byAddress = checkServerIdentity(target.host, cert);
    if (byAddress === undefined || target.node === undefined) return byAddress;
    return checkServerIdentity(target.node, cert);
  };
}

function open(
  target: RelayTarget,
  request: IncomingMessage,
  headers: RawHeaders,
  options: { readonly client: KubeletClient | undefined; readonly signal: AbortSignal },
): ClientRequest {
  const { client, signal } = options;
  const common = {
    host: target.host,
    port: target.port,
    path: target.path,
    method: request.method ?? "GET",
    headers,
    signal,
    agent: false,
    allowHalfOpen: true,
    // A node whose address is gone says no goodbye.
    keepAlive: true,
    keepAliveInitialDelay: 15_000,
  };
  if (target.scheme === "http") return httpRequest(common);
  const own = target.kind !== "pod-proxy" && client !== undefined;
  const verified = own && client.nodeCA !== undefined;
  return httpsRequest({
    ...common,
    ...(own ? { cert: client.cert, key: client.key } : {}),
    ...(verified ? { ca: client.nodeCA } : {}),
    rejectUnauthorized: verified,
    checkServerIdentity: identityOf(target),
  });
}

function unreachable(target: RelayTarget, error: unknown): StatusError {
  const where = target.node === undefined ? "pod" : `node ${target.node}`;
  const message = `error dialing backend: ${errorMessage(error)} (${where} at ${target.host}:${target.port})`;
  return new StatusError(502, "ServiceUnavailable", message);
}

function responseOf(outgoing: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    outgoing.once("response", resolve);
    outgoing.once("error", reject);
  });
}

/** A node refuses logs in plain words; clients of the API get them as a Status. */
async function refusalOf(incoming: IncomingMessage): Promise<StatusError> {
  let message = "";
  for await (const chunk of incoming.setEncoding("utf8")) {
    message += String(chunk);
    if (message.length > maxRefusal) break;
  }
  message = message.slice(0, maxRefusal).trimEnd();
  const status = incoming.statusCode ?? 502;
  switch (status) {
    case 400:
      return badRequest(message);
    case 404:
      return new StatusError(404, "NotFound", message);
    case 500:
      return new StatusError(500, "InternalError", `Internal error occurred: ${message}`);
    default:
      return new StatusError(status, "", message);
  }
}

/**
 * Carries one plain HTTP exchange, streaming both bodies.
 *
 * @throws {StatusError} 502 when the far end cannot be reached, its own refusal of logs; nothing was sent to the client then.
 */
export async function relayRequest(
  target: RelayTarget,
  request: IncomingMessage,
  response: ServerResponse,
  options: { readonly client: KubeletClient | undefined; readonly signal: AbortSignal },
): Promise<void> {
  const outgoing = open(target, request, forwarded(request.headers), options);
  let incoming: IncomingMessage;
  try {
    const answered = responseOf(outgoing);
    // A failed upload shows as a failed answer.
    pipeline(request, outgoing).catch(() => undefined);
    incoming = await answered;
  } catch (error) {
    throw unreachable(target, error);
  }
  if (target.kind === "log" && (incoming.statusCode ?? 502) >= 400) throw await refusalOf(incoming);
  response.writeHead(incoming.statusCode ?? 502, forwarded(incoming.headers));
  response.flushHeaders();
  try {
    await pipeline(incoming, response);
  } catch (error) {
    // The client went away, or the node did in the middle of the stream: both end it, there is nobody to tell.
    if (!isAbort(error)) response.destroy();
  }
}

/** A refusal's body arrives unwrapped and ends with its connection. */
const ofOneConnection = new Set(["connection", "keep-alive", "transfer-encoding"]);

/** @param without Headers that are left out, for an answer after which the connection ends. */
function headText(response: IncomingMessage, without?: ReadonlySet<string>): string {
  const lines = [`HTTP/1.1 ${response.statusCode ?? 502} ${response.statusMessage ?? ""}`];
  const { rawHeaders } = response;
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? "";
    if (without?.has(name.toLowerCase()) !== true)
      lines.push(`${name}: ${rawHeaders[index + 1] ?? ""}`);
  }
  if (without !== undefined) lines.push("Connection: close");
  return `${lines.join("\r\n")}\r\n\r\n`;
}

type Far =
  | {
      readonly kind: "upgraded";
      readonly response: IncomingMessage;
      readonly socket: Duplex;
      readonly head: Buffer;
    }
  | { readonly kind: "refused"; readonly response: IncomingMessage };

function upgradeOf(outgoing: ClientRequest): Promise<Far> {
  return new Promise((resolve, reject) => {
    outgoing.once("upgrade", (response, socket, head) => {
      resolve({ kind: "upgraded", response, socket, head });
    });
    outgoing.once("response", (response) => {
      resolve({ kind: "refused", response });
    });
    outgoing.once("error", reject);
  });
}

async function splice(left: Duplex, right: Duplex): Promise<void> {
  // Two pipelines over HTTP's own listeners are more than the ten that Node takes for a leak.
  for (const side of [left, right]) side.setMaxListeners(30);
  try {
    // Each direction ends on its own: a client that closes stdin still reads the output.
    await Promise.all([pipeline(left, right), pipeline(right, left)]);
  } catch {
    // One side broke: the stream is over for both.
    left.destroy();
    right.destroy();
  }
}

/**
 * Carries an upgraded connection (WebSocket or SPDY) as raw bytes, unchanged, with back-pressure and half-close.
 *
 * @throws {StatusError} 502 when the far end cannot be reached; nothing was sent to the client then.
 */
export async function relayUpgrade(
  target: RelayTarget,
  request: IncomingMessage,
  connection: { readonly socket: Duplex; readonly head: Buffer },
  options: { readonly client: KubeletClient | undefined; readonly signal: AbortSignal },
): Promise<void> {
  const { socket, head } = connection;
  const headers = {
    ...forwarded(request.headers),
    connection: "Upgrade",
    upgrade: request.headers.upgrade ?? "websocket",
  };
  const outgoing = open(target, request, headers, options);
  outgoing.end();
  let far: Far;
  try {
    far = await upgradeOf(outgoing);
  } catch (error) {
    throw unreachable(target, error);
  }
  if (far.kind === "refused") {
    socket.write(headText(far.response, ofOneConnection));
    await pipeline(far.response, socket).catch(() => {
      socket.destroy();
    });
    return;
  }
  socket.write(headText(far.response));
  if (far.head.length > 0) socket.write(far.head);
  if (head.length > 0) far.socket.write(head);
  await splice(socket, far.socket);
}

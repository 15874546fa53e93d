import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { promisify } from "node:util";
import { gzip } from "node:zlib";

import type { ApiReply, Headers } from "./call.ts";

/** Smaller bodies are not worth the time of compressing them (the API server's own limit). */
const GZIP_FROM = 128 * 1024;

const compress = promisify(gzip);

type Sendable = Exclude<ApiReply, { kind: "relay" }>;

function writeHead(
  response: ServerResponse,
  status: number,
  headers: Headers,
  extra: Readonly<Record<string, string | number>>,
): void {
  for (const [name, value] of Object.entries({ ...headers, ...extra }))
    response.setHeader(name, typeof value === "object" ? [...value] : value);
  response.writeHead(status);
}

function bodyOf(reply: Extract<Sendable, { kind: "object" | "text" }>): {
  readonly body: string;
  readonly type: Record<string, string>;
} {
  if (reply.kind === "text") return { body: reply.text, type: {} };
  const type: Record<string, string> =
    reply.headers["content-type"] === undefined ? { "content-type": "application/json" } : {};
  return { body: `${JSON.stringify(reply.object)}\n`, type };
}

async function sendBody(
  request: IncomingMessage,
  response: ServerResponse,
  reply: Extract<Sendable, { kind: "object" | "text" }>,
): Promise<void> {
  const { body, type } = bodyOf(reply);
  let bytes: Buffer = Buffer.from(body);
  const wanted = /\bgzip\b/.test(request.headers["accept-encoding"] ?? "");
  const compressed = wanted && bytes.length >= GZIP_FROM;
  if (compressed) bytes = await compress(bytes, { level: 1 });
  // An unread body would be taken for the next request; HTTP/2 keeps them apart itself.
  const unread = !request.complete && request.httpVersionMajor < 2;
  const rest: Record<string, string> = unread ? { connection: "close" } : {};
  const encoding: Record<string, string> = compressed
    ? { "content-encoding": "gzip", vary: "Accept-Encoding" }
    : {};
  const length: Record<string, number> =
    reply.status === 304 ? {} : { "content-length": bytes.length };
  writeHead(response, reply.status, reply.headers, { ...type, ...encoding, ...rest, ...length });
  response.end(request.method === "HEAD" ? undefined : bytes);
}

async function sendWatch(
  response: ServerResponse,
  reply: Extract<Sendable, { kind: "watch" }>,
  signal: AbortSignal,
): Promise<void> {
  writeHead(response, 200, reply.headers, {});
  response.flushHeaders();
  const end = (): void => {
    reply.stream.end();
  };
  signal.addEventListener("abort", end, { once: true });
  try {
    for await (const event of reply.stream) {
      if (signal.aborted) break;
      const line = `${JSON.stringify(reply.represent(event))}\n`;
      // While the socket is full the stream's own bounded queue holds what comes.
      if (!response.write(line)) await once(response, "drain", { signal });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener("abort", end);
    reply.stream.end();
    response.end();
  }
}

/** Writes a reply to a client; resolves when all of it is handed to the socket. */
export async function sendReply(
  request: IncomingMessage,
  response: ServerResponse,
  reply: Sendable,
  signal: AbortSignal,
): Promise<void> {
  if (reply.kind === "watch") await sendWatch(response, reply, signal);
  else await sendBody(request, response, reply);
}

/** The whole answer to an upgrade that is refused, as bytes. */
export function upgradeRefusal(reply: ApiReply): string {
  const { status, body } =
    reply.kind === "object"
      ? { status: reply.status, body: JSON.stringify(reply.object) }
      : { status: 400, body: "upgrade is not possible here" };
  return [
    `HTTP/1.1 ${status} Refused`,
    "Content-Type: application/json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Connection: close",
    "",
    body,
  ].join("\r\n");
}

import type { Duplex } from "node:stream";
import { STATUS_CODES } from "node:http";

import { RemoraError } from "../../lib/errors.ts";

/** An answer other than success; its text is what `kubectl` shows. */
export class HttpRefusal extends RemoraError {
  readonly code = "REMORA_HTTP_REFUSAL";
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    message: string,
    options?: ErrorOptions & { readonly headers?: Readonly<Record<string, string>> },
  ) {
    super(message, options);
    this.status = status;
    this.headers = options?.headers ?? {};
  }
}

/** Headers of a refusal's answer. */
export function refusalHeaders({ headers, message }: HttpRefusal): Record<string, string> {
  return {
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Length": String(Buffer.byteLength(message)),
    "X-Content-Type-Options": "nosniff",
    ...headers,
  };
}

/** How long a refused client may take to read why, milliseconds. */
const lingerMs = 500;

/** Refuses an upgrade: there is no response object then, only the socket, and nobody else who would end it. */
export function refuseUpgrade(socket: Duplex, refusal: HttpRefusal): void {
  if (!socket.writable) return;
  const { status, message: text } = refusal;
  const lines = Object.entries({ ...refusalHeaders(refusal), Connection: "close" }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\n${lines.join("")}\r\n${text}`);
  // Closed at once it could be reset before that was read; left alone, it would stay for as long as the client likes.
  socket.resume();
  const linger = AbortSignal.timeout(lingerMs);
  linger.addEventListener("abort", () => void socket.destroy(), { once: true });
}

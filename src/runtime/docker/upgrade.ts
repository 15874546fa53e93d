import { request } from "node:http";
import type { Duplex } from "node:stream";

import { isRecord, optionalString } from "../../lib/guard.ts";

export interface HijackRequest {
  readonly socketPath: string;
  /** With version prefix and query. */
  readonly path: string;
  /** JSON text. */
  readonly body: string;
}

function messageOf(text: string): string {
  try {
    const body: unknown = JSON.parse(text);
    if (isRecord(body)) return optionalString(body["message"]) ?? text;
  } catch {
    // Not JSON: the text itself is the message.
  }
  return text.trim();
}

/**
 * POSTs and takes over the connection. The result's `end()` half-closes (without the Upgrade header the engine offers
 * no half-close), `destroy()` hangs up. `signal` covers the handshake only.
 *
 * @throws An error with `statusCode` when the engine refuses, a Node system error when it does not answer.
 */
export async function hijackConnection(
  options: HijackRequest,
  signal: AbortSignal,
): Promise<Duplex> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<Duplex>();
  const outgoing = request({
    socketPath: options.socketPath,
    path: options.path,
    method: "POST",
    // A connection of its own: it never goes back to a pool.
    agent: false,
    headers: {
      "Content-Type": "application/json",
      "Content-Length": Buffer.byteLength(options.body),
      Connection: "Upgrade",
      Upgrade: "tcp",
    },
  });
  const abort = (): void => {
    outgoing.destroy();
    reject(signal.reason as Error);
  };
  signal.addEventListener("abort", abort, { once: true });
  outgoing.on("error", reject);
  outgoing.on("upgrade", (_response, socket, head) => {
    // The first bytes of output may have arrived with the headers.
    if (head.length > 0) socket.unshift(head);
    resolve(socket);
  });
  outgoing.on("response", (response) => {
    let text = "";
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => {
      text = (text + chunk).slice(0, 64 * 1024);
    });
    response.on("error", reject);
    response.on("end", () => {
      const error = new Error(messageOf(text));
      reject(Object.assign(error, { statusCode: response.statusCode }));
    });
  });
  outgoing.end(options.body);
  try {
    return await promise;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";

import { HttpRefusal } from "../http-refusal.ts";

/** Whether the client wants to leave HTTP for SPDY. */
export function wantsSpdy(request: IncomingMessage): boolean {
  return (request.headers.upgrade ?? "").toLowerCase() === "spdy/3.1";
}

function offered(request: IncomingMessage): string[] {
  const header = request.headers["x-stream-protocol-version"] ?? "";
  return [header]
    .flat()
    .join(",")
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

/**
 * The best protocol both sides know; the last of ours for a client that names none.
 *
 * @param known Best first.
 * @throws {HttpRefusal} 403, as upstream, when there is none.
 */
export function chooseStreamProtocol(request: IncomingMessage, known: readonly string[]): string {
  const names = offered(request);
  const chosen = names.length === 0 ? known.at(-1) : known.find((name) => names.includes(name));
  if (chosen !== undefined) return chosen;
  throw new HttpRefusal(
    403,
    `unable to upgrade: unable to negotiate protocol: client supports [${names.join(" ")}], server accepts [${known.join(" ")}]`,
    { headers: { "X-Accepted-Stream-Protocol-Versions": known.join(",") } },
  );
}

/** Answers 101; from here on the socket carries SPDY frames. */
export function switchToSpdy(socket: Duplex, head: Buffer, protocol: string): void {
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ${protocol}\r\n\r\n`,
  );
  if (head.length > 0) socket.unshift(head);
}

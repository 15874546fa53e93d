import type { WebSocket } from "ws";

import type { Heartbeat } from "./heartbeat.ts";

/** The channel that a message names in its first byte (as a digit, where the rest is base64), and what it carries. */
export function channelMessage(
  message: Buffer,
  base64: boolean,
): { readonly number: number; readonly payload: Buffer } | undefined {
  const first = message[0];
  if (first === undefined) return undefined;
  const rest = message.subarray(1);
  return base64
    ? { number: first - 48, payload: Buffer.from(rest.toString("latin1"), "base64") }
    : { number: first, payload: rest };
}

/** Reads from the socket, or lets it rest and shows meanwhile that we are there. */
export function setFlow(socket: WebSocket, heartbeat: Heartbeat, flowing: boolean): void {
  if (flowing) {
    socket.resume();
    heartbeat.stop();
  } else {
    socket.pause();
    heartbeat.start();
  }
}

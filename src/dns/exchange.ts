import { createSocket } from "node:dgram";
import { connect, isIPv6 } from "node:net";

import { RemoraError } from "../lib/errors.ts";
import { judgeReply } from "./upstream-message.ts";
import type { Outgoing } from "./upstream-question.ts";

/** A name server that questions are passed on to. */
export interface UpstreamServer {
  readonly address: string;
  readonly port: number;
}

/** Datagrams that answer something else, after which a forger is more likely than chance. */
const mostStrays = 16;

/** Somebody sends replies that are none, or lowers the case of names: TCP, which nobody forges from afar, has to tell. */
export class UntrustedReplyError extends RemoraError {
  readonly code = "REMORA_DNS_UNTRUSTED_REPLY";
  /** The reply was right but for the case of the name. */
  readonly otherCase: boolean;

  constructor(otherCase: boolean) {
    super(
      otherCase ? "the reply spells the name otherwise" : "too many replies to other questions",
    );
    this.otherCase = otherCase;
  }
}

/**
 * Asks by UDP, from a socket and so a source port of its own: with the id and the name's spelling that is what a forger
 * would have to guess (RFC 5452). The kernel takes packets from the asked server only.
 *
 * @throws {UntrustedReplyError}, what the system says (ECONNREFUSED, ...), or the signal's reason.
 */
export function askUDP(
  server: UpstreamServer,
  outgoing: Outgoing,
  signal: AbortSignal,
): Promise<Buffer> {
  if (signal.aborted) return Promise.reject(asError(signal.reason));
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const six = isIPv6(server.address);
  const socket = createSocket({
    type: six ? "udp6" : "udp4",
    // Addresses only, some with an interface behind a %: nobody has to be asked what they stand for.
    lookup: (host, _options, callback) => callback(null, host, six ? 6 : 4),
  });
  const onAbort = (): void => reject(asError(signal.reason));
  signal.addEventListener("abort", onAbort, { once: true });
  let strays = 0;
  let closed = false;
  socket.on("error", reject);
  socket.on("message", (message) => {
    const verdict = judgeReply(message, outgoing);
    if (verdict === "reply") {
      resolve(message);
      return;
    }
    outgoing.onStray?.();
    strays += 1;
    if (verdict === "otherCase" || strays >= mostStrays) {
      reject(new UntrustedReplyError(verdict === "otherCase"));
    }
  });
  // Without a callback of its own: that would be told of a network that is unreachable in the place of "error".
  socket.once("connect", () => {
    // Node says so on a later turn, when nobody may want it any more; a closed socket throws.
    if (closed) return;
    socket.send(outgoing.message, (error) => {
      if (error !== null) reject(error);
    });
  });
  socket.connect(server.port, server.address);
  return promise.finally(() => {
    signal.removeEventListener("abort", onAbort);
    closed = true;
    closeQuietly(socket);
  });
}

function closeQuietly(socket: { close(): unknown }): void {
  try {
    socket.close();
  } catch {
    // Node closes a socket by itself when it could not be connected.
  }
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

/** The same by TCP, for replies that do not fit a datagram. */
export function askTCP(
  server: UpstreamServer,
  outgoing: Outgoing,
  signal: AbortSignal,
): Promise<Buffer> {
  if (signal.aborted) return Promise.reject(asError(signal.reason));
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const socket = connect({ host: server.address, port: server.port });
  const onAbort = (): void => reject(asError(signal.reason));
  signal.addEventListener("abort", onAbort, { once: true });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("the server closed the connection without an answer")));
  socket.on("connect", () => socket.write(framed(outgoing.message)));
  const frames = new FrameReader(65_535);
  socket.on("data", (chunk: Buffer) => {
    for (const message of frames.push(chunk)) {
      // The connection says who speaks: the case of the name need not.
      if (judgeReply(message, { ...outgoing, exactCase: false }) === "reply") resolve(message);
    }
  });
  return promise.finally(() => {
    signal.removeEventListener("abort", onAbort);
    socket.destroy();
  });
}

/** A message as TCP carries it: behind its length. */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

/** Cuts a stream into messages. */
export class FrameReader {
  readonly #most: number;
  #pending: Buffer = Buffer.alloc(0);

  /** @param most Bytes of the longest message that is taken. */
  constructor(most: number) {
    this.#most = most;
  }

  /** True when the peer announced a message that is too long: nothing behind it can be read. */
  broken = false;

  /** @returns the messages that are complete with this chunk. */
  push(chunk: Buffer): readonly Buffer[] {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const messages: Buffer[] = [];
    while (this.#pending.length >= 2) {
      const length = this.#pending.readUInt16BE(0);
      if (length > this.#most) {
        this.broken = true;
        this.#pending = Buffer.alloc(0);
        break;
      }
      if (this.#pending.length < 2 + length) break;
      messages.push(this.#pending.subarray(2, 2 + length));
      this.#pending = this.#pending.subarray(2 + length);
    }
    return messages;
  }
}

import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, isIPv6 } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/** One question to a server of {@link ./peer.ts} or {@link ./proxy/peer-process.ts}. */
export interface Question {
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
  /** 0 = any. With one, all datagrams are one flow to conntrack. */
  readonly localPort: number;
  readonly localAddress?: string | undefined;
}

/** What the server said, `timeout`, or the error's code. */
export function askTCP(question: Question): Promise<string> {
  const { host, port, timeoutMs, localPort, localAddress } = question;
  return new Promise((resolve) => {
    let text = "";
    const socket = connect({
      host,
      port,
      ...(localPort === 0 ? {} : { localPort }),
      ...(localAddress === undefined ? {} : { localAddress }),
    });
    socket.setTimeout(timeoutMs, () => {
      socket.destroy();
      resolve("timeout");
    });
    socket.on("data", (chunk) => {
      text += chunk.toString();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      resolve(error.code ?? "error");
    });
    socket.on("end", () => {
      socket.destroy();
      resolve(text);
    });
  });
}

/** As {@link askTCP}, with a datagram. */
export async function askUDP(question: Question): Promise<string> {
  const { host, port, timeoutMs, localPort, localAddress } = question;
  const socket = createSocket(isIPv6(host) ? "udp6" : "udp4");
  try {
    await new Promise<void>((resolve) => {
      socket.bind(localPort, localAddress, resolve);
    });
    const answer = new Promise<string>((resolve) => {
      socket.once("message", (message) => {
        resolve(message.toString());
      });
      socket.once("error", (error: NodeJS.ErrnoException) => {
        resolve(error.code ?? "error");
      });
    });
    await new Promise<void>((resolve) => {
      socket.connect(port, host, resolve);
    });
    let closed = false;
    socket.once("close", () => {
      closed = true;
    });
    // An ICMP error to the first datagram is told by the second.
    const refused = new Promise<string>((resolve) => {
      const send = (): void => {
        if (closed) return;
        socket.send("?", (error) => {
          if (error !== null) resolve((error as NodeJS.ErrnoException).code ?? "error");
        });
      };
      send();
      delay(30).then(send, () => undefined);
    });
    return await Promise.race([answer, refused, delay(timeoutMs, "timeout")]);
  } finally {
    const ended = once(socket, "close");
    socket.close();
    await ended;
  }
}

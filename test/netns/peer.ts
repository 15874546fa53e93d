// A program for the other end of a test's packets: servers that answer with their name and the caller's address, and
// clients that print what they were told. Runs inside a pod's network namespace.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, isIPv6 } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

const [mode = "", ...args] = process.argv.slice(2);

function plain(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:/, "");
}

async function serve(name: string, port: number): Promise<void> {
  const tcp = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end(`${name} ${plain(socket.remoteAddress)}`);
  });
  const udp = createSocket({ type: "udp6", ipv6Only: false });
  udp.on("message", (_message, from) => {
    udp.send(`${name} ${plain(from.address)}`, from.port, from.address);
  });
  await new Promise<void>((resolve) => {
    tcp.listen(port, "::", resolve);
  });
  await new Promise<void>((resolve) => {
    udp.bind(port, "::", resolve);
  });
  process.stdout.write("ready\n");
}

function askTCP(host: string, port: number, timeoutMs: number): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect({ host, port });
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

/** With a `localPort`, all datagrams are one flow to conntrack. */
async function askUDP(
  host: string,
  port: number,
  timeoutMs: number,
  localPort: number,
): Promise<string> {
  const socket = createSocket(isIPv6(host) ? "udp6" : "udp4");
  try {
    await new Promise<void>((resolve) => {
      socket.bind(localPort, resolve);
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

if (mode === "serve") {
  await serve(args[0] ?? "", Number(args[1]));
} else {
  const [host = "", port = "0", count = "1", timeoutMs = "1000", localPort = "0"] = args;
  for (let turn = 0; turn < Number(count); turn += 1) {
    const answer =
      mode === "tcp"
        ? await askTCP(host, Number(port), Number(timeoutMs))
        : await askUDP(host, Number(port), Number(timeoutMs), Number(localPort));
    process.stdout.write(`${answer}\n`);
  }
}

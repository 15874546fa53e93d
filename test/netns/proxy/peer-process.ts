// Lives in a network namespace as long as the test: serves, and asks what it is told to over the channel to its parent.
// One process for everything, because starting one takes longer than a thousand packets.
import { createSocket, type Socket as UDPSocket } from "node:dgram";
import { connect, createServer, isIPv6, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

import { askTCP, askUDP } from "../asking.ts";
import { type Order, ports } from "./orders.ts";

function plain(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:/, "");
}

const connections = new Map<number, Socket>();
const stops = new Map<number, () => unknown>();
const received = new Map<number, number>();
let nextID = 1;

async function listenTCP(port: number, onConnection: (socket: Socket) => void): Promise<void> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    onConnection(socket);
  });
  await new Promise<void>((resolve) => {
    server.listen(port, "::", 1024, resolve);
  });
}

async function listenUDP(
  port: number,
  onMessage: (socket: UDPSocket, address: string, fromPort: number) => void,
): Promise<void> {
  const socket = createSocket({ type: "udp6", ipv6Only: false });
  socket.on("error", () => undefined);
  socket.on("message", (_message, { address, port: fromPort }) => {
    received.set(port, (received.get(port) ?? 0) + 1);
    onMessage(socket, address, fromPort);
  });
  await new Promise<void>((resolve) => {
    socket.bind(port, "::", resolve);
  });
}

async function serve(name: string): Promise<void> {
  for (const port of ports.answering) {
    await listenTCP(port, (socket) => {
      socket.end(`${name} ${plain(socket.remoteAddress)} ${port}`);
    });
    await listenUDP(port, (socket, address, fromPort) => {
      socket.send(`${name} ${plain(address)} ${port}`, fromPort, address);
    });
  }
  await listenTCP(ports.echo, (socket) => {
    socket.write(`${name}\n`);
    socket.pipe(socket);
  });
  await listenUDP(ports.silent, () => undefined);
}

async function ask(order: Order & { op: "ask" }): Promise<readonly string[]> {
  const { protocol, host, port, timeoutMs, localPort, from, count, parallel } = order;
  const answers: string[] = [];
  let next = 0;
  const turns = async (): Promise<void> => {
    while (next < count) {
      const turn = next;
      next += 1;
      const localAddress = from.length === 0 ? undefined : from[turn % from.length];
      const question = { host, port, timeoutMs, localPort, localAddress };
      answers[turn] = await (protocol === "tcp" ? askTCP(question) : askUDP(question));
    }
  };
  await Promise.all(Array.from({ length: parallel }, turns));
  return answers;
}

function once(socket: Socket, timeoutMs: number): Promise<string> {
  return new Promise((resolve) => {
    const done = (text: string): void => {
      clearTimeout(timer);
      socket.off("data", onData).off("error", onError).off("close", onClose);
      resolve(text);
    };
    const onData = (chunk: Buffer): void => {
      done(chunk.toString().trim());
    };
    const onError = (error: NodeJS.ErrnoException): void => {
      done(error.code ?? "error");
    };
    const onClose = (): void => {
      done("closed");
    };
    const timer = setTimeout(done, timeoutMs, "timeout");
    socket.on("data", onData).on("error", onError).on("close", onClose);
  });
}

async function open(order: Order & { op: "open" }): Promise<unknown> {
  const socket = connect({ host: order.host, port: order.port });
  const said = once(socket, 3000);
  const greeting = await said;
  socket.on("error", () => undefined);
  const id = nextID;
  nextID += 1;
  connections.set(id, socket);
  return { id, greeting, localPort: socket.localPort ?? 0 };
}

async function say(id: number, text: string, timeoutMs: number): Promise<string> {
  const socket = connections.get(id);
  if (socket === undefined || socket.destroyed) return "closed";
  const said = once(socket, timeoutMs);
  socket.write(text);
  return said;
}

/** Datagrams of one flow that nobody needs to answer, until stopped. */
function stream(order: Order & { op: "stream" }): number {
  const socket = createSocket(isIPv6(order.host) ? "udp6" : "udp4");
  socket.on("error", () => undefined);
  socket.bind(order.localPort);
  const timer = setInterval(() => {
    socket.send("?", order.port, order.host, () => undefined);
  }, order.intervalMs);
  const id = nextID;
  nextID += 1;
  stops.set(id, () => {
    clearInterval(timer);
    socket.close();
    return undefined;
  });
  return id;
}

/** A new connection every so often, until stopped; then says how often each answer came and the longest gap of success. */
function pace(order: Order & { op: "pace" }): number {
  const counts: Record<string, number> = {};
  const under: Promise<void>[] = [];
  let lastGood = performance.now();
  let longestMs = 0;
  const turn = async (): Promise<void> => {
    const answer = await askTCP({
      host: order.host,
      port: order.port,
      timeoutMs: 900,
      localPort: 0,
    });
    const name = answer.split(" ")[0] ?? "";
    counts[name] = (counts[name] ?? 0) + 1;
    if (!answer.includes(" ")) return;
    longestMs = Math.max(longestMs, performance.now() - lastGood);
    lastGood = performance.now();
  };
  const timer = setInterval(() => {
    under.push(turn());
  }, order.intervalMs);
  const id = nextID;
  nextID += 1;
  stops.set(id, async () => {
    clearInterval(timer);
    await Promise.race([Promise.all(under), delay(2000)]);
    return { counts, longestMs };
  });
  return id;
}

async function obey(order: Order): Promise<unknown> {
  switch (order.op) {
    case "serve":
      return serve(order.name);
    case "ask":
      return ask(order);
    case "open":
      return open(order);
    case "say":
      return say(order.id, order.text, order.timeoutMs);
    case "stream":
      return stream(order);
    case "pace":
      return pace(order);
    case "stop": {
      connections.get(order.id)?.destroy();
      connections.delete(order.id);
      const stop = stops.get(order.id);
      stops.delete(order.id);
      return stop?.();
    }
    case "received":
      return received.get(order.port) ?? 0;
  }
}

process.on("message", ({ turn, order }: { turn: number; order: Order }) => {
  obey(order).then(
    (result) => process.send?.({ turn, result }),
    (error: unknown) => process.send?.({ turn, error: String(error) }),
  );
});
process.on("disconnect", () => {
  process.exit(0);
});
process.send?.({ turn: 0 });

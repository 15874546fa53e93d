// A program for the other end of a test's packets: servers that answer with their name and the caller's address, and
// clients that print what they were told. Runs inside a pod's network namespace.
import { createSocket } from "node:dgram";
import { createServer } from "node:net";

import { askTCP, askUDP } from "./asking.ts";

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

if (mode === "serve") {
  await serve(args[0] ?? "", Number(args[1]));
} else {
  const [host = "", port = "0", count = "1", timeoutMs = "1000", localPort = "0"] = args;
  const question = {
    host,
    port: Number(port),
    timeoutMs: Number(timeoutMs),
    localPort: Number(localPort),
  };
  for (let turn = 0; turn < Number(count); turn += 1) {
    const answer = mode === "tcp" ? await askTCP(question) : await askUDP(question);
    process.stdout.write(`${answer}\n`);
  }
}

// A program for the other end of a test's packets: servers that answer with their name and the caller's address, and
// clients that print what they were told. Runs inside a pod's network namespace.
import { createSocket } from "node:dgram";
import { createServer } from "node:net";

import { askTCP, askUDP } from "./asking.ts";

const [mode = "", ...args] = process.argv.slice(2);

function plain(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:/, "");
}

/** @param address With one of several of a machine, answers over UDP come from where the question went. */
async function serve(name: string, port: number, address: string): Promise<void> {
  const tcp = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end(`${name} ${plain(socket.remoteAddress)}`);
  });
  const udp = createSocket(
    address.includes(":") ? { type: "udp6", ipv6Only: false } : { type: "udp4" },
  );
  udp.on("message", (_message, from) => {
    udp.send(`${name} ${plain(from.address)}`, from.port, from.address);
  });
  await new Promise<void>((resolve) => {
    tcp.listen(port, address, resolve);
  });
  await new Promise<void>((resolve) => {
    udp.bind(port, address, resolve);
  });
  process.stdout.write("ready\n");
}

if (mode === "serve") {
  await serve(args[0] ?? "", Number(args[1]), args[2] ?? "::");
} else if (mode === "all") {
  // Many questions at once: one answer per argument `PROTOCOL HOST PORT`.
  const answers = await Promise.all(
    args.map((text) => {
      const [protocol, host = "", port] = text.split(" ");
      const question = { host, port: Number(port), timeoutMs: 1000, localPort: 0 };
      return protocol === "tcp" ? askTCP(question) : askUDP(question);
    }),
  );
  process.stdout.write(answers.map((answer) => `${answer}\n`).join(""));
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

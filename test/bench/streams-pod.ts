// The pod's side of test/bench/streams-load.ts, run in its network namespace: ports that give and ports that take, for as
// many connections as come, and each half of a connection ends on its own. Arguments: SINK, then PORT=BYTES for each
// source. Says "listening" when it does; ends with its stdin.
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";

const chunk = Buffer.alloc(64 * 1024);
const [sink = "", ...sources] = process.argv.slice(2);

async function give(socket: Socket, bytes: number): Promise<void> {
  socket.resume();
  for (let left = bytes; left > 0; left -= chunk.length) {
    const piece = left < chunk.length ? chunk.subarray(0, left) : chunk;
    if (!socket.write(piece)) await once(socket, "drain");
  }
  socket.end();
}

async function serve(port: string, work: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    // Whoever goes away before all is through is missed at the other end.
    socket.on("error", () => undefined);
    work(socket);
  });
  server.listen({ port: Number(port), host: "127.0.0.1", backlog: 128 });
  await once(server, "listening");
  return server;
}

await serve(sink, (socket) => {
  socket.on("end", () => socket.end());
  socket.resume();
});
for (const source of sources) {
  const [port = "", bytes = ""] = source.split("=");
  await serve(port, (socket) => {
    give(socket, Number(bytes)).catch(() => socket.destroy());
  });
}
process.stdout.write("listening\n");
process.stdin.resume();
// oxlint-disable-next-line unicorn/no-process-exit -- open connections must not keep it
process.stdin.once("end", () => process.exit());

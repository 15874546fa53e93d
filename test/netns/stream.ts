// Bytes from one pod to another. `count PORT` says `ready`, then for each connection a line: bytes and milliseconds from
// its first byte to its last. `send HOST PORT MS [BYTES]` writes for so long, or until so many have been acknowledged.
import { connect, createServer } from "node:net";
import { pipeline, Readable } from "node:stream";

const [mode = "", ...args] = process.argv.slice(2);
const chunk = Buffer.alloc(16 * 1024);

if (mode === "count") {
  const server = createServer((socket) => {
    let bytes = 0;
    let first = 0;
    let last = 0;
    socket.on("data", (data) => {
      last = performance.now();
      if (bytes === 0) first = last;
      bytes += data.length;
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      process.stdout.write(`${JSON.stringify({ bytes, ms: last - first })}\n`);
    });
    socket.resume();
  });
  server.listen(Number(args[0]), "::", () => process.stdout.write("ready\n"));
} else {
  const [host = "", port, ms, most = "Infinity"] = args;
  const socket = connect({ host, port: Number(port) });
  let left = Number(most);
  const source = new Readable({
    read() {
      const next = chunk.subarray(0, Math.min(left, chunk.length));
      left -= next.length;
      this.push(next.length === 0 ? null : next);
    },
  });
  const timer = setTimeout(() => socket.destroy(), Number(ms));
  pipeline(source, socket, () => undefined);
  socket.on("close", () => clearTimeout(timer));
}

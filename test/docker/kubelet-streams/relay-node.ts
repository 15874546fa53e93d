// A node whose only process this is, so that its memory can be measured: test/docker/kubelet-streams/memory.test.ts starts
// it with the port of a pod. Its port goes to stdout, and what it holds for each byte of stdin; it ends with that.
import type { StreamSession } from "../../../src/runtime/types.ts";
import { dialHere, TestNode } from "../../component/kubelet-streams/node.ts";

const podPort = Number(process.argv[2]);
const pieces = Number(process.argv[3]);
const piece = Buffer.alloc(32 * 1024, "remora.");

/** A process that prints so many pieces, or that reads all of its input when it has some. */
function session(): StreamSession {
  const ended = Promise.withResolvers<number>();
  let read = 0;
  const output = async function* (): AsyncGenerator<{ stream: "stdout"; chunk: Uint8Array }> {
    for (let left = pieces; left > 0; left -= 1) {
      yield { stream: "stdout", chunk: Buffer.from(piece) };
      // As from the engine: later, not at once.
      if (left % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    if (pieces === 0) await ended.promise;
    yield { stream: "stdout", chunk: Buffer.from(String(read)) };
    ended.resolve(0);
  };
  return {
    writeStdin: async (chunk) => {
      read += chunk.length;
      await new Promise((resolve) => setImmediate(resolve));
    },
    closeStdin: () => {
      if (pieces === 0) ended.resolve(0);
    },
    output: output(),
    resize: async () => undefined,
    exitCode: ended.promise,
    abort: async () => {
      ended.resolve(137);
    },
  };
}

const node = await TestNode.start({
  open: async () => session(),
  dial: async () => dialHere(podPort),
});
process.stdout.write(`${node.port}\n`);
process.stdin.on("data", () => {
  // Else it would be measured how long garbage lies about. Buffers are freed behind a collection, and at the latest
  // before the next one.
  globalThis.gc?.();
  globalThis.gc?.();
  process.stdout.write(`${JSON.stringify(process.memoryUsage())}\n`);
});
process.stdin.once("end", () => {
  void node[Symbol.asyncDispose]();
});

// A gigabyte through each relay of a node in a process of its own, which must not hold more than little of it at any time.
// What the agent itself, with TLS, and with the garbage that V8 lets lie about, grows by meanwhile is measured by
// `npm run bench -- streams`.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server } from "node:net";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { RemoteNode } from "../../component/kubelet-streams/node.ts";
import type { SpdyClient } from "../../component/kubelet-streams/spdy-client.ts";

const megabyte = 1024 * 1024;
const total = 1024 * megabyte;
const warmUp = 128 * megabyte;
/** What a relay may hold, more than at rest. */
const maxGrowthMB = 10;
/** Between two looks V8 lets 32 MB of buffers that nobody needs any more pile up; plain sockets fill 64 KiB each. */
const garbageMB = 32;
/** Between two looks, milliseconds. */
const lookMs = 50;
const chunk = Buffer.alloc(64 * 1024, "remora.");
const program = fileURLToPath(new URL("relay-node.ts", import.meta.url));

/** The pod: what it gets it counts, and when its client has said how much, that is what it sends. */
let pod: Server;
let got = 0;

before(async () => {
  pod = createServer({ allowHalfOpen: true }, (socket) => {
    let asked = "";
    let counting = false;
    socket.on("error", () => undefined);
    socket.on("data", (data: Buffer) => {
      if (counting) got += data.length;
      else {
        asked += data.toString("latin1");
        const [word = "", rest] = asked.split("\n", 2);
        if (rest === undefined) return;
        counting = true;
        got = rest.length;
        void give(Number(word));
      }
    });
    const give = async (bytes: number): Promise<void> => {
      for (let left = bytes; left > 0; left -= chunk.length) {
        if (!socket.write(chunk)) await once(socket, "drain");
      }
      if (bytes > 0) socket.end();
      else socket.on("end", () => socket.end());
    };
  });
  pod.listen(0, "127.0.0.1");
  await once(pod, "listening");
});
after(async () => {
  pod.close();
  await once(pod, "close");
});

interface Held {
  /** Objects and buffers that are still needed. */
  readonly liveMB: number;
  readonly residentMB: number;
}

/** How much more the node's process holds while `relay` passes a gigabyte than it did after some of the same had. */
async function growth(
  execBytes: number,
  relay: (node: RemoteNode, bytes: number) => Promise<void>,
): Promise<Held> {
  const argv = ["--max-semi-space-size=1", "--expose-gc", program];
  const { port } = pod.address() as AddressInfo;
  const child = spawn(process.execPath, [...argv, String(port), String(execBytes / 32 / 1024)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const nextLine = async (): Promise<string> => String((await lines.next()).value);
  try {
    const node = new RemoteNode(Number(await nextLine()));
    const look = async (): Promise<Held> => {
      child.stdin.write("?");
      const held = JSON.parse(await nextLine()) as NodeJS.MemoryUsage;
      const liveMB = (held.heapUsed + held.external) / megabyte;
      return { liveMB, residentMB: held.rss / megabyte };
    };
    await relay(node, warmUp);
    const before = await look();
    let peak = before;
    const over = new AbortController();
    const looks = (async () => {
      while (!over.signal.aborted) {
        const { liveMB, residentMB } = await look();
        peak = {
          liveMB: Math.max(peak.liveMB, liveMB),
          residentMB: Math.max(peak.residentMB, residentMB),
        };
        await delay(lookMs);
      }
    })();
    await relay(node, total);
    over.abort();
    await looks;
    return {
      liveMB: peak.liveMB - before.liveMB,
      residentMB: peak.residentMB - before.residentMB,
    };
  } finally {
    child.stdin.end();
    await once(child, "close");
  }
}

async function down(client: SpdyClient, bytes: number): Promise<void> {
  const headers = { port: "80", requestid: "1" };
  await (await client.open({ ...headers, streamtype: "error" })).end();
  const data = await client.open({ ...headers, streamtype: "data" });
  data.onData = () => undefined;
  await data.end(`${bytes}\n`);
  await data.ended;
  assert.equal(data.receivedBytes, bytes);
  client.transport.destroy();
}

async function up(client: SpdyClient, bytes: number): Promise<void> {
  const headers = { port: "80", requestid: "1" };
  await (await client.open({ ...headers, streamtype: "error" })).end();
  const data = await client.open({ ...headers, streamtype: "data" });
  await data.write("0\n");
  for (let left = bytes; left > 0; left -= chunk.length) await data.write(chunk);
  await data.end();
  await data.ended;
  assert.equal(got, bytes);
  client.transport.destroy();
}

const forward = "/portForward/default/web";
const exec = "/exec/default/web/c?command=sh&output=1";

async function execInput(node: RemoteNode, bytes: number): Promise<void> {
  const client = await node.spdyClient(`${exec}&input=1`, "v4.channel.k8s.io");
  const [, stdin, stdout] = await Promise.all(
    ["error", "stdin", "stdout"].map((streamtype) => client.open({ streamtype })),
  );
  assert.ok(stdin !== undefined && stdout !== undefined);
  for (let left = bytes; left > 0; left -= chunk.length) await stdin.write(chunk);
  await stdin.end();
  assert.equal((await stdout.ended).toString(), String(bytes));
  client.transport.destroy();
}

async function execOutput(node: RemoteNode): Promise<void> {
  const socket = node.webSocket(exec, ["v5.channel.k8s.io"]);
  let received = 0;
  socket.on("message", (data: Buffer) => {
    if (data[0] === 1) received += data.length - 1;
  });
  await once(socket, "close");
  assert.ok(received >= total, `${received} bytes came`);
}

describe("a gigabyte leaves no trace in the memory of the node", () => {
  for (const [name, execBytes, relay] of [
    [
      "port-forward, from the pod",
      0,
      async (node, bytes) => down(await node.spdyClient(forward, "portforward.k8s.io"), bytes),
    ],
    [
      "port-forward, to the pod",
      0,
      async (node, bytes) => up(await node.spdyClient(forward, "portforward.k8s.io"), bytes),
    ],
    [
      "port-forward in a tunnel, from the pod",
      0,
      async (node, bytes) => down(await node.tunnel(forward), bytes),
    ],
    [
      "port-forward in a tunnel, to the pod",
      0,
      async (node, bytes) => up(await node.tunnel(forward), bytes),
    ],
    ["exec over SPDY, input", 0, execInput],
    ["exec over WebSocket, output", total, execOutput],
  ] as const satisfies readonly (readonly [
    string,
    number,
    (node: RemoteNode, bytes: number) => Promise<void>,
  ])[]) {
    it(name, async (context) => {
      const { liveMB, residentMB } = await growth(execBytes, relay);
      const told = `${liveMB.toFixed(1)} MB live, ${residentMB.toFixed(1)} MB resident`;
      context.diagnostic(told);
      assert.ok(liveMB <= maxGrowthMB, `it holds ${told}`);
      assert.ok(residentMB <= maxGrowthMB + garbageMB, `it grew by ${told}`);
    });
  }
});

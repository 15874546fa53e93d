// The name server's thread as the agent starts it, in a process of its own so that its time can be told. argv: port,
// number of Services. Says `ready` when it answers; then does as it is told by stdin and answers each line with an object.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";

import { encode } from "dns-packet";

import { type DnsThread, startDnsThread } from "../../src/agent/dns-thread.ts";
import { parseDnsService, parseDnsSlice } from "../../src/dns/parse.ts";
import type { DnsService, DnsSlice, RecordsUpdate } from "../../src/dns/types.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { serviceIP, serviceName } from "./dns-load.ts";
import { round } from "./figures.ts";

const [port = "0", count = "0"] = process.argv.slice(2);
const indices = [...Array(Number(count)).keys()];
/** Who asks has few addresses. */
const sourceLimits = { perSecond: 1e9, burst: 1e9, most: 4096 };

function service(index: number): DnsService {
  const [name = "", namespace = ""] = serviceName(index).split(".");
  const clusterIP = serviceIP(index);
  const ports = [{ name: "http", port: 80, protocol: "TCP" }];
  return parseDnsService({
    metadata: { namespace, name },
    spec: { clusterIP, clusterIPs: [clusterIP], ports },
  });
}

/** Two endpoints, the second with the address that ends in `last`. */
function slice(index: number, last: number): DnsSlice {
  const [name = "", namespace = ""] = serviceName(index).split(".");
  const labels = { "kubernetes.io/service-name": name };
  return parseDnsSlice({
    metadata: { namespace, name: `${name}-1`, labels },
    addressType: "IPv4",
    ports: [{ name: "http", port: 80, protocol: "TCP" }],
    endpoints: [1, last].map((end) => ({
      addresses: [`10.244.${index >> 8}.${end}`],
      conditions: { ready: true },
    })),
  });
}

function everything(): RecordsUpdate {
  return {
    full: true,
    services: indices.map(service),
    slices: indices.map((index) => slice(index, 2)),
    removedServices: [],
    removedSlices: [],
    namespaces: [...Array(100).keys()].map((index) => `ns-${index}`),
  };
}

async function startThread(update: RecordsUpdate | undefined): Promise<DnsThread> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const thread = startDnsThread({
    settings: {
      domain: "cluster.local",
      addresses: ["127.0.0.1"],
      port: Number(port),
      ownNetworks: ["10.96.0.0/12", "10.244.0.0/16"],
      resolvConf: "",
      sourceLimits,
    },
    logger: silentLogger,
    onListening: resolve,
  });
  if (update !== undefined) thread.send({ kind: "records", update });
  await promise;
  return thread;
}

function residentMB(): number {
  const [, pages = "0"] = readFileSync("/proc/self/statm", "utf8").split(" ");
  return (Number(pages) * 4096) / 2 ** 20;
}

const socket = createSocket("udp4");
socket.connect(Number(port), "127.0.0.1");
await once(socket, "connect");
socket.on("error", () => undefined);
/** Replies, by their number of answers, as they come. */
let onReply: (answers: number, address: string) => void = () => undefined;
socket.on("message", (reply) => onReply(reply[7] ?? 0, reply.subarray(-4).join(".")));

function askFor(name: string): void {
  socket.send(encode({ type: "query", id: 1, flags: 0x100, questions: [{ name, type: "A" }] }));
}

let thread: DnsThread;
let changes = 0;

/** Microseconds from telling the thread until the new address is answered. */
async function change(): Promise<Record<string, number>> {
  changes += 1;
  const index = changes % indices.length;
  const last = 3 + (changes % 250);
  const [name = "", namespace = ""] = serviceName(index).split(".");
  const address = `10.244.${index >> 8}.${last}`;
  const update = {
    full: false,
    services: [],
    slices: [slice(index, last)],
    removedServices: [],
    removedSlices: [],
    namespaces: undefined,
  };
  const { promise, resolve } = Promise.withResolvers<number>();
  const question = `${address.replaceAll(".", "-")}.${name}.${namespace}.svc.cluster.local`;
  const startedAt = performance.now();
  onReply = (answers) => {
    if (answers > 0) resolve(performance.now());
    else askFor(question);
  };
  thread.send({ kind: "records", update });
  askFor(question);
  return { us: round(((await promise) - startedAt) * 1000, 1) };
}

/** Milliseconds between the last answer of a thread that is ended and the first of the next. */
async function restart(): Promise<Record<string, number>> {
  const update = everything();
  let answeredAt = Number.NaN;
  onReply = (answers) => {
    if (answers > 0) answeredAt = performance.now();
  };
  const asking = setInterval(() => askFor(serviceName(1)), 1);
  while (Number.isNaN(answeredAt)) await delay(1);
  await thread.stop();
  // Whatever was on its way is here.
  await delay(5);
  const lastAt = answeredAt;
  const { promise, resolve } = Promise.withResolvers<number>();
  onReply = (answers) => {
    if (answers > 0) resolve(performance.now());
  };
  thread = await startThread(update);
  const firstAt = await promise;
  clearInterval(asking);
  return { ms: round(firstAt - lastAt, 1) };
}

const before = residentMB();
const empty = await startThread(undefined);
const emptyMB = round(residentMB() - before, 1);
await empty.stop();
thread = await startThread(everything());
process.stdout.write("ready\n");
for await (const line of createInterface({ input: process.stdin })) {
  const say = (said: Record<string, number>): boolean =>
    process.stdout.write(`${JSON.stringify(said)}\n`);
  if (line === "memory") {
    const heapMB = round(((await thread.heapBytes()) ?? Number.NaN) / 2 ** 20, 1);
    say({ threadMB: round(residentMB() - before, 1), heapMB, emptyMB });
  }
  if (line === "change") say(await change());
  if (line === "restart") say(await restart());
}
await thread.stop();
socket.close();

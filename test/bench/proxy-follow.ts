// What a running proxy does with changes, at a given number of Services, from a fake API server on loopback:
//   change   one EndpointSlice changes -> the new backend answers on the virtual address; beside `nft -f -` with the same
//            text on the same table
//   burst    1000 slices change at once -> all of them in the kernel; how long the event loop stood still meanwhile
//   roll     a Service of 300 endpoints is replaced one by one, while clients connect all the time
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type Server } from "node:net";
import { createInterface } from "node:readline";

import { ENDPOINT_SLICES, NODES, SERVICES } from "../../src/api/resources.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { type FakeApiServer, startFakeApiServer } from "../fakes/api-server.ts";
import { BareNft } from "./baseline/nft-apply.ts";
import { quantile, round } from "./figures.ts";
import { nodeFlags } from "./node-flags.ts";
import type { FromProxyAgent } from "./proxy-agent.ts";
import {
  nodeName,
  numbered,
  portNumber,
  service,
  serviceName,
  slice,
  targetPort,
  virtualIP,
} from "./proxy-cluster.ts";

const { signal } = new AbortController();
const settleMs = 100;
/** Changes before the measured ones: the code is compiled by then. */
const warmUps = 10;
const probe = {
  name: "probe",
  vip: "172.31.0.1",
  index: 900_000,
  backends: ["10.250.0.1", "10.250.0.2"],
};
const rolled = { name: "rolled", vip: "172.31.0.2", index: 900_001, endpoints: 300 };

/** An agent under test, told line by line. */
class Agent {
  readonly #child;
  readonly #closed: Promise<unknown>;
  readonly #listeners = new Set<(message: FromProxyAgent) => void>();
  /** Milliseconds of each synchronisation so far, and differences that went to the kernel. */
  readonly syncs: { readonly applyMs: number; readonly changes: number }[] = [];

  constructor(api: FakeApiServer) {
    const file = new URL("proxy-agent.ts", import.meta.url).pathname;
    const flags = (process.env["BENCH_AGENT_FLAGS"] ?? "").split(" ").filter(Boolean);
    this.#child = spawn(
      process.execPath,
      [...nodeFlags, ...flags, file, JSON.stringify(api.kubeconfig)],
      { stdio: ["pipe", "pipe", "inherit"] },
    );
    this.#closed = once(this.#child, "close");
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      const message = JSON.parse(line) as FromProxyAgent;
      if (message.kind === "sync") this.syncs.push(message);
      for (const listener of this.#listeners) listener(message);
    });
  }

  /** Resolves when `done` says so, asked after each message. */
  async until(done: (message: FromProxyAgent) => boolean): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const listener = (message: FromProxyAgent): void => {
      if (done(message)) resolve();
    };
    this.#listeners.add(listener);
    void this.#closed.then(() => reject(new Error("the proxy ended")));
    const timer = setTimeout(() => reject(new Error("the proxy did not follow")), 60_000);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.#listeners.delete(listener);
    }
  }

  /** The longest stand-still of its event loop since the last question, in milliseconds. */
  async stallMs(): Promise<number> {
    let stallMs = 0;
    const answered = this.until((message) => {
      if (message.kind !== "stall") return false;
      ({ stallMs } = message);
      return true;
    });
    this.#child.stdin.write("\n");
    await answered;
    return stallMs;
  }

  async stop(): Promise<void> {
    this.#child.stdin.end();
    await this.#closed;
  }
}

/** Who answers there: the address that took the connection; empty for nobody. */
function whoAnswers(host: string): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect({ host, port: portNumber });
    socket.setTimeout(1000, () => socket.destroy());
    socket.on("data", (chunk) => (text += chunk.toString()));
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(text));
  });
}

async function listen(): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end(socket.localAddress ?? "");
  });
  server.listen(targetPort, "0.0.0.0");
  await once(server, "listening");
  return server;
}

async function cluster(count: number): Promise<FakeApiServer> {
  const api = await startFakeApiServer();
  api.put(NODES, { metadata: { name: nodeName } });
  for (let index = 0; index < count - 2; index += 1) {
    const made = numbered(index, 2);
    api.put(SERVICES, made.service);
    api.put(ENDPOINT_SLICES, made.slice);
  }
  for (const { name, vip, index } of [probe, rolled]) {
    api.put(SERVICES, service(name, vip, index));
  }
  api.put(ENDPOINT_SLICES, slice(probe.name, probe.backends.slice(0, 1), probe.index));
  api.put(ENDPOINT_SLICES, slice(rolled.name, ["10.251.0.0"], rolled.index));
  return api;
}

async function oneChange(api: FakeApiServer, backend: string): Promise<number> {
  const start = performance.now();
  api.put(ENDPOINT_SLICES, slice(probe.name, [backend], probe.index));
  while ((await whoAnswers(probe.vip)) !== backend) {
    if (performance.now() - start > 30_000) throw new Error("the new backend never answered");
  }
  return performance.now() - start;
}

const endpointMap = "ip remora-proxy ep-c-tcp";

function replacement(backend: string): string {
  // An element that the proxy does not know, in its own table: the kernel's work is the same.
  const key = "172.31.0.3 . 80 . 0";
  return `delete element ${endpointMap} { ${key} }\nadd element ${endpointMap} { ${key} : ${backend} . ${targetPort} }\n`;
}

export interface ChangeFigures {
  readonly changeMs: readonly number[];
  readonly nftMs: readonly number[];
}

async function measureChange(api: FakeApiServer, turns: number): Promise<ChangeFigures> {
  const nft = new BareNft();
  const [first = "", second = ""] = probe.backends;
  const changeMs: number[] = [];
  const nftMs: number[] = [];
  await nft.apply(
    `add element ${endpointMap} { 172.31.0.3 . 80 . 0 : ${first} . ${targetPort} }\n`,
  );
  for (let turn = 0; turn < warmUps; turn += 1) {
    await oneChange(api, turn % 2 === 0 ? first : second);
    await systemClock.sleep(settleMs, signal);
  }
  await systemClock.sleep(1500, signal);
  for (let turn = 0; turn < turns; turn += 1) {
    const backend = turn % 2 === 0 ? first : second;
    // Longer than the gap between synchronisations: each change finds the proxy idle.
    await systemClock.sleep(settleMs, signal);
    changeMs.push(await oneChange(api, backend));
    await systemClock.sleep(settleMs, signal);
    nftMs.push(await nft.apply(replacement(backend)));
  }
  await nft.apply(`delete element ${endpointMap} { 172.31.0.3 . 80 . 0 }\n`);
  await nft.close();
  return { changeMs, nftMs };
}

interface BurstFigures {
  readonly burstMs: number;
  readonly stallMs: number;
}

async function measureBurst(
  api: FakeApiServer,
  agent: Agent,
  size: number,
  moves: number,
): Promise<BurstFigures> {
  // Made before: the server's own work is not what is measured.
  const slices = Array.from({ length: size }, (_, index) => numbered(index, 2, moves).slice);
  await systemClock.sleep(1500, signal);
  await agent.stallMs();
  let left = 2 * size;
  const start = performance.now();
  const done = agent.until((message) => {
    if (message.kind === "sync") left -= message.changes;
    return left <= 0;
  });
  for (const changed of slices) api.put(ENDPOINT_SLICES, changed);
  await done;
  const burstMs = performance.now() - start;
  return { burstMs, stallMs: await agent.stallMs() };
}

export interface RollFigures {
  readonly syncs: readonly number[];
  readonly connections: number;
  /** Connections that went to an endpoint that was gone by then, or to nobody. */
  readonly dead: number;
}

async function measureRoll(api: FakeApiServer, agent: Agent, steps: number): Promise<RollFigures> {
  const ip = (number: number): string => `10.251.${number >> 8}.${number & 255}`;
  let pods = Array.from({ length: rolled.endpoints }, (_, number) => number);
  /** When each pod was known to be out of the rules. */
  const goneAt = new Map<string, number>();
  const apply = async (next: readonly number[]): Promise<void> => {
    const applied = agent.until(({ kind }) => kind === "sync");
    api.put(ENDPOINT_SLICES, slice(rolled.name, next.map(ip), rolled.index));
    await applied;
  };
  await apply(pods);
  await systemClock.sleep(1500, signal);
  const stop = new AbortController();
  let connections = 0;
  let dead = 0;
  const client = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      const startedAt = performance.now();
      const answer = await whoAnswers(rolled.vip);
      connections += 1;
      if (answer === "" || (goneAt.get(answer) ?? Infinity) < startedAt) dead += 1;
      await systemClock.sleep(1, signal);
    }
  };
  const clients = [client(), client()];
  const before = agent.syncs.length;
  for (let step = 0; step < steps; step += 1) {
    const [oldest = 0, ...rest] = pods;
    // The way of a rolling update: one more, then one less.
    await apply([...pods, rolled.endpoints + step]);
    pods = [...rest, rolled.endpoints + step];
    await apply(pods);
    goneAt.set(ip(oldest), performance.now());
  }
  stop.abort();
  await Promise.all(clients);
  return { syncs: agent.syncs.slice(before).map(({ applyMs }) => applyMs), connections, dead };
}

export interface FollowPlan {
  readonly services: number;
  readonly changes: number;
  readonly bursts: number;
  readonly rollSteps: number;
}

export interface FollowFigures {
  readonly change: ChangeFigures;
  readonly bursts: readonly BurstFigures[];
  readonly roll: RollFigures;
  readonly readyMs: number;
}

/** All three with one proxy. Leaves its table in the kernel. */
export async function measureFollowing(plan: FollowPlan): Promise<FollowFigures> {
  const server = await listen();
  const api = await cluster(plan.services);
  const start = performance.now();
  const agent = new Agent(api);
  try {
    await agent.until(({ kind }) => kind === "sync");
    const readyMs = performance.now() - start;
    const change = await measureChange(api, plan.changes);
    const roll = await measureRoll(api, agent, plan.rollSteps);
    const bursts: BurstFigures[] = [];
    for (let turn = 0; turn < plan.bursts; turn += 1) {
      bursts.push(await measureBurst(api, agent, 1000, turn + 1));
    }
    await checkBurst(plan.bursts);
    return { change, bursts, roll, readyMs };
  } finally {
    await agent.stop();
    await api.close();
    server.close();
  }
}

/** The last of a burst's Services really leads to a new pod. */
async function checkBurst(moves: number): Promise<void> {
  const answer = await whoAnswers(virtualIP(999));
  const expected = numbered(999, 2, moves).slice.endpoints?.flatMap(({ addresses }) => addresses);
  if (expected?.includes(answer) !== true)
    throw new Error(`${serviceName(999)} leads to "${answer}", not to one of ${String(expected)}`);
}

export function changeSummary({
  changeMs,
  nftMs,
}: ChangeFigures): Readonly<Record<string, number>> {
  return {
    n: changeMs.length,
    p50: round(quantile(changeMs, 0.5)),
    p99: round(quantile(changeMs, 0.99)),
    nft_p50: round(quantile(nftMs, 0.5)),
    nft_p99: round(quantile(nftMs, 0.99)),
  };
}

// Measures the Service proxy in a network namespace of its own, against a fake API server on loopback:
//   cold      from the start of the proxy to all rules in the kernel (process start is not in it), 10 000 Services with
//             two endpoints each, beside the load of the same Services in kube-proxy's layout by one `nft -f -`
//   change    from the API server's change of one EndpointSlice to the first answer of the new backend on the virtual
//             IP, at 1 000 and 10 000 Services, beside kube-proxy's way (list the table, rewrite one chain)
//   setUp     one pod's interface, addresses and routes, and a repeated ensureNode that finds nothing to do
// Measurements of both sides alternate. Figures are milliseconds. The last line is one JSON object.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { ENDPOINT_SLICES, NODES, SERVICES } from "../../src/api/resources.ts";
import type { EndpointSlice, Service } from "../../src/api/types.gen.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { createBridgeNetwork } from "../../src/network/bridge.ts";
import { cleanUpProxy } from "../../src/proxy/cleanup.ts";
import { type FakeApiServer, startFakeApiServer } from "../fakes/api-server.ts";
import { Machine, sh } from "../netns/namespace.ts";
import { changeOne, loadCold, remove } from "./baseline/kube-proxy-layout.ts";

const { signal } = new AbortController();
const quick = process.argv.includes("--quick");
const rounds = quick ? 1 : 3;
const changes = quick ? 20 : 200;
const sizes = [1000, 10_000] as const;
const probeVIP = "172.30.255.1";
const backends = { a: "10.244.0.2", b: "10.244.0.3" } as const;

function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((x, y) => x - y);
  const value = sorted[Math.min(Math.ceil(q * sorted.length) - 1, sorted.length - 1)] ?? Number.NaN;
  return Math.round(value * 10) / 10;
}

function summary(values: readonly number[]): Record<string, number> {
  return { n: values.length, p50: quantile(values, 0.5), p99: quantile(values, 0.99) };
}

function service(name: string, clusterIP: string): Service {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "bench" },
    spec: { clusterIP, clusterIPs: [clusterIP], ports: [{ name: "t", port: 80, protocol: "TCP" }] },
  };
}

function slice(name: string, ips: readonly string[]): EndpointSlice {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name, namespace: "bench", labels: { "kubernetes.io/service-name": name } },
    addressType: "IPv4",
    ports: [{ name: "t", port: 8080, protocol: "TCP" }],
    endpoints: ips.map((ip) => ({
      addresses: [ip],
      nodeName: "bench",
      conditions: { ready: true, serving: true, terminating: false },
    })),
  };
}

async function cluster(count: number): Promise<FakeApiServer> {
  const api = await startFakeApiServer();
  api.put(NODES, { metadata: { name: "bench" } });
  for (let index = 0; index < count - 1; index += 1) {
    const [high, low] = [index >> 8, index & 255];
    api.put(SERVICES, service(`s${index}`, `172.30.${high}.${low}`));
    api.put(
      ENDPOINT_SLICES,
      slice(`s${index}`, [`10.100.${high}.${low}`, `10.101.${high}.${low}`]),
    );
  }
  api.put(SERVICES, service("probe", probeVIP));
  api.put(ENDPOINT_SLICES, slice("probe", [backends.a]));
  return api;
}

interface Ready {
  readonly readyMs: number;
  readonly applyMs: number;
  readonly changes: number;
  readonly rssMB: number;
}

/** Starts the proxy in a process of its own; resolves when its rules are in the kernel. */
async function startProxy(
  api: FakeApiServer,
): Promise<{ ready: Ready; stop: () => Promise<void> }> {
  const file = new URL("proxy-agent.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [file, JSON.stringify(api.kubeconfig)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const closed = once(child, "close");
  const [line] = (await Promise.race([
    once(createInterface({ input: child.stdout }), "line"),
    closed.then(() => Promise.reject(new Error("the proxy ended before its rules were there"))),
  ])) as [string];
  return {
    ready: JSON.parse(line) as Ready,
    stop: async () => {
      child.stdin.end();
      await closed;
    },
  };
}

/** Who answers on the virtual IP; empty for nobody. */
function whoAnswers(): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect({ host: probeVIP, port: 80 });
    socket.setTimeout(200, () => socket.destroy());
    socket.on("data", (chunk) => (text += chunk.toString()));
    socket.on("error", () => undefined);
    socket.on("close", () => {
      resolve(text);
    });
  });
}

async function oneChange(api: FakeApiServer, to: keyof typeof backends): Promise<number> {
  const start = performance.now();
  api.put(ENDPOINT_SLICES, slice("probe", [backends[to]]));
  while ((await whoAnswers()) !== to) {
    if (performance.now() - start > 30_000) throw new Error("the new backend never answered");
  }
  return performance.now() - start;
}

async function measureSize(count: number): Promise<Record<string, unknown>> {
  const cold: number[] = [];
  const apply: number[] = [];
  const baselineCold: number[] = [];
  const change: number[] = [];
  const baselineChange: number[] = [];
  let rssMB = 0;
  for (let round = 0; round < rounds; round += 1) {
    const api = await cluster(count);
    const proxy = await startProxy(api);
    cold.push(proxy.ready.readyMs);
    apply.push(proxy.ready.applyMs);
    rssMB = Math.round(proxy.ready.rssMB);
    await oneChange(api, "b");
    for (let turn = 0; turn < changes / rounds; turn += 1) {
      // Longer than the gap between synchronisations: each change finds the proxy idle.
      await systemClock.sleep(60, signal);
      change.push(await oneChange(api, turn % 2 === 0 ? "a" : "b"));
    }
    await proxy.stop();
    await api.close();
    await cleanUpProxy(signal);
    baselineCold.push(await loadCold(count));
    for (let turn = 0; turn < 3; turn += 1) baselineChange.push(await changeOne(turn));
    await remove();
  }
  const result = {
    services: count,
    cold: summary(cold),
    coldApply: summary(apply),
    baselineCold: summary(baselineCold),
    change: summary(change),
    baselineChange: summary(baselineChange),
    rssMB,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
  return result;
}

async function measureNetwork(): Promise<Record<string, unknown>> {
  const stateDir = await mkdtemp(join(tmpdir(), "remora-bench-"));
  const network = createBridgeNetwork({
    stateDir,
    clusterCIDRs: ["10.245.0.0/16"],
    clock: systemClock,
    logger: silentLogger,
    bridgeName: "bench0",
    tableName: "bench-network",
    forwardChain: "BENCH-FORWARD",
  });
  const setUp: number[] = [];
  const ensure: number[] = [];
  const spawned: number[] = [];
  try {
    await network.ensureNode(["10.245.0.0/24"], signal);
    for (let turn = 0; turn < (quick ? 5 : 40); turn += 1) {
      const machine = await Machine.start();
      const { pid } = machine;
      await systemClock.sleep(30, signal);
      const sandboxID = `sandbox-${pid}`;
      const start = performance.now();
      await network.setUp({ sandboxID, podUID: "u", podKey: "b/p", pid, hostPorts: [] }, signal);
      setUp.push(performance.now() - start);
      const again = performance.now();
      await network.ensureNode(["10.245.0.0/24"], signal);
      ensure.push(performance.now() - again);
      const alone = performance.now();
      await sh("true");
      spawned.push(performance.now() - alone);
      await network.tearDown(sandboxID, signal);
      await machine.stop();
    }
  } finally {
    await Machine.stopAll();
    await network.cleanUp(signal);
    await rm(stateDir, { recursive: true, force: true });
  }
  const result = {
    setUp: summary(setUp),
    ensureNodeUnchanged: summary(ensure),
    spawnOfTrue: summary(spawned),
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
  return result;
}

/** Runs in the namespace that bench.ts made. */
export async function benchProxy(): Promise<void> {
  const servers = await Promise.all(
    Object.entries(backends).map(async ([name, ip]) => {
      await sh("ip", "addr", "add", `${ip}/32`, "dev", "lo");
      const server = createServer((socket) => {
        socket.on("error", () => undefined);
        socket.end(name);
      });
      server.listen(8080, ip);
      await once(server, "listening");
      return server;
    }),
  );
  await sh("ip", "route", "add", "172.30.0.0/16", "dev", "lo");
  try {
    const network = await measureNetwork();
    const results = [];
    for (const count of sizes) results.push(await measureSize(count));
    const report = {
      bench: "proxy",
      unit: "ms",
      loadAverage: loadavg().map((value) => Math.round(value * 10) / 10),
      baseline: "nft -f - of test/bench/baseline/kube-proxy-layout.ts",
      network,
      sizes: results,
    };
    process.stdout.write(`${JSON.stringify(report)}\n`);
  } finally {
    for (const server of servers) server.close();
  }
}

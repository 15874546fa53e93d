// What the agent does for one pod's network: lease, interface pair, addresses, routes. One after the other on an empty
// node, 30 at once, and one more where 110 stand; beside it the two programs that it takes, run by hand.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { systemClock } from "../../src/lib/clock.ts";
import { execResult } from "../../src/lib/exec.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { createBridgeNetwork } from "../../src/network/bridge.ts";
import type { PodNetwork } from "../../src/network/types.ts";
import { Machine, sh } from "../netns/namespace.ts";
import { median, quantile, round, spread } from "./figures.ts";

const { signal } = new AbortController();
const podCIDRs = ["10.245.0.0/24", "fd00:245::/64"];
const standing = 110;
const atOnce = 30;

/** Milliseconds of one pod's network. */
async function timeSetUp(network: PodNetwork, machine: Machine): Promise<number> {
  const { pid } = machine;
  const sandboxID = `sandbox-${pid}`;
  const start = performance.now();
  await network.setUp({ sandboxID, podUID: "u", podKey: "b/p", pid, hostPorts: [] }, signal);
  return performance.now() - start;
}

async function tearDown(network: PodNetwork, machine: Machine): Promise<void> {
  await network.tearDown(`sandbox-${machine.pid}`, signal);
  await machine.stop();
}

/** As the engine leaves it: with its loopback up. */
async function startMachine(): Promise<Machine> {
  const machine = await Machine.start();
  await machine.sh("ip", "link", "set", "lo", "up");
  return machine;
}

async function machines(count: number): Promise<readonly Machine[]> {
  const made: Machine[] = [];
  for (let turn = 0; turn < count; turn += 1) made.push(await startMachine());
  return made;
}

async function oneByOne(network: PodNetwork, turns: number): Promise<readonly number[]> {
  const values: number[] = [];
  for (let turn = 0; turn < turns; turn += 1) {
    const machine = await startMachine();
    values.push(await timeSetUp(network, machine));
    await tearDown(network, machine);
  }
  return values;
}

/** The same two programs without an agent around them. */
async function byHand(turns: number): Promise<readonly number[]> {
  const values: number[] = [];
  for (let turn = 0; turn < turns; turn += 1) {
    const machine = await startMachine();
    const start = performance.now();
    const host = `link add name hand0 type veth peer name eth0 netns ${machine.pid}\nlink set dev hand0 master bench0\nlink set dev hand0 up\n`;
    await execResult(["ip", "-batch", "-"], { stdin: host, signal });
    const inside =
      "link set dev lo up\naddr replace 10.245.0.250/32 dev eth0\nlink set dev eth0 up\nroute replace 10.245.0.1/32 dev eth0\nroute replace 0.0.0.0/0 via 10.245.0.1 dev eth0\n";
    const enter = ["nsenter", "-t", String(machine.pid), "-n", "ip", "-batch", "-"] as const;
    await execResult(enter, { stdin: inside, signal });
    values.push(performance.now() - start);
    await sh("ip", "link", "del", "hand0");
    await machine.stop();
  }
  return values;
}

/** `npm run bench -- network [--quick]`. */
export async function benchNetwork(argv: readonly string[]): Promise<void> {
  const quick = argv.includes("--quick");
  const turns = quick ? 10 : 40;
  const stateDir = await mkdtemp(join(tmpdir(), "remora-bench-"));
  const network = createBridgeNetwork({
    stateDir,
    clusterCIDRs: ["10.245.0.0/16", "fd00:245::/48"],
    clock: systemClock,
    logger: silentLogger,
    bridgeName: "bench0",
    tableName: "bench-network",
    forwardChain: "BENCH-FORWARD",
    inputChain: "BENCH-INPUT",
  });
  try {
    await network.ensureNode(podCIDRs, signal);
    await oneByOne(network, 3);
    const alone: number[] = [];
    const hand: number[] = [];
    for (let round = 0; round < 2; round += 1) {
      alone.push(...(await oneByOne(network, turns / 2)));
      hand.push(...(await byHand(turns / 2)));
    }
    const burst = await machines(atOnce);
    const start = performance.now();
    const together = await Promise.all(burst.map((machine) => timeSetUp(network, machine)));
    const burstMs = performance.now() - start;
    for (const machine of burst) await tearDown(network, machine);
    const full = await machines(quick ? atOnce : standing);
    for (const machine of full) await timeSetUp(network, machine);
    const among = await oneByOne(network, turns);
    const looks: number[] = [];
    for (let turn = 0; turn < 10; turn += 1) {
      const began = performance.now();
      await network.ensureNode(podCIDRs, signal);
      looks.push(performance.now() - began);
    }
    for (const machine of full) await tearDown(network, machine);
    process.stdout.write(
      [
        `one pod, nothing else      ${spread(alone, 1)}`,
        `the programs by hand (v4)  ${spread(hand, 1)}`,
        `each of ${atOnce} at once         ${spread(together, 1)}; all within ${round(burstMs, 0)} ms`,
        `one more beside ${full.length} pods   ${spread(among, 1)}`,
        `a look that finds all right ${spread(looks, 1)}`,
        "",
      ].join("\n"),
    );
    const figures = {
      net_ms: round(median(alone), 1),
      net_p99_ms: round(quantile(alone, 0.99), 1),
      by_hand_ms: round(median(hand), 1),
      burst_each_ms: round(burstMs / atOnce, 1),
      full_ms: round(median(among), 1),
      look_ms: round(median(looks), 1),
      pods: full.length,
      n: alone.length,
    };
    process.stdout.write(`${JSON.stringify(figures)}\n`);
  } finally {
    await Machine.stopAll();
    await network.cleanUp(signal);
    await rm(stateDir, { recursive: true, force: true });
  }
}

// One pod's interface, addresses and routes, and a repeated ensureNode that finds nothing to do.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { createBridgeNetwork } from "../../src/network/bridge.ts";
import { Machine, sh } from "../netns/namespace.ts";
import { median, quantile, round } from "./figures.ts";

const { signal } = new AbortController();

function summary(values: readonly number[]): Readonly<Record<string, number>> {
  return { n: values.length, p50: round(median(values), 1), p99: round(quantile(values, 0.99), 1) };
}

/** `pods` of them, one after the other. */
export async function measureNetwork(pods: number): Promise<Readonly<Record<string, unknown>>> {
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
    for (let turn = 0; turn < pods; turn += 1) {
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
  return {
    setUp: summary(setUp),
    ensureNodeUnchanged: summary(ensure),
    spawnOfTrue: summary(spawned),
  };
}

import assert from "node:assert/strict";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";

import { bridgeRoutes } from "../../../src/agent/pod-network.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { CniNetwork } from "../../../src/network/cni/cni-network.ts";
import { createProvidedNetwork, type ProvidedNetwork } from "../../../src/network/provider.ts";
import type { SandboxNetworkConfig } from "../../../src/network/types.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const { signal } = new AbortController();

/** Remembers what it was asked for; keeps addresses over restarts. */
class FakeProvider implements CniNetwork {
  readonly calls: string[] = [];
  readonly held = new Set<string>();
  readonly #name: string;
  readonly #ipam: string | undefined;
  ready = true;
  notReadyReason: string | undefined;
  configured = false;
  traces = false;

  constructor(name: string, ipam?: string) {
    this.#name = name;
    this.#ipam = ipam;
  }

  get inUse(): boolean {
    return this.held.size > 0;
  }

  async load(): Promise<void> {
    this.calls.push("load");
  }

  async look(): Promise<void> {
    this.calls.push("look");
  }

  async hasTraces(): Promise<boolean> {
    return this.traces;
  }

  async ensureNode(podCIDRs: readonly string[]): Promise<void> {
    this.calls.push(`ensure ${podCIDRs.join()}`);
    this.traces = true;
  }

  async setUp({ sandboxID }: SandboxNetworkConfig): Promise<{ readonly ips: readonly string[] }> {
    this.held.add(sandboxID);
    if (this.#ipam !== undefined) {
      await mkdir(this.#ipam, { recursive: true });
      await writeFile(join(this.#ipam, `10.0.0.${this.held.size}`), "");
    }
    return { ips: [this.#name] };
  }

  addresses(sandboxID: string): readonly string[] | undefined {
    return this.held.has(sandboxID) ? [this.#name] : undefined;
  }

  holds(sandboxID: string): boolean {
    return this.held.has(sandboxID);
  }

  isIntact(): boolean {
    return true;
  }

  async tearDown(sandboxID: string): Promise<void> {
    this.calls.push(`down ${sandboxID}`);
    this.held.delete(sandboxID);
    if (this.#ipam !== undefined && this.held.size === 0) {
      await rm(this.#ipam, { recursive: true, force: true });
    }
  }

  async collectGarbage(): Promise<void> {
    this.calls.push("garbage");
  }

  async setLocalAddresses(addresses: readonly string[]): Promise<void> {
    this.calls.push(`local ${addresses.join()}`);
  }

  async run(stop: AbortSignal): Promise<void> {
    this.calls.push("run");
    await new Promise((resolve) => stop.addEventListener("abort", resolve));
  }

  async cleanUp(): Promise<void> {
    this.calls.push("clean");
    this.traces = false;
  }
}

interface Stage {
  readonly network: ProvidedNetwork;
  readonly bridge: FakeProvider;
  readonly cni: FakeProvider;
  readonly changes: () => number;
  /** As a new process on the same machine. */
  readonly again: (mode?: "auto" | "bridge" | "cni") => ProvidedNetwork;
}

async function onStage(
  mode: "auto" | "bridge" | "cni",
  work: (stage: Stage) => Promise<void>,
  prepare: (cni: FakeProvider) => void = () => undefined,
): Promise<void> {
  await inTemporary(async (stateDir) => {
    const bridge = new FakeProvider("bridge", join(stateDir, "ipam"));
    const cni = new FakeProvider("cni");
    prepare(cni);
    let changes = 0;
    const again = (next = mode): ProvidedNetwork =>
      createProvidedNetwork({
        mode: next,
        bridge,
        cni,
        stateDir,
        onChange: () => {
          changes += 1;
        },
        clock: systemClock,
        logger: silentLogger,
      });
    await work({ network: again(), bridge, cni, changes: () => changes, again });
  });
}

const sandbox = (sandboxID: string): SandboxNetworkConfig => ({
  sandboxID,
  podUID: "u",
  podKey: "default/p",
  pid: 1,
  hostPorts: [],
});

describe("who gives pods their network", () => {
  for (const [mode, configured, expected] of [
    ["auto", false, "bridge"],
    ["auto", true, "cni"],
    ["bridge", true, "bridge"],
    ["cni", false, "cni"],
  ] as const) {
    test(`is the ${expected} with "${mode}" and ${configured ? "a" : "no"} configuration`, async () => {
      await onStage(
        mode,
        async ({ network }) => {
          assert.equal(network.provider, undefined);
          assert.equal(network.ready, false);
          await network.load();
          assert.equal(network.provider, expected);
          assert.deepEqual(await network.setUp(sandbox("s"), signal), { ips: [expected] });
        },
        (cni) => {
          cni.configured = configured;
        },
      );
    });
  }

  test("is changed by a configuration that comes before the first pod, and by none after it", async () => {
    await onStage("auto", async ({ network, bridge, cni, again, changes }) => {
      await network.setLocalAddresses(["10.96.0.10"], signal);
      await network.ensureNode(["10.1.0.0/24"], signal);
      assert.deepEqual(bridge.calls, ["load", "local 10.96.0.10", "ensure 10.1.0.0/24"]);
      const before = changes();
      cni.configured = true;
      network.configurationChanged();
      assert.equal(network.provider, "cni");
      assert.equal(changes(), before + 1);
      await network.ensureNode(["10.1.0.0/24"], signal);
      assert.deepEqual(bridge.calls.slice(3), ["clean", "load"], "what it made goes");
      assert.deepEqual(cni.calls.slice(2), ["local 10.96.0.10", "ensure 10.1.0.0/24"]);
      cni.configured = false;
      const late = again("auto");
      cni.traces = false;
      await late.setUp(sandbox("s"), signal);
      cni.configured = true;
      late.configurationChanged();
      assert.equal(late.provider, "bridge");
    });
  });

  test("stays plug-ins while pods have theirs, also when the configuration is away at a start", async () => {
    await onStage("auto", async ({ cni, network }) => {
      cni.held.add("old");
      await network.load();
      assert.equal(network.provider, "cni");
    });
  });

  test("is told apart for each sandbox: whoever made its network takes it down", async () => {
    await onStage("bridge", async ({ network, bridge, cni, again }) => {
      await network.setUp(sandbox("first"), signal);
      const after = again("cni");
      await after.setUp(sandbox("second"), signal);
      assert.deepEqual(after.addresses("first"), ["bridge"]);
      assert.deepEqual(after.addresses("second"), ["cni"]);
      assert.deepEqual(await after.setUp(sandbox("first"), signal), { ips: ["bridge"] });
      bridge.calls.length = 0;
      await after.ensureNode(["10.1.0.0/24"], signal);
      assert.deepEqual(bridge.calls, ["ensure 10.1.0.0/24"], "the bridge is kept for its pods");
      await after.tearDown("first", signal);
      await after.tearDown("second", signal);
      assert.deepEqual(bridge.calls.at(-1), "down first");
      assert.deepEqual(cni.calls.at(-1), "down second");
      await after.ensureNode(["10.1.0.0/24"], signal);
      assert.deepEqual(bridge.calls.slice(-2), ["clean", "load"], "and goes with the last of them");
    });
  });

  test("is the bridge again, and what plug-ins had on the node goes with their last pod", async () => {
    await onStage("cni", async ({ network, cni, again }) => {
      await network.setUp(sandbox("s"), signal);
      await network.ensureNode([], signal);
      const after = again("bridge");
      await after.ensureNode(["10.1.0.0/24"], signal);
      assert.equal(cni.calls.at(-1), "ensure 10.1.0.0/24");
      await after.tearDown("s", signal);
      await after.ensureNode(["10.1.0.0/24"], signal);
      assert.deepEqual(cni.calls.slice(-2), ["clean", "load"]);
    });
  });

  test("says why there is none", async () => {
    await onStage("cni", async ({ network, cni }) => {
      await network.load();
      cni.ready = false;
      cni.notReadyReason = "cni config uninitialized";
      assert.equal(network.notReadyReason, "cni config uninitialized");
    });
    await onStage("bridge", async ({ network, bridge }) => {
      await network.load();
      assert.equal(network.notReadyReason, undefined);
      bridge.ready = false;
      assert.equal(network.notReadyReason, "the node has no pod CIDR yet");
    });
  });

  test("prepares a node without podCIDRs for plug-ins, and ends when told", async () => {
    await onStage("cni", async ({ network, cni }) => {
      const stop = new AbortController();
      const running = network.run(stop.signal);
      while (!cni.calls.includes("ensure ")) await systemClock.sleep(1, signal);
      assert.ok(cni.calls.includes("run"));
      stop.abort();
      await running;
    });
  });

  test("has ways to the pods of other nodes on the bridge only", async () => {
    const nodes = [{ name: "n", podCIDRs: ["10.1.1.0/24"], addresses: ["192.0.2.2"] }];
    for (const [provider, expected] of [
      ["bridge", 1],
      ["cni", 0],
    ] as const) {
      await onStage(provider, async ({ network }) => {
        let seen = -1;
        const ensure = bridgeRoutes(async (remotes) => {
          seen = remotes.length;
          throw new Error("no routes in tests");
        }, network);
        await assert.rejects(ensure(nodes, [], signal), /no routes in tests/);
        assert.equal(seen, expected);
      });
    }
  });
});

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { nodeRoutesRunner } from "../../../src/agent/node-routes-runner.ts";
import { NODES } from "../../../src/api/resources.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { RouteReport } from "../../../src/network/node-routes.ts";
import type { RemoteNode } from "../../../src/network/route-plan.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { ManualClock, until } from "../api/manual-clock.ts";

interface Bench extends AsyncDisposable {
  readonly clock: ManualClock;
  /** Every look: `name podCIDRs via addresses` per node, and the own networks. */
  readonly looks: string[];
  /** Addresses of the other nodes, as last told. */
  remotes: readonly string[];
  readonly events: string[];
  readonly watches: { disturb: (() => void) | undefined };
  /** What the next looks find. */
  report: RouteReport | Error;
  /** Lets time pass until there was another look. */
  nextLook(ms: number): Promise<string>;
}

const nothing: RouteReport = { replaced: [], removed: [], problems: [], overruled: [] };

function describeRemote({ name, podCIDRs, addresses }: RemoteNode): string {
  return `${name} ${podCIDRs.join(",")} via ${addresses.join(",")}`;
}

describe("the node routes runner", () => {
  let api: FakeApiServer;

  before(async () => {
    api = await startFakeApiServer();
  });
  after(async () => {
    await api.close();
  });

  const putNode = (name: string, podCIDR: string, address: string, created: string): void => {
    api.put(NODES, {
      metadata: { name, creationTimestamp: created },
      spec: { podCIDRs: [podCIDR] },
      status: {
        addresses: [
          { type: "Hostname", address: name },
          { type: "InternalIP", address },
        ],
      },
    });
  };

  const makeBench = (): Bench => {
    const clock = new ManualClock();
    const stop = new AbortController();
    const bench: Bench = {
      clock,
      looks: [],
      remotes: [],
      events: [],
      watches: { disturb: undefined },
      report: nothing,
      nextLook: async (ms) => {
        const { length } = bench.looks;
        await until(() => {
          if (bench.looks.length > length) return true;
          if (clock.sleeping) clock.advance(ms);
          return false;
        }, "a look");
        return bench.looks.at(-1) ?? "";
      },
      [Symbol.asyncDispose]: async () => {
        stop.abort();
        await running;
        for (const { metadata } of api.list(NODES)) api.remove(NODES, metadata.name);
      },
    };
    const running = nodeRoutesRunner({
      nodeName: "one",
      client: api.client,
      events: {
        event: (_target, _type, reason, message) => bench.events.push(`${reason}: ${message}`),
      },
      podCIDRs: [],
      bridge: "remora0",
      onRemotes: (remotes) => {
        bench.remotes = remotes.flatMap(({ addresses }) => addresses);
      },
      ensure: async (remotes, own) => {
        bench.looks.push([...remotes.map(describeRemote), `own ${own.join(",")}`].join("; "));
        if (bench.report instanceof Error) throw bench.report;
        return bench.report;
      },
      watch: async ({ onDisturbed }, signal) => {
        bench.watches.disturb = onDisturbed;
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
      clock,
      logger: silentLogger,
      random: () => 0.5,
    })
      .run(stop.signal)
      .catch((error: unknown) => {
        if (!stop.signal.aborted) throw error;
      });
    return bench;
  };

  test("one that is alone looks once, and watches nothing", async () => {
    putNode("one", "10.244.0.0/24", "192.0.2.1", "2026-01-01T00:00:00Z");
    await using bench = makeBench();
    assert.equal(await bench.nextLook(0), "own 10.244.0.0/24");
    assert.equal(bench.watches.disturb, undefined);
  });

  test("nodes come oldest first; one that comes, moves or goes wakes it, a heartbeat does not", async () => {
    putNode("one", "10.244.0.0/24", "192.0.2.1", "2026-01-01T00:00:00Z");
    putNode("young", "10.244.1.0/24", "192.0.2.3", "2026-01-03T00:00:00Z");
    putNode("old", "10.244.2.0/24", "192.0.2.2", "2026-01-02T00:00:00Z");
    await using bench = makeBench();
    const old = "old 10.244.2.0/24 via 192.0.2.2";
    const young = "young 10.244.1.0/24 via 192.0.2.3";
    assert.equal(await bench.nextLook(0), `${old}; ${young}; own 10.244.0.0/24`);
    assert.deepEqual(bench.remotes, ["192.0.2.2", "192.0.2.3"]);
    api.remove(NODES, "old");
    assert.equal(await bench.nextLook(1000), `${young}; own 10.244.0.0/24`);
    assert.deepEqual(bench.remotes, ["192.0.2.3"]);
    putNode("young", "10.244.9.0/24", "192.0.2.3", "2026-01-03T00:00:00Z");
    assert.match(await bench.nextLook(1000), /^young 10\.244\.9\.0\/24/);

    await until(() => bench.clock.sleeps.at(-1) === 60_000 || (bench.clock.advance(1000), false));
    const { length } = bench.looks;
    putNode("young", "10.244.9.0/24", "192.0.2.3", "2026-01-03T00:00:00Z");
    api.put(NODES, {
      ...api.get(NODES, "young"),
      spec: { podCIDRs: ["10.244.9.0/24"], taints: [] },
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(bench.looks.length, length, "nothing that routes need has changed");
    bench.watches.disturb?.();
    await until(() => bench.looks.length === length + 1, "a disturbance calls for a look at once");
  });

  test("a problem is told once, and again when it came back; failures are tried again", async () => {
    putNode("one", "10.244.0.0/24", "192.0.2.1", "2026-01-01T00:00:00Z");
    putNode("far", "10.244.1.0/24", "198.51.100.7", "2026-01-02T00:00:00Z");
    await using bench = makeBench();
    const problems = [{ node: "far", podCIDR: "10.244.1.0/24", message: "it is far" }];
    const far: RouteReport = { ...nothing, problems };
    bench.report = far;
    const text =
      "FailedToCreateRoute: Could not create a route to the pods 10.244.1.0/24 of node far: it is far";
    await bench.nextLook(0);
    await bench.nextLook(60_000);
    assert.deepEqual(bench.events, [text]);
    bench.report = new Error("no right");
    await bench.nextLook(60_000);
    bench.report = nothing;
    await bench.nextLook(5_000);
    bench.report = far;
    await bench.nextLook(60_000);
    await until(() => bench.events.length === 2);
    assert.deepEqual(bench.events, [text, text]);
  });
});

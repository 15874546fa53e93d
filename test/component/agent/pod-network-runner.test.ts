import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { podNetworkRunner, servicesOfNode } from "../../../src/agent/pod-network-runner.ts";
import type { Stored } from "../../../src/api/object.ts";
import type { Node } from "../../../src/api/types.gen.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { fakeNetwork } from "../../fakes/fake-network.ts";
import { ManualClock, until } from "../api/manual-clock.ts";

interface Bench extends AsyncDisposable {
  readonly clock: ManualClock;
  /** The podCIDRs of every ensureNode. */
  readonly calls: string[];
  failing: boolean;
  assign(podCIDRs: readonly string[]): void;
  engineReturns(): void;
  /** Resolves when the runner has nothing more to do at this time. */
  settled(): Promise<void>;
}

type Problems = NonNullable<Parameters<typeof podNetworkRunner>[0]["problems"]>;

function makeBench(podCIDRs: readonly string[] = [], failing = false, problems?: Problems): Bench {
  const clock = new ManualClock();
  const network = fakeNetwork();
  let node: Stored<Node> | undefined;
  let nodeChanged = (): void => undefined;
  let engineReturned = (): void => undefined;
  network.ensureNode = async (cidrs) => {
    bench.calls.push(cidrs.join(","));
    if (bench.failing) throw new Error("no right");
  };
  const stop = new AbortController();
  const bench: Bench = {
    clock,
    calls: [],
    failing,
    assign: (cidrs) => {
      node = { spec: { podCIDRs: [...cidrs] } } as unknown as Stored<Node>;
      nodeChanged();
    },
    engineReturns: () => engineReturned(),
    settled: async () => {
      await new Promise((resolve) => setImmediate(resolve));
      await until(() => clock.sleeping, "the runner sleeps");
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await ended;
    },
  };
  const ended = podNetworkRunner({
    network,
    node: {
      node: () => node,
      subscribe: (listener) => {
        nodeChanged = listener;
        return () => undefined;
      },
    },
    podCIDRs,
    ...(problems === undefined ? {} : { problems }),
    onEngineReturn: (listener) => {
      engineReturned = listener;
      return () => undefined;
    },
    clock,
    logger: silentLogger,
  }).run(stop.signal);
  return bench;
}

describe("the pod network's runner", () => {
  test("waits for the Node's podCIDRs and follows their changes", async () => {
    await using bench = makeBench();
    await bench.settled();
    assert.deepEqual(bench.calls, []);
    bench.assign(["10.0.0.0/24"]);
    await bench.settled();
    bench.assign(["10.0.0.0/24"]);
    await bench.settled();
    assert.deepEqual(bench.calls, ["10.0.0.0/24"], "another change of the Node is no reason");
    bench.assign(["10.0.1.0/24", "fd00::/64"]);
    await bench.settled();
    assert.deepEqual(bench.calls, ["10.0.0.0/24", "10.0.1.0/24,fd00::/64"]);
  });

  test("repairs every 30 s, and at once when the container engine is back", async () => {
    await using bench = makeBench(["10.0.0.0/24"]);
    await bench.settled();
    assert.equal(bench.calls.length, 1);
    bench.clock.advance(29_000);
    await bench.settled();
    assert.equal(bench.calls.length, 1);
    bench.clock.advance(1_000);
    await bench.settled();
    assert.equal(bench.calls.length, 2);
    bench.clock.advance(5_000);
    bench.engineReturns();
    await bench.settled();
    assert.equal(bench.calls.length, 3);
    bench.clock.advance(29_000);
    await bench.settled();
    assert.equal(bench.calls.length, 3, "the repair counts as one");
  });

  test("looks once a second at most, however often somebody takes rules away", async () => {
    await using bench = makeBench(["10.0.0.0/24"]);
    await bench.settled();
    for (let times = 0; times < 5; times += 1) {
      bench.engineReturns();
      await bench.settled();
    }
    assert.equal(bench.calls.length, 1);
    bench.clock.advance(1_000);
    await bench.settled();
    assert.equal(bench.calls.length, 2, "and does not forget to");
  });

  test("tells each problem once, as an Event of the Node, and again when it was gone", async () => {
    const told: string[] = [];
    let problems: readonly string[] = ["ufw drops"];
    await using bench = makeBench(["10.0.0.0/24"], false, {
      list: () => problems,
      nodeName: "n1",
      events: {
        event: (target, type, reason, message) => {
          told.push(`${target.kind} ${target.name} ${type} ${reason}: ${message}`);
        },
      },
    });
    await bench.settled();
    for (const next of [["ufw drops"], ["ufw drops", "br1 is in the way"], [], ["ufw drops"]]) {
      problems = next;
      bench.clock.advance(30_000);
      await bench.settled();
    }
    const ufw = "Node n1 Warning PodNetworkBlocked: ufw drops";
    assert.deepEqual(told, [ufw, "Node n1 Warning PodNetworkBlocked: br1 is in the way", ufw]);
  });

  test("an API server on this machine is asked by pods, one elsewhere asks the kubelet's port", () => {
    const services = (server: string): readonly string[] =>
      servicesOfNode(server, 10_250, (address) => address === "127.0.0.1").map(
        ({ from, port }) => `${from} ${port}`,
      );
    assert.deepEqual(services("https://127.0.0.1:6443"), ["pods 6443"]);
    assert.deepEqual(services("https://192.0.2.7"), ["192.0.2.7 10250"]);
    assert.deepEqual(services("https://[2001:db8::7]:443/"), ["2001:db8::7 10250"]);
    assert.deepEqual(services("https://cluster.example:6443"), []);
    assert.deepEqual(services("nonsense"), []);
  });

  test("tries again 5 s after a failure", async () => {
    await using bench = makeBench(["10.0.0.0/24"], true);
    await bench.settled();
    assert.equal(bench.calls.length, 1);
    bench.failing = false;
    bench.clock.advance(5_000);
    await bench.settled();
    assert.equal(bench.calls.length, 2);
    bench.clock.advance(5_000);
    await bench.settled();
    assert.equal(bench.calls.length, 2);
  });
});

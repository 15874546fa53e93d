import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";

import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { FlowEnds } from "../../../src/netfilter/conntrack.ts";
import type { StaleFlows } from "../../../src/proxy/conntrack.ts";
import { ConntrackReconciler, missingTool } from "../../../src/proxy/conntrack-reconciler.ts";
import { ProxyMetrics } from "../../../src/proxy/metrics.ts";

/** A table of flows, and a judge that lets those stay whose backend is in `right`. */
class Bench {
  readonly right = new Set<string>();
  readonly deleted: string[] = [];
  readonly events: string[] = [];
  listings = 0;
  flows: FlowEnds[] = [];
  hasTool = true;
  nodePortIPs: readonly string[] = ["192.0.2.1", "192.0.2.2"];
  readonly #stop = new AbortController();
  readonly reconciler = new ConntrackReconciler({
    judges: new Map([
      [
        "IPv4",
        {
          judge: (
            { destination, port, from, fromPort }: FlowEnds,
            _was: unknown,
            left: (ip: string) => boolean,
          ): StaleFlows | undefined => {
            if (left(destination))
              return { family: "IPv4", vip: destination, port, from: undefined };
            if (this.right.has(from) || destination.startsWith("198.51.100.")) return undefined;
            return { family: "IPv4", vip: destination, port, from: { ip: from, port: fromPort } };
          },
          nodePortIPs: () => this.nodePortIPs,
        },
      ],
    ]),
    nodeName: "here",
    events: { event: (_, __, reason, message) => this.events.push(`${reason}: ${message}`) },
    clock: systemClock,
    logger: silentLogger,
    metrics: new ProxyMetrics(),
    table: {
      list: (_family, onFlow) => {
        this.listings += 1;
        for (const flow of this.flows) onFlow(flow);
        return Promise.resolve(this.hasTool);
      },
      delete: (flows) => {
        if (!this.hasTool) return Promise.resolve(undefined);
        const kinds = flows.map(
          ({ vip, port, from }) => `${vip}:${port} ${from?.ip}:${from?.port}`,
        );
        this.deleted.push(...kinds);
        const gone = new Set(kinds);
        const before = this.flows.length;
        this.flows = this.flows.filter(
          ({ destination, port, from, fromPort }) =>
            !gone.has(`${destination}:${port} ${from}:${fromPort}`),
        );
        return Promise.resolve(before - this.flows.length);
      },
    },
  });
  readonly #running = this.reconciler.run(this.#stop.signal);

  async settle(): Promise<void> {
    for (let turn = 0; turn < 10; turn += 1) await nextTurn();
  }
  async stop(): Promise<void> {
    this.#stop.abort();
    await assert.rejects(this.#running, { name: "AbortError" });
  }
}

const lost = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ ip: `10.244.1.${index + 1}`, port: 53 }));

describe("UDP flows that a change made wrong", () => {
  it("are deleted without a listing: to what is gone, and those that nobody translated", async () => {
    const bench = new Bench();
    bench.reconciler.touched("IPv4", [{ ip: "172.30.0.1", port: 53, lost: lost(1), fresh: true }]);
    await bench.settle();
    assert.deepEqual(bench.deleted, ["172.30.0.1:53 172.30.0.1:53", "172.30.0.1:53 10.244.1.1:53"]);
    assert.equal(bench.listings, 0);
    await bench.stop();
  });

  it("to a node port are those to the node's own addresses, and no stranger's", async () => {
    const bench = new Bench();
    for (const ip of ["192.0.2.1", "192.0.2.2"]) bench.right.add(ip);
    bench.reconciler.touched("IPv4", [{ ip: "", port: 30_053, lost: lost(1), fresh: true }]);
    await bench.settle();
    assert.deepEqual(bench.deleted, [
      "192.0.2.1:30053 10.244.1.1:53",
      "192.0.2.2:30053 10.244.1.1:53",
    ]);
    await bench.stop();
  });

  it("are not those to a backend that came back", async () => {
    const bench = new Bench();
    bench.right.add("10.244.1.1").add("172.30.0.1");
    bench.reconciler.touched("IPv4", [{ ip: "172.30.0.1", port: 53, lost: lost(2), fresh: true }]);
    await bench.settle();
    assert.deepEqual(bench.deleted, ["172.30.0.1:53 10.244.1.2:53"]);
    await bench.stop();
  });

  it("of a large change are found by one listing, each kind is deleted once", async () => {
    const bench = new Bench();
    const flow = { destination: "172.30.0.1", port: 53, from: "10.244.1.7", fromPort: 53 };
    bench.flows = [
      ...Array.from({ length: 1000 }, () => flow),
      { ...flow, destination: "198.51.100.1" },
    ];
    bench.reconciler.touched("IPv4", [
      { ip: "172.30.0.1", port: 53, lost: lost(200), fresh: true },
    ]);
    await bench.settle();
    assert.equal(bench.listings, 1);
    assert.deepEqual(bench.deleted, ["172.30.0.1:53 10.244.1.7:53"]);
    assert.equal(bench.flows.length, 1);
    await bench.stop();
  });

  it("are many kinds: a pass holds five hundred, and passes follow until none is left", async () => {
    const bench = new Bench();
    bench.flows = Array.from({ length: 1200 }, (_, index) => ({
      destination: `172.30.${index >> 8}.${index & 255}`,
      port: 53,
      from: "10.244.1.1",
      fromPort: 53,
    }));
    bench.reconciler.request("IPv4");
    await bench.settle();
    assert.equal(bench.flows.length, 0);
    assert.equal(bench.listings, 3);
    await bench.stop();
  });

  it("are those to an address that node ports have left, and to no other", async () => {
    const bench = new Bench();
    bench.right.add("10.244.1.1");
    bench.flows = ["192.0.2.1", "192.0.2.2"].map((destination) => ({
      destination,
      port: 30_053,
      from: "10.244.1.1",
      fromPort: 53,
    }));
    bench.reconciler.compareAddresses("IPv4");
    await bench.settle();
    assert.equal(bench.listings, 0, "nothing was known before");
    bench.nodePortIPs = ["192.0.2.2", "192.0.2.3"];
    bench.reconciler.compareAddresses("IPv4");
    await bench.settle();
    bench.reconciler.compareAddresses("IPv4");
    await bench.settle();
    assert.deepEqual([bench.listings, bench.deleted], [1, ["192.0.2.1:30053 undefined:undefined"]]);
    bench.nodePortIPs = ["192.0.2.2", "192.0.2.3", "fe80::1"];
    bench.reconciler.compareAddresses("IPv4");
    bench.nodePortIPs = ["192.0.2.2", "192.0.2.3"];
    bench.reconciler.compareAddresses("IPv4");
    await bench.settle();
    assert.equal(bench.listings, 1, "link-local addresses are no reason");
    await bench.stop();
  });

  it("stay without the tool, which is told once, with the remedy", async () => {
    const bench = new Bench();
    bench.hasTool = false;
    bench.reconciler.touched("IPv4", [{ ip: "172.30.0.1", port: 53, lost: lost(1), fresh: true }]);
    bench.reconciler.request("IPv4");
    await bench.settle();
    bench.reconciler.request("IPv4");
    await bench.settle();
    assert.deepEqual(bench.events, [`ConntrackMissing: ${missingTool}`]);
    await bench.stop();
  });
});

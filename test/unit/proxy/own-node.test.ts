import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Change, Informer } from "../../../src/api/informer-types.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type NodeCondition, parseNode } from "../../../src/proxy/node-condition.ts";
import { OwnNode } from "../../../src/proxy/own-node.ts";

describe("what the proxy keeps of its Node", () => {
  const node = (spec: unknown, metadata: unknown = {}): NodeCondition =>
    parseNode({ metadata, spec });

  it("are its zone and its networks of pods", () => {
    const labels = { "topology.kubernetes.io/zone": "a" };
    assert.deepEqual(node({ podCIDRs: ["10.244.1.0/24", "fd00:244:1::/64"] }, { labels }), {
      zone: "a",
      eligible: true,
      podCIDRs: ["10.244.1.0/24", "fd00:244:1::/64"],
    });
  });
  it("is the older field where there is no other, and nothing that is no network", () => {
    assert.deepEqual(node({ podCIDR: "10.244.1.0/24" }).podCIDRs, ["10.244.1.0/24"]);
    assert.deepEqual(node({ podCIDRs: ["x; flush ruleset", 7] }).podCIDRs, []);
    assert.deepEqual(node(undefined).podCIDRs, []);
  });
  it("is that it should get no traffic of load balancers, when it is deleted or drained away", () => {
    assert.equal(node({}, { deletionTimestamp: "2026-01-01T00:00:00Z" }).eligible, false);
    const taints = [{ key: "ToBeDeletedByClusterAutoscaler", effect: "NoSchedule" }];
    assert.equal(node({ taints }).eligible, false);
  });
});

/** A Node that is put there by the test. */
class TestInformer implements Informer<NodeCondition> {
  readonly synced = true;
  #object: NodeCondition | undefined;
  readonly #listeners = new Set<(change: Change<NodeCondition>) => void>();

  get size(): number {
    return this.#object === undefined ? 0 : 1;
  }
  get(): NodeCondition | undefined {
    return this.#object;
  }
  *values(): Generator<NodeCondition, void, undefined> {
    if (this.#object !== undefined) yield this.#object;
  }
  put(object: NodeCondition): void {
    this.#object = object;
    for (const tell of this.#listeners) tell({ kind: "added", key: "here", object });
  }
  subscribe(listener: (change: Change<NodeCondition>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  whenSynced(): Promise<void> {
    return Promise.resolve();
  }
  run(): Promise<void> {
    return Promise.resolve();
  }
}

describe("networks of pods", () => {
  it("stay known when the Node is gone or made anew, until it has others", () => {
    const informer = new TestInformer();
    const node = new OwnNode(informer, "here", silentLogger);
    const base = { zone: "", eligible: true };
    assert.deepEqual(node.podCIDRs, []);
    informer.put({ ...base, podCIDRs: ["10.244.1.0/24"] });
    assert.deepEqual(node.podCIDRs, ["10.244.1.0/24"]);
    informer.put({ ...base, podCIDRs: [] });
    assert.deepEqual(node.podCIDRs, ["10.244.1.0/24"]);
    informer.put({ ...base, podCIDRs: ["10.244.2.0/24"] });
    assert.deepEqual(node.podCIDRs, ["10.244.2.0/24"]);
  });
});

describe("the wait for networks of pods", () => {
  it("ends when the cluster has given some", async () => {
    const informer = new TestInformer();
    const node = new OwnNode(informer, "here", silentLogger);
    const waiting = node.whenPodCIDRsKnown(new AbortController().signal);
    const base = { zone: "", eligible: true };
    informer.put({ ...base, podCIDRs: [] });
    informer.put({ ...base, podCIDRs: ["10.244.1.0/24"] });
    await waiting;
    assert.deepEqual(node.podCIDRs, ["10.244.1.0/24"]);
  });
  it("ends with the proxy", async () => {
    const stop = new AbortController();
    const waiting = new OwnNode(new TestInformer(), "here", silentLogger).whenPodCIDRsKnown(
      stop.signal,
    );
    stop.abort();
    await assert.rejects(waiting, { name: "AbortError" });
  });
});

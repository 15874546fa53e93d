import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ClusterCache } from "../../../src/controlplane/scheduler/cluster-cache.ts";
import type { ClusterEvent } from "../../../src/controlplane/scheduler/cluster-events.ts";
import { nodeEvents, podEvents } from "../../../src/controlplane/scheduler/cluster-events.ts";
import { Heap } from "../../../src/controlplane/scheduler/heap.ts";
import { podInfo } from "../../../src/controlplane/scheduler/pod-info.ts";
import { SchedulingQueue } from "../../../src/controlplane/scheduler/scheduling-queue.ts";
import { ManualClock, node, pod } from "../controlplane-controllers/builders.ts";
import { asking } from "./world.ts";

const onDeletion: ReadonlySet<ClusterEvent> = new Set(["pod-left"]);

async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

/** A queue, and what it hands out. */
function start(): {
  readonly clock: ManualClock;
  readonly queue: SchedulingQueue;
  readonly got: string[];
  readonly abort: AbortController;
  /** Asks for one more pod. */
  readonly take: () => Promise<void>;
} {
  const clock = new ManualClock();
  const queue = new SchedulingQueue(clock);
  const abort = new AbortController();
  const got: string[] = [];
  return {
    clock,
    queue,
    got,
    abort,
    take: async () => {
      const next = async (): Promise<void> => {
        const key = await queue.next(abort.signal);
        if (key !== undefined) got.push(key);
      };
      void next();
      await settle();
    },
  };
}

describe("scheduling queue", () => {
  test("higher priority first, then first come first served", async () => {
    const { queue, got, take } = start();
    queue.add("a", 0);
    queue.add("b", 100);
    queue.add("c", 0);
    for (const _ of "abc") await take();
    assert.deepEqual(got, ["b", "a", "c"]);
  });

  test("an unschedulable pod waits for an event that may help it", async () => {
    const { clock, queue, got, take, abort } = start();
    queue.add("a", 0);
    await take();
    queue.unschedulable("a", onDeletion);
    await take();
    queue.happened(["node-labels", "pod-assigned"]);
    clock.advance(60_000);
    await settle();
    assert.deepEqual(got, ["a"]);
    queue.happened(["pod-left"]);
    await settle();
    assert.deepEqual(got, ["a", "a"]);
    abort.abort();
  });

  test("a node that is new may help any pod, and so may anything when no rule is known to object", async () => {
    const { queue, got, take } = start();
    queue.add("a", 0);
    queue.add("b", 0);
    await take();
    await take();
    queue.unschedulable("a", onDeletion);
    queue.unschedulable("b", new Set());
    queue.happened(["namespace-labels"]);
    await take();
    queue.happened(["node-added"]);
    await take();
    assert.deepEqual(got, ["a", "b", "b", "a"]);
  });

  test("what happens during an attempt is not missed", async () => {
    const { queue, got, take, abort } = start();
    queue.add("a", 0);
    await take();
    queue.happened(["pod-left"]);
    queue.unschedulable("a", onDeletion);
    await take();
    assert.deepEqual(got, ["a", "a"]);
    // Once only.
    queue.unschedulable("a", onDeletion);
    await take();
    assert.deepEqual(got, ["a", "a"]);
    abort.abort();
  });

  test("a pod in back-off goes behind those that are not, whatever its priority", async () => {
    const { clock, queue, got, take } = start();
    queue.add("tried", 100);
    await take();
    queue.unschedulable("tried", onDeletion);
    queue.happened(["pod-left"]);
    queue.add("new", 0);
    await take();
    await take();
    assert.deepEqual(got, ["tried", "new", "tried"]);
    queue.unschedulable("tried", onDeletion);
    queue.happened(["pod-left"]);
    queue.add("newer", 0);
    clock.advance(2000);
    await take();
    assert.equal(got.at(-1), "tried");
  });

  test("after an error the back-off holds, 1 s doubling to 10 s", async () => {
    const { clock, queue, got, take, abort } = start();
    queue.add("a", 0);
    await take();
    for (const [index, backoffMs] of [1000, 2000, 4000, 8000, 10_000, 10_000].entries()) {
      queue.retry("a");
      await take();
      queue.happened(["node-added"]);
      clock.advance(backoffMs - 1);
      await settle();
      assert.equal(got.length, index + 1, `still in back-off before ${backoffMs}`);
      clock.advance(1);
      await settle();
      assert.equal(got.length, index + 2);
    }
    abort.abort();
  });

  test("without any event a pod is tried again after five minutes", async () => {
    const { clock, queue, got, take } = start();
    queue.add("a", 0);
    await take();
    queue.unschedulable("a", onDeletion);
    await take();
    clock.advance(5 * 60_000 - 1);
    await settle();
    assert.equal(got.length, 1);
    clock.advance(1);
    await settle();
    assert.equal(got.length, 2);
  });

  test("a pod that is added again during its attempt is tried again", async () => {
    const { queue, got, take } = start();
    queue.add("a", 0);
    await take();
    queue.add("a", 5);
    queue.unschedulable("a", onDeletion);
    await take();
    assert.deepEqual(got, ["a", "a"]);
  });

  test("ends on abort and forgets removed pods", async () => {
    const { queue, got, take, abort } = start();
    queue.add("a", 0);
    queue.remove("a");
    queue.unschedulable("a", onDeletion);
    await take();
    abort.abort();
    await settle();
    assert.deepEqual(got, []);
    assert.equal(queue.has("a"), false);
  });
});

describe("heap", () => {
  test("gives everything in order, also after a purge", () => {
    const heap = new Heap<number>((a, b) => a < b);
    const numbers = Array.from({ length: 100 }, (_, index) => (index * 37) % 101);
    for (const each of numbers) heap.push(each);
    heap.retain((each) => each % 2 === 0);
    const out: number[] = [];
    for (let next = heap.pop(); next !== undefined; next = heap.pop()) out.push(next);
    assert.deepEqual(
      out,
      numbers.filter((each) => each % 2 === 0).toSorted((a, b) => a - b),
    );
    assert.equal(heap.size, 0);
  });
});

describe("cluster events", () => {
  test("heartbeats are none", () => {
    const before = node();
    const beat = { ...before, status: { ...before.status, conditions: [] } };
    assert.deepEqual(nodeEvents(beat, before), []);
  });

  test("a node's labels, taints, cordon and capacity each are one", () => {
    const before = node();
    assert.deepEqual(nodeEvents(node({ labels: { a: "b" } }), before), ["node-labels"]);
    assert.deepEqual(nodeEvents(node({ spec: { unschedulable: true } }), before), ["node-taints"]);
    assert.deepEqual(
      nodeEvents(node({ spec: { taints: [{ key: "k", effect: "NoSchedule" }] } }), before),
      ["node-taints"],
    );
    assert.deepEqual(nodeEvents(node({ allocatable: { cpu: "8" } }), before), ["node-allocatable"]);
  });

  test("a pod arrives, shrinks, is relabelled, leaves", () => {
    const waiting = asking({ cpu: "2" }, { name: "p" });
    const there = asking({ cpu: "2" }, { name: "p", spec: { nodeName: "n1" } });
    const smaller = asking({ cpu: "1" }, { name: "p", spec: { nodeName: "n1" } });
    assert.deepEqual(podEvents(there, waiting), ["pod-assigned"]);
    assert.deepEqual(podEvents(there, there), []);
    assert.deepEqual(podEvents(smaller, there), ["pod-shrunk"]);
    assert.deepEqual(podEvents(there, smaller), []);
    const relabelled = { ...there, metadata: { ...there.metadata, labels: { app: "x" } } };
    assert.deepEqual(podEvents(relabelled, there), ["pod-labels"]);
    const leaving = { ...there, metadata: { ...there.metadata, deletionTimestamp: "x" } };
    assert.deepEqual(podEvents(leaving, there), ["pod-terminating"]);
    const done = { ...there, status: { phase: "Failed" as const } };
    assert.deepEqual(podEvents(done, there), ["pod-left"]);
    assert.deepEqual(podEvents(done, done), []);
    assert.deepEqual(podEvents(done, undefined), []);
  });
});

describe("assumed pods", () => {
  const used = (cache: ClusterCache): number | undefined => cache.nodes()[0]?.requested.get("cpu");

  test("hold their room until the API shows them or the binding fails", () => {
    const cache = new ClusterCache();
    cache.setNode(node());
    const waiting = asking({ cpu: "3" });
    cache.setPod(waiting);
    cache.assume(podInfo(waiting), "n1");
    assert.equal(used(cache), 3000);
    // An older event of the same pod must not take the room away.
    cache.setPod(waiting);
    assert.equal(used(cache), 3000);
    cache.forget(waiting);
    assert.equal(used(cache), undefined);
  });

  test("a successor of the same name is not assumed", () => {
    const cache = new ClusterCache();
    cache.setNode(node());
    const waiting = asking({ cpu: "3" }, { name: "p" });
    cache.assume(podInfo(waiting), "n1");
    cache.setPod(pod({ name: "p", uid: "another" }));
    assert.equal(used(cache), undefined);
  });

  test("expire when the API does not show them long after the binding, never before it", () => {
    const cache = new ClusterCache();
    cache.setNode(node());
    const waiting = asking({ cpu: "3" });
    cache.assume(podInfo(waiting), "n1");
    assert.deepEqual(cache.expire(10 ** 9), []);
    cache.bound(waiting, 1000);
    assert.deepEqual(cache.expire(1000 + 15 * 60_000 - 1), []);
    assert.equal(used(cache), 3000);
    assert.equal(cache.expire(1000 + 15 * 60_000).length, 1);
    assert.equal(used(cache), undefined);
  });

  test("that the API shows on a node are ordinary pods", () => {
    const cache = new ClusterCache();
    cache.setNode(node());
    const bound = asking({ cpu: "3" }, { name: "p", spec: { nodeName: "n1" } });
    cache.assume(podInfo(asking({ cpu: "3" }, { name: "p" })), "n1");
    cache.setPod(bound);
    assert.equal(cache.isAssumed(bound), false);
    assert.equal(used(cache), 3000);
    cache.removePod("default/p");
    assert.equal(used(cache), undefined);
  });
});

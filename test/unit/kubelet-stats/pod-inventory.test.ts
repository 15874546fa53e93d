import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { PodInventory } from "../../../src/kubelet/stats/pod-inventory.ts";
import type { ContainerRecord, ContainerState, PodRecord } from "../../../src/runtime/types.ts";
import { container, podRecord } from "../../component/kubelet-stats/fixture.ts";

const running: ContainerState = { kind: "running", createdAt: 1, startedAt: 2, pid: 3 };

function exited(finishedAt: number, startedAt = 2): ContainerState {
  return {
    kind: "exited",
    createdAt: 1,
    startedAt,
    finishedAt,
    exitCode: 1,
    oomKilled: false,
    error: "",
  };
}

function holding(...states: readonly ContainerState[]): PodRecord {
  const containers = states.map((state, index) => container(3, { id: `c${index}`, state }));
  return podRecord(2, { containers });
}

const nothing: PodRecord = podRecord(2, { sandboxes: [], containers: [] });

describe("what was last seen of the runtime", () => {
  test("a pod of which nothing is left is dropped", () => {
    const inventory = new PodInventory();
    inventory.takeOne(holding(running), inventory.begin());
    assert.equal(inventory.records().length, 1);
    inventory.takeOne(nothing, inventory.begin());
    assert.deepEqual(inventory.records(), []);
  });

  test("a list drops what it does not show, unless that was seen after the list began", () => {
    const inventory = new PodInventory();
    inventory.takeOne(holding(running), inventory.begin());
    const slow = inventory.begin();
    inventory.takeOne({ ...holding(running), uid: "new" }, inventory.begin());
    inventory.takeAll(new Map(), slow);
    assert.deepEqual(
      inventory.records().map(({ uid }) => uid),
      ["new"],
    );
  });

  test("an answer that was overtaken by a later look changes nothing", () => {
    const inventory = new PodInventory();
    const slow = inventory.begin();
    inventory.takeOne(holding(exited(9)), inventory.begin());
    inventory.takeOne(holding(running), slow);
    assert.equal(inventory.records()[0]?.containers[0]?.state.kind, "exited");
  });

  test("what the agent stops and removes itself is dropped at once, also by a look under way", () => {
    const inventory = new PodInventory();
    inventory.takeOne(holding(running, exited(5)), inventory.begin());
    const slow = inventory.begin();
    inventory.dropContainer("c1");
    assert.deepEqual(
      inventory.records()[0]?.containers.map(({ id }) => id),
      ["c0"],
    );
    inventory.dropContainer("c0");
    inventory.dropSandbox("b".repeat(64));
    assert.deepEqual(inventory.records(), []);
    inventory.takeOne(holding(running), inventory.begin());
    inventory.dropSandbox("b".repeat(64));
    inventory.takeOne(holding(running), slow);
    assert.deepEqual(inventory.records()[0]?.sandboxes, []);
  });

  test("each end is told once; those from before, and of what never ran, are not", () => {
    const ends: ContainerRecord[] = [];
    const inventory = new PodInventory((ended) => ends.push(ended));
    const take = (...states: readonly ContainerState[]): void =>
      inventory.takeOne(holding(...states), inventory.begin());
    take(exited(1), running);
    assert.equal(ends.length, 0);
    take(exited(1), exited(5));
    take(exited(1), exited(5));
    assert.deepEqual(
      ends.map(({ id }) => id),
      ["c1"],
    );
    // Somebody started it again, and it ended again between two looks.
    take(exited(1), exited(7));
    assert.equal(ends.length, 2);
    // Made, and refused to start.
    take(exited(1), exited(7), exited(8, 0));
    assert.equal(ends.length, 2);
  });
});

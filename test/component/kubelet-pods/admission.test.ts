import assert from "node:assert/strict";
import { test } from "node:test";

import { NODES, PODS } from "../../../src/api/resources.ts";
import type { Node, Pod } from "../../../src/api/types.gen.ts";
import { makeWorld, nodeName, podManifest, type World } from "./fixture.ts";

function put(world: World, name: string, memory: string, spec: Partial<Pod["spec"]> = {}): void {
  world.api.put<Pod>(
    PODS,
    podManifest(name, {
      containers: [
        {
          name: "web",
          image: "app:1",
          imagePullPolicy: "IfNotPresent",
          resources: { requests: { memory } },
        },
      ],
      ...spec,
    }),
  );
}

function isReady(world: World, name: string): boolean {
  return world.pod(name)?.status?.containerStatuses?.[0]?.ready === true;
}

test("a critical pod is admitted when those that make room for it are gone, and says why", async () => {
  const world = await makeWorld();
  try {
    world.start();
    put(world, "small", "1Gi");
    put(world, "large", "6Gi");
    await world.until("both run", () => isReady(world, "small") && isReady(world, "large"));
    put(world, "critical", "5Gi", { priority: 2_000_001_000 });
    await world.until("the critical pod runs", () => isReady(world, "critical"));
    const { status } = world.pod("large") ?? {};
    assert.equal(status?.phase, "Failed");
    assert.equal(status?.reason, "Preempting");
    assert.equal(status?.message, "Preempted in order to admit critical pod");
    const condition = status?.conditions?.find(({ type }) => type === "DisruptionTarget");
    assert.equal(condition?.status, "True");
    assert.equal(condition?.reason, "TerminationByKubelet");
    assert.equal(condition?.message, "Pod was preempted by Kubelet to accommodate a critical pod.");
    assert(isReady(world, "small"), "the other one was not in the way");
    const event = world.events.find(({ reason }) => reason === "Preempting");
    assert.equal(event?.type, "Warning");
    assert.equal(event?.target.name, "large");
    const calls = world.runtime.calls.join("\n");
    const stopped = calls.indexOf("stopContainer");
    assert(stopped >= 0 && stopped < calls.lastIndexOf("runPodSandbox"), calls);
  } finally {
    await world.close();
  }
});

test("a critical pod that no set of pods can make room for is refused, and nobody has to go", async () => {
  const world = await makeWorld();
  try {
    world.start();
    put(world, "small", "1Gi");
    await world.until("it runs", () => isReady(world, "small"));
    put(world, "critical", "9Gi", { priority: 2_000_001_000 });
    const { status } = await world.until("it is refused", () => {
      const pod = world.pod("critical");
      return pod?.status?.phase === "Failed" ? pod : undefined;
    });
    assert.equal(status?.reason, "UnexpectedAdmissionError");
    assert.match(
      status?.message ?? "",
      /^Pod was rejected: Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: \[\(res: memory, q: 1073741824\), \]$/,
    );
    assert(isReady(world, "small"));
  } finally {
    await world.close();
  }
});

test("a label that the watch has not brought yet is looked for at the server", async () => {
  const world = await makeWorld();
  try {
    // The node's half keeps telling what it saw at the start.
    const node = world.api.get<Node>(NODES, nodeName);
    assert(node !== undefined);
    world.api.put<Node>(NODES, {
      ...node,
      metadata: { ...node.metadata, labels: { ...node.metadata.labels, disk: "ssd" } },
    });
    world.start();
    put(world, "fast", "1Gi", { nodeSelector: { disk: "ssd" } });
    put(world, "other", "1Gi", { nodeSelector: { disk: "tape" } });
    await world.until("it runs", () => isReady(world, "fast"));
    const refused = await world.until("the other is refused", () => {
      const pod = world.pod("other");
      return pod?.status?.phase === "Failed" ? pod : undefined;
    });
    assert.equal(refused.status?.reason, "NodeAffinity");
    assert.equal(
      refused.status?.message,
      "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
    );
  } finally {
    await world.close();
  }
});

test("what runs is never refused after a restart, and counts", async () => {
  const world = await makeWorld();
  try {
    const first = world.start();
    put(world, "large", "6Gi");
    await world.until("it runs", () => isReady(world, "large"));
    await first.stop();
    const pod = world.pod("large");
    assert(pod?.spec !== undefined);
    // It would not be admitted today.
    world.api.put<Pod>(PODS, { ...pod, spec: { ...pod.spec, nodeSelector: { disk: "tape" } } });
    put(world, "late", "4Gi");
    world.start();
    const refused = await world.until("the new one is refused", () => {
      const late = world.pod("late");
      return late?.status?.phase === "Failed" ? late : undefined;
    });
    assert.equal(refused.status?.reason, "OutOfmemory");
    assert.equal(
      refused.status?.message,
      `Pod was rejected: Node didn't have enough resource: memory, requested: ${4 * 2 ** 30}, used: ${6 * 2 ** 30}, capacity: ${8 * 2 ** 30}`,
    );
    assert(isReady(world, "large"));
  } finally {
    await world.close();
  }
});

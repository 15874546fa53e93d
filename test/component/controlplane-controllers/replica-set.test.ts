import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import { controllerOf } from "../../../src/api/object.ts";
import { createObject, getObject, listObjects, patchObject } from "../../../src/api/objects.ts";
import { PODS, REPLICA_SETS } from "../../../src/api/resources.ts";
import type { Pod, ReplicaSet, ReplicaSetSpec } from "../../../src/api/types.gen.ts";
import type { PlayedKubelet } from "./played-kubelet.ts";
import { playKubelet } from "./played-kubelet.ts";
import type { World } from "./world.ts";
import { eventually, postReady, registerNode, startWorld } from "./world.ts";

const namespace = "default";

describe("ReplicaSets against the real API server", () => {
  let world: World;
  let kubelet: PlayedKubelet;

  before(async () => {
    world = await startWorld();
    await registerNode(world, "n1");
    await registerNode(world, "n2");
    kubelet = playKubelet(world);
  });

  after(async () => {
    await kubelet.stop();
    await world.close();
  });

  async function make(
    name: string,
    replicas: number,
    more: Partial<ReplicaSetSpec> = {},
  ): Promise<Stored<ReplicaSet>> {
    const object: ReplicaSet = {
      metadata: { namespace, name },
      spec: {
        replicas,
        selector: { matchLabels: { app: name } },
        template: {
          metadata: { labels: { app: name, tier: "back" } },
          spec: { containers: [{ name: "c", image: "i" }] },
        },
        ...more,
      },
    };
    return createObject(world.client, REPLICA_SETS, object, { signal: world.signal });
  }

  async function find(name: string): Promise<Stored<ReplicaSet>> {
    const { client, signal } = world;
    return getObject(client, REPLICA_SETS, { namespace, name }, { signal });
  }

  async function podsOf(app: string): Promise<readonly Stored<Pod>[]> {
    const { client, signal } = world;
    const labelSelector = `app=${app}`;
    return (await listObjects(client, PODS, { namespace, labelSelector, signal })).items;
  }

  async function available(name: string, count: number): Promise<Stored<ReplicaSet>> {
    return eventually(`${count} available of ${name}`, async () => {
      const found = await find(name);
      const { status } = found;
      const counts = [status?.replicas, status?.readyReplicas, status?.availableReplicas];
      return counts.every((each) => (each ?? 0) === count) ? found : undefined;
    });
  }

  function ending(pods: readonly Stored<Pod>[]): readonly Stored<Pod>[] {
    return pods.filter(({ metadata }) => metadata.deletionTimestamp !== undefined);
  }

  test("keeps its number and reports what is on its way out", async () => {
    await make("plain", 3);
    const { status } = await available("plain", 3);
    assert.deepEqual(
      [status?.fullyLabeledReplicas, status?.terminatingReplicas, status?.observedGeneration],
      [3, 0, 1],
    );
    kubelet.holdEnding = true;
    const { client, signal } = world;
    const at = { namespace, name: "plain", patch: { spec: { replicas: 1 } } };
    await patchObject(client, REPLICA_SETS, at, { signal });
    await eventually("two ending", async () => {
      const found = (await find("plain")).status;
      return found?.replicas === 1 && found.terminatingReplicas === 2 ? true : undefined;
    });
    kubelet.release();
    await eventually("none ending", async () =>
      (await find("plain")).status?.terminatingReplicas === 0 ? true : undefined,
    );
    assert.equal((await podsOf("plain")).length, 1);
  });

  test("adopts what it selects, lets go what it no longer selects, and makes up for it", async () => {
    const { client, signal } = world;
    const alone: Pod = {
      metadata: { namespace, name: "alone", labels: { app: "kin" } },
      spec: { containers: [{ name: "c", image: "i" }] },
    };
    await createObject(client, PODS, alone, { signal });
    const replicaSet = await make("kin", 2);
    const { status } = await available("kin", 2);
    // The adopted one lacks a label of the template.
    assert.equal(status?.fullyLabeledReplicas, 1);
    const adopted = (await podsOf("kin")).find(({ metadata }) => metadata.name === "alone");
    assert.equal(controllerOf(adopted?.metadata ?? {})?.uid, replicaSet.metadata.uid);
    const at = { namespace, name: "alone", patch: { metadata: { labels: { app: "stray" } } } };
    await patchObject(client, PODS, at, { signal });
    const [stray] = await eventually("the release", async () => {
      const pods = await podsOf("stray");
      return pods[0]?.metadata.ownerReferences === undefined ? pods : undefined;
    });
    assert.equal(stray?.metadata.name, "alone");
    await available("kin", 2);
    assert.equal((await podsOf("kin")).length, 2);
  });

  test("counts a pod as available only after minReadySeconds, without being told", async () => {
    await make("slow", 1, { minReadySeconds: 20 });
    await eventually("readiness", async () =>
      (await find("slow")).status?.readyReplicas === 1 ? true : undefined,
    );
    assert.equal((await find("slow")).status?.availableReplicas ?? 0, 0);
    world.clock.leap(21_000);
    for (const node of ["n1", "n2"]) await postReady(world, node);
    await available("slow", 1);
  });

  test("a failure to create is a condition until creation works", async () => {
    const { client, signal } = world;
    await make("refused", 2, {
      template: {
        metadata: { labels: { app: "refused" } },
        spec: { serviceAccountName: "nobody", containers: [{ name: "c", image: "i" }] },
      },
    });
    const failed = await eventually("the failure", async () =>
      (await find("refused")).status?.conditions?.find(({ type }) => type === "ReplicaFailure"),
    );
    assert.equal(failed.reason, "FailedCreate");
    assert.match(failed.message ?? "", /serviceaccount "nobody" not found/);
    const patch = { spec: { template: { spec: { serviceAccountName: "default" } } } };
    await patchObject(client, REPLICA_SETS, { namespace, name: "refused", patch }, { signal });
    const { status } = await available("refused", 2);
    assert.deepEqual(status?.conditions ?? [], []);
  });

  test("replaces the pods of a lost node, and the number is exact when it comes back", async () => {
    const before = await make("spread", 4);
    await available("spread", 4);
    const lost = (await podsOf("spread")).filter(({ spec }) => spec?.nodeName === "n2");
    assert.ok(lost.length > 0);
    // The lost node's kubelet ends nothing.
    kubelet.holdEnding = true;
    await eventually("its pods evicted", async () => {
      world.clock.leap(20_000);
      await postReady(world, "n1");
      return ending(await podsOf("spread")).length === lost.length ? true : undefined;
    });
    const { status } = await eventually("replacements elsewhere", async () => {
      const found = await find("spread");
      const pods = (await podsOf("spread")).filter(({ spec }) => spec?.nodeName === "n1");
      return pods.length === 4 && found.status?.availableReplicas === 4 ? found : undefined;
    });
    assert.deepEqual([status?.replicas, status?.terminatingReplicas], [4, lost.length]);
    await postReady(world, "n2");
    kubelet.release();
    const left = await eventually("the lost pods gone", async () => {
      const pods = await podsOf("spread");
      return ending(pods).length === 0 ? pods : undefined;
    });
    assert.equal(left.length, 4);
    for (const { metadata } of left) assert.equal(controllerOf(metadata)?.uid, before.metadata.uid);
    await available("spread", 4);
  });
});

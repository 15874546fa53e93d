import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { ApiError } from "../../../src/api/errors.ts";
import type { Stored } from "../../../src/api/object.ts";
import { createObject, deleteObject, getObject, listObjects } from "../../../src/api/objects.ts";
import {
  POD_DISRUPTION_BUDGETS,
  PODS,
  REPLICATION_CONTROLLERS,
} from "../../../src/api/resources.ts";
import type { Pod, PodDisruptionBudgetStatus } from "../../../src/api/types.gen.ts";
import { podCondition } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import type { World } from "../controlplane-controllers/world.ts";
import {
  eventually,
  postRunning,
  registerNode,
  startWorld,
} from "../controlplane-controllers/world.ts";

const namespace = "default";

describe("disruption budgets", () => {
  let world: World;
  let pods: readonly Stored<Pod>[] = [];
  before(async () => {
    world = await startWorld();
    await registerNode(world, "n1");
    const template = {
      metadata: { labels: { app: "web" } },
      spec: { automountServiceAccountToken: false, containers: [{ name: "c", image: "i" }] },
    };
    await createObject(
      world.client,
      REPLICATION_CONTROLLERS,
      {
        metadata: { namespace, name: "web" },
        spec: { replicas: 3, selector: { app: "web" }, template },
      },
      { signal: world.signal },
    );
    pods = await eventually("three pods with nodes", async () => {
      const { items } = await listObjects(world.client, PODS, { namespace, signal: world.signal });
      const placed = items.filter(({ spec }) => (spec?.nodeName ?? "") !== "");
      return placed.length === 3 ? placed : undefined;
    });
    for (const [index, each] of pods.entries())
      await postRunning(world, each, `10.244.0.${index + 9}`);
  });
  after(() => world.close());

  const status = async (): Promise<PodDisruptionBudgetStatus | undefined> =>
    (
      await getObject(
        world.client,
        POD_DISRUPTION_BUDGETS,
        { namespace, name: "web" },
        { signal: world.signal },
      )
    ).status;

  const allows = (count: number, healthy: number): Promise<PodDisruptionBudgetStatus> =>
    eventually(`${count} disruptions of ${healthy} healthy pods`, async () => {
      const found = await status();
      return found?.disruptionsAllowed === count && found.currentHealthy === healthy
        ? found
        : undefined;
    });

  async function evict(name: string, options: Record<string, unknown> = {}): Promise<void> {
    await world.client.request({
      method: "POST",
      path: `/api/v1/namespaces/${namespace}/pods/${name}/eviction`,
      body: {
        apiVersion: "policy/v1",
        kind: "Eviction",
        metadata: { namespace, name },
        deleteOptions: options,
      },
      signal: world.signal,
    });
  }

  const nameAt = (index: number): string => pods[index]?.metadata.name ?? "";
  const get = (index: number): Promise<Stored<Pod>> =>
    getObject(world.client, PODS, { namespace, name: nameAt(index) }, { signal: world.signal });

  test("count what is healthy", async () => {
    await createObject(
      world.client,
      POD_DISRUPTION_BUDGETS,
      {
        metadata: { namespace, name: "web" },
        spec: { maxUnavailable: 1, selector: { matchLabels: { app: "web" } } },
      },
      { signal: world.signal },
    );
    const found = await allows(1, 3);
    assert.deepEqual([found.expectedPods, found.desiredHealthy], [3, 2]);
    assert.equal(found.conditions?.[0]?.reason, "SufficientPods");
  });

  test("a dry run takes nothing", async () => {
    await evict(nameAt(0), { dryRun: ["All"] });
    assert.equal((await status())?.disruptionsAllowed, 1);
    assert.equal((await get(0)).metadata.deletionTimestamp, undefined);
  });

  test("an eviction of another incarnation takes nothing", async () => {
    await assert.rejects(evict(nameAt(0), { preconditions: { uid: "another" } }), (error) => {
      assert.ok(error instanceof ApiError);
      assert.equal(error.status, 409);
      return true;
    });
    assert.equal((await status())?.disruptionsAllowed, 1);
  });

  test("let the first eviction through and refuse the second", async () => {
    await evict(nameAt(0));
    const evicted = await get(0);
    assert.notEqual(evicted.metadata.deletionTimestamp, undefined);
    const condition = podCondition(evicted, "DisruptionTarget");
    assert.deepEqual(
      [condition?.status, condition?.reason, condition?.message],
      ["True", "EvictionByEvictionAPI", "Eviction API: evicting"],
    );
    await assert.rejects(evict(nameAt(1)), (error) => {
      assert.ok(error instanceof ApiError);
      assert.deepEqual(
        [error.status, error.reason, error.message],
        [
          429,
          "TooManyRequests",
          "Cannot evict pod as it would violate the pod's disruption budget.",
        ],
      );
      return true;
    });
    assert.equal((await get(1)).metadata.deletionTimestamp, undefined);
    await allows(0, 2);
  });

  test("allow again when the replacement is ready", async () => {
    const replacement = await eventually("a replacement with a node", async () => {
      const { items } = await listObjects(world.client, PODS, { namespace, signal: world.signal });
      const known = new Set(pods.map(({ metadata }) => metadata.uid));
      return items.find(
        ({ metadata, spec }) => !known.has(metadata.uid) && (spec?.nodeName ?? "") !== "",
      );
    });
    // It is not running yet, so its loss would disrupt nobody.
    await evict(replacement.metadata.name, { dryRun: ["All"] });
    await postRunning(world, replacement, "10.244.0.99");
    await allows(1, 3);
  });

  test("two that speak of one pod are one too many", async () => {
    const at = { namespace, name: "second" };
    await createObject(
      world.client,
      POD_DISRUPTION_BUDGETS,
      { metadata: at, spec: { minAvailable: 0, selector: {} } },
      { signal: world.signal },
    );
    await assert.rejects(evict(nameAt(1)), /more than one PodDisruptionBudget/);
    await deleteObject(world.client, POD_DISRUPTION_BUDGETS, at, { signal: world.signal });
  });

  test("refuse what makes no sense", async () => {
    const wrong = {
      metadata: { namespace, name: "wrong" },
      spec: { minAvailable: "150%", maxUnavailable: -1, selector: {} },
    };
    await assert.rejects(
      createObject(world.client, POD_DISRUPTION_BUDGETS, wrong, { signal: world.signal }),
      /minAvailable and maxUnavailable cannot be both set.*must not be greater than 100%.*must be greater than or equal to 0/,
    );
  });
});

import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import { createObject, deleteObject, listObjects } from "../../../src/api/objects.ts";
import type { Resource } from "../../../src/api/resource.ts";
import { DEPLOYMENTS, PODS, REPLICA_SETS } from "../../../src/api/resources.ts";
import type { Deployment } from "../../../src/api/types.gen.ts";
import { playKubelet } from "./played-kubelet.ts";
import { findObject } from "./find-object.ts";
import type { World } from "./world.ts";
import { eventually, registerNode, startWorld } from "./world.ts";

const namespace = "default";

function deployment(name: string): Deployment {
  return {
    metadata: { namespace, name },
    spec: {
      replicas: 2,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: { containers: [{ name: "c", image: "i" }] },
      },
    },
  };
}

async function find<T>(
  { client, signal }: World,
  resource: Resource<T>,
  name: string,
): Promise<Stored<T> | undefined> {
  return findObject({ client, signal }, resource, { namespace, name });
}

async function count(world: World, resource: Resource<unknown>, app: string): Promise<number> {
  const { client, signal } = world;
  const labelSelector = `app=${app}`;
  return (await listObjects(client, resource, { namespace, labelSelector, signal })).items.length;
}

describe("a control plane that is restarted in the middle of a deletion", () => {
  test("goes on with it: owners in the foreground wait, orphans are kept", async () => {
    const first = await startWorld();
    let second: World | undefined;
    try {
      await registerNode(first, "n1");
      const kubelet = playKubelet(first);
      for (const name of ["fore", "orphan"])
        await createObject(first.client, DEPLOYMENTS, deployment(name), {
          signal: first.signal,
        });
      for (const name of ["fore", "orphan"])
        await eventually(`pods of ${name}`, async () => {
          const found = await find(first, DEPLOYMENTS, name);
          return found?.status?.availableReplicas === 2 ? true : undefined;
        });
      kubelet.holdEnding = true;
      const { client, signal } = first;
      for (const [name, propagationPolicy] of [
        ["orphan", "Orphan"],
        ["fore", "Foreground"],
      ] as const)
        await deleteObject(client, DEPLOYMENTS, { namespace, name }, { propagationPolicy, signal });
      await kubelet.stop();
      await first.stop();

      second = await startWorld(first.dataDir);
      const world = second;
      await eventually("the orphaned ReplicaSet alone", async () =>
        (await find(world, DEPLOYMENTS, "orphan")) === undefined ? true : undefined,
      );
      assert.equal(await count(world, REPLICA_SETS, "orphan"), 1);
      assert.equal(await count(world, PODS, "orphan"), 2);
      // The pods of the other one still end: everything above them is still there.
      await eventually("pods marked for deletion", async () => {
        const { items } = await listObjects(world.client, PODS, {
          namespace,
          labelSelector: "app=fore",
          signal: world.signal,
        });
        const all = items.every(({ metadata }) => metadata.deletionTimestamp !== undefined);
        return all && items.length === 2 ? true : undefined;
      });
      assert.equal(await count(world, REPLICA_SETS, "fore"), 1);
      assert.notEqual(await find(world, DEPLOYMENTS, "fore"), undefined);
      const next = playKubelet(world);
      await eventually("everything gone", async () => {
        const left =
          (await count(world, PODS, "fore")) + (await count(world, REPLICA_SETS, "fore"));
        const owner = await find(world, DEPLOYMENTS, "fore");
        return left === 0 && owner === undefined ? true : undefined;
      });
      assert.equal(await count(world, PODS, "orphan"), 2);
      await next.stop();
    } finally {
      if (second !== undefined) await second.stop();
      await rm(first.dataDir, { recursive: true, force: true });
    }
  });
});

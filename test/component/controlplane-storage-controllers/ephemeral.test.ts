import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { createObject, deleteObject, patchObject } from "../../../src/api/objects.ts";
import {
  PERSISTENT_VOLUME_CLAIMS as CLAIMS,
  PERSISTENT_VOLUMES as VOLUMES,
  PODS,
  STORAGE_CLASSES,
} from "../../../src/api/resources.ts";
import { eventually, startWorld, type World } from "../controlplane-controllers/world.ts";
import { claimIn, claimNamed, eventsOf, newClaim } from "./builders.ts";

let world: World;

before(async () => {
  world = await startWorld();
});
after(async () => {
  await world.close();
});

async function createPod(name: string): Promise<string> {
  const template = {
    metadata: { labels: { made: "for-it" }, annotations: { why: "test" } },
    spec: newClaim({ name: "", storage: "1Gi", className: "none" }).spec ?? {},
  };
  const { metadata } = await createObject(
    world.client,
    PODS,
    {
      metadata: { namespace: "default", name },
      spec: {
        containers: [{ name: "c", image: "busybox" }],
        volumes: [{ name: "scratch", ephemeral: { volumeClaimTemplate: template } }],
      },
    },
    { signal: world.signal },
  );
  return metadata.uid;
}

test("a generic ephemeral volume gets a claim of its pod, which goes with it", async () => {
  const uid = await createPod("eph");
  const claim = await claimIn(world, "eph-scratch", "Pending");
  assert.deepEqual(claim.metadata.ownerReferences, [
    {
      apiVersion: "v1",
      kind: "Pod",
      name: "eph",
      uid,
      controller: true,
      blockOwnerDeletion: true,
    },
  ]);
  assert.deepEqual(claim.metadata.labels, { made: "for-it" });
  assert.equal(claim.metadata.annotations?.["why"], "test");
  await deleteObject(world.client, PODS, { namespace: "default", name: "eph" }, world);
  await eventually("the claim is gone", async () =>
    (await claimNamed(world, "eph-scratch")) === undefined ? true : undefined,
  );
});

test("somebody's own claim of that name is not taken, and the pod says why until it is gone", async () => {
  const own = newClaim({ name: "clash-scratch", storage: "1Gi", className: "none" });
  await createObject(world.client, CLAIMS, own, world);
  const uid = await createPod("clash");
  const [message] = await eventsOf(world, "clash", "FailedBinding");
  assert.equal(
    message,
    "ephemeral volume scratch: PVC default/clash-scratch was not created for pod default/clash (pod is not owner)",
  );
  await deleteObject(world.client, CLAIMS, { namespace: "default", name: "clash-scratch" }, world);
  await eventually("the pod's own claim", async () => {
    const claim = await claimNamed(world, "clash-scratch");
    return claim?.metadata.ownerReferences?.[0]?.uid === uid ? true : undefined;
  });
});

test("a claim on a CSI volume that grows waits for its resizer, and says so", async () => {
  const { client, signal } = world;
  await createObject(
    client,
    STORAGE_CLASSES,
    { metadata: { name: "grows" }, provisioner: "csi.example.com", allowVolumeExpansion: true },
    { signal },
  );
  await createObject(
    client,
    VOLUMES,
    {
      metadata: { name: "grower" },
      spec: {
        accessModes: ["ReadWriteOnce"],
        capacity: { storage: "1Gi" },
        csi: { driver: "csi.example.com", volumeHandle: "h" },
        storageClassName: "grows",
      },
    },
    { signal },
  );
  const claim = newClaim({ name: "grower", storage: "1Gi", className: "grows" });
  await createObject(client, CLAIMS, claim, { signal });
  await claimIn(world, "grower", "Bound");
  const patch = { spec: { resources: { requests: { storage: "2Gi" } } } };
  await patchObject(client, CLAIMS, { namespace: "default", name: "grower", patch }, { signal });
  assert.deepEqual(await eventsOf(world, "grower", "ExternalExpanding"), [
    "waiting for an external controller to expand this PVC",
  ]);
});

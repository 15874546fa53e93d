import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { createObject, deleteObject, getObject } from "../../../src/api/objects.ts";
import {
  PERSISTENT_VOLUME_CLAIMS,
  VOLUME_ATTRIBUTES_CLASSES as CLASSES,
} from "../../../src/api/resources.ts";
import { findObject } from "../../../src/controlplane/controllers/shared/calls.ts";
import type { World } from "../controlplane-controllers/world.ts";
import { eventually, startWorld } from "../controlplane-controllers/world.ts";

describe("a VolumeAttributesClass", () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(() => world.close());

  test("stays while a claim asks for it, and goes with the claim", async () => {
    const { client, signal } = world;
    const name = "gold";
    await createObject(
      client,
      CLASSES,
      { metadata: { name }, driverName: "csi.example.com", parameters: { iops: "100" } },
      { signal },
    );
    const claim = { namespace: "default", name: "c" };
    await createObject(
      client,
      PERSISTENT_VOLUME_CLAIMS,
      {
        metadata: claim,
        spec: {
          accessModes: ["ReadWriteOnce"],
          resources: { requests: { storage: "1Gi" } },
          storageClassName: "",
          volumeAttributesClassName: name,
        },
      },
      { signal },
    );
    await deleteObject(client, CLASSES, { name }, { signal });
    const { metadata } = await getObject(client, CLASSES, { name }, { signal });
    assert.deepEqual(metadata.finalizers, ["kubernetes.io/vac-protection"]);
    assert.notEqual(metadata.deletionTimestamp, undefined);
    await deleteObject(client, PERSISTENT_VOLUME_CLAIMS, claim, { signal });
    await eventually("the class goes", async () =>
      (await findObject(client, { resource: CLASSES, name }, signal)) === undefined
        ? true
        : undefined,
    );
  });

  test("that nobody uses goes at once", async () => {
    const { client, signal } = world;
    const name = "silver";
    const body = { metadata: { name }, driverName: "csi.example.com", parameters: { iops: "1" } };
    await createObject(client, CLASSES, body, { signal });
    await deleteObject(client, CLASSES, { name }, { signal });
    await eventually("the class goes", async () =>
      (await findObject(client, { resource: CLASSES, name }, signal)) === undefined
        ? true
        : undefined,
    );
  });
});

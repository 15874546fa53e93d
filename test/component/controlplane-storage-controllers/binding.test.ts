import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { createObject, deleteObject, patchObject } from "../../../src/api/objects.ts";
import {
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  STORAGE_CLASSES,
} from "../../../src/api/resources.ts";
import type { PersistentVolume } from "../../../src/api/types.gen.ts";
import { startWorld, type World } from "../controlplane-controllers/world.ts";
import {
  claimIn,
  eventsOf,
  newClaim,
  newVolume,
  phaseOf,
  volumeIn,
  volumeNamed,
} from "./builders.ts";

let world: World;

before(async () => {
  world = await startWorld();
});
after(async () => {
  await world.close();
});

test("a claim takes the smallest volume that fits, and both say so", async () => {
  const { client, signal } = world;
  for (const [name, storage] of [
    ["big", "10Gi"],
    ["right", "2Gi"],
    ["small", "1Gi"],
  ] as const)
    await createObject(client, PERSISTENT_VOLUMES, newVolume({ name, storage }), { signal });
  await volumeIn(world, "right", "Available");
  await createObject(client, PERSISTENT_VOLUME_CLAIMS, newClaim({ name: "a", storage: "2Gi" }), {
    signal,
  });
  const claim = await claimIn(world, "a", "Bound");
  assert.equal(claim.spec?.volumeName, "right");
  assert.deepEqual(claim.status?.capacity, { storage: "2Gi" });
  assert.deepEqual(claim.status?.accessModes, ["ReadWriteOnce"]);
  assert.equal(claim.metadata.annotations?.["pv.kubernetes.io/bind-completed"], "yes");
  assert.equal(claim.metadata.annotations?.["pv.kubernetes.io/bound-by-controller"], "yes");
  const volume = await volumeIn(world, "right", "Bound");
  assert.equal(volume.spec?.claimRef?.uid, claim.metadata.uid);
  assert.equal(volume.metadata.annotations?.["pv.kubernetes.io/bound-by-controller"], "yes");
});

test("a volume whose claim is deleted is Released; without a deleter it becomes Failed", async () => {
  const { client, signal } = world;
  await createObject(
    client,
    PERSISTENT_VOLUMES,
    newVolume({ name: "retained", storage: "1Gi", className: "r", policy: "Retain" }),
    { signal },
  );
  await createObject(
    client,
    PERSISTENT_VOLUMES,
    newVolume({ name: "deleted", storage: "1Gi", className: "d", policy: "Delete" }),
    { signal },
  );
  for (const className of ["r", "d"]) {
    const wanted = newClaim({ name: className, storage: "1Gi", className });
    await createObject(client, PERSISTENT_VOLUME_CLAIMS, wanted, { signal });
    await claimIn(world, className, "Bound");
    await deleteObject(
      client,
      PERSISTENT_VOLUME_CLAIMS,
      { namespace: "default", name: className },
      { signal },
    );
  }
  await volumeIn(world, "retained", "Released");
  const failed = await volumeIn(world, "deleted", "Failed");
  const message =
    'error getting deleter volume plugin for volume "deleted": no deletable volume plugin matched';
  assert.equal(failed.status?.message, message);
  assert.ok((await eventsOf(world, "deleted", "VolumeFailedDelete")).includes(message));
});

test("two claims never get one volume, and the second gets the next that comes", async () => {
  const { client, signal } = world;
  const className = "race";
  for (const name of ["race-1", "race-2", "race-3"])
    await createObject(
      client,
      PERSISTENT_VOLUME_CLAIMS,
      newClaim({ name, storage: "1Gi", className }),
      { signal },
    );
  const volumes: string[] = [];
  for (const name of ["pv-1", "pv-2", "pv-3"]) {
    await createObject(client, PERSISTENT_VOLUMES, newVolume({ name, storage: "1Gi", className }), {
      signal,
    });
    await volumeIn(world, name, "Bound");
  }
  for (const name of ["race-1", "race-2", "race-3"])
    volumes.push((await claimIn(world, name, "Bound")).spec?.volumeName ?? "");
  assert.deepEqual(volumes.toSorted(), ["pv-1", "pv-2", "pv-3"]);
});

test("a volume reserved by name waits for its claim, and is reserved again when that goes elsewhere", async () => {
  const { client, signal } = world;
  const reserved: PersistentVolume = newVolume({
    name: "reserved",
    storage: "5Gi",
    className: "x",
  });
  await createObject(
    client,
    PERSISTENT_VOLUMES,
    { ...reserved, spec: { ...reserved.spec, claimRef: { namespace: "default", name: "owner" } } },
    { signal },
  );
  await volumeIn(world, "reserved", "Available");
  await createObject(
    client,
    PERSISTENT_VOLUME_CLAIMS,
    newClaim({ name: "other", storage: "1Gi", className: "x" }),
    { signal },
  );
  await createObject(
    client,
    PERSISTENT_VOLUME_CLAIMS,
    newClaim({ name: "owner", storage: "1Gi", className: "x" }),
    { signal },
  );
  assert.equal((await claimIn(world, "owner", "Bound")).spec?.volumeName, "reserved");
  assert.equal(await phaseOf(world, "other"), "Pending");
  const volume = await volumeNamed(world, "reserved");
  assert.equal(volume?.metadata.annotations?.["pv.kubernetes.io/bound-by-controller"], undefined);
});

test("a claim whose volume is gone is Lost, and says what that means", async () => {
  const { client, signal } = world;
  const className = "lost";
  await createObject(
    client,
    PERSISTENT_VOLUMES,
    newVolume({ name: "going", storage: "1Gi", className }),
    { signal },
  );
  await createObject(
    client,
    PERSISTENT_VOLUME_CLAIMS,
    newClaim({ name: "loser", storage: "1Gi", className }),
    { signal },
  );
  await claimIn(world, "loser", "Bound");
  // Protected while it is bound: only a person who takes the finalizer can lose it.
  await deleteObject(client, PERSISTENT_VOLUMES, { name: "going" }, { signal });
  assert.notEqual(await volumeNamed(world, "going"), undefined);
  await patchObject(
    client,
    PERSISTENT_VOLUMES,
    { name: "going", patch: { metadata: { finalizers: null } } },
    { signal, type: "application/merge-patch+json" },
  );
  await claimIn(world, "loser", "Lost");
  assert.ok(
    (await eventsOf(world, "loser", "ClaimLost")).includes(
      "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
    ),
  );
});

test("who waits is told why", async () => {
  const { client, signal } = world;
  await createObject(
    client,
    STORAGE_CLASSES,
    { metadata: { name: "elsewhere" }, provisioner: "example.com/disks" },
    { signal },
  );
  await createObject(
    client,
    STORAGE_CLASSES,
    {
      metadata: { name: "waits" },
      provisioner: "kubernetes.io/no-provisioner",
      volumeBindingMode: "WaitForFirstConsumer",
    },
    { signal },
  );
  const cases = [
    ["none", "", "FailedBinding", /^no persistent volumes available for this claim and no/],
    [
      "missing",
      "missing",
      "ProvisioningFailed",
      /^storageclass.storage.k8s.io "missing" not found$/,
    ],
    ["external", "elsewhere", "ExternalProvisioning", /external provisioner 'example.com\/disks'/],
    ["first", "waits", "WaitForFirstConsumer", /^waiting for first consumer to be created before/],
  ] as const;
  for (const [name, className, reason, text] of cases) {
    await createObject(
      client,
      PERSISTENT_VOLUME_CLAIMS,
      newClaim({ name, storage: "99Gi", className }),
      { signal },
    );
    const [message] = await eventsOf(world, name, reason);
    assert.match(message ?? "", text);
  }
  const asked = await claimIn(world, "external", "Pending");
  assert.equal(
    asked.metadata.annotations?.["volume.kubernetes.io/storage-provisioner"],
    "example.com/disks",
  );
});

test("a claim without a class gets the default one as soon as there is one", async () => {
  const { client, signal } = world;
  const { spec, metadata } = newClaim({ name: "late", storage: "77Gi" });
  const { storageClassName: _none, ...open } = spec ?? {};
  await createObject(client, PERSISTENT_VOLUME_CLAIMS, { metadata, spec: open }, { signal });
  await eventsOf(world, "late", "FailedBinding");
  await createObject(
    client,
    STORAGE_CLASSES,
    {
      metadata: {
        name: "standard",
        annotations: { "storageclass.kubernetes.io/is-default-class": "true" },
      },
      provisioner: "example.com/disks",
    },
    { signal },
  );
  await eventsOf(world, "late", "ExternalProvisioning");
  assert.equal((await claimIn(world, "late", "Pending")).spec?.storageClassName, "standard");
});

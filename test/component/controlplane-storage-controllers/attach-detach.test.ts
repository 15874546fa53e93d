import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import {
  createObject,
  deleteObject,
  getObject,
  listObjects,
  patchObject,
} from "../../../src/api/objects.ts";
import {
  CSI_DRIVERS,
  EVENTS,
  NODES,
  PERSISTENT_VOLUME_CLAIMS as CLAIMS,
  PERSISTENT_VOLUMES as VOLUMES,
  PODS,
  VOLUME_ATTACHMENTS as ATTACHMENTS,
} from "../../../src/api/resources.ts";
import type { Node, VolumeAttachment } from "../../../src/api/types.gen.ts";
import {
  eventually,
  postReady,
  registerNode,
  startWorld,
  type World,
} from "../controlplane-controllers/world.ts";
import { claimIn, eventsOf, newClaim } from "./builders.ts";

const driver = "csi.example.com";
let world: World;

before(async () => {
  world = await startWorld();
  for (const name of ["n1", "n2"]) {
    await registerNode(world, name);
    const annotations = { "volumes.kubernetes.io/controller-managed-attach-detach": "true" };
    const patch = { metadata: { annotations } };
    await patchObject(world.client, NODES, { name, patch }, { signal: world.signal });
  }
});
after(async () => {
  await world.close();
});

function uniqueName(handle: string): string {
  return `kubernetes.io/csi/${driver}^${handle}`;
}

/** A bound claim on a CSI volume of its own. */
async function provide(
  name: string,
  modes: "ReadWriteOnce" | "ReadWriteMany" = "ReadWriteOnce",
): Promise<void> {
  const { client, signal } = world;
  const claim = newClaim({ name, storage: "1Gi", className: name });
  await createObject(
    client,
    VOLUMES,
    {
      metadata: { name },
      spec: {
        accessModes: [modes],
        capacity: { storage: "1Gi" },
        csi: { driver, volumeHandle: `h-${name}` },
        storageClassName: name,
      },
    },
    { signal },
  );
  await createObject(
    client,
    CLAIMS,
    { ...claim, spec: { ...claim.spec, accessModes: [modes] } },
    { signal },
  );
  await claimIn(world, name, "Bound");
}

async function run(name: string, nodeName: string, claimName: string): Promise<void> {
  await createObject(
    world.client,
    PODS,
    {
      metadata: { namespace: "default", name },
      spec: {
        nodeName,
        containers: [{ name: "c", image: "busybox" }],
        volumes: [{ name: "v", persistentVolumeClaim: { claimName } }],
      },
    },
    { signal: world.signal },
  );
}

async function end(name: string): Promise<void> {
  const { signal } = world;
  await deleteObject(
    world.client,
    PODS,
    { namespace: "default", name },
    { gracePeriodSeconds: 0, signal },
  );
}

async function attachmentOf(
  volume: string,
  nodeName: string,
): Promise<Stored<VolumeAttachment> | undefined> {
  const { items } = await listObjects(world.client, ATTACHMENTS, { signal: world.signal });
  return items.find(
    ({ spec }) => spec.source.persistentVolumeName === volume && spec.nodeName === nodeName,
  );
}

async function attachmentComes(
  volume: string,
  nodeName: string,
): Promise<Stored<VolumeAttachment>> {
  return eventually(`attachment of ${volume} to ${nodeName}`, () => attachmentOf(volume, nodeName));
}

async function attachmentGoes(volume: string, nodeName: string): Promise<void> {
  await eventually(`${volume} detached from ${nodeName}`, async () =>
    (await attachmentOf(volume, nodeName)) === undefined ? true : undefined,
  );
}

/** What the driver's own attacher says. */
async function setStatus(name: string, status: VolumeAttachment["status"]): Promise<void> {
  await patchObject(
    world.client,
    ATTACHMENTS,
    { name, patch: { status } },
    { subresource: "status", type: "application/merge-patch+json", signal: world.signal },
  );
}

async function nodeStatus(name: string): Promise<NonNullable<Node["status"]>> {
  return (await getObject(world.client, NODES, { name }, { signal: world.signal })).status ?? {};
}

async function reported(node: string, volume: string): Promise<boolean> {
  const { volumesAttached = [] } = await nodeStatus(node);
  return volumesAttached.some(({ name }) => name === uniqueName(`h-${volume}`));
}

/** What the node's kubelet says. */
async function inUse(node: string, ...volumes: string[]): Promise<void> {
  const volumesInUse = volumes.map((volume) => uniqueName(`h-${volume}`));
  await patchObject(
    world.client,
    NODES,
    { name: node, patch: { status: { volumesInUse } } },
    { subresource: "status", type: "application/merge-patch+json", signal: world.signal },
  );
}

test("a volume is attached for its pod, told to the node, and detached once it is unmounted", async () => {
  await provide("disk");
  await run("user", "n1", "disk");
  const attachment = await attachmentComes("disk", "n1");
  assert.equal(attachment.spec.attacher, driver);
  // The node's kubelet computes the same name.
  const hash = createHash("sha256").update(`h-disk${driver}n1`).digest("hex");
  assert.equal(attachment.metadata.name, `csi-${hash}`);
  assert.equal(await reported("n1", "disk"), false);
  await setStatus(attachment.metadata.name, { attached: true });
  await eventually("the node is told", async () =>
    (await reported("n1", "disk")) ? true : undefined,
  );
  assert.deepEqual(await eventsOf(world, "user", "SuccessfulAttachVolume"), [
    'AttachVolume.Attach succeeded for volume "disk" ',
  ]);

  await inUse("n1", "disk");
  await end("user");
  // Another volume comes and goes meanwhile: the controller has looked, and left the mounted one alone.
  await provide("other");
  await run("passer-by", "n1", "other");
  await attachmentComes("other", "n1");
  await end("passer-by");
  await attachmentGoes("other", "n1");
  assert.notEqual(await attachmentOf("disk", "n1"), undefined);
  assert.equal(await reported("n1", "disk"), true);

  await inUse("n1");
  await attachmentGoes("disk", "n1");
  assert.equal(await reported("n1", "disk"), false);
});

test("a volume for one node is not attached to a second one, whose pod is told who has it", async () => {
  await provide("single");
  await run("first", "n1", "single");
  await attachmentComes("single", "n1");
  await run("second", "n2", "single");
  assert.deepEqual(await eventsOf(world, "second", "FailedAttachVolume"), [
    'Multi-Attach error for volume "single" Volume is already used by pod(s) first',
  ]);
  assert.equal(await attachmentOf("single", "n2"), undefined);
  // Said once, however often it is looked at.
  await postReady(world, "n1");
  await postReady(world, "n2");
  const fieldSelector = "involvedObject.name=second,reason=FailedAttachVolume";
  const { items } = await listObjects(world.client, EVENTS, {
    fieldSelector,
    signal: world.signal,
  });
  assert.deepEqual(
    items.map(({ count }) => count),
    [1],
  );
  await end("first");
  await attachmentComes("single", "n2");
  await end("second");
});

test("an attachment that somebody else made is left alone", async () => {
  await createObject(
    world.client,
    ATTACHMENTS,
    {
      metadata: { name: "by-hand" },
      spec: { attacher: driver, nodeName: "n1", source: { persistentVolumeName: "nowhere" } },
    },
    { signal: world.signal },
  );
  await provide("behind");
  await run("behind", "n1", "behind");
  await attachmentComes("behind", "n1");
  assert.notEqual(await attachmentOf("nowhere", "n1"), undefined);
  await end("behind");
});

test("a volume for many nodes is attached to each", async () => {
  await provide("many", "ReadWriteMany");
  await run("one", "n1", "many");
  await run("two", "n2", "many");
  await attachmentComes("many", "n1");
  await attachmentComes("many", "n2");
  await end("one");
  await end("two");
  await attachmentGoes("many", "n1");
  await attachmentGoes("many", "n2");
});

test("what the attacher cannot do is told to the pod", async () => {
  await provide("broken");
  await run("unlucky", "n1", "broken");
  const { metadata } = await attachmentComes("broken", "n1");
  await setStatus(metadata.name, { attached: false, attachError: { message: "no such disk" } });
  assert.deepEqual(await eventsOf(world, "unlucky", "FailedAttachVolume"), [
    'AttachVolume.Attach failed for volume "broken" : no such disk',
  ]);
  await end("unlucky");
});

test("a driver that needs no attaching gets no attachments", async () => {
  await createObject(
    world.client,
    CSI_DRIVERS,
    { metadata: { name: driver }, spec: { attachRequired: false } },
    { signal: world.signal },
  );
  await provide("direct");
  await run("free", "n1", "direct");
  // Behind it, one of another driver that does.
  await createObject(
    world.client,
    VOLUMES,
    {
      metadata: { name: "marker" },
      spec: {
        accessModes: ["ReadWriteOnce"],
        capacity: { storage: "1Gi" },
        csi: { driver: "other.example.com", volumeHandle: "m" },
        storageClassName: "marker",
      },
    },
    { signal: world.signal },
  );
  await createObject(
    world.client,
    CLAIMS,
    newClaim({ name: "marker", storage: "1Gi", className: "marker" }),
    { signal: world.signal },
  );
  await claimIn(world, "marker", "Bound");
  await run("marked", "n1", "marker");
  await attachmentComes("marker", "n1");
  assert.equal(await attachmentOf("direct", "n1"), undefined);
  await deleteObject(world.client, CSI_DRIVERS, { name: driver }, { signal: world.signal });
  await end("free");
  await end("marked");
});

test("a node that is not Ready keeps what it has mounted for six minutes, and no longer", async () => {
  await provide("held");
  await run("lost", "n2", "held");
  const { metadata } = await attachmentComes("held", "n2");
  await setStatus(metadata.name, { attached: true });
  await inUse("n2", "held");
  await end("lost");
  const conditions = [{ type: "Ready", status: "Unknown" }];
  await patchObject(
    world.client,
    NODES,
    { name: "n2", patch: { status: { conditions } } },
    { subresource: "status", signal: world.signal },
  );
  world.clock.leap(5 * 60_000);
  await postReady(world, "n1");
  assert.notEqual(await attachmentOf("held", "n2"), undefined);
  world.clock.leap(2 * 60_000);
  await attachmentGoes("held", "n2");
});

import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import type { Stored } from "../../../src/api/object.ts";
import { createObject, deleteObject, getObject, patchObject } from "../../../src/api/objects.ts";
import {
  NODES,
  PERSISTENT_VOLUME_CLAIMS as CLAIMS,
  PERSISTENT_VOLUMES as VOLUMES,
  PODS,
  STORAGE_CLASSES,
} from "../../../src/api/resources.ts";
import type { PersistentVolumeClaim } from "../../../src/api/types.gen.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import {
  eventually,
  registerNode,
  startWorld,
  type World,
} from "../controlplane-controllers/world.ts";
import { claimIn, claimNamed, eventsOf, newClaim, volumeIn, volumeNamed } from "./builders.ts";
import { startNodePart, type NodePart } from "./node-part.ts";

let world: World;
let client: HttpClient;
let directory: string;
let node: NodePart;

before(async () => {
  world = await startWorld();
  directory = await mkdtemp(join(tmpdir(), "remora-volumes-"));
  await registerNode(world, "n1");
  const patch = { metadata: { labels: { "kubernetes.io/hostname": "n1" } } };
  await patchObject(world.client, NODES, { name: "n1", patch }, { signal: world.signal });
  client = createHttpClient({
    kubeconfig: await loadKubeconfig(world.controlPlane.files.nodeKubeconfig),
    userAgent: "node",
    clock: systemClock,
    logger: silentLogger,
  });
  node = startNodePart({ world, client, directory });
});
after(async () => {
  await node.stop();
  await client.close();
  await world.close();
  await rm(directory, { recursive: true, force: true });
});

/** What the scheduler does when a pod that uses the claim has got a node. */
async function choose(name: string, nodeName: string): Promise<void> {
  const annotations = { "volume.kubernetes.io/selected-node": nodeName };
  await patchObject(
    world.client,
    CLAIMS,
    { namespace: "default", name, patch: { metadata: { annotations } } },
    { signal: world.signal },
  );
}

async function create(claim: PersistentVolumeClaim): Promise<void> {
  await createObject(world.client, CLAIMS, claim, { signal: world.signal });
}

async function bound(
  name: string,
): Promise<{ claim: Stored<PersistentVolumeClaim>; path: string }> {
  const claim = await claimIn(world, name, "Bound");
  const volume = await volumeNamed(world, claim.spec?.volumeName ?? "");
  const path = volume?.spec?.local?.path ?? "";
  await eventually(`${path} is there`, () =>
    stat(path).then(
      () => true,
      () => undefined,
    ),
  );
  return { claim, path };
}

test("the node says where it keeps volumes, and then there is a default class", async () => {
  const found = await eventually("the class", async () =>
    getObject(world.client, STORAGE_CLASSES, { name: "local" }, { signal: world.signal }).catch(
      () => undefined,
    ),
  );
  assert.equal(found.provisioner, "remora.io/local");
  assert.equal(found.volumeBindingMode, "WaitForFirstConsumer");
  assert.equal(found.reclaimPolicy, "Delete");
  assert.equal(found.metadata.annotations?.["storageclass.kubernetes.io/is-default-class"], "true");
  const { metadata } = await getObject(world.client, NODES, { name: "n1" }, world);
  assert.equal(metadata.annotations?.["remora.io/local-volumes"], join(directory, "volumes"));
});

test("a claim gets a directory of the chosen node, is told where, and takes it along when it goes", async () => {
  const { spec, metadata } = newClaim({ name: "data", storage: "1Gi" });
  const { storageClassName: _none, ...open } = spec ?? {};
  await create({ metadata, spec: open });
  await eventsOf(world, "data", "WaitForFirstConsumer");
  await choose("data", "n1");
  const { claim, path } = await bound("data");
  assert.equal(claim.spec?.storageClassName, "local");
  assert.equal(path, join(directory, "volumes", `pvc-${claim.metadata.uid}_default_data`));
  assert.equal((await stat(path)).mode & 0o7777, 0o777);
  assert.equal((await stat(join(directory, "volumes"))).mode & 0o7777, 0o700);
  const [told] = await eventsOf(world, "data", "ProvisioningSucceeded");
  assert.match(told ?? "", new RegExp(`its data is in ${path} on node n1$`));
  assert.equal(claim.metadata.annotations?.["remora.io/local-volume"], `n1:${path}`);
  const [enforced] = await eventsOf(world, "data", "CapacityNotEnforced");
  assert.match(enforced ?? "", /^capacity is not enforced: /);

  await writeFile(join(path, "file"), "x");
  await deleteObject(world.client, CLAIMS, claim.metadata, { signal: world.signal });
  await eventually("data and volume are gone", async () => {
    const left = await volumeNamed(world, claim.spec?.volumeName ?? "");
    return left === undefined ? true : undefined;
  });
  assert.deepEqual(await readdir(join(directory, "volumes")), []);
  assert.deepEqual(await readdir(join(directory, "records")), []);
});

test("a claim that a pod uses stays until the pod is gone", async () => {
  await create(newClaim({ name: "used", storage: "1Gi", className: "local" }));
  await choose("used", "n1");
  const { claim } = await bound("used");
  const at = { namespace: "default", name: "user" };
  await createObject(
    world.client,
    PODS,
    {
      metadata: at,
      spec: {
        nodeName: "n1",
        containers: [{ name: "c", image: "busybox" }],
        volumes: [{ name: "v", persistentVolumeClaim: { claimName: "used" } }],
      },
    },
    { signal: world.signal },
  );
  await deleteObject(world.client, CLAIMS, claim.metadata, { signal: world.signal });
  // Something else that happens after it: the controllers have seen the deletion by then.
  await create(newClaim({ name: "later", storage: "1Gi", className: "local" }));
  await choose("later", "n1");
  const later = await bound("later");
  assert.notEqual(await claimNamed(world, "used"), undefined);
  await deleteObject(world.client, PODS, at, { gracePeriodSeconds: 0, signal: world.signal });
  await eventually("the claim is gone", async () =>
    (await claimNamed(world, "used")) === undefined ? true : undefined,
  );
  await deleteObject(world.client, CLAIMS, later.claim.metadata, { signal: world.signal });
});

test("what is retained keeps its data, also when its object is deleted", async () => {
  await createObject(
    world.client,
    STORAGE_CLASSES,
    {
      metadata: { name: "keeps" },
      provisioner: "remora.io/local",
      reclaimPolicy: "Retain",
      volumeBindingMode: "Immediate",
    },
    { signal: world.signal },
  );
  await create(newClaim({ name: "precious", storage: "1Gi", className: "keeps" }));
  const { claim, path } = await bound("precious");
  await writeFile(join(path, "file"), "dear");
  await deleteObject(world.client, CLAIMS, claim.metadata, { signal: world.signal });
  const name = claim.spec?.volumeName ?? "";
  await volumeIn(world, name, "Released");
  await deleteObject(world.client, VOLUMES, { name }, { signal: world.signal });
  await eventually("the volume is gone", async () =>
    (await volumeNamed(world, name)) === undefined ? true : undefined,
  );
  assert.equal(await readFile(join(path, "file"), "utf8"), "dear");
});

test("data that vanished is reported, never made anew", async () => {
  await create(newClaim({ name: "vanishing", storage: "1Gi", className: "keeps" }));
  const { path } = await bound("vanishing");
  await rm(path, { recursive: true });
  await node.stop();
  node = startNodePart({ world, client, directory });
  const [message] = await eventsOf(world, "vanishing", "VolumeDataMissing");
  assert.match(message ?? "", /is missing: .* was there and is not; put it back/);
  await assert.rejects(stat(path), { code: "ENOENT" });
});

test("what a directory cannot be is refused by name", async () => {
  await createObject(
    world.client,
    STORAGE_CLASSES,
    {
      metadata: { name: "odd" },
      provisioner: "remora.io/local",
      parameters: { fsType: "ext4", speed: "fast" },
    },
    { signal: world.signal },
  );
  await create(newClaim({ name: "odd", storage: "1Gi", className: "odd" }));
  const shared = newClaim({ name: "shared", storage: "1Gi", className: "keeps" });
  await create({ ...shared, spec: { ...shared.spec, accessModes: ["ReadWriteMany"] } });
  const block = newClaim({ name: "block", storage: "1Gi", className: "keeps" });
  await create({ ...block, spec: { ...block.spec, volumeMode: "Block" } });
  for (const [name, text] of [
    ["odd", /unknown parameters of the class: fsType, speed$/],
    ["shared", /access mode ReadWriteMany is not supported: a local volume is on one node$/],
    ["block", /volumeMode Block is not supported/],
  ] as const) {
    const [message] = await eventsOf(world, name, "ProvisioningFailed");
    assert.match(message ?? "", text);
  }
});

test("a node that keeps no volumes is given up, so that the scheduler chooses another", async () => {
  await registerNode(world, "bare");
  await create(newClaim({ name: "elsewhere", storage: "1Gi", className: "local" }));
  await choose("elsewhere", "bare");
  const [message] = await eventsOf(world, "elsewhere", "ProvisioningFailed");
  assert.match(message ?? "", /node "bare" does not keep local volumes$/);
  await eventually("the choice is taken back", async () => {
    const claim = await claimNamed(world, "elsewhere");
    return claim?.metadata.annotations?.["volume.kubernetes.io/selected-node"] === undefined
      ? true
      : undefined;
  });
});

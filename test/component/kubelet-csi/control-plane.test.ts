import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, it } from "node:test";

import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
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
  CSI_NODES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  SECRETS,
  VOLUME_ATTACHMENTS,
} from "../../../src/api/resources.ts";
import type { Node, Pod, VolumeAttachment } from "../../../src/api/types.gen.ts";
import { type Csi, createCsi } from "../../../src/kubelet/csi/csi.ts";
import type { Host } from "../../../src/kubelet/node/host.ts";
import { createNode, type NodeAgent } from "../../../src/kubelet/node/node.ts";
import { Claims } from "../../../src/kubelet/volumes/claims.ts";
import { VolumesInUse } from "../../../src/kubelet/volumes/in-use.ts";
import type { VolumePlugin, VolumeSpec } from "../../../src/kubelet/volumes/plugin.ts";
import { csiPlugin } from "../../../src/kubelet/volumes/plugins/csi.ts";
import { ServiceAccountTokens } from "../../../src/kubelet/volumes/service-account-token.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { FakeCsiDriver } from "../../fakes/csi-driver.ts";
import { startWorld, type World } from "../controlplane-controllers/world.ts";
import { agentConfig } from "../kubelet-node/fixtures.ts";
import { FakeMounter } from "../kubelet-pods/fixture.ts";

const host: Host = {
  identity: () => ({
    hostname: "n1",
    machineID: "m",
    systemUUID: "s",
    bootID: "b",
    kernelVersion: "6.1",
    osImage: "Debian",
    architecture: "amd64",
    swapBytes: 0,
  }),
  capacity: async () => ({
    cpuMillicores: 2000,
    memoryBytes: 2 ** 30,
    ephemeralStorageBytes: 2 ** 34,
    maxPods: 110,
    hugePages: new Map(),
  }),
  signals: async () => ({}),
  addresses: () => [{ interfaceName: "eth0", address: "192.0.2.2" }],
  routeSources: async () => ({ IPv4: "192.0.2.2" }),
};

let world: World;
let admin: HttpClient;
let rootDir: string;
let stop: AbortController;
let running: Promise<void>[];
let clients: HttpClient[];
let node: NodeAgent;
let csi: Csi;
let plugin: VolumePlugin;
let client: HttpClient;
let driver: FakeCsiDriver;

beforeEach(async () => {
  world = await startWorld();
  admin = world.client;
  rootDir = await mkdtemp(join(tmpdir(), "remora-csi-"));
  stop = new AbortController();
  const kubeconfig = await loadKubeconfig(world.controlPlane.files.nodeKubeconfig);
  const shared = { clock: systemClock, logger: silentLogger, random: Math.random };
  const connect = (): HttpClient => createHttpClient({ kubeconfig, userAgent: "test", ...shared });
  clients = [connect(), connect()];
  const [first, second] = clients;
  assert(first !== undefined && second !== undefined);
  client = first;
  const config = agentConfig(rootDir, { nodeName: "n1" });
  const inUse = new VolumesInUse();
  const events = { event: () => undefined };
  node = createNode({
    ...shared,
    config,
    client,
    leaseClient: second,
    runtime: () => undefined,
    images: { listImages: async () => [] },
    health: () => undefined,
    events,
    version: "v1.36.0",
    host,
    hardware: async () => Promise.reject(new Error("there is none")),
    inUse,
  });
  const mounter = new FakeMounter();
  const step = (): void => undefined;
  csi = createCsi({ ...shared, config, client, node: node.view, inUse, step, mounter });
  const tokens = new ServiceAccountTokens({ client, ...shared });
  const deps = { ...shared, config, client, events, tokens, mounter, step };
  plugin = csiPlugin(deps as unknown as Parameters<typeof csiPlugin>[0], csi);
  running = [node.run(stop.signal), csi.run(stop.signal)];
  driver = new FakeCsiDriver({
    rootDir,
    nodeID: "id-n1",
    maxVolumes: 5,
    topology: { "csi.example.test/zone": "a" },
    capabilities: ["stageUnstageVolume", "expandVolume"],
  });
});

afterEach(async () => {
  stop.abort();
  await Promise.all(running);
  await Promise.all(clients.map((each) => each.close()));
  await driver.stop();
  await world.close();
  await rm(rootDir, { recursive: true, force: true });
});

async function until<T>(what: string, look: () => Promise<T | undefined | false>): Promise<T> {
  for (let left = 600; left > 0; left -= 1) {
    const value = await look();
    if (value !== undefined && value !== false) return value;
    await systemClock.sleep(20, world.signal);
  }
  throw new Error(`${what}: it did not come to that`);
}

async function nodeNow(): Promise<Stored<Node>> {
  return getObject(admin, NODES, { name: "n1" }, { signal: world.signal });
}

async function attachments(): Promise<readonly Stored<VolumeAttachment>[]> {
  return (await listObjects(admin, VOLUME_ATTACHMENTS, { signal: world.signal })).items;
}

/** A claim, its volume, a Secret for the driver, and a pod of the node that has it. */
async function makePod(): Promise<Stored<Pod>> {
  const { signal } = world;
  const secret = { metadata: { name: "stage", namespace: "default" }, data: { key: "eA==" } };
  await createObject(admin, SECRETS, secret, { signal });
  await createObject(
    admin,
    PERSISTENT_VOLUMES,
    {
      metadata: { name: "pv-data" },
      spec: {
        capacity: { storage: "1Gi" },
        accessModes: ["ReadWriteOnce"],
        persistentVolumeReclaimPolicy: "Retain",
        claimRef: { namespace: "default", name: "data" },
        csi: {
          driver: driver.name,
          volumeHandle: "h1",
          nodeStageSecretRef: { namespace: "default", name: "stage" },
        },
      },
    },
    { signal },
  );
  await createObject(
    admin,
    PERSISTENT_VOLUME_CLAIMS,
    {
      metadata: { name: "data", namespace: "default" },
      spec: {
        accessModes: ["ReadWriteOnce"],
        storageClassName: "",
        volumeName: "pv-data",
        resources: { requests: { storage: "1Gi" } },
      },
    },
    { signal },
  );
  return createObject(
    admin,
    PODS,
    {
      metadata: { name: "web", namespace: "default" },
      spec: {
        nodeName: "n1",
        containers: [
          { name: "web", image: "app:1", volumeMounts: [{ name: "data", mountPath: "/data" }] },
        ],
        volumes: [{ name: "data", persistentVolumeClaim: { claimName: "data" } }],
      },
    },
    { signal },
  );
}

/** As the node sees the claim now. */
async function resolved(pod: Stored<Pod>): Promise<VolumeSpec> {
  const claims = new Claims({
    client,
    clock: systemClock,
    node: () => node.view.node()?.metadata,
    podsWith: async () => [],
  });
  const [volume] = pod.spec?.volumes ?? [];
  assert(volume !== undefined);
  return until("the claim", async () =>
    claims.resolve(pod, volume, world.signal).catch(() => undefined),
  );
}

it("a node may do all that the life of a CSI volume takes, and the controllers wait for it", async () => {
  const { signal } = world;
  await createObject(
    admin,
    CSI_DRIVERS,
    {
      metadata: { name: driver.name },
      spec: { attachRequired: true, tokenRequests: [{ audience: "vault" }] },
    },
    { signal },
  );
  await driver.start();
  await until("registration", async () => driver.registrations.length > 0);
  assert.deepEqual(driver.registrations, [{ pluginRegistered: true, error: "" }]);
  const csiNode = await getObject(admin, CSI_NODES, { name: "n1" }, { signal });
  assert.deepEqual(csiNode.spec.drivers, [
    {
      name: driver.name,
      nodeID: "id-n1",
      topologyKeys: ["csi.example.test/zone"],
      allocatable: { count: 5 },
    },
  ]);
  assert.equal((await nodeNow()).metadata.labels?.["csi.example.test/zone"], "a");

  const pod = await makePod();
  const spec = await resolved(pod);
  const path = join(rootDir, "pods", pod.metadata.uid, "volumes/kubernetes.io~csi/pv-data");
  const context = { pod, addresses: { podIPs: [], hostIPs: [] }, path, signal: stop.signal };
  const waiting = plugin.setUp(spec, context);
  const attachment = await until("the VolumeAttachment", async () => (await attachments())[0]);
  assert.deepEqual(driver.done, []);
  // What external-attacher does.
  await patchObject(
    admin,
    VOLUME_ATTACHMENTS,
    {
      name: attachment.metadata.name,
      patch: { status: { attached: true, attachmentMetadata: { device: "sdb" } } },
    },
    { signal, subresource: "status", type: "application/merge-patch+json" },
  );
  await waiting;
  assert.deepEqual(driver.last("stage").publishContext, { device: "sdb" });
  assert.deepEqual(driver.last("stage").secrets, { key: "x" });
  const tokens = driver.last("publish").volumeContext?.["csi.storage.k8s.io/serviceAccount.tokens"];
  assert.match(tokens ?? "", /^\{"vault":\{"token":"ey/);
  const unique = `kubernetes.io/csi/${driver.name}^h1`;
  assert.deepEqual((await nodeNow()).status?.volumesInUse, [unique]);

  // What external-resizer does.
  await patchObject(
    admin,
    PERSISTENT_VOLUMES,
    { name: "pv-data", patch: { spec: { capacity: { storage: "2Gi" } } } },
    { signal },
  );
  const status = {
    allocatedResources: { storage: "2Gi" },
    allocatedResourceStatuses: { storage: "NodeResizePending" },
  };
  await patchObject(
    admin,
    PERSISTENT_VOLUME_CLAIMS,
    { namespace: "default", name: "data", patch: { status } },
    { signal, subresource: "status", type: "application/merge-patch+json" },
  );
  await plugin.setUp(await resolved(pod), context);
  const at = { namespace: "default", name: "data" };
  const claim = await getObject(admin, PERSISTENT_VOLUME_CLAIMS, at, { signal });
  assert.deepEqual(claim.status?.capacity, { storage: "2Gi" });

  await deleteObject(
    admin,
    PODS,
    { namespace: "default", name: "web" },
    { gracePeriodSeconds: 0, signal },
  );
  await systemClock.sleep(100, signal);
  assert.equal((await attachments())[0]?.metadata.deletionTimestamp, undefined, "it is in use");
  await plugin.tearDown?.({ podUID: pod.metadata.uid, name: "pv-data", path }, signal);
  await until("unstaging", async () => driver.staged.size === 0);
  await until(
    "not in use",
    async () => ((await nodeNow()).status?.volumesInUse ?? []).length === 0,
  );
  await until("detaching", async () =>
    (await attachments()).every(({ metadata }) => metadata.deletionTimestamp !== undefined),
  );
  await driver.stop();
  await until("removal", async () => {
    const { spec } = await getObject(admin, CSI_NODES, { name: "n1" }, { signal });
    // As the API prints an empty list.
    return spec.drivers === null;
  });
});

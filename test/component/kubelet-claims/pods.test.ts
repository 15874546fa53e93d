import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";

import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS } from "../../../src/api/resources.ts";
import type {
  PersistentVolume,
  PersistentVolumeClaim,
  PersistentVolumeSpec,
} from "../../../src/api/types.gen.ts";
import { makeWorld, podManifest, type World } from "../kubelet-pods/fixture.ts";

async function withWorld(work: (world: World) => Promise<void>): Promise<void> {
  const world = await makeWorld();
  try {
    await work(world);
  } finally {
    await world.close();
  }
}

function isReady(world: World): boolean {
  const { conditions = [] } = world.pod("web")?.status ?? {};
  return conditions.some(({ status, type }) => type === "Ready" && status === "True");
}

function bind(world: World, spec: PersistentVolumeSpec, annotations = {}): void {
  const { metadata } = world.api.put<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, {
    metadata: { name: "data", namespace: "default" },
    spec: { volumeName: "pv-data" },
    status: { phase: "Bound" },
  });
  world.api.put<PersistentVolume>(PERSISTENT_VOLUMES, {
    metadata: { name: "pv-data", annotations },
    spec: { ...spec, claimRef: { uid: metadata.uid } },
  });
}

function put(world: World): void {
  const volumes = [
    { name: "v", persistentVolumeClaim: { claimName: "data", readOnly: true } },
    { name: "unused", persistentVolumeClaim: { claimName: "nobody's" } },
  ];
  const volumeMounts = [{ name: "v", mountPath: "/v" }];
  const containers = [{ name: "main", image: "app:1", volumeMounts }];
  world.api.put(PODS, podManifest("web", { containers, volumes }));
}

test("a pod waits for its claim, says so in the kubelet's words, and starts once it is bound", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, {
      metadata: { name: "data", namespace: "default" },
      status: { phase: "Pending" },
    });
    put(world);
    const event = await world.until("event", () =>
      world.events.find(({ reason }) => reason === "FailedMount"),
    );
    assert.equal(
      event.message,
      "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: error processing PVC default/data: PVC is not bound",
    );
    assert.equal(world.pod("web")?.status?.phase, "Pending");
    const path = join(world.rootDir, "host");
    bind(
      world,
      { hostPath: { path, type: "DirectoryOrCreate" } },
      { "pv.beta.kubernetes.io/gid": "4242" },
    );
    await world.until("ready", () => isReady(world));
    const [container] = world.runtime.containers.values();
    const mount = container?.config.mounts.find(({ containerPath }) => containerPath === "/v");
    assert.deepEqual([mount?.hostPath, mount?.readOnly], [path, true]);
    assert(container?.config.security.supplementalGroups.includes(4242));
  });
});

test("a volume of another node keeps the pod waiting, with the name of the volume", async () => {
  await withWorld(async (world) => {
    world.start();
    const matchExpressions = [{ key: "zone", operator: "In" as const, values: ["far"] }];
    const nodeAffinity = { required: { nodeSelectorTerms: [{ matchExpressions }] } };
    bind(world, { hostPath: { path: "/mnt" }, nodeAffinity });
    put(world);
    const event = await world.until("event", () =>
      world.events.find(({ reason }) => reason === "FailedMount"),
    );
    assert.equal(
      event.message,
      'MountVolume.NodeAffinity check failed for volume "pv-data" : no matching NodeSelectorTerms',
    );
  });
});

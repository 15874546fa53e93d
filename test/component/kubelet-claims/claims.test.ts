import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import type { ApiClient } from "../../../src/api/client.ts";
import { ApiError, ApiUnavailableError } from "../../../src/api/errors.ts";
import type { SelectableNode } from "../../../src/api/selectors.ts";
import type { Container, PersistentVolumeSpec, Volume } from "../../../src/api/types.gen.ts";
import { Claims, claimName, volumeGroup } from "../../../src/kubelet/volumes/claims.ts";
import { podsWithVolume } from "../../../src/kubelet/volumes/volume-users.ts";
import { persistent, pod, signal } from "./fixture.ts";

interface Objects {
  claim: Record<string, unknown> | undefined;
  volume: Record<string, unknown> | undefined;
}

const claimPath = "/api/v1/namespaces/default/persistentvolumeclaims/data";
const volumePath = "/api/v1/persistentvolumes/pv-1";

function claim(more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    metadata: { name: "data", namespace: "default", uid: "claim-1", resourceVersion: "1" },
    spec: { volumeName: "pv-1" },
    status: { phase: "Bound" },
    ...more,
  };
}

function volume(spec: PersistentVolumeSpec = {}): Record<string, unknown> {
  return {
    metadata: { name: "pv-1", uid: "pv-uid", resourceVersion: "1" },
    spec: { claimRef: { uid: "claim-1" }, ...spec },
  };
}

class World {
  readonly objects: Objects = { claim: claim(), volume: volume() };
  readonly asked: string[] = [];
  away = false;
  now = 0;
  node: SelectableNode | undefined = { name: "n1", labels: { zone: "a" } };
  onDisk: string[] = [];
  readonly claims: Claims;

  constructor() {
    const client: Pick<ApiClient, "request"> = {
      request: async ({ path }) => {
        this.asked.push(path);
        if (this.away) throw new ApiUnavailableError("connection refused");
        const found =
          path === claimPath
            ? this.objects.claim
            : path === volumePath
              ? this.objects.volume
              : undefined;
        if (found !== undefined) return found;
        const [plural, name] = path.split("/").slice(-2);
        throw new ApiError(404, "NotFound", `${plural ?? ""} "${name ?? ""}" not found`);
      },
    };
    this.claims = new Claims({
      client: client as ApiClient,
      clock: { now: () => this.now, monotonic: () => this.now, sleep: async () => undefined },
      node: () => this.node,
      podsWith: async () => this.onDisk,
    });
  }

  async resolve(
    uid = "a",
    containers: Container[] = [{ name: "main" }],
  ): ReturnType<Claims["resolve"]> {
    const source: Volume = { name: "v", persistentVolumeClaim: { claimName: "data" } };
    return this.claims.resolve(pod(uid, { containers }), source, signal);
  }
}

const prefix = "error processing PVC default/data: ";

describe("a claim is followed to its volume", () => {
  test("and to the pod's own claim behind an ephemeral volume", async () => {
    const world = new World();
    const spec = await world.resolve();
    assert.equal(spec.persistent?.volume.metadata?.name, "pv-1");
    assert.equal(spec.readOnly, false);
    assert.deepEqual(world.asked, [claimPath, volumePath]);
    assert.equal(claimName(pod("a"), { name: "scratch", ephemeral: {} }), "pod-a-scratch");
    assert.equal(claimName(pod("a"), { name: "x", emptyDir: {} }), undefined);
  });

  const refusals: readonly (readonly [string, (world: World) => void, string])[] = [
    [
      "there is none",
      ({ objects }) => void (objects.claim = undefined),
      `${prefix}failed to fetch PVC from API server: persistentvolumeclaims "data" not found`,
    ],
    [
      "it is not bound",
      ({ objects }) => void (objects.claim = claim({ status: { phase: "Pending" } })),
      `${prefix}PVC is not bound`,
    ],
    [
      "it names no volume",
      ({ objects }) => void (objects.claim = claim({ spec: {} })),
      `${prefix}PVC has empty pvc.Spec.VolumeName`,
    ],
    [
      "it is being deleted and nobody protects it",
      ({ objects }) => {
        const metadata = {
          ...(claim()["metadata"] as object),
          deletionTimestamp: "2026-01-01T00:00:00Z",
        };
        objects.claim = claim({ metadata });
      },
      `${prefix}PVC is being deleted`,
    ],
    [
      "its volume is gone",
      ({ objects }) => void (objects.volume = undefined),
      `${prefix}failed to fetch PV pv-1 from API server: persistentvolumes "pv-1" not found`,
    ],
    [
      "its volume is bound to nothing",
      ({ objects }) => void (objects.volume = { ...volume(), spec: {} }),
      `${prefix}found PV object pv-1 but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim`,
    ],
    [
      "its volume is bound to another claim of this name",
      ({ objects }) => void (objects.volume = { ...volume(), spec: { claimRef: { uid: "old" } } }),
      `${prefix}found PV object pv-1 but its pv.Spec.ClaimRef.UID old does not point to claim.UID claim-1`,
    ],
    [
      "its volume is on another node",
      ({ objects }) => {
        const matchExpressions = [{ key: "zone", operator: "In" as const, values: ["b"] }];
        const required = { nodeSelectorTerms: [{ matchExpressions }] };
        objects.volume = volume({ nodeAffinity: { required } });
      },
      'MountVolume.NodeAffinity check failed for volume "pv-1" : no matching NodeSelectorTerms',
    ],
  ];
  for (const [when, change, message] of refusals) {
    test(`but not when ${when}`, async () => {
      const world = new World();
      change(world);
      await assert.rejects(world.resolve(), { message });
    });
  }

  test("also while it is being deleted, if it is protected: the pod may be the one that it waits for", async () => {
    const world = new World();
    const metadata = {
      ...(claim()["metadata"] as object),
      deletionTimestamp: "2026-01-01T00:00:00Z",
      finalizers: ["kubernetes.io/pvc-protection"],
    };
    world.objects.claim = claim({ metadata });
    assert.equal((await world.resolve()).persistent?.volume.metadata?.name, "pv-1");
  });

  test("but not to a claim of the ephemeral name that is not the pod's own", async () => {
    const world = new World();
    world.objects.claim = claim();
    const source: Volume = { name: "v", ephemeral: {} };
    const subject = pod("a");
    subject.metadata.name = "data";
    // The claim would be called data-v.
    await assert.rejects(world.claims.resolve(subject, source, signal), /"data-v" not found/);
    subject.metadata.name = "da";
    const named = { ...source, name: "ta" };
    world.objects.claim = undefined;
    await assert.rejects(world.claims.resolve(subject, named, signal), /"da-ta" not found/);
  });

  test("with the mode that the containers use it in", async () => {
    const world = new World();
    const devices = [{ name: "main", volumeDevices: [{ name: "v", devicePath: "/dev/x" }] }];
    await assert.rejects(world.resolve("a", devices), {
      message: "volume v has volumeMode Filesystem, but is specified in volumeDevices",
    });
    world.objects.volume = volume({ volumeMode: "Block" });
    await world.resolve("a", devices);
    const mounts = [{ name: "main", volumeMounts: [{ name: "v", mountPath: "/x" }] }];
    await assert.rejects(world.resolve("b", mounts), {
      message: "volume v has volumeMode Block, but is specified in volumeMounts",
    });
  });
});

describe("an ephemeral volume", () => {
  test("is refused when its claim has another owner", async () => {
    const world = new World();
    const subject = pod("a");
    subject.metadata.name = "data";
    const paths = new Map<string, unknown>();
    const claims = new Claims({
      client: {
        request: async ({ path }: { path: string }) => paths.get(path),
      } as unknown as ApiClient,
      clock: { now: () => 0, monotonic: () => 0, sleep: async () => undefined },
      node: () => world.node,
      podsWith: async () => [],
    });
    const metadata = {
      name: "data-v",
      namespace: "default",
      uid: "claim-1",
      resourceVersion: "1",
      ownerReferences: [
        { kind: "Pod", name: "data", uid: "other", apiVersion: "v1", controller: true },
      ],
    };
    paths.set(claimPath.replace("/data", "/data-v"), claim({ metadata }));
    paths.set(volumePath, volume());
    const source: Volume = { name: "v", ephemeral: {} };
    await assert.rejects(claims.resolve(subject, source, signal), {
      message: "PVC default/data-v was not created for pod default/data (pod is not owner)",
    });
    metadata.ownerReferences = [
      { kind: "Pod", name: "data", uid: "a", apiVersion: "v1", controller: true },
    ];
    assert.equal((await claims.resolve(subject, source, signal)).name, "v");
  });
});

describe("a volume that only one pod may have", () => {
  const modes: PersistentVolumeSpec = { accessModes: ["ReadWriteOncePod"] };
  const message =
    'MountVolume.SetUp failed for volume "pv-1" : volume uses the ReadWriteOncePod access mode and is already in use by another pod';

  test("is given to the first, and to the next once it is let go", async () => {
    const world = new World();
    world.objects.volume = volume(modes);
    const both = await Promise.allSettled([world.resolve("a"), world.resolve("b")]);
    assert.deepEqual(
      both.map(({ status }) => status),
      ["fulfilled", "rejected"],
    );
    await assert.rejects(world.resolve("b"), { message });
    world.claims.forget("a");
    await world.resolve("b");
  });

  test("stays with the pod that has it on disk when the agent starts anew", async () => {
    const world = new World();
    world.objects.volume = volume(modes);
    world.onDisk = ["a"];
    await assert.rejects(world.resolve("b"), { message });
    await world.resolve("a");
  });

  test("is no such volume when it has other modes too", async () => {
    const world = new World();
    world.objects.volume = volume({ accessModes: ["ReadWriteOncePod", "ReadOnlyMany"] });
    await world.resolve("a");
    await world.resolve("b");
  });
});

describe("what was found is remembered", () => {
  test("for ten minutes; for one where the volume may grow; never across pods", async () => {
    const world = new World();
    await world.resolve("a");
    world.now = 599_000;
    await world.resolve("a");
    assert.equal(world.asked.length, 2);
    await world.resolve("b");
    assert.equal(world.asked.length, 4);
    world.now = 601_000;
    await world.resolve("a");
    assert.equal(world.asked.length, 6);
    world.objects.volume = volume({ csi: { driver: "d", volumeHandle: "h" } });
    await world.resolve("c");
    world.now += 61_000;
    await world.resolve("c");
    assert.equal(world.asked.length, 10);
  });

  test("while the API server is away, but not when it says no", async () => {
    const world = new World();
    const first = await world.resolve("a");
    world.now = 700_000;
    world.away = true;
    assert.equal(await world.resolve("a"), first);
    await assert.rejects(world.resolve("b"), /connection refused/);
    world.away = false;
    world.objects.claim = undefined;
    await assert.rejects(world.resolve("a"), /not found/);
  });
});

test("the group of a volume is a number or none", () => {
  const annotated = (text: string): number | undefined =>
    volumeGroup(persistent("pv-1", {}, { annotations: { "pv.beta.kubernetes.io/gid": text } }));
  assert.equal(annotated("5678"), 5678);
  assert.equal(annotated("-1"), undefined);
  assert.equal(annotated("x"), undefined);
  assert.equal(volumeGroup(persistent("pv-1", {})), undefined);
});

test("pods that have a volume are found by their directories, whatever its type and mode", async () => {
  const root = await mkdtemp(join(tmpdir(), "claims-"));
  try {
    assert.deepEqual(await podsWithVolume(root, "pv-1"), []);
    mkdirSync(join(root, "pods/a/volumes/kubernetes.io~nfs/pv-1"), { recursive: true });
    mkdirSync(join(root, "pods/b/volumeDevices/kubernetes.io~csi/pv-1"), { recursive: true });
    mkdirSync(join(root, "pods/c/volumes/kubernetes.io~nfs/pv-2"), { recursive: true });
    assert.deepEqual((await podsWithVolume(root, "pv-1")).toSorted(), ["a", "b"]);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
});

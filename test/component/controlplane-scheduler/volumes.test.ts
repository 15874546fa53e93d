import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import {
  createObject,
  deleteObject,
  getObject,
  listObjects,
  patchObject,
} from "../../../src/api/objects.ts";
import {
  CSI_NODES,
  EVENTS,
  NODES,
  PERSISTENT_VOLUME_CLAIMS as CLAIMS,
  PERSISTENT_VOLUMES as VOLUMES,
  PODS,
  STORAGE_CLASSES,
} from "../../../src/api/resources.ts";
import type {
  Event,
  PersistentVolumeClaim,
  PersistentVolumeClaimSpec,
  PersistentVolumeSpec,
  Pod,
  Volume,
} from "../../../src/api/types.gen.ts";
import { podCondition } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import type { World } from "../controlplane-controllers/world.ts";
import { eventually, registerNode, startWorld } from "../controlplane-controllers/world.ts";

const nodes = ["n1", "n2"];
const namespace = "default";
const selectedNode = "volume.kubernetes.io/selected-node";

describe("the scheduler and volumes", () => {
  let world: World;
  before(async () => {
    world = await startWorld();
    const { client, signal } = world;
    for (const name of nodes) await registerNode(world, name);
    const unsettled = async (): Promise<true | undefined> => {
      const { items } = await listObjects(client, NODES, { signal });
      return items.every(({ spec }) => (spec?.taints ?? []).length === 0) ? true : undefined;
    };
    await eventually("nodes without taints", unsettled);
    for (const name of nodes) {
      const patch = { metadata: { labels: { "kubernetes.io/hostname": name } } };
      await patchObject(client, NODES, { name, patch }, { signal });
    }
    const class_ = (
      name: string,
      provisioner: string,
      volumeBindingMode: "Immediate" | "WaitForFirstConsumer",
    ) =>
      createObject(
        client,
        STORAGE_CLASSES,
        { metadata: { name }, provisioner, volumeBindingMode },
        { signal },
      );
    await class_("static", "kubernetes.io/no-provisioner", "WaitForFirstConsumer");
    await class_("made", "csi.example.com", "WaitForFirstConsumer");
    await class_("now", "csi.example.com", "Immediate");
  });
  after(() => world.close());

  const at = (name: string): { namespace: string; name: string } => ({ namespace, name });

  async function pod(name: string, ...volumes: Volume[]): Promise<void> {
    const body: Pod = {
      metadata: at(name),
      spec: {
        automountServiceAccountToken: false,
        containers: [{ name: "c", image: "registry.k8s.io/pause:3.10" }],
        volumes,
      },
    };
    await createObject(world.client, PODS, body, { signal: world.signal });
  }

  const using = (claimName: string): Volume => ({
    name: claimName,
    persistentVolumeClaim: { claimName },
  });

  async function claim(name: string, spec: Partial<PersistentVolumeClaimSpec>): Promise<void> {
    const body: PersistentVolumeClaim = {
      metadata: at(name),
      spec: {
        accessModes: ["ReadWriteOnce"],
        resources: { requests: { storage: "1Gi" } },
        ...spec,
      },
    };
    await createObject(world.client, CLAIMS, body, { signal: world.signal });
  }

  async function volume(
    name: string,
    storage: string,
    node: string,
    spec: Partial<PersistentVolumeSpec> = {},
  ): Promise<void> {
    await createObject(
      world.client,
      VOLUMES,
      {
        metadata: { name },
        spec: {
          capacity: { storage },
          accessModes: ["ReadWriteOnce"],
          storageClassName: "static",
          local: { path: `/data/${name}` },
          nodeAffinity: {
            required: {
              nodeSelectorTerms: [
                {
                  matchExpressions: [
                    { key: "kubernetes.io/hostname", operator: "In", values: [node] },
                  ],
                },
              ],
            },
          },
          ...spec,
        },
      },
      { signal: world.signal },
    );
    await eventually(`${name} is known`, async () => {
      const { status } = await getObject(world.client, VOLUMES, { name }, { signal: world.signal });
      return status?.phase === "Pending" ? undefined : true;
    });
  }

  const getPod = (name: string): Promise<Stored<Pod>> =>
    getObject(world.client, PODS, at(name), { signal: world.signal });
  const getClaim = (name: string): Promise<Stored<PersistentVolumeClaim>> =>
    getObject(world.client, CLAIMS, at(name), { signal: world.signal });

  const placed = (name: string): Promise<string> =>
    eventually(`${name} has a node`, async () => {
      const node = (await getPod(name)).spec?.nodeName ?? "";
      return node === "" ? undefined : node;
    });
  const refused = (name: string, reason = "Unschedulable"): Promise<string> =>
    eventually(`${name} is refused`, async () => {
      const condition = podCondition(await getPod(name), "PodScheduled");
      return condition?.status === "False" && condition.reason === reason
        ? condition.message
        : undefined;
    });
  const events = async (name: string): Promise<readonly Event[]> => {
    const fieldSelector = `involvedObject.name=${name}`;
    const { signal } = world;
    return (await listObjects(world.client, EVENTS, { namespace, fieldSelector, signal })).items;
  };
  const chosen = (name: string): Promise<string> =>
    eventually(`a node is chosen for ${name}`, async () => {
      return (await getClaim(name)).metadata.annotations?.[selectedNode];
    });

  async function remove(...names: string[]): Promise<void> {
    for (const name of names)
      await deleteObject(world.client, PODS, at(name), {
        gracePeriodSeconds: 0,
        signal: world.signal,
      });
  }

  test("a pod waits for its claim to be there, and for an immediate one to be bound", async () => {
    await pod("early", using("late"));
    assert.equal(
      await refused("early"),
      '0/2 nodes are available: persistentvolumeclaim "late" not found. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.',
    );
    await claim("late", { storageClassName: "now" });
    await eventually("the reason changes", async () => {
      const found = await refused("early");
      return found.startsWith(
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. ",
      )
        ? true
        : undefined;
    });
    await volume("provisioned", "1Gi", "n2", { storageClassName: "now" });
    assert.equal(await placed("early"), "n2");
    await remove("early");
  });

  test("a pod goes where the smallest volume is that fits, and the claims are bound there", async () => {
    await volume("small", "1Gi", "n2");
    await volume("large", "5Gi", "n2");
    await claim("two", { storageClassName: "static" });
    await claim("four", {
      storageClassName: "static",
      resources: { requests: { storage: "4Gi" } },
    });
    await pod("both", using("four"), using("two"));
    assert.equal(await placed("both"), "n2");
    assert.equal((await getClaim("two")).spec?.volumeName, "small");
    assert.equal((await getClaim("four")).spec?.volumeName, "large");
    assert.equal((await getClaim("two")).status?.phase, "Bound");
    await claim("none-left", { storageClassName: "static" });
    await pod("without", using("none-left"));
    assert.match(
      await refused("without"),
      /^0\/2 nodes are available: 2 node\(s\) didn't find available persistent volumes to bind\. /,
    );
    await volume("one-more", "2Gi", "n1");
    assert.equal(await placed("without"), "n1");
    await remove("both", "without");
  });

  test("a bound volume keeps its pods on its node", async () => {
    await patchObject(
      world.client,
      NODES,
      { name: "n1", patch: { spec: { unschedulable: true } } },
      { signal: world.signal },
    );
    await pod("again", using("none-left"));
    assert.match(
      await refused("again"),
      /^0\/2 nodes are available: 1 node\(s\) didn't match PersistentVolume's node affinity, 1 node\(s\) were unschedulable\. /,
    );
    await patchObject(
      world.client,
      NODES,
      { name: "n1", patch: { spec: { unschedulable: null } } },
      { signal: world.signal },
    );
    assert.equal(await placed("again"), "n1");
    await remove("again");
  });

  test("two pods at once never get one volume", async () => {
    await volume("only", "1Gi", "n1", { storageClassName: "static" });
    await claim("race-1", { storageClassName: "static" });
    await claim("race-2", { storageClassName: "static" });
    await Promise.all([pod("racer-1", using("race-1")), pod("racer-2", using("race-2"))]);
    const winner = await Promise.race(
      ["racer-1", "racer-2"].map((name) => placed(name).then(() => name)),
    );
    const loser = winner === "racer-1" ? "racer-2" : "racer-1";
    assert.match(await refused(loser), /didn't find available persistent volumes to bind/);
    const failed = [...(await events("racer-1")), ...(await events("racer-2"))].filter(
      ({ message }) => message?.includes("PreBind"),
    );
    assert.deepEqual(failed, []);
    await remove("racer-1", "racer-2");
  });

  test("a volume is made for the node that was chosen; the pod has no node before", async () => {
    await claim("to-make", { storageClassName: "made" });
    await pod("maker", using("to-make"));
    const node = await chosen("to-make");
    assert.equal((await getPod("maker")).spec?.nodeName, undefined);
    const { metadata } = await getClaim("to-make");
    await volume("pvc-made", "1Gi", node, {
      storageClassName: "made",
      claimRef: {
        kind: "PersistentVolumeClaim",
        apiVersion: "v1",
        ...at("to-make"),
        uid: metadata.uid,
      },
    });
    assert.equal(await placed("maker"), node);
    const scheduled = await eventually("event", async () =>
      (await events("maker")).find(({ reason }) => reason === "Scheduled"),
    );
    assert.equal(scheduled.message, `Successfully assigned default/maker to ${node}`);
    await remove("maker");
  });

  test("when the volume cannot be made, another node is chosen", async () => {
    await claim("hard", { storageClassName: "made" });
    await pod("patient", using("hard"));
    await chosen("hard");
    const patch = { metadata: { annotations: { [selectedNode]: null } } };
    await patchObject(world.client, CLAIMS, { ...at("hard"), patch }, { signal: world.signal });
    const failed = await eventually("event", async () =>
      (await events("patient")).find(({ reason }) => reason === "FailedScheduling"),
    );
    assert.equal(
      failed.message,
      'running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "hard"',
    );
    await chosen("hard");
    await remove("patient");
  });

  test("a pod that goes while its volume is made lets the next one have its room", async () => {
    await claim("left", { storageClassName: "made" });
    await pod("leaver", using("left"));
    await chosen("left");
    await remove("leaver");
    await pod("heir", using("left"));
    const node = await chosen("left");
    const { metadata } = await getClaim("left");
    await volume("pvc-left", "1Gi", node, {
      storageClassName: "made",
      claimRef: {
        kind: "PersistentVolumeClaim",
        apiVersion: "v1",
        ...at("left"),
        uid: metadata.uid,
      },
    });
    assert.equal(await placed("heir"), node);
    assert.deepEqual(
      (await events("leaver")).filter(({ type }) => type === "Warning"),
      [],
    );
    await remove("heir");
  });

  test("a claim for one pod is used by one pod", async () => {
    await volume("exclusive", "1Gi", "n1", { accessModes: ["ReadWriteOncePod"] });
    await claim("mine", { storageClassName: "static", accessModes: ["ReadWriteOncePod"] });
    await pod("first", using("mine"));
    assert.equal(await placed("first"), "n1");
    await pod("second", using("mine"));
    assert.match(
      await refused("second"),
      /2 node\(s\) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod/,
    );
    await remove("first");
    assert.equal(await placed("second"), "n1");
    await remove("second");
  });

  test("a node takes as many volumes of a driver as it says", async () => {
    const { client, signal } = world;
    for (const name of nodes) {
      const count = name === "n1" ? 1 : 0;
      await createObject(
        client,
        CSI_NODES,
        {
          metadata: { name },
          spec: { drivers: [{ name: "disk.example.com", nodeID: name, allocatable: { count } }] },
        },
        { signal },
      );
    }
    for (const name of ["a", "b"]) {
      await createObject(
        client,
        VOLUMES,
        {
          metadata: { name: `disk-${name}` },
          spec: {
            capacity: { storage: "1Gi" },
            accessModes: ["ReadWriteOnce"],
            storageClassName: "disks",
            csi: { driver: "disk.example.com", volumeHandle: name },
            claimRef: at(`disk-${name}`),
          },
        },
        { signal },
      );
      await claim(`disk-${name}`, { storageClassName: "disks", volumeName: `disk-${name}` });
    }
    await pod("disk-user", using("disk-a"));
    assert.equal(await placed("disk-user"), "n1");
    await pod("disk-waiter", using("disk-b"));
    await eventually("too many", async () =>
      (await refused("disk-waiter")).includes("2 node(s) exceed max volume count")
        ? true
        : undefined,
    );
    await remove("disk-user");
    assert.equal(await placed("disk-waiter"), "n1");
    await remove("disk-waiter");
  });

  // Last, because the nodes grow old with it.
  test("after ten minutes without a volume the place is given up", async () => {
    await claim("never", { storageClassName: "made" });
    await pod("tired", using("never"));
    await chosen("never");
    world.clock.leap(10 * 60_000 + 1_000);
    assert.equal(
      await refused("tired", "SchedulerError"),
      'running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded',
    );
    await remove("tired");
  });
});

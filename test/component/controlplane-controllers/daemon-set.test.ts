import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { isNotFound } from "../../../src/api/errors.ts";
import type { Stored } from "../../../src/api/object.ts";
import {
  createObject,
  deleteObject,
  getObject,
  listObjects,
  patchObject,
} from "../../../src/api/objects.ts";
import { CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS } from "../../../src/api/resources.ts";
import type { DaemonSet, DaemonSetSpec, Pod } from "../../../src/api/types.gen.ts";
import type { World } from "./world.ts";
import { eventually, postReady, postRunning, registerNode, startWorld } from "./world.ts";

const namespace = "default";
const nodes = ["n1", "n2", "n3"];

describe("DaemonSets against the real API server", () => {
  let world: World;

  before(async () => {
    world = await startWorld();
    for (const node of nodes) await registerNode(world, node);
  });

  after(async () => {
    await world.close();
  });

  async function create(name: string, spec: Partial<DaemonSetSpec> = {}): Promise<void> {
    const object: DaemonSet = {
      metadata: { namespace, name },
      spec: {
        selector: { matchLabels: { app: name } },
        template: {
          metadata: { labels: { app: name } },
          spec: { containers: [{ name: "c", image: "i:1" }] },
        },
        ...spec,
      },
    };
    await eventually("the DaemonSet is created", async () => {
      try {
        return await createObject(world.client, DAEMON_SETS, object, { signal: world.signal });
      } catch (error) {
        if (isNotFound(error)) return undefined;
        throw error;
      }
    });
  }

  async function find(name: string): Promise<Stored<DaemonSet>> {
    return getObject(world.client, DAEMON_SETS, { namespace, name }, { signal: world.signal });
  }

  async function podsOf(name: string): Promise<readonly Stored<Pod>[]> {
    const { signal } = world;
    const labelSelector = `app=${name}`;
    const { items } = await listObjects(world.client, PODS, { namespace, labelSelector, signal });
    return items;
  }

  function nodesOf(pods: readonly Stored<Pod>[]): readonly string[] {
    return pods.flatMap(({ spec }) => spec?.nodeName ?? []).toSorted();
  }

  /** Waits until the pods that are not going away are bound to these nodes, one each. */
  async function on(name: string, wanted: readonly string[]): Promise<readonly Stored<Pod>[]> {
    return eventually(`${name} is on ${wanted.join(", ")}`, async () => {
      const pods = (await podsOf(name)).filter(
        ({ metadata }) => metadata.deletionTimestamp === undefined,
      );
      const same = pods.length === wanted.length && nodesOf(pods).join() === wanted.join();
      return same ? pods : undefined;
    });
  }

  /** A kubelet: new pods run, those that are told to end are gone. Returns how many had to go. */
  async function playKubelet(name: string): Promise<number> {
    let ended = 0;
    for (const pod of await podsOf(name)) {
      if (pod.metadata.deletionTimestamp !== undefined) {
        await removeNow(pod);
        ended += 1;
      } else if (pod.spec?.nodeName !== undefined && pod.status?.phase === "Pending")
        await postRunning(world, pod, "10.244.0.9");
    }
    return ended;
  }

  async function removeNow(pod: Stored<Pod>): Promise<void> {
    const { uid } = pod.metadata;
    const now = { gracePeriodSeconds: 0, uid, signal: world.signal };
    await deleteObject(world.client, PODS, pod.metadata, now);
  }

  async function patch(name: string, spec: object): Promise<void> {
    const at = { namespace, name, patch: { spec } };
    await patchObject(world.client, DAEMON_SETS, at, { signal: world.signal });
  }

  async function setImage(name: string, image: string): Promise<void> {
    await patch(name, { template: { spec: { containers: [{ name: "c", image }] } } });
  }

  async function rolledOut(name: string, image: string): Promise<void> {
    await eventually(`${name} runs ${image}`, async () => {
      await playKubelet(name);
      const { metadata, status } = await find(name);
      const pods = await podsOf(name);
      return status?.observedGeneration === metadata.generation &&
        status?.updatedNumberScheduled === nodes.length &&
        status.numberAvailable === nodes.length &&
        pods.length === nodes.length &&
        pods.every(({ spec }) => spec?.containers[0]?.image === image)
        ? true
        : undefined;
    });
  }

  async function patchNode(name: string, change: object): Promise<void> {
    await patchObject(world.client, NODES, { name, patch: change }, { signal: world.signal });
  }

  async function remove(name: string): Promise<void> {
    const { signal } = world;
    const at = { namespace, name };
    await deleteObject(world.client, DAEMON_SETS, at, { propagationPolicy: "Background", signal });
    await eventually("its pods are gone", async () => {
      await playKubelet(name);
      return (await podsOf(name)).length === 0 ? true : undefined;
    });
  }

  test("puts one pod on every node, through the scheduler, and counts them", async () => {
    await create("all");
    const pods = await on("all", nodes);
    for (const { spec, metadata } of pods) {
      const affinity = spec?.affinity?.nodeAffinity;
      const [term] =
        affinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? [];
      assert.deepEqual(term?.matchFields, [
        { key: "metadata.name", operator: "In", values: [spec?.nodeName] },
      ]);
      assert.ok(spec?.tolerations?.some(({ key }) => key === "node.kubernetes.io/disk-pressure"));
      assert.notEqual(metadata.labels?.["controller-revision-hash"], undefined);
    }
    await playKubelet("all");
    const { status } = await eventually("all are available", async () => {
      const daemonSet = await find("all");
      return daemonSet.status?.numberAvailable === 3 ? daemonSet : undefined;
    });
    assert.equal(status?.desiredNumberScheduled, 3);
    assert.equal(status?.currentNumberScheduled, 3);
    assert.equal(status?.numberReady, 3);
    assert.equal(status?.updatedNumberScheduled, 3);
    assert.equal(status?.numberUnavailable, undefined);
    assert.equal(status?.numberMisscheduled, 0);
    await remove("all");
  });

  test("follows labels and taints of nodes; a NoSchedule taint lets a pod stay, misscheduled", async () => {
    const template = {
      metadata: { labels: { app: "picky" } },
      spec: { nodeSelector: { disk: "fast" }, containers: [{ name: "c", image: "i:1" }] },
    };
    await create("picky", { template });
    await eventually("no node is wanted", async () =>
      (await find("picky")).status?.observedGeneration === 1 ? true : undefined,
    );
    assert.deepEqual(await podsOf("picky"), []);
    await patchNode("n1", { metadata: { labels: { disk: "fast" } } });
    await patchNode("n2", { metadata: { labels: { disk: "fast" } } });
    await on("picky", ["n1", "n2"]);
    await playKubelet("picky");
    await patchNode("n2", { metadata: { labels: { disk: null } } });
    await on("picky", ["n1"]);
    await playKubelet("picky");
    await patchNode("n1", { spec: { taints: [{ key: "busy", effect: "NoSchedule" }] } });
    await eventually("the pod is counted as misscheduled", async () =>
      (await find("picky")).status?.numberMisscheduled === 1 ? true : undefined,
    );
    await on("picky", ["n1"]);
    await patchNode("n1", { metadata: { labels: { disk: null } }, spec: { taints: null } });
    await remove("picky");
  });

  test("updates no more nodes at a time than may be unavailable", async () => {
    await create("rolling");
    await on("rolling", nodes);
    await playKubelet("rolling");
    await eventually("all are available", async () =>
      (await find("rolling")).status?.numberAvailable === 3 ? true : undefined,
    );
    await setImage("rolling", "i:2");
    let most = 0;
    await eventually("all are replaced", async () => {
      const pods = await podsOf("rolling");
      const running = pods.filter(
        ({ metadata, status }) =>
          metadata.deletionTimestamp === undefined && status?.phase === "Running",
      );
      most = Math.max(most, nodes.length - running.length);
      await playKubelet("rolling");
      return running.length === 3 &&
        running.every(({ spec }) => spec?.containers[0]?.image === "i:2")
        ? true
        : undefined;
    });
    assert.equal(most, 1);
    await remove("rolling");
  });

  test("with maxSurge the new pod is available before the old one goes", async () => {
    await create("surging", {
      updateStrategy: {
        type: "RollingUpdate",
        rollingUpdate: { maxSurge: 1, maxUnavailable: 0 },
      },
    });
    await on("surging", nodes);
    await playKubelet("surging");
    await eventually("all are available", async () =>
      (await find("surging")).status?.numberAvailable === 3 ? true : undefined,
    );
    await setImage("surging", "i:2");
    await eventually("all are replaced", async () => {
      const pods = await podsOf("surging");
      const serving = new Set(
        pods
          .filter(
            ({ metadata, status }) =>
              metadata.deletionTimestamp === undefined && status?.phase === "Running",
          )
          .map(({ spec }) => spec?.nodeName),
      );
      assert.equal(serving.size, 3);
      assert.ok(pods.filter((pod) => pod.metadata.deletionTimestamp === undefined).length <= 4);
      await playKubelet("surging");
      return pods.length === 3 && pods.every(({ spec }) => spec?.containers[0]?.image === "i:2")
        ? true
        : undefined;
    });
    await remove("surging");
  });

  test("OnDelete leaves old pods alone until somebody deletes them", async () => {
    await create("manual", { updateStrategy: { type: "OnDelete" } });
    const [first] = await on("manual", nodes);
    await playKubelet("manual");
    await setImage("manual", "i:2");
    await eventually("the change is seen", async () => {
      const { status } = await find("manual");
      return status?.observedGeneration === 2 && status.updatedNumberScheduled === undefined
        ? true
        : undefined;
    });
    assert.ok(first !== undefined);
    await removeNow(first);
    const pods = await on("manual", nodes);
    const images = pods.flatMap(({ spec }) => spec?.containers[0]?.image ?? []).toSorted();
    assert.deepEqual(images, ["i:1", "i:1", "i:2"]);
    await remove("manual");
  });

  test("keeps revisions, counts an undone one as the newest, and forgets beyond the limit", async () => {
    await create("history", { revisionHistoryLimit: 1 });
    await on("history", nodes);
    await rolledOut("history", "i:1");
    const revisions = async (): Promise<readonly number[]> => {
      const { signal } = world;
      const { items } = await listObjects(world.client, CONTROLLER_REVISIONS, {
        namespace,
        labelSelector: "app=history",
        signal,
      });
      return items.map(({ revision }) => revision).toSorted((a, b) => a - b);
    };
    assert.deepEqual(await revisions(), [1]);
    await setImage("history", "i:2");
    await rolledOut("history", "i:2");
    assert.deepEqual(await revisions(), [1, 2]);
    const { items } = await listObjects(world.client, CONTROLLER_REVISIONS, {
      namespace,
      labelSelector: "app=history",
      signal: world.signal,
    });
    const [old] = items.filter(({ revision }) => revision === 1);
    assert.ok(old !== undefined);
    const undo = { namespace, name: "history", patch: old.data };
    await patchObject(world.client, DAEMON_SETS, undo, { signal: world.signal });
    await rolledOut("history", "i:1");
    assert.deepEqual(await revisions(), [2, 3]);
    await setImage("history", "i:3");
    await rolledOut("history", "i:3");
    await eventually("the oldest is forgotten", async () =>
      (await revisions()).join() === "3,4" ? true : undefined,
    );
    await remove("history");
  });

  test("replaces failed pods with growing delay, finished ones at once, and adopts its own", async () => {
    await create("fragile", { template: oneNode("fragile") });
    const end = async (phase: "Failed" | "Succeeded"): Promise<string> => {
      const [pod] = await on("fragile", ["n1"]);
      assert.ok(pod !== undefined);
      const { name, uid } = pod.metadata;
      const change = { namespace, name, patch: { status: { phase } } };
      await patchObject(world.client, PODS, change, {
        subresource: "status",
        signal: world.signal,
      });
      return uid;
    };
    const replaced = async (uid: string): Promise<void> => {
      await eventually("another pod is there", async () => {
        await playKubelet("fragile");
        const [pod] = await on("fragile", ["n1"]);
        return pod !== undefined && pod.metadata.uid !== uid ? true : undefined;
      });
    };
    await replaced(await end("Failed"));
    const second = await end("Failed");
    const [kept] = await on("fragile", ["n1"]);
    assert.equal(kept?.metadata.uid, second);
    world.clock.leap(1100);
    await replaced(second);
    await replaced(await end("Succeeded"));
    const { signal } = world;
    const at = { namespace, name: "fragile" };
    const [orphan] = await on("fragile", ["n1"]);
    await deleteObject(world.client, DAEMON_SETS, at, { propagationPolicy: "Orphan", signal });
    await eventually("the pod has no owner", async () => {
      const [pod] = await podsOf("fragile");
      return pod?.metadata.ownerReferences === undefined ? true : undefined;
    });
    await create("fragile", { template: oneNode("fragile") });
    await eventually("the pod is adopted, not doubled", async () => {
      const { status } = await find("fragile");
      return status?.currentNumberScheduled === 1 && status.updatedNumberScheduled === 1
        ? true
        : undefined;
    });
    const [adopted] = await on("fragile", ["n1"]);
    assert.equal(adopted?.metadata.uid, orphan?.metadata.uid);
    await remove("fragile");
  });

  test("a node that comes later gets its pod; one that goes takes no other's", async () => {
    await create("growing");
    await on("growing", nodes);
    await registerNode(world, "n4");
    await on("growing", [...nodes, "n4"]);
    await deleteObject(world.client, NODES, { name: "n4" }, { signal: world.signal });
    const { status } = await eventually("the node is not counted", async () => {
      const daemonSet = await find("growing");
      return daemonSet.status?.desiredNumberScheduled === 3 ? daemonSet : undefined;
    });
    assert.equal(status?.currentNumberScheduled, 3);
    await postReady(world, "n1");
    await remove("growing");
  });
});

function oneNode(app: string): DaemonSetSpec["template"] {
  return {
    metadata: { labels: { app } },
    spec: {
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: {
            nodeSelectorTerms: [
              { matchFields: [{ key: "metadata.name", operator: "In", values: ["n1"] }] },
            ],
          },
        },
      },
      containers: [{ name: "c", image: "i:1" }],
    },
  };
}

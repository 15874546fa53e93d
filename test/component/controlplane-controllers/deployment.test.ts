import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import { controllerOf } from "../../../src/api/object.ts";
import { createObject, deleteObject, listObjects, patchObject } from "../../../src/api/objects.ts";
import type { Resource } from "../../../src/api/resource.ts";
import { DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS } from "../../../src/api/resources.ts";
import type {
  Deployment,
  DeploymentSpec,
  ObjectMeta,
  Pod,
  ReplicaSet,
} from "../../../src/api/types.gen.ts";
import type { PlayedKubelet } from "./played-kubelet.ts";
import { playKubelet } from "./played-kubelet.ts";
import { findObject } from "./find-object.ts";
import type { World } from "./world.ts";
import { eventually, postReady, registerNode, startWorld } from "./world.ts";

const namespace = "default";
const revision = "deployment.kubernetes.io/revision";

describe("Deployments against the real API server", () => {
  let world: World;
  let kubelet: PlayedKubelet;

  before(async () => {
    world = await startWorld();
    await registerNode(world, "n1");
    await registerNode(world, "n2");
    kubelet = playKubelet(world);
  });

  after(async () => {
    await kubelet.stop();
    await world.close();
  });

  function body(name: string, replicas: number, more: Partial<DeploymentSpec> = {}): Deployment {
    return {
      metadata: { namespace, name },
      spec: {
        replicas,
        selector: { matchLabels: { app: name } },
        template: template(name, "v1"),
        ...more,
      },
    };
  }

  function template(name: string, image: string): DeploymentSpec["template"] {
    return { metadata: { labels: { app: name } }, spec: { containers: [{ name: "c", image }] } };
  }

  async function make<T extends { metadata?: ObjectMeta | undefined }>(
    resource: Resource<T>,
    object: T,
  ): Promise<Stored<T>> {
    return createObject(world.client, resource, object, { signal: world.signal });
  }

  async function find<T>(resource: Resource<T>, name: string): Promise<Stored<T> | undefined> {
    return findObject(world, resource, { namespace, name });
  }

  async function change(name: string, patch: unknown): Promise<Stored<Deployment>> {
    const { client, signal } = world;
    return patchObject(client, DEPLOYMENTS, { namespace, name, patch }, { signal });
  }

  async function setImage(name: string, image: string): Promise<void> {
    await change(name, { spec: { template: { spec: { containers: [{ name: "c", image }] } } } });
  }

  async function listOf<T>(resource: Resource<T>, app: string): Promise<readonly Stored<T>[]> {
    const { client, signal } = world;
    const labelSelector = `app=${app}`;
    return (await listObjects(client, resource, { namespace, labelSelector, signal })).items;
  }

  /** Waits for a Deployment of which `test` holds, its status being that of its present spec. */
  async function until(
    what: string,
    name: string,
    holds: (deployment: Stored<Deployment>) => boolean,
  ): Promise<Stored<Deployment>> {
    return eventually(what, async () => {
      const found = await find(DEPLOYMENTS, name);
      if (found === undefined) return undefined;
      const current = found.status?.observedGeneration === found.metadata.generation;
      return current && holds(found) ? found : undefined;
    });
  }

  function progressing(deployment: Deployment): string | undefined {
    return deployment.status?.conditions?.find(({ type }) => type === "Progressing")?.reason;
  }

  async function rolledOut(name: string, replicas: number): Promise<Stored<Deployment>> {
    return until(`${name} rolled out`, name, ({ status }) => {
      const counts = [status?.updatedReplicas, status?.availableReplicas, status?.replicas];
      return (
        counts.every((count) => (count ?? 0) === replicas) &&
        progressing({ status }) === "NewReplicaSetAvailable"
      );
    });
  }

  async function replicaSetOf(name: string, image: string): Promise<Stored<ReplicaSet>> {
    const found = (await listOf(REPLICA_SETS, name)).find(
      ({ spec }) => spec?.template?.spec?.containers[0]?.image === image,
    );
    assert.ok(found !== undefined, `a ReplicaSet of ${image}`);
    return found;
  }

  async function eventsOf(name: string, reason: string): Promise<readonly string[]> {
    const { client, signal } = world;
    const { items } = await listObjects(client, EVENTS, { namespace, signal });
    return items
      .filter((event) => event.involvedObject.name === name && event.reason === reason)
      .map((event) => event.message ?? "");
  }

  test("a Deployment makes one ReplicaSet, which makes the pods, and says so", async () => {
    await make(DEPLOYMENTS, body("web", 3));
    const deployment = await rolledOut("web", 3);
    assert.equal(deployment.metadata.annotations?.[revision], "1");
    assert.equal(deployment.status?.terminatingReplicas, 0);
    assert.deepEqual(
      deployment.status?.conditions?.map(({ type, status, reason }) => [type, status, reason]),
      [
        ["Available", "True", "MinimumReplicasAvailable"],
        ["Progressing", "True", "NewReplicaSetAvailable"],
      ],
    );
    const [replicaSet, ...more] = await listOf(REPLICA_SETS, "web");
    assert.ok(replicaSet !== undefined && more.length === 0);
    const hash = replicaSet.metadata.labels?.["pod-template-hash"] ?? "";
    assert.equal(replicaSet.metadata.name, `web-${hash}`);
    assert.deepEqual(replicaSet.spec?.selector.matchLabels, {
      app: "web",
      "pod-template-hash": hash,
    });
    assert.deepEqual(replicaSet.metadata.annotations, {
      [revision]: "1",
      "deployment.kubernetes.io/desired-replicas": "3",
      "deployment.kubernetes.io/max-replicas": "4",
    });
    for (const pod of await listOf(PODS, "web")) {
      assert.equal(controllerOf(pod.metadata)?.uid, replicaSet.metadata.uid);
      assert.equal(pod.metadata.labels?.["pod-template-hash"], hash);
    }
    const events = await eventually("the Event", async () => {
      const found = await eventsOf("web", "ScalingReplicaSet");
      return found.length > 0 ? found : undefined;
    });
    assert.deepEqual(events, [`Scaled up replica set web-${hash} from 0 to 3`]);
  });

  test("a new image rolls on, the old one comes back under its old name with a new revision", async () => {
    await make(DEPLOYMENTS, body("roll", 3));
    await rolledOut("roll", 3);
    await setImage("roll", "v2");
    const second = await rolledOut("roll", 3);
    assert.equal(second.metadata.annotations?.[revision], "2");
    assert.equal((await replicaSetOf("roll", "v1")).spec?.replicas, 0);
    await setImage("roll", "v1");
    const third = await rolledOut("roll", 3);
    assert.equal(third.metadata.annotations?.[revision], "3");
    const first = await replicaSetOf("roll", "v1");
    assert.equal(first.metadata.annotations?.[revision], "3");
    assert.equal(first.metadata.annotations?.["deployment.kubernetes.io/revision-history"], "1");
    assert.equal((await listOf(REPLICA_SETS, "roll")).length, 2);
  });

  test("a broken image stops half way, is reported after the deadline, and is rolled back", async () => {
    kubelet.broken.add("bad");
    await make(DEPLOYMENTS, body("stuck", 4, { progressDeadlineSeconds: 30 }));
    await rolledOut("stuck", 4);
    await setImage("stuck", "bad");
    const stuck = await until(
      "both sides at their limits",
      "stuck",
      ({ status }) =>
        // 25 % up is one more, 25 % down is one less.
        [status?.updatedReplicas, status?.availableReplicas, status?.replicas].join() === "2,3,5",
    );
    assert.equal(progressing(stuck), "ReplicaSetUpdated");
    // Less than what makes a node that says nothing unknown.
    world.clock.leap(32_000);
    for (const node of ["n1", "n2"]) await postReady(world, node);
    const late = await until(
      "the deadline",
      "stuck",
      (deployment) => progressing(deployment) === "ProgressDeadlineExceeded",
    );
    const condition = late.status?.conditions?.find(({ type }) => type === "Progressing");
    assert.equal(condition?.status, "False");
    assert.match(condition?.message ?? "", /^ReplicaSet "stuck-\w+" has timed out progressing\.$/);
    await setImage("stuck", "v1");
    const back = await rolledOut("stuck", 4);
    assert.equal(back.metadata.annotations?.[revision], "3");
  });

  test("a pause holds the template, not the size", async () => {
    await make(DEPLOYMENTS, body("paused", 2));
    await rolledOut("paused", 2);
    await change("paused", { spec: { paused: true } });
    await until("the pause", "paused", (each) => progressing(each) === "DeploymentPaused");
    await setImage("paused", "v2");
    await change("paused", { spec: { replicas: 5 } });
    await until("the new size", "paused", ({ status }) => status?.availableReplicas === 5);
    assert.equal((await listOf(REPLICA_SETS, "paused")).length, 1);
    await change("paused", { spec: { paused: false } });
    const done = await rolledOut("paused", 5);
    assert.equal(done.metadata.annotations?.[revision], "2");
  });

  test("Recreate starts nothing new while an old pod still ends", async () => {
    await make(DEPLOYMENTS, body("once", 2, { strategy: { type: "Recreate" } }));
    await rolledOut("once", 2);
    kubelet.holdEnding = true;
    await setImage("once", "v2");
    const ending = await until(
      "old pods ending",
      "once",
      ({ status }) => [status?.replicas ?? 0, status?.terminatingReplicas].join() === "0,2",
    );
    assert.equal(ending.status?.availableReplicas ?? 0, 0);
    assert.equal((await listOf(REPLICA_SETS, "once")).length, 1);
    kubelet.release();
    await rolledOut("once", 2);
    const images = (await listOf(PODS, "once")).map(({ spec }) => spec?.containers[0]?.image);
    assert.deepEqual(images, ["v2", "v2"]);
  });

  test("only the wanted number of old revisions is kept", async () => {
    await make(DEPLOYMENTS, body("short", 1, { revisionHistoryLimit: 1 }));
    for (const image of ["v1", "v2", "v3", "v4"]) {
      await setImage("short", image);
      await rolledOut("short", 1);
    }
    const kept = await eventually("the clean-up", async () => {
      const images = (await listOf(REPLICA_SETS, "short")).map(
        ({ spec }) => spec?.template?.spec?.containers[0]?.image ?? "",
      );
      return images.length === 2 ? images : undefined;
    });
    assert.deepEqual(kept.toSorted(), ["v3", "v4"]);
  });

  test("a ReplicaSet without an owner is adopted, one with other labels is let go", async () => {
    await make(DEPLOYMENTS, body("adopt", 1));
    await rolledOut("adopt", 1);
    const before = await replicaSetOf("adopt", "v1");
    await deleteObject(
      world.client,
      DEPLOYMENTS,
      { namespace, name: "adopt" },
      {
        propagationPolicy: "Orphan",
        signal: world.signal,
      },
    );
    await eventually("the orphan", async () =>
      (await find(REPLICA_SETS, before.metadata.name))?.metadata.ownerReferences === undefined
        ? true
        : undefined,
    );
    await eventually("the Deployment gone", async () =>
      (await find(DEPLOYMENTS, "adopt")) === undefined ? true : undefined,
    );
    const again = await make(DEPLOYMENTS, body("adopt", 1));
    await rolledOut("adopt", 1);
    const adopted = await replicaSetOf("adopt", "v1");
    assert.equal(adopted.metadata.uid, before.metadata.uid);
    assert.equal(controllerOf(adopted.metadata)?.uid, again.metadata.uid);
    const { name } = adopted.metadata;
    const patch = { metadata: { labels: { app: "stray" } } };
    const { client, signal } = world;
    await patchObject(client, REPLICA_SETS, { namespace, name, patch }, { signal });
    const released = await eventually("the release", async () => {
      const found = await find(REPLICA_SETS, name);
      return found?.metadata.ownerReferences === undefined ? found : undefined;
    });
    assert.equal(released?.metadata.uid, before.metadata.uid);
  });

  test("a name that is taken is a collision, counted and got round", async () => {
    const { client, signal } = world;
    await make(DEPLOYMENTS, body("clash", 1));
    await rolledOut("clash", 1);
    const { name } = (await replicaSetOf("clash", "v1")).metadata;
    await deleteObject(client, DEPLOYMENTS, { namespace, name: "clash" }, { signal });
    await eventually("the name is free", async () =>
      (await find(REPLICA_SETS, name)) === undefined ? true : undefined,
    );
    const foreign = template("foreign", "v1");
    await make(REPLICA_SETS, {
      metadata: { namespace, name },
      spec: { replicas: 0, selector: { matchLabels: { app: "foreign" } }, template: foreign },
    });
    await make(DEPLOYMENTS, body("clash", 1));
    const { status } = await rolledOut("clash", 1);
    assert.equal(status?.collisionCount, 1);
    assert.notEqual((await replicaSetOf("clash", "v1")).metadata.name, name);
    assert.equal((await find(REPLICA_SETS, name))?.metadata.ownerReferences, undefined);
  });

  for (const policy of ["Background", "Foreground"] as const) {
    test(`${policy} deletion takes ReplicaSets and pods along`, async () => {
      const name = `gone-${policy.toLowerCase()}`;
      await make(DEPLOYMENTS, body(name, 2));
      await rolledOut(name, 2);
      kubelet.holdEnding = true;
      const { client, signal } = world;
      const options = { propagationPolicy: policy, signal };
      await deleteObject(client, DEPLOYMENTS, { namespace, name }, options);
      const ending = await eventually("pods ending", async () => {
        const pods = await listOf(PODS, name);
        const all = pods.every(({ metadata }) => metadata.deletionTimestamp !== undefined);
        return all && pods.length === 2 ? pods : undefined;
      });
      assert.equal(ending.length, 2);
      // Foreground: the owners wait for what they own.
      const owner = await find(DEPLOYMENTS, name);
      assert.equal(owner !== undefined, policy === "Foreground");
      kubelet.release();
      await eventually("everything gone", async () => {
        const left: readonly Stored<Deployment | ReplicaSet | Pod>[] = [
          ...(await listOf(REPLICA_SETS, name)),
          ...(await listOf(PODS, name)),
        ];
        const deployment = await find(DEPLOYMENTS, name);
        return left.length === 0 && deployment === undefined ? true : undefined;
      });
    });
  }
});

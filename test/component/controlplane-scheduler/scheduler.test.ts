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
import { EVENTS, NODES, PODS, REPLICATION_CONTROLLERS } from "../../../src/api/resources.ts";
import type { Event, Pod, PodSpec } from "../../../src/api/types.gen.ts";
import { podCondition } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import type { World } from "../controlplane-controllers/world.ts";
import { eventually, registerNode, startWorld } from "../controlplane-controllers/world.ts";

/** Nodes have 4 cpus, 8 GiB and room for 110 pods. */
const nodes = ["n1", "n2", "n3"];
const namespace = "default";

describe("the scheduler in the control plane", () => {
  let world: World;
  before(async () => {
    world = await startWorld();
    for (const name of nodes) await registerNode(world, name);
    const unsettled = async (): Promise<true | undefined> => {
      const { items } = await listObjects(world.client, NODES, { signal: world.signal });
      return items.every(({ spec }) => (spec?.taints ?? []).length === 0) ? true : undefined;
    };
    await eventually("nodes without taints", unsettled);
  });
  after(() => world.close());

  async function create(name: string, spec: Partial<PodSpec> = {}, cpu?: string): Promise<void> {
    const container = {
      name: "c",
      image: "registry.k8s.io/pause:3.10",
      ...(cpu === undefined ? {} : { resources: { requests: { cpu } } }),
    };
    const body: Pod = {
      metadata: { namespace, name, labels: { app: name.split("-")[0] ?? "" } },
      spec: { automountServiceAccountToken: false, containers: [container], ...spec },
    };
    await createObject(world.client, PODS, body, { signal: world.signal });
  }

  const get = (name: string): Promise<Stored<Pod>> =>
    getObject(world.client, PODS, { namespace, name }, { signal: world.signal });

  const placed = (name: string): Promise<string> =>
    eventually(`${name} has a node`, async () => {
      const node = (await get(name)).spec?.nodeName ?? "";
      return node === "" ? undefined : node;
    });

  const refused = (name: string, reason = "Unschedulable"): Promise<string> =>
    eventually(`${name} is refused`, async () => {
      const condition = podCondition(await get(name), "PodScheduled");
      return condition?.status === "False" && condition.reason === reason
        ? condition.message
        : undefined;
    });

  const event = (name: string, reason: string): Promise<Event> =>
    eventually(`event ${reason} of ${name}`, async () => {
      const fieldSelector = `involvedObject.name=${name},reason=${reason}`;
      const { items } = await listObjects(world.client, EVENTS, {
        namespace,
        fieldSelector,
        signal: world.signal,
      });
      return items[0];
    });

  async function remove(...names: string[]): Promise<void> {
    for (const name of names)
      await deleteObject(
        world.client,
        PODS,
        { namespace, name },
        { gracePeriodSeconds: 0, signal: world.signal },
      );
  }

  test("gives a pod a node and says so", async () => {
    await create("plain");
    const node = await placed("plain");
    const { message, type, reportingComponent } = await event("plain", "Scheduled");
    assert.equal(message, `Successfully assigned default/plain to ${node}`);
    assert.deepEqual([type, reportingComponent], ["Normal", "default-scheduler"]);
    assert.equal(podCondition(await get("plain"), "PodScheduled")?.status, "True");
    await remove("plain");
  });

  test("leaves the pods of other schedulers alone", async () => {
    await create("foreign", { schedulerName: "somebody-else" });
    await create("after");
    await placed("after");
    const { spec, status } = await get("foreign");
    assert.equal(spec?.nodeName, undefined);
    assert.equal(status?.conditions, undefined);
    await remove("foreign", "after");
  });

  test("says why nothing fits, once, and places the pod when something changes", async () => {
    await create("picky", { nodeSelector: { disk: "ssd" } });
    const refusal =
      "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    assert.equal(await refused("picky"), refusal);
    const { message, type, count } = await event("picky", "FailedScheduling");
    assert.deepEqual([message, type, count], [refusal, "Warning", 1]);
    const patch = { metadata: { labels: { disk: "ssd" } } };
    await patchObject(world.client, NODES, { name: "n2", patch }, { signal: world.signal });
    assert.equal(await placed("picky"), "n2");
    await remove("picky");
  });

  test("a gated pod waits until its gates are gone", async () => {
    await create("gated", { schedulingGates: [{ name: "example.com/quota" }] });
    assert.equal(
      await refused("gated", "SchedulingGated"),
      "Scheduling is blocked due to non-empty scheduling gates",
    );
    const patch = { spec: { schedulingGates: [] } };
    const at = { namespace, name: "gated", patch };
    await patchObject(world.client, PODS, at, {
      signal: world.signal,
      type: "application/merge-patch+json",
    });
    await placed("gated");
    await remove("gated");
  });

  test("each named policy places by its own rule and reports under its own name", async () => {
    const turns: string[] = [];
    for (const index of [1, 2, 3, 4]) {
      await create(`turn-${index}`, { schedulerName: "round-robin" });
      turns.push(await placed(`turn-${index}`));
    }
    assert.deepEqual(turns, ["n1", "n2", "n3", "n1"]);
    assert.equal((await event("turn-1", "Scheduled")).reportingComponent, "round-robin");
    await create("chance", { schedulerName: "random" });
    assert.ok(nodes.includes(await placed("chance")));
    assert.equal((await event("chance", "Scheduled")).reportingComponent, "random");
    await remove("turn-1", "turn-2", "turn-3", "turn-4", "chance");

    const template = {
      metadata: { labels: { app: "even" } },
      spec: {
        schedulerName: "spread",
        automountServiceAccountToken: false,
        containers: [{ name: "c", image: "i" }],
      },
    };
    const controller = {
      metadata: { namespace, name: "even" },
      spec: { replicas: 9, selector: { app: "even" }, template },
    };
    await createObject(world.client, REPLICATION_CONTROLLERS, controller, {
      signal: world.signal,
    });
    const perNode = await eventually("nine copies have nodes", async () => {
      const { items } = await listObjects(world.client, PODS, {
        namespace,
        labelSelector: "app=even",
        signal: world.signal,
      });
      const placedCopies = items.filter(({ spec }) => (spec?.nodeName ?? "") !== "");
      if (placedCopies.length < 9) return undefined;
      return nodes.map((name) => items.filter(({ spec }) => spec?.nodeName === name).length);
    });
    assert.deepEqual(perNode, [3, 3, 3]);
    await deleteObject(
      world.client,
      REPLICATION_CONTROLLERS,
      { namespace, name: "even" },
      { propagationPolicy: "Background", signal: world.signal },
    );
  });

  test("a more important pod takes the place of a less important one", async () => {
    const { signal, client } = world;
    const none = await eventually("no pods", async () => {
      const { items } = await listObjects(client, PODS, { namespace, signal });
      for (const { metadata } of items) await remove(metadata.name);
      return items.length === 0 ? true : undefined;
    });
    assert.ok(none);
    for (const [name, value] of [
      ["low", -10],
      ["high", 1000],
      ["peaceful", 1000],
    ] as const)
      await client.request({
        method: "POST",
        path: "/apis/scheduling.k8s.io/v1/priorityclasses",
        body: {
          apiVersion: "scheduling.k8s.io/v1",
          kind: "PriorityClass",
          metadata: { name },
          value,
          preemptionPolicy: name === "peaceful" ? "Never" : "PreemptLowerPriority",
        },
        signal,
      });
    for (const index of [1, 2, 3])
      await create(`big-${index}`, { priorityClassName: index === 2 ? "low" : "high" }, "3");
    const room = await placed("big-2");
    await placed("big-1");
    await placed("big-3");

    await create("peaceful", { priorityClassName: "peaceful" }, "3");
    assert.equal(
      await refused("peaceful"),
      "0/3 nodes are available: 3 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
    );
    await remove("peaceful");

    await create("vip", { priorityClassName: "high" }, "3");
    assert.equal(await refused("vip"), "0/3 nodes are available: 3 Insufficient cpu.");
    const victim = await eventually("the victim is leaving", async () => {
      const found = await get("big-2");
      return found.metadata.deletionTimestamp === undefined ? undefined : found;
    });
    const condition = podCondition(victim, "DisruptionTarget");
    assert.deepEqual(
      [condition?.status, condition?.reason, condition?.message],
      [
        "True",
        "PreemptionByScheduler",
        "default-scheduler: preempting to accommodate a higher priority pod",
      ],
    );
    assert.equal(victim.metadata.deletionGracePeriodSeconds, 30);
    const vip = await get("vip");
    assert.equal(vip.status?.nominatedNodeName, room);
    const { message } = await event("big-2", "Preempted");
    assert.equal(message, `Preempted by pod ${vip.metadata.uid} on node ${room}`);

    // The room is the vip's: a less important pod that would fit beside nothing waits.
    await create("hopeful", { priorityClassName: "low" }, "2");
    assert.match(await refused("hopeful"), /^0\/3 nodes are available: 3 Insufficient cpu\./);
    await remove("big-2");
    assert.equal(await placed("vip"), room);
    assert.equal((await get("vip")).status?.nominatedNodeName, undefined);
    await remove("vip", "hopeful", "big-1", "big-3");
  });
});

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import { createObject, deleteObject, listObjects, patchObject } from "../../../src/api/objects.ts";
import { EVENTS, NODES, PODS, SERVICES } from "../../../src/api/resources.ts";
import type { Service, ServiceSpec } from "../../../src/api/types.gen.ts";
import { findObject } from "./find-object.ts";
import type { World } from "./world.ts";
import { eventually, registerNode, startWorld } from "./world.ts";

const finalizer = "service.kubernetes.io/load-balancer-cleanup";

describe("load balancers of the control plane", () => {
  let world: World;

  before(async () => {
    world = await startWorld();
    await registerNode(world, "n1");
    await registerNode(world, "n2");
    await address("n1", "192.0.2.1");
    await address("n2", "192.0.2.2", "198.51.100.2");
  });

  after(async () => {
    await world.close();
  });

  async function address(name: string, internal: string, external?: string): Promise<void> {
    const { client, signal } = world;
    const addresses = [
      { type: "InternalIP", address: internal },
      ...(external === undefined ? [] : [{ type: "ExternalIP", address: external }]),
      { type: "Hostname", address: name },
    ];
    await patchObject(
      client,
      NODES,
      { name, patch: { status: { addresses } } },
      { subresource: "status", signal, type: "application/merge-patch+json" },
    );
  }

  async function create(
    name: string,
    port: number,
    spec: Partial<ServiceSpec> = {},
  ): Promise<Stored<Service>> {
    return createObject(
      world.client,
      SERVICES,
      {
        metadata: { namespace: "default", name },
        spec: { type: "LoadBalancer", selector: { app: name }, ports: [{ port }], ...spec },
      },
      { signal: world.signal },
    );
  }

  async function read(name: string): Promise<Stored<Service> | undefined> {
    return findObject(world, SERVICES, { namespace: "default", name });
  }

  function ips(service: Stored<Service> | undefined): readonly (string | undefined)[] {
    return (service?.status?.loadBalancer?.ingress ?? []).map(({ ip }) => ip);
  }

  async function untilIPs(name: string, wanted: readonly string[]): Promise<Stored<Service>> {
    let last: readonly unknown[] = [];
    try {
      return await eventually(`${name} has ${wanted.join()}`, async () => {
        const service = await read(name);
        last = ips(service);
        const settled = service?.metadata.finalizers?.includes(finalizer) === true;
        return settled && last.join() === wanted.join() ? service : undefined;
      });
    } catch (error) {
      throw new Error(`${name} has ${last.join()}`, { cause: error });
    }
  }

  async function remove(name: string): Promise<void> {
    await deleteObject(
      world.client,
      SERVICES,
      { namespace: "default", name },
      { signal: world.signal },
    );
    await eventually(`${name} is gone`, async () =>
      (await read(name)) === undefined ? true : undefined,
    );
  }

  async function eventsOf(name: string): Promise<readonly string[]> {
    const { items } = await listObjects(world.client, EVENTS, { signal: world.signal });
    return items
      .filter(({ involvedObject }) => involvedObject?.name === name)
      .map(({ reason, message, type }) => `${type} ${reason}: ${message}`);
  }

  async function untilEvent(name: string, text: string): Promise<void> {
    await eventually(`event ${text}`, async () =>
      (await eventsOf(name)).some((line) => line.includes(text)) ? true : undefined,
    );
  }

  const all = ["198.51.100.2", "192.0.2.1", "192.0.2.2"];

  test("a Service gets the addresses of all nodes, the external one first, with its ports", async () => {
    await create("plain", 8101);
    const service = await untilIPs("plain", all);
    assert.deepEqual(service.status?.loadBalancer?.ingress?.[0], {
      ip: "198.51.100.2",
      ipMode: "VIP",
      ports: [{ port: 8101, protocol: "TCP" }],
    });
    await untilEvent("plain", "Normal EnsuringLoadBalancer: Ensuring load balancer");
    await untilEvent("plain", "Normal EnsuredLoadBalancer: Ensured load balancer");
    await remove("plain");
    await untilEvent("plain", "Normal DeletingLoadBalancer: Deleting load balancer");
    await untilEvent("plain", "Normal DeletedLoadBalancer: Deleted load balancer");
  });

  test("classes of others are left alone, and ours can be named", async () => {
    await create("foreign", 8102, { loadBalancerClass: "example.com/other" });
    await create("named", 8102, { loadBalancerClass: "remora.io/node" });
    await untilIPs("named", all);
    const foreign = await read("foreign");
    assert.deepEqual(ips(foreign), []);
    assert.deepEqual(foreign?.metadata.finalizers ?? [], []);
    await remove("named");
    await remove("foreign");
  });

  test("of two that want one port the older has it, the other is told whose it is, and gets it when it is free", async () => {
    await create("older", 8103);
    await untilIPs("older", all);
    await create("younger", 8103);
    const refused = await eventually("a condition", async () => {
      const service = await read("younger");
      return service?.status?.conditions?.find(({ type }) => type === "LoadBalancerPortsError");
    });
    assert.equal(refused.reason, "PortConflict");
    assert.match(
      refused.message,
      /port 8103\/TCP of 198\.51\.100\.2, 192\.0\.2\.1, 192\.0\.2\.2 is taken by Service default\/older$/,
    );
    await untilEvent(
      "younger",
      "Warning SyncLoadBalancerFailed: Error syncing load balancer: failed to ensure load balancer: port 8103/TCP of 198.51.100.2, 192.0.2.1, 192.0.2.2 is taken by Service default/older",
    );
    await remove("older");
    const service = await untilIPs("younger", all);
    assert.equal(service.status?.conditions, undefined);
    await remove("younger");
  });

  test("a change of type gives the addresses back, in both directions", async () => {
    const at = { namespace: "default", name: "typed" };
    const { client, signal } = world;
    await create("typed", 8104);
    await untilIPs("typed", all);
    await patchObject(
      client,
      SERVICES,
      { ...at, patch: { spec: { type: "ClusterIP" } } },
      { signal },
    );
    const plain = await eventually("cleaned", async () => {
      const service = await read("typed");
      return (service?.metadata.finalizers ?? []).length === 0 ? service : undefined;
    });
    assert.deepEqual(plain.status, { loadBalancer: {} });
    await patchObject(
      client,
      SERVICES,
      { ...at, patch: { spec: { type: "LoadBalancer" } } },
      { signal },
    );
    await untilIPs("typed", all);
    await remove("typed");
  });

  test("one that turns to another class in between gives our finalizer back", async () => {
    const at = { namespace: "default", name: "turns" };
    const { client, signal } = world;
    await create("turns", 8110);
    await untilIPs("turns", all);
    const change = (spec: Partial<ServiceSpec>): Promise<unknown> =>
      patchObject(client, SERVICES, { ...at, patch: { spec } }, { signal });
    await Promise.all([
      change({ type: "ClusterIP" }),
      change({ type: "LoadBalancer", loadBalancerClass: "example.com/other" }).catch(() =>
        change({ type: "LoadBalancer", loadBalancerClass: "example.com/other" }),
      ),
    ]);
    await eventually("the finalizer is gone", async () => {
      const service = await read("turns");
      return (service?.metadata.finalizers ?? []).length === 0 ? true : undefined;
    });
    assert.deepEqual(ips(await read("turns")), []);
    await remove("turns");
  });

  test("addresses follow the nodes: excluded, changed, gone", async () => {
    const { client, signal } = world;
    await create("follows", 8105);
    await untilIPs("follows", all);
    const label = "node.kubernetes.io/exclude-from-external-load-balancers";
    const exclude = (value: string | null): Promise<unknown> =>
      patchObject(
        client,
        NODES,
        { name: "n2", patch: { metadata: { labels: { [label]: value } } } },
        { signal },
      );
    await exclude("");
    await untilIPs("follows", ["192.0.2.1"]);
    await address("n1", "192.0.2.9");
    await untilIPs("follows", ["192.0.2.9"]);
    await untilEvent("follows", "UpdatedLoadBalancer: Updated load balancer with new hosts");
    await address("n1", "192.0.2.1");
    await exclude(null);
    await untilIPs("follows", all);
    await remove("follows");
  });

  test("a pod's host port keeps a Service off its node until the pod is gone", async () => {
    const { client, signal } = world;
    const at = { namespace: "default", name: "port-holder" };
    await createObject(
      client,
      PODS,
      {
        metadata: at,
        spec: {
          nodeName: "n1",
          terminationGracePeriodSeconds: 0,
          containers: [{ name: "c", image: "i", ports: [{ containerPort: 80, hostPort: 8106 }] }],
        },
      },
      { signal },
    );
    await create("partly", 8106);
    await untilIPs("partly", ["198.51.100.2", "192.0.2.2"]);
    await untilEvent("partly", "pod default/port-holder as a host port of node n1");
    await deleteObject(client, PODS, at, { signal, gracePeriodSeconds: 0 });
    await untilIPs("partly", all);
    await remove("partly");
  });

  test("a younger Service is told, once, that its node port is hidden", async () => {
    await create("cover", 31_999, { allocateLoadBalancerNodePorts: false });
    await untilIPs("cover", all);
    const ports = [{ port: 80, nodePort: 31_999 }];
    await create("hidden", 80, { type: "NodePort", ports });
    const text =
      "ServicePortHidden: node port 31999/TCP is hidden by the load balancer of Service default/cover";
    await untilEvent("hidden", text);
    // Everything is decided anew.
    await create("another", 8111);
    await untilIPs("another", all);
    const said = (await eventsOf("hidden")).filter((line) => line.includes("ServicePortHidden"));
    assert.equal(said.length, 1);
    for (const name of ["hidden", "another", "cover"]) await remove(name);
  });

  test("a restart writes nothing, and what changed meanwhile is caught up with", async () => {
    await create("stays", 8108);
    await create("goes", 8109);
    const { metadata } = await untilIPs("stays", all);
    await untilIPs("goes", all);
    await world.stop();
    world = await startWorld(world.dataDir);
    await deleteObject(
      world.client,
      SERVICES,
      { namespace: "default", name: "goes" },
      { signal: world.signal },
    );
    await eventually("it is gone", async () =>
      (await read("goes")) === undefined ? true : undefined,
    );
    await create("later", 8109);
    await untilIPs("later", all);
    const service = await read("stays");
    assert.equal(service?.metadata.resourceVersion, metadata.resourceVersion);
    await remove("stays");
    await remove("later");
  });

  test("somebody else's write into the status is put right", async () => {
    await create("meddled", 8107);
    await untilIPs("meddled", all);
    await patchObject(
      world.client,
      SERVICES,
      {
        namespace: "default",
        name: "meddled",
        patch: { status: { loadBalancer: { ingress: [{ ip: "203.0.113.9" }] } } },
      },
      { subresource: "status", signal: world.signal, type: "application/merge-patch+json" },
    );
    await untilIPs("meddled", all);
    await remove("meddled");
  });
});

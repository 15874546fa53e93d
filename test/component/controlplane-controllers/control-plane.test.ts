import assert from "node:assert/strict";
import { rm, stat } from "node:fs/promises";
import { after, before, describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import {
  createObject,
  deleteObject,
  getObject,
  listObjects,
  patchObject,
} from "../../../src/api/objects.ts";
import type { Resource } from "../../../src/api/resource.ts";
import {
  CONFIG_MAPS,
  ENDPOINT_SLICES,
  ENDPOINTS,
  EVENTS,
  NAMESPACES,
  NODES,
  PODS,
  REPLICATION_CONTROLLERS,
  SERVICE_ACCOUNTS,
  SERVICES,
} from "../../../src/api/resources.ts";
import type { Pod, ReplicationController } from "../../../src/api/types.gen.ts";
import { startControlPlane } from "../../../src/controlplane/control-plane.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { findObject } from "./find-object.ts";
import type { World } from "./world.ts";
import { eventually, options, postReady, postRunning, registerNode, startWorld } from "./world.ts";

describe("the control plane over TLS", () => {
  let world: World;

  before(async () => {
    world = await startWorld();
    await registerNode(world, "n1");
    await registerNode(world, "n2");
  });

  after(async () => {
    await world.close();
  });

  async function find<T>(
    resource: Resource<T>,
    namespace: string | undefined,
    name: string,
  ): Promise<Stored<T> | undefined> {
    return findObject(world, resource, { namespace, name });
  }

  async function podsOf(namespace: string, app: string): Promise<readonly Stored<Pod>[]> {
    const { items } = await listObjects(world.client, PODS, {
      namespace,
      labelSelector: `app=${app}`,
      signal: world.signal,
    });
    return items;
  }

  async function makeNamespace(name: string): Promise<void> {
    await createObject(world.client, NAMESPACES, { metadata: { name } }, { signal: world.signal });
    // Pods need the account that a controller makes.
    await eventually("the default ServiceAccount", () => find(SERVICE_ACCOUNTS, name, "default"));
  }

  function controller(namespace: string, app: string, replicas: number): ReplicationController {
    return {
      metadata: { namespace, name: app },
      spec: {
        replicas,
        selector: { app },
        template: {
          metadata: { labels: { app } },
          spec: {
            containers: [
              { name: "c", image: "nginx", ports: [{ name: "http", containerPort: 8080 }] },
            ],
          },
        },
      },
    };
  }

  async function scheduled(
    namespace: string,
    app: string,
    count: number,
  ): Promise<readonly Stored<Pod>[]> {
    return eventually(`${count} scheduled pods`, async () => {
      const pods = await podsOf(namespace, app);
      const bound = pods.filter((pod) => pod.spec?.nodeName !== undefined);
      return pods.length === count && bound.length === count ? pods : undefined;
    });
  }

  async function remove(pod: Stored<Pod>): Promise<void> {
    await deleteObject(world.client, PODS, pod.metadata, {
      gracePeriodSeconds: 0,
      signal: world.signal,
    });
  }

  test("every namespace gets its account and the cluster's CA, nodes their pod networks", async () => {
    await makeNamespace("fresh");
    const ca = await eventually("the CA", () => find(CONFIG_MAPS, "fresh", "kube-root-ca.crt"));
    assert.match(ca.data?.["ca.crt"] ?? "", /BEGIN CERTIFICATE/);
    const cidrs = await eventually("pod networks", async () => {
      const nodes = await Promise.all([find(NODES, undefined, "n1"), find(NODES, undefined, "n2")]);
      const found = nodes.flatMap((node) => node?.spec?.podCIDRs ?? []);
      return found.length === 2 ? found : undefined;
    });
    assert.deepEqual(cidrs.toSorted(), ["10.244.0.0/24", "10.244.1.0/24"]);
  });

  test("kubernetes.default has the first address and is put back when somebody deletes it", async () => {
    const service = await eventually("the Service", () => find(SERVICES, "default", "kubernetes"));
    assert.equal(service.spec?.clusterIP, "10.96.0.1");
    await deleteObject(world.client, SERVICES, service.metadata, { signal: world.signal });
    const again = await eventually("the Service again", async () => {
      const found = await find(SERVICES, "default", "kubernetes");
      return found?.metadata.uid === service.metadata.uid ? undefined : found;
    });
    assert.equal(again.spec?.clusterIP, "10.96.0.1");
    const slice = await eventually("its slice", () =>
      find(ENDPOINT_SLICES, "default", "kubernetes"),
    );
    assert.deepEqual(slice.endpoints?.[0]?.addresses, ["192.0.2.1"]);
  });

  test("a ReplicationController keeps its number, spreads over nodes, and its Service follows readiness", async () => {
    await makeNamespace("shop");
    const { client, signal } = world;
    await createObject(client, REPLICATION_CONTROLLERS, controller("shop", "web", 2), { signal });
    await createObject(
      client,
      SERVICES,
      {
        metadata: { namespace: "shop", name: "web" },
        spec: { selector: { app: "web" }, ports: [{ port: 80, targetPort: "http" }] },
      },
      { signal },
    );
    const pods = await scheduled("shop", "web", 2);
    assert.deepEqual(
      pods.map((pod) => pod.spec?.nodeName ?? "").toSorted(),
      ["n1", "n2"],
      "spread",
    );
    const [first, second] = pods;
    assert.ok(first !== undefined && second !== undefined);
    await postRunning(world, first, "10.244.0.2");
    const endpoints = async (): Promise<readonly string[]> => {
      const object = await find(ENDPOINTS, "shop", "web");
      return (object?.subsets ?? []).flatMap((subset) =>
        (subset.addresses ?? []).map(({ ip }) => `${ip}:${subset.ports?.[0]?.port ?? 0}`),
      );
    };
    await eventually("one endpoint", async () =>
      (await endpoints()).join() === "10.244.0.2:8080" ? true : undefined,
    );
    await postRunning(world, second, "10.244.1.2");
    await eventually("two endpoints", async () =>
      (await endpoints()).length === 2 ? true : undefined,
    );
    const slices = await listObjects(client, ENDPOINT_SLICES, {
      namespace: "shop",
      labelSelector: "kubernetes.io/service-name=web",
      signal,
    });
    assert.equal(slices.items.length, 1);
    assert.equal(slices.items[0]?.endpoints?.length, 2);
    const status = await eventually("ready replicas", async () => {
      const found = (await find(REPLICATION_CONTROLLERS, "shop", "web"))?.status;
      return found?.readyReplicas === 2 ? found : undefined;
    });
    assert.deepEqual(
      [status.replicas, status.availableReplicas, status.fullyLabeledReplicas],
      [2, 2, 2],
    );

    // A pod that dies is replaced, by exactly one.
    await remove(first);
    const replaced = await eventually("a replacement", async () => {
      const now = await podsOf("shop", "web");
      const fresh = now.filter(({ metadata }) => metadata.uid !== first.metadata.uid);
      return fresh.length === 2 ? fresh : undefined;
    });
    assert.equal(replaced.length, 2);

    // Scaling down removes the one that is not ready.
    await patchObject(
      client,
      REPLICATION_CONTROLLERS,
      { namespace: "shop", name: "web", patch: { spec: { replicas: 1 } } },
      { signal },
    );
    const left = await eventually("one pod that stays", async () => {
      const staying = (await podsOf("shop", "web")).filter(
        ({ metadata }) => metadata.deletionTimestamp === undefined,
      );
      return staying.length === 1 ? staying : undefined;
    });
    assert.equal(left[0]?.metadata.uid, second.metadata.uid);
  });

  test("deleting the owner in the background takes its pods, orphaning leaves them", async () => {
    await makeNamespace("owners");
    const { client, signal } = world;
    for (const app of ["kept", "gone"])
      await createObject(client, REPLICATION_CONTROLLERS, controller("owners", app, 1), { signal });
    await scheduled("owners", "kept", 1);
    await scheduled("owners", "gone", 1);
    const at = (name: string) => ({ namespace: "owners", name });
    await deleteObject(client, REPLICATION_CONTROLLERS, at("kept"), {
      propagationPolicy: "Orphan",
      signal,
    });
    await deleteObject(client, REPLICATION_CONTROLLERS, at("gone"), {
      propagationPolicy: "Background",
      signal,
    });
    await eventually("the pod of the deleted owner to go", async () => {
      const pods = await podsOf("owners", "gone");
      return pods.every(({ metadata }) => metadata.deletionTimestamp !== undefined)
        ? true
        : undefined;
    });
    const orphan = await eventually("the reference to go", async () => {
      const [pod] = await podsOf("owners", "kept");
      return pod?.metadata.ownerReferences === undefined ? pod : undefined;
    });
    assert.equal(orphan.metadata.deletionTimestamp, undefined);
    // The controller comes back and adopts it instead of making another.
    await createObject(client, REPLICATION_CONTROLLERS, controller("owners", "kept", 1), {
      signal,
    });
    await eventually("adoption", async () => {
      const pods = await podsOf("owners", "kept");
      const adopted = pods[0]?.metadata.ownerReferences?.[0]?.controller === true;
      return pods.length === 1 && adopted ? true : undefined;
    });
  });

  test("foreground deletion keeps the owner until its pods are gone", async () => {
    await makeNamespace("foreground");
    const { client, signal } = world;
    await createObject(client, REPLICATION_CONTROLLERS, controller("foreground", "web", 1), {
      signal,
    });
    const [pod] = await scheduled("foreground", "web", 1);
    assert.ok(pod !== undefined);
    await deleteObject(
      client,
      REPLICATION_CONTROLLERS,
      { namespace: "foreground", name: "web" },
      { propagationPolicy: "Foreground", signal },
    );
    await eventually("the pod to be marked", async () => {
      const found = await find(PODS, "foreground", pod.metadata.name);
      return found?.metadata.deletionTimestamp === undefined ? undefined : true;
    });
    assert.ok((await find(REPLICATION_CONTROLLERS, "foreground", "web")) !== undefined);
    await remove(pod);
    await eventually("the owner to go", async () =>
      (await find(REPLICATION_CONTROLLERS, "foreground", "web")) === undefined ? true : undefined,
    );
  });

  test("a namespace goes with all it holds, and says what it waits for", async () => {
    await makeNamespace("doomed");
    const { client, signal } = world;
    await createObject(client, REPLICATION_CONTROLLERS, controller("doomed", "web", 1), { signal });
    const [pod] = await scheduled("doomed", "web", 1);
    assert.ok(pod !== undefined);
    await deleteObject(client, NAMESPACES, { name: "doomed" }, { signal });
    const message = await eventually(
      "the condition",
      async () =>
        (await find(NAMESPACES, undefined, "doomed"))?.status?.conditions?.find(
          ({ type, status }) => type === "NamespaceContentRemaining" && status === "True",
        )?.message,
    );
    assert.match(message, /pods has 1 resource instances/);
    for (const each of await podsOf("doomed", "web")) await remove(each);
    await eventually("the namespace to go", async () =>
      (await find(NAMESPACES, undefined, "doomed")) === undefined ? true : undefined,
    );
  });

  test("a pod that fits nowhere says why, and runs once there is room", async () => {
    await makeNamespace("tight");
    const { client, signal } = world;
    await createObject(
      client,
      PODS,
      {
        metadata: { namespace: "tight", name: "picky" },
        spec: { nodeSelector: { disk: "ssd" }, containers: [{ name: "c", image: "i" }] },
      },
      { signal },
    );
    const condition = await eventually("the condition", async () =>
      (await find(PODS, "tight", "picky"))?.status?.conditions?.find(
        ({ type, status }) => type === "PodScheduled" && status === "False",
      ),
    );
    assert.equal(condition.reason, "Unschedulable");
    assert.equal(
      condition.message,
      "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
    );
    await eventually("the event", async () => {
      const { items } = await listObjects(client, EVENTS, {
        namespace: "tight",
        fieldSelector: "involvedObject.name=picky",
        signal,
      });
      return items.find(({ reason }) => reason === "FailedScheduling");
    });
    await patchObject(
      client,
      NODES,
      { name: "n2", patch: { metadata: { labels: { disk: "ssd" } } } },
      { signal },
    );
    await eventually("the pod on n2", async () =>
      (await find(PODS, "tight", "picky"))?.spec?.nodeName === "n2" ? true : undefined,
    );
  });

  // Last: it moves the clock of all.
  test("a silent node becomes Unknown, is tainted, loses its pods' readiness, and recovers", async () => {
    await makeNamespace("lost");
    const { client, signal, clock } = world;
    await createObject(
      client,
      PODS,
      {
        metadata: { namespace: "lost", name: "p" },
        spec: {
          nodeSelector: { disk: "ssd" },
          tolerations: [{ operator: "Exists", effect: "NoExecute" }],
          containers: [{ name: "c", image: "i" }],
        },
      },
      { signal },
    );
    const pod = await eventually("the pod on n2", async () => {
      const found = await find(PODS, "lost", "p");
      return found?.spec?.nodeName === "n2" ? found : undefined;
    });
    await postRunning(world, pod, "10.244.1.9");
    await postReady(world, "n2");
    const node = await eventually("n2 Unknown and tainted", async () => {
      // Time runs a hundred times as fast; only n1 keeps sending heartbeats.
      clock.leap(2_000);
      await postReady(world, "n1");
      const found = await find(NODES, undefined, "n2");
      const effects = (found?.spec?.taints ?? [])
        .filter(({ key }) => key === "node.kubernetes.io/unreachable")
        .map(({ effect }) => effect)
        .toSorted();
      return effects.join() === "NoExecute,NoSchedule" ? found : undefined;
    });
    const ready = node.status?.conditions?.find(({ type }) => type === "Ready");
    assert.deepEqual([ready?.status, ready?.reason], ["Unknown", "NodeStatusUnknown"]);
    await eventually("the pod not ready", async () =>
      (await find(PODS, "lost", "p"))?.status?.conditions?.find(
        ({ type, status }) => type === "Ready" && status === "False",
      ),
    );
    await postReady(world, "n2");
    await eventually("n2 without taints", async () =>
      ((await find(NODES, undefined, "n2"))?.spec?.taints ?? []).length === 0 ? true : undefined,
    );
  });
});

describe("starting the control plane", () => {
  test("a second copy on the same directory, a port in use and bad networks are one sentence each", async () => {
    const world = await startWorld();
    const { dataDir, clock, signal, controlPlane } = world;
    const other = `${dataDir}-other`;
    try {
      await assert.rejects(
        startControlPlane(options(dataDir, clock), signal),
        (error) => error instanceof SetupError && error.message.includes(dataDir),
      );
      await assert.rejects(
        startControlPlane(options(other, clock, controlPlane.port), signal),
        (error) => error instanceof SetupError && error.message.includes(String(controlPlane.port)),
      );
      const overlapping = { ...options(other, clock), clusterCIDRs: ["10.96.0.0/12"] };
      await assert.rejects(
        startControlPlane(overlapping, signal),
        (error) => error instanceof SetupError && /overlap/.test(error.message),
      );
    } finally {
      await rm(other, { recursive: true, force: true });
      await world.close();
    }
  });

  test("directory and kubeconfigs are the owner's only, and a restart finds everything again", async () => {
    const world = await startWorld();
    const { dataDir, clock, controlPlane, client, signal } = world;
    try {
      assert.equal((await stat(dataDir)).mode & 0o777, 0o700);
      assert.equal((await stat(controlPlane.files.adminKubeconfig)).mode & 0o777, 0o600);
      const made = await createObject(
        client,
        CONFIG_MAPS,
        { metadata: { namespace: "default", name: "kept" }, data: { a: "1" } },
        { signal },
      );
      const { port } = controlPlane;
      await controlPlane.close();
      const again = await startControlPlane(options(dataDir, clock, port), signal);
      const found = await eventually("the object after the restart", async () => {
        try {
          return await getObject(client, CONFIG_MAPS, made.metadata, { signal });
        } catch {
          return undefined;
        }
      });
      assert.equal(found.metadata.uid, made.metadata.uid);
      await again.close();
    } finally {
      await world.close();
    }
  });
});

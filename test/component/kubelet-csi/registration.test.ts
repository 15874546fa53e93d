import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";

import { CSI_NODES, NODES } from "../../../src/api/resources.ts";
import type { CSINode, CSINodeDriver, Node } from "../../../src/api/types.gen.ts";
import { CallFailure, status } from "../../fakes/csi-driver.ts";
import { JumpingClock } from "../kubelet-pods/fixture.ts";
import { nodeName, startWorld, type World } from "./world.ts";

let world: World;

beforeEach(async () => {
  world = await startWorld();
});

afterEach(async () => {
  await world.close();
});

function drivers(): readonly CSINodeDriver[] | undefined {
  return world.api.get<CSINode>(CSI_NODES, nodeName)?.spec.drivers;
}

function nodeIDs(): unknown {
  const text = world.node().metadata.annotations?.["csi.volume.kubernetes.io/nodeid"];
  return text === undefined ? undefined : JSON.parse(text);
}

describe("a CSINode", () => {
  it("is there without any driver, and belongs to the Node", async () => {
    world.start();
    const csiNode = await world.until("CSINode", () => world.api.get<CSINode>(CSI_NODES, nodeName));
    assert.deepEqual(csiNode.spec.drivers, []);
    const { uid } = world.node().metadata;
    assert.deepEqual(csiNode.metadata.ownerReferences, [
      { apiVersion: "v1", kind: "Node", name: nodeName, uid },
    ]);
    const migrated =
      csiNode.metadata.annotations?.["storage.alpha.kubernetes.io/migrated-plugins"] ?? "";
    assert.match(migrated, /^kubernetes\.io\/aws-ebs,.*,kubernetes\.io\/vsphere-volume$/);
  });

  it("of a former Node of the name is replaced", async () => {
    const former = world.api.put<CSINode>(CSI_NODES, {
      metadata: {
        name: nodeName,
        ownerReferences: [{ apiVersion: "v1", kind: "Node", name: nodeName, uid: "former" }],
      },
      spec: { drivers: [{ name: "old", nodeID: "x" }] },
    });
    world.start();
    const next = await world.until("a new CSINode", () => {
      const found = world.api.get<CSINode>(CSI_NODES, nodeName);
      return found?.metadata.uid !== former.metadata.uid && found;
    });
    assert.deepEqual(next.spec.drivers, []);
  });

  it("whose list of drivers is null, as Go writes an empty one, takes a driver and loses it", async () => {
    const { uid } = world.node().metadata;
    world.api.put<CSINode>(CSI_NODES, {
      metadata: {
        name: nodeName,
        ownerReferences: [{ apiVersion: "v1", kind: "Node", name: nodeName, uid }],
      },
      spec: { drivers: null as unknown as CSINodeDriver[] },
    });
    world.start();
    const driver = world.driver();
    await driver.start();
    await world.until("the driver", () => drivers()?.length === 1);
    await driver.stop();
    await world.until("removal", () => drivers()?.length === 0);
  });

  it("is written again after a conflict", async () => {
    world.start();
    await world.until("CSINode", drivers);
    world.api.inject(({ method, path }) => method === "PUT" && path.includes("csinodes"), {
      status: 409,
      reason: "Conflict",
    });
    await world.driver().start();
    await world.until("the driver", () => drivers()?.length === 1);
  });
});

describe("a driver", () => {
  it("registers over its socket, wherever below the registry that is", async () => {
    world.start();
    const driver = world.driver({
      registrationSocket: "deep/down/reg.sock",
      nodeID: "id-of-worker",
      maxVolumes: 7,
      topology: { "topology.example.test/zone": "a" },
    });
    await driver.start();
    await world.until("registration", () => driver.registrations.length === 1);
    assert.deepEqual(driver.registrations, [{ pluginRegistered: true, error: "" }]);
    assert.deepEqual(drivers(), [
      {
        name: driver.name,
        nodeID: "id-of-worker",
        topologyKeys: ["topology.example.test/zone"],
        allocatable: { count: 7 },
      },
    ]);
    assert.deepEqual(nodeIDs(), { [driver.name]: "id-of-worker" });
    assert.equal(world.node().metadata.labels?.["topology.example.test/zone"], "a");
  });

  it("that was there before the agent registers too, after a restart of the agent again", async () => {
    const driver = world.driver();
    await driver.start();
    const first = world.start();
    await world.until("registration", () => driver.registrations.length === 1);
    await first.stop();
    assert.equal(drivers()?.length, 1, "the agent's end is not the driver's");
    world.start();
    await world.until("registration", () => driver.registrations.length === 2);
    assert.equal(drivers()?.length, 1);
  });

  it("registers again when its socket is made anew, and is forgotten when it goes", async () => {
    world.start();
    const driver = world.driver();
    await driver.start();
    await world.until("registration", () => driver.registrations.length === 1);
    await driver.stopRegistration();
    driver.maxVolumes = 3;
    await driver.startRegistration();
    await world.until("registration", () => driver.registrations.length === 2);
    await world.until("count", () => drivers()?.[0]?.allocatable?.count === 3);
    await driver.stop();
    await world.until("removal", () => drivers()?.length === 0);
    await world.until("removal", () => nodeIDs() === undefined);
  });

  it("is told why it is not registered, and tried again", async () => {
    world.start();
    const driver = world.driver();
    driver.fail("getInfo", new CallFailure(status.INTERNAL, "no metadata service"));
    await driver.start();
    await world.until("two answers", () => driver.registrations.length === 2);
    assert.deepEqual(driver.registrations, [
      {
        pluginRegistered: false,
        error:
          "RegisterPlugin error -- plugin registration failed with err: rpc error: code = Internal desc = no metadata service",
      },
      { pluginRegistered: true, error: "" },
    ]);
  });

  it("may not contradict a topology label of the node", async () => {
    const node = world.node();
    world.api.put<Node>(NODES, {
      ...node,
      metadata: { ...node.metadata, labels: { "example.test/zone": "b" } },
    });
    world.start();
    const driver = world.driver({ topology: { "example.test/zone": "a" } });
    await driver.start();
    await world.until("answer", () => driver.registrations.length > 0);
    assert.equal(
      driver.registrations[0]?.error,
      'RegisterPlugin error -- plugin registration failed with err: detected topology value collision: driver reported "example.test/zone":"a" but existing label is "example.test/zone":"b"',
    );
    assert.deepEqual(drivers(), []);
  });

  it("of CSI 0.x is refused", async () => {
    world.start();
    const driver = world.driver({ versions: ["0.3.0"] });
    await driver.start();
    await world.until("answer", () => driver.registrations.length > 0);
    assert.match(
      driver.registrations[0]?.error ?? "",
      /^RegisterPlugin error -- plugin validation failed with err: validation failed for CSI Driver csi\.example\.test at endpoint .*: kubernetes\.io\/csi: ValidatePlugin for CSI driver "csi\.example\.test" failed\. None of the versions specified \["0\.3\.0"\] are supported\. err=highest supported version reported is 0\.3\.0, must be v1\.x$/,
    );
  });
});

it("a second driver of a name has to wait until the first one has gone", async () => {
  world.start();
  const first = world.driver({ registrationSocket: "first.sock" });
  await first.start();
  await world.until("registration", () => first.registrations.length === 1);
  const second = world.driver({ registrationSocket: "second.sock" });
  await second.startRegistration();
  await world.until("answer", () => second.registrations.length === 1);
  assert.match(
    second.registrations[0]?.error ?? "",
    /Another driver with the same name is already registered with a higher supported version: "1\.0\.0"$/,
  );
  await first.stopRegistration();
  await world.until("registration", () => second.registrations.at(-1)?.pluginRegistered);
});

it("a plug-in of another type is refused once", async () => {
  world.start();
  const driver = world.driver({ type: "DevicePlugin" });
  await driver.start();
  await world.until("answer", () => driver.registrations.length === 1);
  assert.deepEqual(driver.registrations, [
    {
      pluginRegistered: false,
      error: `RegisterPlugin error -- no handler registered for plugin type: DevicePlugin at socket ${driver.registrationSocket}`,
    },
  ]);
});

it("the driver is asked anew how many volumes fit, as often as its CSIDriver object says", async () => {
  world.csiDriver("csi.example.test", { nodeAllocatableUpdatePeriodSeconds: 10 });
  const clock = new JumpingClock();
  world.start({ clock });
  const driver = world.driver({ maxVolumes: 5 });
  await driver.start();
  await world.until("registration", () => driver.registrations.length === 1);
  driver.maxVolumes = 4;
  await world.until("new count", () => {
    clock.ahead(10_000);
    return drivers()?.[0]?.allocatable?.count === 4;
  });
});

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, rmdir, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import {
  CSI_DRIVERS,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
} from "../../../src/api/resources.ts";
import type {
  PersistentVolume,
  PersistentVolumeClaim,
  PersistentVolumeSpec,
  PodSpec,
} from "../../../src/api/types.gen.ts";
import { type Csi, createCsi } from "../../../src/kubelet/csi/csi.ts";
import { VolumesInUse } from "../../../src/kubelet/volumes/in-use.ts";
import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { exec } from "../../../src/lib/exec.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { FakeCsiDriver, type FakeCsiDriverOptions } from "../../fakes/csi-driver.ts";
import { makeNode, type Node } from "../kubelet-volumes-local/node.ts";
import { testSignal } from "../runtime/fixture.ts";

/** Shows a directory (or a device) of the driver's by binds, as drivers do. */
function realMounts(data: string): NonNullable<FakeCsiDriverOptions["mounts"]> {
  return {
    mount: async (volume, target, how, block) => {
      const source = join(data, volume);
      if (block) {
        if (how === "stage") return;
        await writeFile(target, "");
        const device = (await readFile(source, "utf8")).trim();
        await systemMounter.bind(device, target, testSignal());
        return;
      }
      await mkdir(source, { recursive: true });
      await mkdir(target, { recursive: true });
      await systemMounter.bind(source, target, testSignal());
    },
    unmount: async (_volume, target, how) => {
      await systemMounter.unmount(target, testSignal());
      if (how === "stage") return;
      await rmdir(target).catch(() => rm(target));
    },
  };
}

interface World extends AsyncDisposable {
  readonly node: Node;
  readonly driver: FakeCsiDriver;
  /** What volumes hold, by handle. */
  readonly data: string;
  readonly csi: () => Csi;
  registered(): Promise<void>;
}

async function makeWorld(options: Partial<FakeCsiDriverOptions> = {}): Promise<World> {
  let csi: Csi | undefined;
  const running: Promise<void>[] = [];
  const node = await makeNode((given, stop) => {
    csi = createCsi({
      ...given,
      inUse: new VolumesInUse(),
      clock: systemClock,
      logger: silentLogger,
      random: () => 0,
      step: () => undefined,
    });
    running.push(csi.run(stop));
    return { csi };
  });
  const data = join(node.rootDir, "driver");
  await mkdir(data);
  const driver = new FakeCsiDriver({
    capabilities: ["stageUnstageVolume", "getVolumeStats"],
    mounts: realMounts(data),
    ...options,
    rootDir: node.rootDir,
  });
  node.api.put(CSI_DRIVERS, {
    metadata: { name: driver.name },
    spec: {
      attachRequired: false,
      fsGroupPolicy: "File",
      volumeLifecycleModes: ["Persistent", "Ephemeral"],
      podInfoOnMount: true,
    },
  });
  const csiNow = (): Csi => {
    assert(csi !== undefined);
    return csi;
  };
  return {
    node,
    driver,
    data,
    csi: csiNow,
    registered: async () => {
      await node.until("registration", () => csiNow().drivers.get(driver.name));
    },
    async [Symbol.asyncDispose]() {
      await driver.stop();
      await node[Symbol.asyncDispose]();
      await Promise.all(running);
    },
  };
}

function bind({ driver, node }: World, change: Partial<PersistentVolumeSpec> = {}): void {
  const { metadata } = node.api.put<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, {
    metadata: { name: "data", namespace: "default" },
    spec: { volumeName: "pv-data" },
    status: { phase: "Bound", capacity: { storage: "1Gi" } },
  });
  node.api.put<PersistentVolume>(PERSISTENT_VOLUMES, {
    metadata: { name: "pv-data" },
    spec: {
      accessModes: ["ReadWriteOnce"],
      capacity: { storage: "1Gi" },
      csi: { driver: driver.name, volumeHandle: "vol-1" },
      claimRef: { uid: metadata.uid },
      ...change,
    },
  });
}

const mounting: Partial<PodSpec> = {
  volumes: [{ name: "data", persistentVolumeClaim: { claimName: "data" } }],
  containers: [{ name: "main", volumeMounts: [{ name: "data", mountPath: "/data" }] }],
};

async function clean({ driver, node }: World): Promise<void> {
  await node.until("everything is unstaged", () => driver.staged.size === 0);
  await node.until("the disk is clean", () => {
    return !existsSync(join(node.rootDir, "plugins/kubernetes.io/csi", driver.name));
  });
  assert.deepEqual(systemMounter.table().below(node.rootDir), []);
}

test("pods share a volume of a driver, over a restart of the agent, and it holds what they wrote", async () => {
  await using world = await makeWorld();
  const { data, driver, node } = world;
  await driver.start();
  await world.registered();
  bind(world);
  node.put("a", { ...mounting, securityContext: { fsGroup: 4321 } });
  node.put("b", mounting);
  await Promise.all([node.ready("a"), node.ready("b")]);
  assert.equal((await node.run("a", "echo hello > /data/file")).exitCode, 0);
  assert.equal((await node.run("b", "cat /data/file")).text, "hello");
  assert.equal((await stat(join(data, "vol-1/file"))).gid, 4321);
  const [volume] = node.pods.view.volumes?.(node.pod("a")?.metadata.uid ?? "") ?? [];
  assert.equal((await volume?.figures(testSignal()))?.usedBytes, 400);
  await node.restart();
  await world.registered();
  assert.equal((await node.run("a", "cat /data/file")).text, "hello");
  await node.remove("a");
  assert.equal((await node.run("b", "cat /data/file")).text, "hello");
  assert.equal(driver.staged.size, 1);
  await node.remove("b");
  await clean(world);
  assert.equal(await readFile(join(data, "vol-1/file"), "utf8"), "hello\n");
});

test("a pod waits for its driver, and says so", async () => {
  await using world = await makeWorld();
  const { driver, node } = world;
  bind(world);
  node.put("a", mounting);
  const words = `Warning FailedMount MountVolume.MountDevice failed for volume "pv-data" : kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: driver name ${driver.name} not found in the list of registered CSI drivers`;
  await node.until("it is said", () => node.events.includes(words));
  await driver.start();
  await node.ready("a");
  await node.remove("a");
  await clean(world);
});

test("a driver that has gone keeps the volume of a pod from being unmounted behind its back", async () => {
  await using world = await makeWorld();
  const { driver, node } = world;
  await driver.start();
  await world.registered();
  bind(world);
  node.put("a", mounting);
  await node.ready("a");
  await driver.stop();
  await node.until("deregistration", () => world.csi().drivers.get(driver.name) === undefined);
  assert.equal((await node.run("a", "echo still here > /data/file")).exitCode, 0);
  const target = join(node.volumes("a"), "kubernetes.io~csi/pv-data/mount");
  const removal = node.remove("a");
  await systemClock.sleep(1500, testSignal());
  assert(systemMounter.table().at(target) !== undefined, "it is still mounted");
  await driver.start();
  await removal;
  await clean(world);
});

test("an inline volume is the pod's own", async () => {
  await using world = await makeWorld();
  const { data, driver, node } = world;
  await driver.start();
  await world.registered();
  node.put("a", {
    volumes: [{ name: "scratch", csi: { driver: driver.name } }],
    containers: [{ name: "main", volumeMounts: [{ name: "scratch", mountPath: "/data" }] }],
  });
  await node.ready("a");
  assert.equal((await node.run("a", "echo mine > /data/file")).exitCode, 0);
  const { volumeContext, volumeId = "" } = driver.last("publish");
  assert.equal(volumeContext?.["csi.storage.k8s.io/pod.name"], "a");
  assert.equal(await readFile(join(data, volumeId, "file"), "utf8"), "mine\n");
  await node.remove("a");
  assert.deepEqual(driver.done, ["publish", "unpublish"]);
  assert.deepEqual(systemMounter.table().below(node.rootDir), []);
});

test("a raw block volume is a device of the container", async () => {
  await using world = await makeWorld();
  const { data, driver, node } = world;
  const file = join(node.rootDir, "disk.img");
  await writeFile(file, "");
  await truncate(file, 8 * 1024 * 1024);
  const device = (
    await exec(["losetup", "--find", "--show", file], { signal: testSignal() })
  ).trim();
  try {
    await writeFile(join(data, "vol-1"), device);
    await driver.start();
    await world.registered();
    bind(world, { volumeMode: "Block" });
    node.put("a", {
      volumes: [{ name: "data", persistentVolumeClaim: { claimName: "data" } }],
      containers: [{ name: "main", volumeDevices: [{ name: "data", devicePath: "/dev/disk" }] }],
    });
    await node.ready("a");
    const wrote = await node.run(
      "a",
      "echo raw | busybox dd of=/dev/disk conv=notrunc 2>/dev/null && busybox sync",
    );
    assert.equal(wrote.exitCode, 0, wrote.text);
    assert.equal((await readFile(file)).subarray(0, 4).toString(), "raw\n");
    await node.remove("a");
    await node.until("everything is unstaged", () => driver.staged.size === 0);
    assert.deepEqual(systemMounter.table().below(node.rootDir), []);
  } finally {
    await exec(["losetup", "--detach", device], { signal: testSignal() });
  }
});

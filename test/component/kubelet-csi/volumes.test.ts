import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";

import { CSI_NODES, SECRETS, VOLUME_ATTACHMENTS } from "../../../src/api/resources.ts";
import type { Secret } from "../../../src/api/types.gen.ts";
import { attachmentName } from "../../../src/kubelet/csi/paths.ts";
import { errorMessage } from "../../../src/lib/errors.ts";
import { CallFailure, type FakeCsiDriver, status } from "../../fakes/csi-driver.ts";
import { JumpingClock } from "../kubelet-pods/fixture.ts";
import { inlineSpec, nodeName, type Run, startWorld, type World } from "./world.ts";

let world: World;
let run: Run;

beforeEach(async () => {
  world = await startWorld();
  run = world.start();
});

afterEach(async () => {
  await world.close();
});

/** A driver that has registered, without controllers of its own. */
async function registered(
  options: Parameters<World["driver"]>[0] = {},
  spec: Parameters<World["csiDriver"]>[1] = {},
): Promise<FakeCsiDriver> {
  const driver = world.driver(options);
  world.csiDriver(driver.name, spec);
  await driver.start();
  await world.until("registration", () => driver.registrations.at(-1)?.pluginRegistered);
  return driver;
}

async function message(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return errorMessage(error);
  }
  return "nothing failed";
}

function secret(name: string, data: Readonly<Record<string, string>>): void {
  const encoded = Object.entries(data).map(
    ([key, value]) => [key, Buffer.from(value).toString("base64")] as const,
  );
  world.api.put<Secret>(SECRETS, {
    metadata: { name, namespace: "default" },
    data: Object.fromEntries(encoded),
  });
}

describe("a volume behind a claim", () => {
  it("is staged, published, and undone in reverse", async () => {
    const driver = await registered();
    const pod = world.pod("web");
    const spec = world.claimed("data", { mountOptions: ["noatime"] });
    const prepared = await run.setUp(spec, pod);
    const path = join(world.rootDir, "pods", pod.metadata.uid, "volumes/kubernetes.io~csi/pv-data");
    assert.deepEqual(prepared, {
      hostPath: join(path, "mount"),
      readOnly: false,
      ownership: "done",
    });
    const [staging = ""] = driver.staged.keys();
    assert.match(
      staging.slice(world.rootDir.length),
      /^\/plugins\/kubernetes\.io\/csi\/csi\.example\.test\/[0-9a-f]{64}\/globalmount$/,
    );
    const capability = {
      block: undefined,
      mount: { fsType: "", mountFlags: ["noatime"], volumeMountGroup: "" },
      accessMode: { mode: 1 },
    };
    assert.deepEqual(driver.last("stage"), {
      volumeId: "handle-data",
      publishContext: {},
      stagingTargetPath: staging,
      volumeCapability: capability,
      secrets: {},
      volumeContext: {},
    });
    assert.deepEqual(driver.last("publish"), {
      volumeId: "handle-data",
      publishContext: {},
      stagingTargetPath: staging,
      targetPath: join(path, "mount"),
      volumeCapability: capability,
      readonly: false,
      secrets: {},
      volumeContext: {},
    });
    assert.deepEqual(JSON.parse(readFileSync(join(path, "vol_data.json"), "utf8")), {
      attachmentID: "csi-9ace7669897289b84af438c62707015ea03cdef80983fcc80e5d4871f152b1a6",
      driverName: "csi.example.test",
      nodeName: "worker",
      specVolID: "pv-data",
      volumeHandle: "handle-data",
      volumeLifecycleMode: "Persistent",
    });
    await run.tearDown(spec, pod);
    await world.until("unstaging", () => driver.staged.size === 0);
    assert.deepEqual(driver.done, ["stage", "publish", "unpublish", "unstage"]);
    await world.until("clean disk", () => !existsSync(join(staging, "..")));
    assert.equal(existsSync(path), false);
    assert.equal(world.mounter.mounted.size, 0);
  });

  it("is asked for nothing more while it is as it should be", async () => {
    const driver = await registered();
    const pod = world.pod("web");
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    const { length } = driver.calls;
    await run.setUp(spec, pod);
    assert.equal(driver.calls.length, length);
  });

  it("is published anew when somebody has unmounted it", async () => {
    const driver = await registered();
    const pod = world.pod("web");
    const spec = world.claimed("data");
    const { hostPath } = await run.setUp(spec, pod);
    world.mounter.mounted.delete(hostPath);
    await run.setUp(spec, pod);
    assert.deepEqual(driver.done, ["stage", "publish", "publish"]);
  });

  it("stays staged until its last pod has gone", async () => {
    const driver = await registered();
    const [one, other] = [world.pod("one"), world.pod("other")];
    const spec = world.claimed("data");
    await Promise.all([run.setUp(spec, one), run.setUp(spec, other)]);
    assert.deepEqual(driver.done, ["stage", "publish", "publish"]);
    await run.tearDown(spec, one);
    await run.tearDown(spec, other);
    await world.until("unstaging", () => driver.staged.size === 0);
    assert.deepEqual(driver.done.slice(3), ["unpublish", "unpublish", "unstage"]);
  });

  it("is not staged by a driver that does not", async () => {
    const driver = await registered({ capabilities: [] });
    const pod = world.pod("web");
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    await run.tearDown(spec, pod);
    assert.deepEqual(driver.done, ["publish", "unpublish"]);
    assert.deepEqual(await readdir(join(world.rootDir, "plugins")), [driver.name]);
  });

  it("gets the secrets that it names, and they are nowhere else", async () => {
    const driver = await registered();
    secret("stage", { key: "for staging" });
    secret("publish", { key: "for publishing" });
    const pod = world.pod("web");
    const spec = world.claimed("data", {
      csi: {
        driver: driver.name,
        volumeHandle: "handle-data",
        volumeAttributes: { tier: "fast" },
        nodeStageSecretRef: { namespace: "default", name: "stage" },
        nodePublishSecretRef: { namespace: "default", name: "publish" },
      },
    });
    await run.setUp(spec, pod);
    assert.deepEqual(driver.last("stage").secrets, { key: "for staging" });
    assert.deepEqual(driver.last("publish").secrets, { key: "for publishing" });
    assert.deepEqual(driver.last("publish").volumeContext, { tier: "fast" });
  });

  it("waits for its secret", async () => {
    await registered();
    const pod = world.pod("web");
    const spec = world.claimed("data", {
      csi: {
        driver: "csi.example.test",
        volumeHandle: "handle-data",
        nodeStageSecretRef: { namespace: "default", name: "stage" },
      },
    });
    assert.match(
      await message(run.setUp(spec, pod)),
      /^MountVolume\.MountDevice failed for volume "pv-data" : fetching NodeStageSecretRef default\/stage failed: kubernetes\.io\/csi: failed to find the secret stage in the namespace default with error: /,
    );
    secret("stage", { key: "x" });
    await run.setUp(spec, pod);
  });

  for (const [modes, multiWriter, mode] of [
    ["ReadWriteOnce", false, 1],
    ["ReadWriteOnce", true, 7],
    ["ReadWriteOncePod", false, 1],
    ["ReadWriteOncePod", true, 6],
    ["ReadOnlyMany", true, 3],
    ["ReadWriteMany", false, 5],
  ] as const) {
    it(`of ${modes} is asked for as mode ${mode}`, async () => {
      const more = multiWriter ? (["singleNodeMultiWriter"] as const) : [];
      const driver = await registered({ capabilities: ["stageUnstageVolume", ...more] });
      await run.setUp(world.claimed("data", { accessModes: [modes] }), world.pod("web"));
      assert.deepEqual(driver.last("publish").volumeCapability?.accessMode, { mode });
    });
  }
});

describe("a driver that is not there", () => {
  it("is waited for, and the pod woken", async () => {
    const pod = world.pod("web");
    const spec = world.claimed("data");
    world.csiDriver("csi.example.test", {});
    const woken: string[] = [];
    run.csi.onDriver((uid) => woken.push(uid));
    assert.equal(
      await message(run.setUp(spec, pod)),
      'MountVolume.MountDevice failed for volume "pv-data" : kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: driver name csi.example.test not found in the list of registered CSI drivers',
    );
    await registered();
    assert.deepEqual(woken, [pod.metadata.uid]);
    await run.setUp(spec, pod);
  });

  it("keeps no pod that never had anything of it", async () => {
    const pod = world.pod("web");
    const spec = world.claimed("data");
    world.csiDriver("csi.example.test", {});
    await message(run.setUp(spec, pod));
    const woken: string[] = [];
    run.csi.onDriver((uid) => woken.push(uid));
    await run.tearDown(spec, pod);
    await registered();
    assert.deepEqual(woken, []);
  });

  it("keeps a pod whose volume it has published", async () => {
    const driver = await registered();
    const pod = world.pod("web");
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    await driver.stop();
    await world.until("deregistration", () => run.csi.drivers.get(driver.name) === undefined);
    assert.equal(
      await message(run.tearDown(spec, pod)),
      "kubernetes.io/csi: Unmounter.TearDownAt failed to get CSI client: driver name csi.example.test not found in the list of registered CSI drivers",
    );
    assert.equal(world.mounter.mounted.size, 2, "nothing is unmounted behind its back");
    await driver.start();
    await world.until("registration", () => run.csi.drivers.get(driver.name));
    await run.tearDown(spec, pod);
    await world.until("unstaging", () => driver.staged.size === 0);
  });
});

describe("a call that fails", () => {
  it("for good leaves nothing to undo", async () => {
    const driver = await registered();
    driver.fail("stage", new CallFailure(status.INTERNAL, "mkfs failed"));
    const pod = world.pod("web");
    const spec = world.claimed("data");
    assert.equal(
      await message(run.setUp(spec, pod)),
      'MountVolume.MountDevice failed for volume "pv-data" : rpc error: code = Internal desc = mkfs failed',
    );
    assert.deepEqual(await readdir(join(world.rootDir, "plugins/kubernetes.io/csi")), []);
    driver.fail("publish", new CallFailure(status.INVALID_ARGUMENT, "no such option"));
    assert.equal(
      await message(run.setUp(spec, pod)),
      "rpc error: code = InvalidArgument desc = no such option",
    );
    const uid = pod.metadata.uid;
    const path = join(world.rootDir, "pods", uid, "volumes/kubernetes.io~csi/pv-data");
    assert.deepEqual(await readdir(path), []);
    await run.tearDown(spec, pod);
    await world.until("unstaging", () => driver.staged.size === 0);
    assert.deepEqual(driver.done, ["stage", "stage", "publish", "unstage"]);
  });

  it("without an answer is undone: it may have succeeded", async () => {
    const driver = await registered();
    // The driver's process dies in the middle.
    driver.onCall((method) => {
      if (method === "publish") driver.crash();
    });
    const pod = world.pod("web");
    const spec = world.claimed("data");
    assert.match(
      await message(run.setUp(spec, pod)),
      /^rpc error: code = (Unavailable|Canceled) desc = /,
    );
    driver.onCall(() => undefined);
    await driver.startNode();
    await run.tearDown(spec, pod);
    await world.until("unstaging", () => driver.staged.size === 0);
    assert.deepEqual(driver.done.slice(-2), ["unpublish", "unstage"]);
  });

  it("and of which nothing is heard ends with the pod", async () => {
    const driver = await registered();
    driver.fail("stage", "hang");
    const stop = new AbortController();
    const pod = world.pod("web");
    const spec = world.claimed("data");
    const waiting = message(run.setUp(spec, pod, stop.signal));
    await world.until("call", () => driver.done.includes("stage"));
    stop.abort();
    assert.equal(await waiting, "This operation was aborted");
    await run.tearDown(spec, pod);
    await world.until("unstaging", () => driver.done.includes("unstage"));
  });
});

describe("a restart of the agent", () => {
  it("between staging and publishing goes on where it was", async () => {
    const driver = await registered();
    driver.fail("publish", "hang");
    const pod = world.pod("web");
    const spec = world.claimed("data");
    const waiting = message(run.setUp(spec, pod));
    await world.until("call", () => driver.done.includes("publish"));
    await run.stop();
    await waiting;
    run = world.start();
    await world.until("registration", () => driver.registrations.length === 2);
    await run.setUp(spec, pod);
    assert.deepEqual(driver.done, ["stage", "publish", "stage", "publish"]);
    assert.equal(driver.published.size, 1);
  });

  it("undoes from the disk alone what a pod had", async () => {
    const driver = await registered();
    const pod = world.pod("web");
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    await run.stop();
    run = world.start();
    await world.until("registration", () => driver.registrations.length === 2);
    await run.tearDown(spec, pod);
    await world.until("unstaging", () => driver.staged.size === 0);
    assert.equal(driver.published.size, 0);
  });

  it("unstages what no pod has any more, once its driver is there", async () => {
    const driver = await registered();
    const pod = world.pod("web");
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    driver.fail("unstage", new CallFailure(status.UNAVAILABLE, "restarting"), 100);
    await run.tearDown(spec, pod);
    await world.until("a try", () => driver.done.includes("unstage"));
    await run.stop();
    await driver.stop();
    assert.equal(driver.staged.size, 1);
    const next = world.driver();
    for (const [target, volume] of driver.staged) next.staged.set(target, volume);
    run = world.start();
    await next.start();
    await world.until("unstaging", () => next.done.includes("unstage"));
    assert.equal(world.mounter.mounted.size, 0);
  });
});

describe("a volume that controllers attach", () => {
  it("is in use before it is waited for, and until it is unstaged", async () => {
    const driver = await registered({}, { attachRequired: true });
    const pod = world.pod("web");
    const spec = world.claimed("data");
    const name = `kubernetes.io/csi/${driver.name}^handle-data`;
    const waiting = run.setUp(spec, pod);
    await world.until("in use", () => world.node().status?.volumesInUse?.includes(name));
    assert.deepEqual(driver.done, []);
    world.attach("handle-data", { device: "sdb" });
    await waiting;
    assert.deepEqual(driver.last("stage").publishContext, { device: "sdb" });
    assert.deepEqual(driver.last("publish").publishContext, { device: "sdb" });
    driver.onCall((method) => {
      if (method !== "unstage") return;
      assert.deepEqual(world.node().status?.volumesInUse, [name]);
    });
    await run.tearDown(spec, pod);
    await world.until("not in use", () => world.node().status?.volumesInUse?.length === 0);
    assert.equal(driver.staged.size, 0);
  });

  it("is attached unless a CSIDriver object says otherwise", async () => {
    const driver = world.driver();
    await driver.start();
    await world.until("registration", () => driver.registrations.length > 0);
    const waiting = run.setUp(world.claimed("data"), world.pod("web"));
    await world.until("in use", () => world.node().status?.volumesInUse?.length === 1);
    world.attach("handle-data");
    await waiting;
  });

  it("stays in use over a restart of the agent", async () => {
    await registered({}, { attachRequired: true });
    const pod = world.pod("web");
    const spec = world.claimed("data");
    const waiting = run.setUp(spec, pod);
    await world.until("in use", () => world.node().status?.volumesInUse?.length === 1);
    world.attach("handle-data");
    await waiting;
    await run.stop();
    run = world.start();
    await world.until("a look at the disk", () => run.inUse.list(["nobody's"])?.length === 0);
    const reported = world.node().status?.volumesInUse;
    assert.deepEqual(run.inUse.list(reported), reported);
    assert.equal(reported?.length, 1);
  });

  it("of which the attacher reports an error is not staged", async () => {
    const driver = await registered({}, { attachRequired: true });
    const pod = world.pod("web");
    const spec = world.claimed("data");
    const waiting = message(run.setUp(spec, pod));
    world.attach("handle-data");
    const [attachment] = world.api.list(VOLUME_ATTACHMENTS);
    assert.ok(attachment);
    const attachError = { message: "rpc error: code = Internal desc = no such disk" };
    world.api.put(VOLUME_ATTACHMENTS, { ...attachment, status: { attached: false, attachError } });
    assert.equal(
      await waiting,
      'MountVolume.WaitForAttach failed for volume "pv-data" : rpc error: code = Internal desc = no such disk',
    );
    assert.deepEqual(driver.done, []);
  });
});

describe("a volume that is not attached for long", () => {
  const clock = new JumpingClock();

  beforeEach(async () => {
    await run.stop();
    run = world.start({ clock });
  });

  async function waitedFor(work: Promise<unknown>): Promise<string> {
    const waiting = message(work);
    await world.until("in use", () => world.node().status?.volumesInUse?.length === 1);
    let ended = false;
    void waiting.then(() => (ended = true));
    await world.until("end", () => {
      clock.ahead(60_000);
      return ended;
    });
    return waiting;
  }

  it("is an error that says what is missing", async () => {
    await registered({}, { attachRequired: true });
    assert.equal(
      await waitedFor(run.setUp(world.claimed("data"), world.pod("web"))),
      'MountVolume.WaitForAttach failed for volume "pv-data" : Volume not attached according to node status',
    );
  });

  for (const [counts, period] of [
    ["counts anew", 3600],
    ["does not count anew", undefined],
  ] as const) {
    it(`because the node is full, by a driver that ${counts}`, async () => {
      const driver = await registered(
        { maxVolumes: 5 },
        { attachRequired: true, nodeAllocatableUpdatePeriodSeconds: period },
      );
      const attachError = { message: "no slot", errorCode: status.RESOURCE_EXHAUSTED };
      const id = { driver: driver.name, handle: "handle-data" };
      world.api.put(VOLUME_ATTACHMENTS, {
        metadata: { name: attachmentName(id, nodeName) },
        spec: { attacher: driver.name, nodeName, source: {} },
        status: { attached: false, attachError },
      });
      driver.maxVolumes = 2;
      const text = await waitedFor(run.setUp(world.claimed("data"), world.pod("web")));
      const [entry] = world.api.get(CSI_NODES, nodeName)?.spec.drivers ?? [];
      if (period === undefined) {
        assert.equal(text, 'MountVolume.WaitForAttach failed for volume "pv-data" : no slot');
        assert.equal(entry?.allocatable?.count, 5);
      } else {
        assert.equal(
          text,
          'MountVolume.WaitForAttach failed for volume "pv-data" : Node has reached its volume attachment limit, rejecting pod.',
        );
        assert.equal(entry?.allocatable?.count, 2);
      }
    });
  }
});

describe("how full a volume is", () => {
  it("is asked of its driver", async () => {
    await registered({ capabilities: ["stageUnstageVolume", "getVolumeStats"] });
    const pod = world.pod("web");
    const spec = world.claimed("data");
    const prepared = await run.setUp(spec, pod);
    assert.deepEqual(await run.plugin.figures?.(spec, prepared, new AbortController().signal), {
      capacityBytes: 1000,
      availableBytes: 600,
      usedBytes: 400,
      inodes: { total: 100, free: 90, used: 10 },
    });
  });

  it("is not known where the driver cannot tell", async () => {
    await registered();
    const spec = world.claimed("data");
    const prepared = await run.setUp(spec, world.pod("web"));
    const signal = new AbortController().signal;
    assert.equal(await run.plugin.figures?.(spec, prepared, signal), undefined);
  });
});

describe("an inline volume", () => {
  const inline = (): ReturnType<typeof inlineSpec> =>
    inlineSpec("scratch", {
      driver: "csi.example.test",
      fsType: "ext4",
      volumeAttributes: { size: "1" },
      nodePublishSecretRef: { name: "publish" },
    });

  it("is published with what its driver wants to know of the pod, and never staged", async () => {
    const driver = await registered(
      {},
      { volumeLifecycleModes: ["Ephemeral"], podInfoOnMount: true, attachRequired: true },
    );
    secret("publish", { password: "x" });
    const pod = world.pod("web");
    const spec = inline();
    const prepared = await run.setUp(spec, pod);
    assert.equal(prepared.ownership, "tree", "fsType is given, and it is the pod's alone");
    const request = driver.last("publish");
    assert.match(request.volumeId ?? "", /^csi-[0-9a-f]{64}$/);
    assert.equal(request.stagingTargetPath, "");
    assert.deepEqual(request.secrets, { password: "x" });
    assert.deepEqual(request.volumeContext, {
      size: "1",
      "csi.storage.k8s.io/pod.name": "web",
      "csi.storage.k8s.io/pod.namespace": "default",
      "csi.storage.k8s.io/pod.uid": pod.metadata.uid,
      "csi.storage.k8s.io/serviceAccount.name": "default",
      "csi.storage.k8s.io/ephemeral": "true",
    });
    await run.tearDown(spec, pod);
    assert.deepEqual(driver.done, ["publish", "unpublish"]);
  });

  it("of a driver without a CSIDriver object is refused", async () => {
    const pod = world.pod("web");
    assert.equal(
      await message(run.setUp(inline(), pod)),
      'kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode "Ephemeral" not supported by driver csi.example.test (no CSIDriver object)',
    );
    world.csiDriver("csi.example.test", {});
    assert.equal(
      await message(
        (async () => {
          await world.until("object", () => run.csi.driverObjects.known("csi.example.test"));
          await run.setUp(inline(), pod);
        })(),
      ),
      'kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode "Ephemeral" not supported by driver csi.example.test (only supports ["Persistent"])',
    );
  });
});

describe("tokens", () => {
  async function publishedWith(inSecrets: boolean): Promise<FakeCsiDriver> {
    const driver = await registered(
      {},
      {
        tokenRequests: [{ audience: "vault" }, { audience: "" }],
        requiresRepublish: true,
        serviceAccountTokenInSecrets: inSecrets,
      },
    );
    const pod = world.pod("web");
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    await run.setUp(spec, pod);
    assert.deepEqual(driver.done, ["stage", "publish", "publish"], "it is published each time");
    return driver;
  }
  const key = "csi.storage.k8s.io/serviceAccount.tokens";
  const both = JSON.stringify({
    "": { token: "web for ", expirationTimestamp: "2999-01-01T00:00:00Z" },
    vault: { token: "web for vault", expirationTimestamp: "2999-01-01T00:00:00Z" },
  });

  it("of the pod's service account are handed to a driver that requests them", async () => {
    const driver = await publishedWith(false);
    assert.deepEqual(driver.last("publish").volumeContext, { [key]: both });
    assert.deepEqual(driver.last("stage").volumeContext, {});
  });

  it("go with the secrets where that is wanted", async () => {
    const driver = await publishedWith(true);
    assert.deepEqual(driver.last("publish").secrets, { [key]: both });
    assert.deepEqual(driver.last("publish").volumeContext, {});
  });
});

describe("fsGroup", () => {
  const securityContext = { fsGroup: 2000 };

  it("goes to a driver that sees to it itself", async () => {
    const driver = await registered({ capabilities: ["stageUnstageVolume", "volumeMountGroup"] });
    const pod = world.pod("web", { securityContext });
    const { ownership } = await run.setUp(world.claimed("data"), pod);
    assert.equal(driver.last("stage").volumeCapability?.mount?.volumeMountGroup, "2000");
    assert.equal(driver.last("publish").volumeCapability?.mount?.volumeMountGroup, "2000");
    assert.equal(ownership, "done");
  });

  const csi = { driver: "csi.example.test", volumeHandle: "handle-data" };
  for (const [policy, change, ownership] of [
    ["File", {}, "tree"],
    ["None", { csi: { ...csi, fsType: "ext4" } }, "done"],
    ["ReadWriteOnceWithFSType", {}, "done"],
    ["ReadWriteOnceWithFSType", { csi: { ...csi, fsType: "ext4" } }, "tree"],
    [
      "ReadWriteOnceWithFSType",
      { csi: { ...csi, fsType: "ext4" }, accessModes: ["ReadWriteMany"] },
      "done",
    ],
  ] as const) {
    it(`with policy ${policy} and ${JSON.stringify(change)} is ${ownership}`, async () => {
      await registered({}, { fsGroupPolicy: policy });
      const pod = world.pod("web", { securityContext });
      const spec = world.claimed("data", structuredClone(change) as object);
      assert.equal((await run.setUp(spec, pod)).ownership, ownership);
    });
  }
});

describe("a raw block volume", () => {
  it("is published as a device, and undone", async () => {
    const driver = await registered();
    const pod = world.pod("web");
    const spec = world.claimed("data", { volumeMode: "Block" });
    const prepared = await run.setUp(spec, pod);
    const { uid } = pod.metadata;
    const base = join(world.rootDir, "plugins/kubernetes.io/csi/volumeDevices");
    assert.equal(
      prepared.hostPath,
      join(world.rootDir, "pods", uid, "volumeDevices/kubernetes.io~csi/pv-data/device"),
    );
    assert.equal(prepared.ownership, "done");
    assert.deepEqual([...driver.staged.keys()], [join(base, "staging/pv-data")]);
    assert.deepEqual([...driver.published.keys()], [join(base, "publish/pv-data", uid)]);
    assert.deepEqual(driver.last("publish").volumeCapability, {
      block: {},
      mount: undefined,
      accessMode: { mode: 1 },
    });
    await run.tearDown(spec, pod);
    await world.until("unstaging", () => driver.staged.size === 0);
    assert.deepEqual(driver.done, ["stage", "publish", "unpublish", "unstage"]);
    await world.until("clean disk", () => !existsSync(join(base, "pv-data")));
    assert.equal(world.mounter.mounted.size, 0);
  });
});

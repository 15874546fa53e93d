import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";

import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from "../../../src/api/resources.ts";
import type {
  PersistentVolumeClaim,
  PersistentVolumeClaimStatus,
} from "../../../src/api/types.gen.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import type { VolumeSpec } from "../../../src/kubelet/volumes/plugin.ts";
import { errorMessage } from "../../../src/lib/errors.ts";
import { CallFailure, type FakeCsiDriver, status } from "../../fakes/csi-driver.ts";
import { type Run, startWorld, type World } from "./world.ts";

let world: World;
let run: Run;
let driver: FakeCsiDriver;
let pod: AssignedPod;

beforeEach(async () => {
  world = await startWorld();
  run = world.start();
  driver = world.driver({ capabilities: ["stageUnstageVolume", "expandVolume"] });
  world.csiDriver(driver.name, {});
  await driver.start();
  await world.until("registration", () => driver.registrations.at(-1)?.pluginRegistered);
  pod = world.pod("web");
});

afterEach(async () => {
  await world.close();
});

/** The controller has made the volume larger. */
function grown(
  spec: VolumeSpec,
  to: string,
  change: Partial<PersistentVolumeClaimStatus> = {},
): VolumeSpec {
  const { persistent } = spec;
  assert(persistent);
  const { claim, volume } = persistent;
  const larger = world.api.put(PERSISTENT_VOLUMES, {
    ...volume,
    spec: { ...volume.spec, capacity: { storage: to } },
  });
  const now = claimNow(claim);
  const asked = world.api.put<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, {
    ...now,
    spec: { ...now.spec, resources: { requests: { storage: to } } },
    status: {
      ...now.status,
      conditions: [
        { type: "FileSystemResizePending", status: "True" },
        { type: "Special", status: "True" },
      ],
      ...change,
    },
  });
  return { ...spec, persistent: { claim: asked, volume: larger } };
}

function claimNow(claim: PersistentVolumeClaim): PersistentVolumeClaim {
  const found = world.api.get(PERSISTENT_VOLUME_CLAIMS, `default/${claim.metadata?.name ?? ""}`);
  assert(found);
  return found;
}

function statusNow(spec: VolumeSpec): PersistentVolumeClaimStatus {
  assert(spec.persistent);
  return claimNow(spec.persistent.claim).status ?? {};
}

function told(): readonly string[] {
  return world.events.map(({ message, reason, target }) => `${target.kind} ${reason} ${message}`);
}

const pending: Partial<PersistentVolumeClaimStatus> = {
  allocatedResources: { storage: "2Gi" },
  allocatedResourceStatuses: { storage: "NodeResizePending" },
};

describe("a volume that has grown", () => {
  it("is expanded while it is mounted, and its claim told", async () => {
    const spec = grown(world.claimed("data"), "2Gi", pending);
    const { hostPath } = await run.setUp(spec, pod);
    const request = driver.last("expand");
    assert.equal(request.volumeId, "handle-data");
    assert.equal(request.volumePath, hostPath);
    assert.equal(request.stagingTargetPath, driver.last("publish").stagingTargetPath);
    assert.deepEqual(request.capacityRange, { requiredBytes: 2 * 2 ** 30, limitBytes: 0 });
    const { allocatedResourceStatuses, capacity, conditions } = statusNow(spec);
    assert.deepEqual(capacity, { storage: "2Gi" });
    assert.deepEqual(allocatedResourceStatuses ?? {}, {});
    assert.deepEqual(
      conditions?.map(({ type }) => type),
      ["Special"],
    );
    const text =
      'FileSystemResizeSuccessful MountVolume.NodeExpandVolume succeeded for volume "pv-data" worker';
    assert.deepEqual(told(), [`Pod ${text}`, `PersistentVolumeClaim ${text}`]);
  });

  it("is expanded while it is in use, once", async () => {
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    const larger = grown(spec, "2Gi", pending);
    await run.setUp(larger, pod);
    await run.setUp(larger, pod);
    assert.deepEqual(driver.done, ["stage", "publish", "expand"]);
    assert.deepEqual(statusNow(spec).capacity, { storage: "2Gi" });
  });

  it("waits until its controller says that it is the node's turn", async () => {
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    const larger = grown(spec, "2Gi", {
      ...pending,
      allocatedResourceStatuses: { storage: "ControllerResizeInProgress" },
    });
    await run.setUp(larger, pod);
    assert.equal(driver.done.includes("expand"), false);
  });

  it("by a resizer that knows no recovery is expanded too", async () => {
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    await run.setUp(grown(spec, "2Gi"), pod);
    assert.deepEqual(statusNow(spec).capacity, { storage: "2Gi" });
    assert.equal(driver.sizes.get("handle-data"), 2 * 2 ** 30);
  });

  it("by a driver that has nothing to do on nodes is left as it is", async () => {
    await driver.stop();
    await world.until("deregistration", () => run.csi.drivers.get(driver.name) === undefined);
    const plain = world.driver();
    await plain.start();
    await world.until("registration", () => plain.registrations.at(-1)?.pluginRegistered);
    await run.setUp(grown(world.claimed("data"), "2Gi"), pod);
    assert.deepEqual(plain.done, ["stage", "publish"]);
  });

  it("is not expanded for a pod that may only read it", async () => {
    const spec = { ...grown(world.claimed("data"), "2Gi", pending), readOnly: true };
    await run.setUp(spec, pod);
    assert.equal(driver.done.includes("expand"), false);
    const text =
      'FileSystemResizeFailed MountVolume.NodeExpandVolume failed for volume "pv-data" requested read-only file system';
    assert.deepEqual(told(), [`Pod ${text}`, `PersistentVolumeClaim ${text}`]);
  });

  it("on several nodes is expanded on each, and the claim left alone", async () => {
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    const larger = grown(spec, "2Gi", {
      allocatedResources: { storage: "2Gi" },
      capacity: { storage: "2Gi" },
    });
    assert(larger.persistent?.claim.spec);
    const shared = world.api.put<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, {
      ...larger.persistent.claim,
      spec: { ...larger.persistent.claim.spec, accessModes: ["ReadWriteMany"] },
    });
    const before = shared.metadata.resourceVersion;
    await run.setUp({ ...larger, persistent: { ...larger.persistent, claim: shared } }, pod);
    assert.equal(driver.done.at(-1), "expand");
    assert.equal(claimNow(shared).metadata?.resourceVersion, before);
  });
});

describe("an expansion that fails", () => {
  const failing = (code: number): void =>
    driver.fail("expand", new CallFailure(code, "no room"), 100);

  it("keeps a volume that is being mounted from its pod", async () => {
    failing(status.INTERNAL);
    const spec = grown(world.claimed("data"), "2Gi", pending);
    await assert.rejects(run.setUp(spec, pod), (error) => {
      assert.equal(
        errorMessage(error),
        'MountVolume.Setup failed while expanding volume for volume "pv-data" : Expander.NodeExpand failed to expand the volume : rpc error: code = Internal desc = no room',
      );
      return true;
    });
    const { allocatedResourceStatuses, conditions } = statusNow(spec);
    assert.deepEqual(allocatedResourceStatuses, { storage: "NodeResizeInProgress" });
    assert.equal(conditions?.at(-1)?.type, "NodeResizeError");
  });

  it("is an event for a volume that is in use", async () => {
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    failing(status.INTERNAL);
    await run.setUp(grown(spec, "2Gi", pending), pod);
    assert.deepEqual(told(), [
      'Pod VolumeResizeFailed NodeExpandVolume.NodeExpandVolume failed for volume "pv-data" : Expander.NodeExpand failed to expand the volume : rpc error: code = Internal desc = no room',
    ]);
  });

  it("because it never can is said to be infeasible", async () => {
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    failing(status.OUT_OF_RANGE);
    await run.setUp(grown(spec, "2Gi", pending), pod);
    const { allocatedResourceStatuses, conditions } = statusNow(spec);
    assert.deepEqual(allocatedResourceStatuses, { storage: "NodeResizeInfeasible" });
    assert.match(
      conditions?.find(({ type }) => type === "NodeResizeError")?.message ?? "",
      /^failed to expand pvc with Expander\.NodeExpand failed to expand the volume rpc error: code = OutOfRange/,
    );
  });

  it("because the volume is in use is not tried again", async () => {
    const spec = world.claimed("data");
    await run.setUp(spec, pod);
    failing(status.FAILED_PRECONDITION);
    const larger = grown(spec, "2Gi", pending);
    await run.setUp(larger, pod);
    await run.setUp(larger, pod);
    assert.deepEqual(driver.done, ["stage", "publish", "expand"]);
    assert.deepEqual(told(), []);
  });
});

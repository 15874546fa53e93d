import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import type { ISCSIVolumeSource, PersistentVolumeSpec } from "../../../src/api/types.gen.ts";
import { iscsiPlugin } from "../../../src/kubelet/volumes/plugins/iscsi.ts";
import type { VolumePlugin } from "../../../src/kubelet/volumes/plugin.ts";
import {
  Crash,
  inline,
  inPlace,
  persistent,
  type Place,
  pod,
  setUp,
  tearDown,
  volumePath,
} from "./fixture.ts";
import { FakeInitiator, type Target } from "./initiator.ts";

const iqn = "iqn.2026-01.example:store";
const portal = "10.0.0.1:3260";
const source: ISCSIVolumeSource = {
  targetPortal: "10.0.0.1",
  iqn,
  lun: 1,
  iscsiInterface: "default",
};
const target: Target = {
  iqn,
  portals: [portal],
  luns: new Map([
    [1, ["sdb"]],
    [2, ["sdc"]],
  ]),
};

function build(place: Place, records: string, secret?: Record<string, string>): VolumePlugin {
  return iscsiPlugin({ ...place.deps, records: [records], secret: async () => secret });
}

describe("an iSCSI volume", () => {
  test("is logged in to, mounted once for all pods, and logged out with the last LUN", async () => {
    await inPlace(async (place) => {
      const initiator = new FakeInitiator(place, [target]);
      const plugin = build(place, initiator.records);
      const spec = inline({ name: "data", iscsi: source });
      const second = inline({ name: "more", iscsi: { ...source, lun: 2 } });
      await setUp(place, plugin, spec, pod("a"));
      await setUp(place, plugin, spec, pod("b"));
      await setUp(place, plugin, second, pod("b"));
      const device = join(place.dev, "disk/by-path", `ip-${portal}-iscsi-${iqn}-lun-1`);
      const shared = join(
        place.root,
        `plugins/kubernetes.io/iscsi/iface-default/${portal}-${iqn}-lun-1`,
      );
      assert.equal(place.mounts.table().at(shared)?.source, device);
      assert.equal(place.mounts.table().at(volumePath(place, plugin, spec, "b"))?.source, device);
      assert.equal(place.disks.named("mkfs.ext4").length, 2);
      assert.deepEqual(initiator.sessions(), [portal]);

      await tearDown(place, plugin, spec, "a");
      assert(place.mounts.paths().includes(shared));
      await tearDown(place, plugin, spec, "b");
      assert(!existsSync(shared));
      assert.deepEqual(initiator.sessions(), [portal]);
      assert(!readdirSync(place.dev).includes("sdb"));
      await tearDown(place, plugin, second, "b");
      assert.deepEqual(initiator.sessions(), []);
      assert.deepEqual(place.mounts.entries, []);
      assert.deepEqual(readdirSync(join(place.root, "plugins/kubernetes.io/iscsi")), []);
    });
  });

  test("keeps its disk while another pod has it, though the shared mount is gone", async () => {
    await inPlace(async (place) => {
      const initiator = new FakeInitiator(place, [target]);
      const plugin = build(place, initiator.records);
      const spec = inline({ name: "data", iscsi: source });
      await setUp(place, plugin, spec, pod("a"));
      await setUp(place, plugin, spec, pod("b"));
      const [shared = ""] = place.mounts.paths();
      await place.mounts.unmount(shared);
      // The kernel calls the disk by its own name.
      const entry = place.mounts.entries.find(({ path }) => path.includes("/b/"));
      assert(entry);
      place.mounts.entries.splice(place.mounts.entries.indexOf(entry), 1, {
        ...entry,
        source: join(place.dev, "sdb"),
      });
      await tearDown(place, plugin, spec, "a");
      assert.deepEqual(initiator.sessions(), [portal]);
      assert(readdirSync(place.dev).includes("sdb"));
    });
  });

  test("gives its CHAP secrets to no argument of any program", async () => {
    await inPlace(async (place) => {
      const initiator = new FakeInitiator(place, [{ ...target, password: "hunter22" }]);
      const secret = {
        "node.session.auth.username": "user",
        "node.session.auth.password": "hunter22",
        "discovery.sendtargets.auth.password": "discover33",
      };
      const spec = inline({
        name: "data",
        iscsi: {
          ...source,
          chapAuthSession: true,
          chapAuthDiscovery: true,
          secretRef: { name: "chap" },
        },
      });
      const plugin = build(place, initiator.records, secret);
      await setUp(place, plugin, spec);
      const words = place.disks.runs.flat().join(" ");
      assert(!words.includes("hunter22") && !words.includes("discover33"));
      assert.equal(
        initiator.recordTexts().filter((text) => text.includes("password = hunter22")).length,
        1,
      );
      await tearDown(place, plugin, spec);
      assert(!initiator.recordTexts().join("").includes("hunter22"));
    });
  });

  test("says which secret is missing, and refuses one that would be more than a line", async () => {
    await inPlace(async (place) => {
      const initiator = new FakeInitiator(place, [target]);
      const spec = inline({
        name: "data",
        iscsi: { ...source, chapAuthSession: true, secretRef: { name: "chap" } },
      });
      await assert.rejects(setUp(place, build(place, initiator.records), spec), {
        message: `couldn't get secret default/chap error: secrets "chap" not found`,
      });
      const torn = { "node.session.auth.password": "x\nnode.startup = automatic" };
      await assert.rejects(
        setUp(place, build(place, initiator.records, torn), spec),
        /has a line break/,
      );
      assert.deepEqual(initiator.sessions(), []);
    });
  });

  test("fails with what iscsiadm said, and leaves no session", async () => {
    await inPlace(async (place) => {
      const initiator = new FakeInitiator(place, []);
      const plugin = build(place, initiator.records);
      const spec = inline({ name: "data", iscsi: source });
      await assert.rejects(setUp(place, plugin, spec), {
        message: `failed to get any path for iscsi disk, last err seen:\niscsi: failed to sendtargets to portal ${portal} output: connection timed out`,
      });
      await tearDown(place, plugin, spec);
      assert.deepEqual(initiator.sessions(), []);
      assert.deepEqual(place.mounts.entries, []);
    });
  });

  test("is used through the device that multipathd makes of its paths", async () => {
    await inPlace(async (place) => {
      const other = "10.0.0.2:3260";
      const luns = new Map([[1, ["sdb", "sdd"]]]);
      const initiator = new FakeInitiator(place, [{ iqn, portals: [portal, other], luns }]);
      const slaves = join(place.sys, "block/dm-0/slaves");
      mkdirSync(join(slaves, "sdb"), { recursive: true });
      mkdirSync(join(slaves, "sdd"), { recursive: true });
      place.disks.numbers.set(join(place.dev, "dm-0"), "fd:0");
      const plugin = build(place, initiator.records);
      const spec = inline({ name: "data", iscsi: { ...source, portals: [other, other] } });
      await setUp(place, plugin, spec);
      assert.deepEqual(initiator.sessions().toSorted(), [portal, other]);
      const [first] = place.mounts.entries;
      assert.equal(first?.source, join(place.dev, "dm-0"));
      await tearDown(place, plugin, spec);
      assert.deepEqual(place.disks.named("multipath"), [`multipath -f ${place.dev}/dm-0`]);
      assert.deepEqual(initiator.sessions(), []);
    });
  });

  test("is used without the path that is dead, after that was tried again", async () => {
    await inPlace(async (place) => {
      const initiator = new FakeInitiator(place, [target]);
      let now = 0;
      const clock = {
        now: () => now,
        monotonic: () => now,
        sleep: async (ms: number) => void (now += ms),
      };
      const plugin = iscsiPlugin({
        ...place.deps,
        clock,
        records: [initiator.records],
        secret: async () => undefined,
      });
      const spec = inline({ name: "data", iscsi: { ...source, portals: ["10.0.0.9"] } });
      await setUp(place, plugin, spec);
      assert.deepEqual(initiator.sessions(), [portal]);
      const tries = place.disks.named("iscsiadm").filter((run) => run.includes("--discover"));
      assert.equal(tries.filter((run) => run.includes("10.0.0.9:3260")).length, 5);
      assert.deepEqual(place.logs.slice(-2), [
        "iSCSI disk is used without all its paths",
        "disk is empty and gets a file system",
      ]);
    });
  });

  test("names that lead elsewhere are refused", async () => {
    await inPlace(async (place) => {
      const plugin = build(place, "/nowhere");
      const cases: readonly Partial<ISCSIVolumeSource>[] = [
        { iqn: "iqn.x/../../etc" },
        { iqn: ".." },
        { iscsiInterface: "../../x" },
        { targetPortal: "-oops" },
        { iqn: "iqn.a\nb" },
      ];
      for (const more of cases) {
        const spec = inline({ name: "data", iscsi: { ...source, ...more } });
        await assert.rejects(setUp(place, plugin, spec), /iscsi: invalid/);
      }
      assert.deepEqual(place.disks.runs, []);
    });
  });
});

describe("after a crash at any step", () => {
  for (const volumeMode of ["Filesystem", "Block"] as const) {
    test(`of an iSCSI volume (${volumeMode}) nothing stays: no session, no mount, no device`, async () => {
      let crashes = 0;
      for (let at = 0; ; at += 1) {
        let crashed = false;
        await inPlace(async (place) => {
          const initiator = new FakeInitiator(place, [target]);
          const iscsi: PersistentVolumeSpec["iscsi"] = { ...source, secretRef: undefined };
          const spec = persistent("pv-1", { iscsi, volumeMode });
          const fresh = (): VolumePlugin => build(place, initiator.records);
          place.failAt = at;
          crashed = await (async () => {
            await setUp(place, fresh(), spec);
            await tearDown(place, fresh(), spec);
          })().then(
            () => false,
            (error: unknown) => {
              if (error instanceof Crash) return true;
              throw error;
            },
          );
          place.failAt = undefined;
          // The pod is gone by the time of the next start.
          await tearDown(place, fresh(), spec);
          assert.deepEqual(place.mounts.entries, [], `step ${at}`);
          assert.deepEqual(initiator.sessions(), [], `step ${at}`);
          assert.deepEqual(place.disks.loops(), [], `step ${at}`);
          assert(!readdirSync(place.dev).includes("sdb"), `step ${at}`);
        });
        if (!crashed) break;
        crashes += 1;
      }
      assert(crashes >= 5, `${crashes} steps`);
    });
  }
});

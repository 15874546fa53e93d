import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { fibreChannelPlugin } from "../../../src/kubelet/volumes/plugins/fc.ts";
import { addDisk, inline, inPlace, pod, result, setUp, tearDown } from "./fixture.ts";

describe("a Fibre Channel volume", () => {
  test("is found by its world-wide name, mounted once, and forgotten with the last pod", async () => {
    await inPlace(async (place) => {
      const device = addDisk(place, "sdb", "disk/by-path/pci-0000:03:00.0-fc-0x500a0982-lun-3");
      const plugin = fibreChannelPlugin(place.deps);
      place.disks.scripts.push((argv) => (argv[0] === "sh" ? result(0) : undefined));
      const spec = inline({ name: "data", fc: { targetWWNs: ["500a0982"], lun: 3 } });
      await setUp(place, plugin, spec, pod("a"));
      await setUp(place, plugin, spec, pod("b"));
      assert.equal(place.mounts.entries.length, 3);
      await tearDown(place, plugin, spec, "a");
      assert.equal(place.mounts.entries.length, 2);
      assert.deepEqual(place.disks.named("blockdev"), []);
      await tearDown(place, plugin, spec, "b");
      assert.deepEqual(place.mounts.entries, []);
      assert.deepEqual(place.disks.named("blockdev"), [`blockdev --flushbufs ${device}`]);
      const removal = place.disks.runs.filter(([name]) => name === "sh").at(-1);
      assert.deepEqual(removal?.slice(-2), ["1", `${place.sys}/block/sdb/device/delete`]);
    });
  });

  test("is found by its identifier, and refused when it is not there or its name leads elsewhere", async () => {
    await inPlace(async (place) => {
      addDisk(place, "sdb", "disk/by-id/scsi-VENDOR_1234");
      const plugin = fibreChannelPlugin(place.deps);
      await setUp(place, plugin, inline({ name: "data", fc: { wwids: ["VENDOR 1234"] } }));
      assert.equal(place.mounts.entries.length, 2);
      const gone = inline({ name: "gone", fc: { targetWWNs: ["50"], lun: 0 } });
      await assert.rejects(setUp(place, plugin, gone), { message: "no fc disk found" });
      const climbing = inline({ name: "bad", fc: { targetWWNs: ["../../x"], lun: 0 } });
      await assert.rejects(setUp(place, plugin, climbing), /fc: invalid identifier/);
    });
  });
});

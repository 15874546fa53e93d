import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import { hostPathVolumePlugin } from "../../../src/kubelet/volumes/plugins/host-path-pv.ts";
import { localPlugin } from "../../../src/kubelet/volumes/plugins/local.ts";
import type { VolumeSpec } from "../../../src/kubelet/volumes/plugin.ts";
import {
  addDisk,
  Crash,
  inPlace,
  persistent,
  type Place,
  pod,
  setUp,
  tearDown,
  volumePath,
} from "./fixture.ts";

function directoryVolume(place: Place): { readonly spec: VolumeSpec; readonly path: string } {
  const path = join(place.root, "ssd");
  mkdirSync(path);
  place.disks.kinds.set(path, "directory");
  return { path, spec: persistent("pv-1", { local: { path } }) };
}

describe("a local volume on a directory", () => {
  test("is bound to the pod and released with it", async () => {
    await inPlace(async (place) => {
      const { path, spec } = directoryVolume(place);
      const plugin = localPlugin(place.deps);
      const prepared = await setUp(place, plugin, spec);
      const at = volumePath(place, plugin, spec, "a");
      assert.deepEqual(prepared, { hostPath: at, readOnly: false, ownership: "tree" });
      assert.equal(place.mounts.table().at(at)?.source, path);
      await setUp(place, plugin, spec);
      assert.equal(place.mounts.entries.length, 1);
      await tearDown(place, plugin, spec);
      assert.deepEqual(place.mounts.entries, []);
      assert(existsSync(path));
    });
  });

  test("is never made", async () => {
    await inPlace(async (place) => {
      const path = join(place.root, "gone");
      const spec = persistent("pv-1", { local: { path } });
      await assert.rejects(setUp(place, localPlugin(place.deps), spec), {
        message: `path "${path}" does not exist`,
      });
      assert(!existsSync(path));
      assert.deepEqual(place.mounts.entries, []);
    });
  });

  test("may be neither a file nor a path that climbs", async () => {
    await inPlace(async (place) => {
      const path = join(place.root, "file");
      place.disks.kinds.set(path, "file");
      const plugin = localPlugin(place.deps);
      await assert.rejects(setUp(place, plugin, persistent("pv-1", { local: { path } })), {
        message: "only directory and block device are supported",
      });
      const climbing = persistent("pv-1", { local: { path: "/mnt/../etc" } });
      await assert.rejects(setUp(place, plugin, climbing), /must not contain '\.\.'/);
    });
  });

  test("is read-only where the claim is, also when the process ended before the second step", async () => {
    await inPlace(async (place) => {
      const { path } = directoryVolume(place);
      const spec = persistent("pv-1", { local: { path } }, { readOnly: true });
      const plugin = localPlugin(place.deps);
      place.failAt = 1;
      await assert.rejects(setUp(place, plugin, spec), Crash);
      place.failAt = undefined;
      const at = volumePath(place, plugin, spec, "a");
      assert.deepEqual(place.mounts.table().at(at)?.options, ["rw"]);
      const prepared = await setUp(place, localPlugin(place.deps), spec);
      assert.deepEqual(place.mounts.table().at(at)?.options, ["ro"]);
      assert.deepEqual(prepared, { hostPath: at, readOnly: true, ownership: "done" });
    });
  });

  test("belongs to the group of the pod that came first, and says so to others", async () => {
    await inPlace(async (place) => {
      const { spec } = directoryVolume(place);
      const plugin = localPlugin(place.deps);
      await setUp(place, plugin, spec, pod("a", { securityContext: { fsGroup: 1 } }));
      const second = pod("b", { securityContext: { fsGroup: 2 } });
      assert.equal((await setUp(place, plugin, spec, second)).ownership, "done");
      assert.deepEqual(place.events, [
        {
          reason: "AlreadyMountedVolume",
          message:
            "The requested fsGroup is 2, but the volume pv-1 has GID 0. The volume may not be shareable.",
        },
      ]);
    });
  });

  test("has the flags that its PersistentVolume asks for", async () => {
    await inPlace(async (place) => {
      const { path } = directoryVolume(place);
      const spec = persistent("pv-1", { local: { path }, mountOptions: ["noexec", "nosuid"] });
      const plugin = localPlugin(place.deps);
      await setUp(place, plugin, spec);
      const at = volumePath(place, plugin, spec, "a");
      assert.deepEqual(place.mounts.table().at(at)?.options.toSorted(), ["noexec", "nosuid"]);
    });
  });
});

describe("a local volume on a disk", () => {
  test("gets a file system once, is mounted once for all pods, and let go with the last", async () => {
    await inPlace(async (place) => {
      const device = addDisk(place, "sdb");
      const spec = persistent("pv-1", { local: { path: device, fsType: "xfs" } });
      const plugin = localPlugin(place.deps);
      await setUp(place, plugin, spec, pod("a"));
      await setUp(place, plugin, spec, pod("b"));
      assert.deepEqual(place.disks.named("mkfs.xfs"), [`mkfs.xfs -f ${device}`]);
      const shared = join(place.root, "plugins/kubernetes.io/local-volume/mounts/pv-1");
      assert.deepEqual(
        place.mounts.paths().toSorted(),
        [
          shared,
          volumePath(place, plugin, spec, "a"),
          volumePath(place, plugin, spec, "b"),
        ].toSorted(),
      );
      await tearDown(place, plugin, spec, "a");
      assert(place.mounts.paths().includes(shared));
      await tearDown(place, plugin, spec, "b");
      assert.deepEqual(place.mounts.entries, []);
      assert(!existsSync(shared));
    });
  });

  for (const held of ["TYPE=LVM2_member", "TYPE=ext4", "PTTYPE=gpt", "TYPE=crypto_LUKS"]) {
    test(`is never formatted while it holds ${held}`, async () => {
      await inPlace(async (place) => {
        const device = addDisk(place, "sdb");
        place.disks.held.set(device, held);
        const spec = persistent("pv-1", { local: { path: device } });
        await setUp(place, localPlugin(place.deps), spec).catch(() => undefined);
        assert.deepEqual(
          place.disks.runs.filter(([name]) => name?.startsWith("mkfs")),
          [],
        );
      });
    });
  }

  test("is never formatted when it cannot be read, or may only be read", async () => {
    await inPlace(async (place) => {
      const device = addDisk(place, "sdb");
      const plugin = localPlugin(place.deps);
      place.disks.unreadable.add(device);
      const spec = persistent("pv-1", { local: { path: device } });
      await assert.rejects(setUp(place, plugin, spec), {
        message: `failed to get disk format of disk ${device}: Input/output error`,
      });
      place.disks.unreadable.clear();
      const readOnly = persistent("pv-1", { local: { path: device } }, { readOnly: true });
      await assert.rejects(setUp(place, plugin, readOnly), {
        message: `cannot mount unformatted disk ${device} as we are manipulating it in read-only mode`,
      });
      assert.deepEqual(place.disks.held.get(device), undefined);
    });
  });

  test("is not mounted while fsck cannot mend it", async () => {
    await inPlace(async (place) => {
      const device = addDisk(place, "sdb");
      place.disks.held.set(device, "TYPE=ext4");
      place.disks.scripts.push(([name]) =>
        name === "fsck" ? { exitCode: 4, stdout: "bad superblock", stderr: "" } : undefined,
      );
      const spec = persistent("pv-1", { local: { path: device } });
      await assert.rejects(setUp(place, localPlugin(place.deps), spec), {
        message: `'fsck' found errors on device ${device} but could not correct them: bad superblock`,
      });
      assert.deepEqual(place.mounts.entries, []);
    });
  });

  test("that holds another file system than it should is told on its PersistentVolume", async () => {
    await inPlace(async (place) => {
      const device = addDisk(place, "sdb");
      place.disks.held.set(device, "TYPE=xfs");
      place.mounts.mount = async () => {
        throw new Error("wrong fs type");
      };
      const spec = persistent("pv-1", { local: { path: device, fsType: "ext4" } });
      const message = `wrong fs type: the disk ${device} holds xfs, not ext4`;
      await assert.rejects(setUp(place, localPlugin(place.deps), spec), { message });
      assert.deepEqual(place.events, [
        {
          reason: "FailedMountOnFilesystemMismatch",
          message: `MountVolume failed for volume "pv-1" ${message}`,
        },
      ]);
    });
  });

  test("refuses a file system whose name leads elsewhere", async () => {
    await inPlace(async (place) => {
      const device = addDisk(place, "sdb");
      const spec = persistent("pv-1", { local: { path: device, fsType: "../../tmp/x" } });
      await assert.rejects(setUp(place, localPlugin(place.deps), spec), /invalid file system type/);
    });
  });

  test("is not taken for another disk that a volume of the same name had before", async () => {
    await inPlace(async (place) => {
      const plugin = localPlugin(place.deps);
      const [before, now] = ["sdb", "sdc"].map((name) => addDisk(place, name));
      await setUp(place, plugin, persistent("pv-1", { local: { path: before ?? "" } }), pod("a"));
      const anew = persistent("pv-1", { local: { path: now ?? "" } });
      await assert.rejects(
        setUp(place, plugin, anew, pod("b")),
        /another disk, .*sdb, is still mounted at/,
      );
      await tearDown(place, plugin, anew, "a");
      await setUp(place, plugin, anew, pod("b"));
      assert.equal(place.mounts.entries.at(-1)?.source, now);
    });
  });

  test("that a reader mounted first can be written to by a writer", async () => {
    await inPlace(async (place) => {
      const device = addDisk(place, "sdb");
      place.disks.held.set(device, "TYPE=ext4");
      const source = { local: { path: device } };
      const plugin = localPlugin(place.deps);
      const reading = persistent("pv-1", source, { readOnly: true });
      await setUp(place, plugin, reading, pod("a"));
      const writing = persistent("pv-1", source);
      await setUp(place, plugin, writing, pod("b"));
      const table = place.mounts.table();
      const shared = join(place.root, "plugins/kubernetes.io/local-volume/mounts/pv-1");
      assert.deepEqual(table.at(shared)?.superOptions, ["rw"]);
      assert.deepEqual(table.at(volumePath(place, plugin, reading, "a"))?.options, ["ro"]);
      assert.deepEqual(table.at(volumePath(place, plugin, writing, "b"))?.options, ["rw"]);
    });
  });
});

describe("a raw block volume", () => {
  const block = (path: string): VolumeSpec =>
    persistent("pv-1", { local: { path }, volumeMode: "Block" });

  test("is a device node that the kernel is held to", async () => {
    await inPlace(async (place) => {
      const device = addDisk(place, "sdb");
      const plugin = localPlugin(place.deps);
      const spec = block(device);
      const prepared = await setUp(place, plugin, spec);
      const path = volumePath(place, plugin, spec, "a");
      const node = join(path, "device");
      assert.deepEqual(prepared, { hostPath: node, readOnly: false, ownership: "done" });
      assert.equal(place.mounts.table().at(node)?.source, device);
      await setUp(place, plugin, spec);
      assert.equal(place.disks.loops().length, 1);
      await tearDown(place, plugin, spec);
      assert.deepEqual(place.mounts.entries, []);
      assert.deepEqual(place.disks.loops(), []);
      assert(!existsSync(path));
    });
  });

  test("is refused on a directory", async () => {
    await inPlace(async (place) => {
      const { path } = directoryVolume(place);
      await assert.rejects(setUp(place, localPlugin(place.deps), block(path)), {
        message: `${path} is not a block device`,
      });
    });
  });

  test("of which another disk took the name is not handed out", async () => {
    await inPlace(async (place) => {
      const device = addDisk(place, "sdb");
      const plugin = localPlugin(place.deps);
      await setUp(place, plugin, block(device));
      const other = addDisk(place, "sdc");
      await assert.rejects(setUp(place, plugin, block(other)), /is device 8:63 now/);
    });
  });
});

test("a file called device in a volume is no device of ours", async () => {
  await inPlace(async (place) => {
    const { path, spec } = directoryVolume(place);
    writeFileSync(join(path, "device"), "precious");
    const plugin = localPlugin(place.deps);
    await setUp(place, plugin, spec);
    const at = volumePath(place, plugin, spec, "a");
    // What the bind would show.
    writeFileSync(join(at, "device"), "precious");
    await plugin.tearDown?.({ podUID: "a", name: "pv-1", path: at }, new AbortController().signal);
    assert.deepEqual(readdirSync(at), ["device"]);
  });
});

describe("after a crash at any step", () => {
  for (const volumeMode of ["Filesystem", "Block"] as const) {
    test(`of a local volume (${volumeMode}) the next process brings it up, and leaves nothing behind`, async () => {
      let crashes = 0;
      for (let at = 0; ; at += 1) {
        let crashed = false;
        await inPlace(async (place) => {
          const device = addDisk(place, "sdb");
          const spec = persistent("pv-1", { local: { path: device }, volumeMode });
          const fresh = (): ReturnType<typeof localPlugin> => localPlugin(place.deps);
          const life = async (): Promise<void> => {
            await setUp(place, fresh(), spec);
            await tearDown(place, fresh(), spec);
          };
          place.failAt = at;
          crashed = await life().then(
            () => false,
            (error: unknown) => error instanceof Crash,
          );
          place.failAt = undefined;
          await life();
          assert.deepEqual(place.mounts.entries, []);
          assert.deepEqual(place.disks.loops(), []);
          assert.equal(
            place.disks.runs.filter(([name]) => name?.startsWith("mkfs")).length,
            volumeMode === "Block" ? 0 : 1,
          );
        });
        if (!crashed) break;
        crashes += 1;
      }
      assert(crashes >= 3, `${crashes} steps`);
    });
  }
});

describe("a hostPath volume behind a claim", () => {
  test("is shown where it is, and made only where its type says so", async () => {
    await inPlace(async (place) => {
      const path = join(place.root, "host");
      const plugin = hostPathVolumePlugin();
      const made = persistent("pv-1", { hostPath: { path, type: "DirectoryOrCreate" } });
      assert.deepEqual(await setUp(place, plugin, made), {
        hostPath: path,
        readOnly: false,
        ownership: "done",
      });
      assert(existsSync(path));
    });
  });

  test("takes no mount options", async () => {
    await inPlace(async (place) => {
      const spec = persistent("pv-1", { hostPath: { path: "/mnt" }, mountOptions: ["ro"] });
      await assert.rejects(setUp(place, hostPathVolumePlugin(), spec), {
        message:
          'MountVolume.MountOptionSupport check failed for volume "pv-1" : mount options are not supported for this volume type',
      });
    });
  });
});

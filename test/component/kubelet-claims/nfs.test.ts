import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, test } from "node:test";

import { fibreChannelPlugin } from "../../../src/kubelet/volumes/plugins/fc.ts";
import { nfsPlugin } from "../../../src/kubelet/volumes/plugins/nfs.ts";
import { refusedPlugin } from "../../../src/kubelet/volumes/plugins/refused.ts";
import {
  addDisk,
  inline,
  inPlace,
  persistent,
  type Place,
  pod,
  result,
  setUp,
  tearDown,
  volumePath,
} from "./fixture.ts";

/** mount(8) as far as NFS goes. */
function serve(place: Place, answer: (argv: readonly string[]) => ReturnType<typeof result>): void {
  place.disks.scripts.push(async (argv) => {
    if (argv[0] !== "timeout") return undefined;
    const outcome = answer(argv);
    const [source = "", target = ""] = argv.slice(-2);
    if (outcome.exitCode === 0) {
      await place.mounts.mount({ source, target, type: "nfs4", options: [] });
    }
    return outcome;
  });
}

const nfs = { server: "files.example", path: "/export" };

describe("an NFS volume", () => {
  test("is mounted for each pod, inline and behind a claim, with the options of its PersistentVolume", async () => {
    await inPlace(async (place) => {
      const words: string[] = [];
      serve(place, (argv) => {
        words.push(argv.slice(3, -1).join(" "));
        return result(0);
      });
      const plugin = nfsPlugin(place.deps);
      const spec = inline({ name: "data", nfs: { ...nfs, server: "fd00::1", readOnly: true } });
      const prepared = await setUp(place, plugin, spec);
      const at = volumePath(place, plugin, spec, "a");
      assert.deepEqual(prepared, { hostPath: at, readOnly: true, ownership: "done" });
      const mountOptions = ["nfsvers=4.2", "hard"];
      await setUp(place, plugin, persistent("pv-1", { nfs, mountOptions }), pod("b"));
      assert.deepEqual(words, [
        "mount -t nfs -o ro -- [fd00::1]:/export",
        "mount -t nfs -o hard,nfsvers=4.2 -- files.example:/export",
      ]);
      await setUp(place, plugin, spec);
      assert.equal(words.length, 2);
      await tearDown(place, plugin, spec);
      assert.equal(place.mounts.entries.length, 1);
    });
  });

  test("names the package when the machine has no mount.nfs", async () => {
    await inPlace(async (place) => {
      const said =
        "mount: /x: bad option; for several filesystems (e.g. nfs, cifs) you might need a /sbin/mount.<type> helper program.";
      serve(place, () => result(32, "", said));
      const plugin = nfsPlugin(place.deps);
      const spec = inline({ name: "data", nfs });
      await assert.rejects(setUp(place, plugin, spec), {
        message: "this machine has no mount.nfs (Debian: package nfs-common)",
      });
      assert(!existsSync(volumePath(place, plugin, spec, "a")));
    });
  });

  test("of a server that does not answer is given up, and mount's own words are passed on", async () => {
    await inPlace(async (place) => {
      let code = 124;
      serve(place, () => result(code, "", "mount.nfs: access denied by server\n"));
      const plugin = nfsPlugin(place.deps);
      const spec = inline({ name: "data", nfs });
      await assert.rejects(setUp(place, plugin, spec), {
        message: "files.example did not answer within 110 s",
      });
      code = 32;
      const target = volumePath(place, plugin, spec, "a");
      await assert.rejects(setUp(place, plugin, spec), {
        message: `mount failed: exit status 32\nMounting command: mount\nMounting arguments: -t nfs files.example:/export ${target}\nOutput: mount.nfs: access denied by server\n`,
      });
      assert.deepEqual(place.mounts.entries, []);
    });
  });

  test("that was mounted at the last moment, when it was given up, is unmounted", async () => {
    await inPlace(async (place) => {
      place.disks.scripts.push(async (argv) => {
        if (argv[0] !== "timeout") return undefined;
        await place.mounts.bind("late", argv.at(-1) ?? "");
        return result(137);
      });
      const spec = inline({ name: "data", nfs });
      await assert.rejects(setUp(place, nfsPlugin(place.deps), spec), /did not answer/);
      assert.deepEqual(place.mounts.entries, []);
    });
  });
});

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

test("types that no node mounts any more are refused, each with its reason", async () => {
  await inPlace(async (place) => {
    const plugin = refusedPlugin();
    const cases = [
      [
        inline({ name: "x", awsElasticBlockStore: { volumeID: "v" } }),
        "no volume plugin matched: awsElasticBlockStore has moved to the CSI driver ebs.csi.aws.com, use a PersistentVolume of that driver",
      ],
      [
        persistent("pv-1", { rbd: { image: "i", monitors: [] } }),
        "no volume plugin matched: rbd was removed from Kubernetes",
      ],
      [
        inline({ name: "x", gitRepo: { repository: "r" } }),
        /git-repo volume plugin has been disabled/,
      ],
      [persistent("pv-1", { flexVolume: { driver: "d" } }), /flexVolume drivers are not run/],
    ] as const;
    for (const [spec, message] of cases) {
      assert(plugin.supports(spec));
      await assert.rejects(
        setUp(place, plugin, spec),
        typeof message === "string" ? { message } : message,
      );
    }
    for (const spec of [
      inline({ name: "x", emptyDir: {} }),
      persistent("pv-1", { nfs, capacity: { storage: "1Gi" } }),
    ]) {
      assert(!plugin.supports(spec));
    }
  });
});

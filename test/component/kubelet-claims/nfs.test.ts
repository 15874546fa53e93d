import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, test } from "node:test";

import { nfsPlugin } from "../../../src/kubelet/volumes/plugins/nfs.ts";
import {
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

  test("that a pod has under two names is mounted once", async () => {
    await inPlace(async (place) => {
      serve(place, () => result(0));
      const plugin = nfsPlugin(place.deps);
      const spec = persistent("pv-1", { nfs });
      await Promise.all([setUp(place, plugin, spec), setUp(place, plugin, spec)]);
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

import assert from "node:assert/strict";
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import {
  applyOwnership,
  fsGroupApplier,
  type OwnershipDeps,
} from "../../../src/kubelet/volumes/ownership.ts";
import {
  asyncTree,
  giveToGroup,
  syncTree,
  type TreeFiles,
} from "../../../src/kubelet/volumes/ownership-walk.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { pod } from "../../unit/kubelet-pods/builders.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const gid = 4321;
const signal = new AbortController().signal;

function deps(more: Partial<OwnershipDeps> = {}): OwnershipDeps & { readonly said: string[] } {
  const said: string[] = [];
  const events = {
    event: (_: unknown, type: string, reason: string, message: string) => {
      said.push(`${type} ${reason} ${message}`);
    },
  };
  return { events, clock: systemClock, logger: silentLogger, said, ...more };
}

function podWith(fsGroupChangePolicy?: "Always" | "OnRootMismatch"): AssignedPod {
  const securityContext = {
    fsGroup: gid,
    ...(fsGroupChangePolicy === undefined ? {} : { fsGroupChangePolicy }),
  };
  return pod({ securityContext });
}

async function look(path: string): Promise<string> {
  const { gid: group, mode, uid } = await lstat(path);
  return `${uid}:${group} ${(mode & 0o7777).toString(8)}`;
}

const volume = (path: string, readOnly = false) => ({ path, fsGroup: gid, readOnly });

for (const maxInline of [500, 0]) {
  const where = maxInline === 0 ? "in a process of its own" : "at once";
  test(`fsGroup is given all of a tree, ${where}: group may read and write, directories pass it on`, async () => {
    await inTemporary(async (root) => {
      await mkdir(join(root, "dir"), { mode: 0o700 });
      await writeFile(join(root, "dir/file"), "", { mode: 0o600 });
      await writeFile(join(root, "tool"), "");
      await chmod(join(root, "tool"), 0o4755);
      await writeFile(join(root, "-newline\n\u00e9"), "", { mode: 0o400 });
      await chown(join(root, "dir"), 7, 8);
      const odd = Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0xfe])]);
      writeFileSync(odd, "", { mode: 0o640 });
      await applyOwnership(deps({ maxInline }), podWith(), volume(root), signal);
      assert.equal(await look(root), `0:${gid} 2770`);
      assert.equal(await look(join(root, "dir")), `7:${gid} 2770`);
      assert.equal(await look(join(root, "dir/file")), `0:${gid} 660`);
      // A new group takes set-id bits away; they were there before and are not ours to take.
      assert.equal(await look(join(root, "tool")), `0:${gid} 4775`);
      assert.equal(await look(join(root, "-newline\n\u00e9")), `0:${gid} 660`);
      const { gid: oddGroup, mode } = await lstat(odd);
      assert.deepEqual([oddGroup, mode & 0o777], [gid, 0o660], "a name that is no text");
    });
  });
}

test("a read-only volume is given the group to read, and no more", async () => {
  await inTemporary(async (root) => {
    await mkdir(join(root, "dir"), { mode: 0o700 });
    await writeFile(join(root, "dir/file"), "", { mode: 0o600 });
    await chmod(root, 0o700);
    await applyOwnership(deps(), podWith(), volume(root, true), signal);
    assert.equal(await look(root), `0:${gid} 2750`);
    assert.equal(await look(join(root, "dir/file")), `0:${gid} 640`);
  });
});

test("links change hands themselves; what they name is left alone", async () => {
  await inTemporary(async (directory) => {
    const root = join(directory, "volume");
    const outside = join(directory, "outside");
    await mkdir(root);
    await mkdir(outside, { mode: 0o700 });
    await writeFile(join(outside, "secret"), "", { mode: 0o600 });
    await symlink(outside, join(root, "directory"));
    await symlink(join(outside, "secret"), join(root, "file"));
    await symlink("nowhere", join(root, "dangling"));
    await applyOwnership(deps(), podWith(), volume(root), signal);
    assert.equal(await look(outside), "0:0 700");
    assert.equal(await look(join(outside, "secret")), "0:0 600");
    for (const name of ["directory", "file", "dangling"]) {
      assert.equal((await lstat(join(root, name))).gid, gid, name);
    }
  });
});

test("what is right already is not touched", async () => {
  await inTemporary(async (root) => {
    await mkdir(join(root, "dir"));
    await writeFile(join(root, "dir/file"), "");
    await applyOwnership(deps(), podWith(), volume(root), signal);
    const before = await stat(join(root, "dir/file"));
    const changes: string[] = [];
    const counted: TreeFiles = {
      ...asyncTree,
      lchown: (path) => void changes.push(`lchown ${String(path)}`),
      fchown: () => void changes.push("fchown"),
      fchmod: () => void changes.push("fchmod"),
      chmod: (path) => void changes.push(`chmod ${path}`),
    };
    const options = { files: counted, signal, seen: () => true };
    const result = await giveToGroup(root, { gid, readOnly: false }, options);
    assert.deepEqual(changes, []);
    assert.equal(result.entries, 3);
    assert.equal((await stat(join(root, "dir/file"))).ctimeMs, before.ctimeMs);
  });
});

test("OnRootMismatch asks the root only; Always asks everything", async () => {
  await inTemporary(async (root) => {
    await applyOwnership(deps(), podWith("OnRootMismatch"), volume(root), signal);
    assert.equal(await look(root), `0:${gid} 2770`);
    await writeFile(join(root, "file"), "", { mode: 0o600 });
    await chown(join(root, "file"), 0, 0);
    await applyOwnership(deps(), podWith("OnRootMismatch"), volume(root), signal);
    assert.equal(await look(join(root, "file")), "0:0 600");
    // Without the set-gid bit it is not what a walk leaves.
    await chmod(root, 0o770);
    await applyOwnership(deps(), podWith("OnRootMismatch"), volume(root), signal);
    assert.equal(await look(join(root, "file")), `0:${gid} 660`);
    await chmod(join(root, "file"), 0o600);
    await applyOwnership(deps(), podWith("Always"), volume(root), signal);
    assert.equal(await look(join(root, "file")), `0:${gid} 660`);
  });
});

test("an interrupted walk leaves a root that says so", async () => {
  await inTemporary(async (root) => {
    for (const name of ["a", "b", "c"]) await writeFile(join(root, name), "");
    const stop = new AbortController();
    const files: TreeFiles = {
      ...asyncTree,
      lchown: async (path, group) => {
        await asyncTree.lchown(path, group);
        stop.abort();
      },
    };
    await assert.rejects(
      giveToGroup(root, { gid, readOnly: false }, { files, signal: stop.signal, seen: () => true }),
      { name: "AbortError" },
    );
    assert.equal((await stat(root)).gid, 0);
    await applyOwnership(deps(), podWith("OnRootMismatch"), volume(root), signal);
    for (const name of ["a", "b", "c"]) assert.equal((await stat(join(root, name))).gid, gid);
  });
});

test("whoever swaps names during the walk leads it nowhere else", async () => {
  await inTemporary(async (directory) => {
    const root = join(directory, "volume");
    const outside = join(directory, "outside");
    await mkdir(join(root, "dir"), { recursive: true });
    await mkdir(outside, { mode: 0o700 });
    await writeFile(join(outside, "file"), "", { mode: 0o600 });
    await writeFile(join(root, "dir/file"), "", { mode: 0o600 });
    await writeFile(join(root, "plain"), "", { mode: 0o600 });
    let swapped = 0;
    const files: TreeFiles = {
      ...asyncTree,
      // Between a look and what follows from it.
      open: async (path, flags) => {
        const name = String(path);
        if (name.endsWith("/plain")) {
          swapped += 1;
          await rename(join(root, "plain"), join(directory, "away"));
          await symlink(join(outside, "file"), join(root, "plain"));
        }
        if (name.endsWith("/dir")) {
          swapped += 1;
          await rename(join(root, "dir"), join(directory, "moved"));
          await symlink(outside, join(root, "dir"));
        }
        return asyncTree.open(path, flags);
      },
    };
    await giveToGroup(root, { gid, readOnly: false }, { files, signal, seen: () => true });
    assert.equal(swapped, 2);
    assert.equal(await look(outside), "0:0 700");
    assert.equal(await look(join(outside, "file")), "0:0 600");
  });
});

test("another file under the same name is given no permissions that were meant for the first", async () => {
  await inTemporary(async (directory) => {
    const root = join(directory, "volume");
    await mkdir(root);
    await writeFile(join(root, "file"), "", { mode: 0o600 });
    const precious = join(directory, "precious");
    await writeFile(precious, "", { mode: 0o600 });
    const files: TreeFiles = {
      ...asyncTree,
      open: async (path, flags) => {
        if (String(path).endsWith("/file")) {
          await rm(join(root, "file"));
          await link(precious, join(root, "file"));
        }
        return asyncTree.open(path, flags);
      },
    };
    await giveToGroup(root, { gid, readOnly: false }, { files, signal, seen: () => true });
    assert.equal(await look(precious), "0:0 600");
  });
});

test("a file that cannot be changed does not keep the others from it", async () => {
  await inTemporary(async (root) => {
    for (const name of ["a", "b", "c"]) await writeFile(join(root, name), "");
    let first = true;
    const files: TreeFiles = {
      ...syncTree,
      lchown: (path, group) => {
        if (first) {
          first = false;
          throw Object.assign(new Error("EPERM: operation not permitted"), { code: "EPERM" });
        }
        return syncTree.lchown(path, group);
      },
    };
    const options = { files, signal, seen: () => true };
    const result = await giveToGroup(root, { gid, readOnly: false }, options);
    assert.deepEqual(
      { failures: result.failures, problem: result.problem },
      { failures: 1, problem: "EPERM: operation not permitted" },
    );
    const groups = await Promise.all(
      ["a", "b", "c"].map(async (name) => (await stat(join(root, name))).gid),
    );
    assert.deepEqual(
      groups.toSorted((a, b) => a - b),
      [0, gid, gid],
    );
  });
});

test("a volume that takes long says so on its pod, with how far it is", async () => {
  await inTemporary(async (root) => {
    await writeFile(join(root, "file"), "");
    const waits: number[] = [];
    const third = Promise.withResolvers<void>();
    const clock: Clock = {
      ...systemClock,
      sleep: async (ms, stop) => {
        waits.push(ms);
        if (waits.length < 3) return;
        third.resolve();
        await systemClock.sleep(60_000, stop);
      },
    };
    // It is done once both notices were sent.
    const script = `process.stdin.on("data", () => { console.log('{"entries":5000}');
      setTimeout(() => console.log('{"entries":9000,"failures":0}'), 20); });`;
    const argv = [process.execPath, "-e", script] as const;
    const given = deps({ clock, maxInline: 0, argv });
    const path = join(root, "pods/uid-1/volumes/x");
    await mkdir(path, { recursive: true });
    await applyOwnership(given, podWith(), volume(path), signal);
    await third.promise;
    assert.deepEqual(waits, [30_000, 60_000, 60_000]);
    assert.match(
      given.said[0] ?? "",
      /^Warning VolumePermissionChangeInProgress Setting volume ownership for uid-1\/volumes\/x is taking longer than expected, consider using OnRootMismatch - https:/,
    );
    assert.match(
      given.said[1] ?? "",
      /Setting volume ownership for uid-1\/volumes\/x, processed \d+ files\.$/,
    );
  });
});

test("a volume that is not there fails with its path", async () => {
  await inTemporary(async (root) => {
    const path = join(root, "file", "below");
    await writeFile(join(root, "file"), "");
    await assert.rejects(applyOwnership(deps(), podWith(), volume(path), signal), {
      name: "VolumeError",
      message: new RegExp(`^applyFSGroup failed for vol ${path}: ENOTDIR`),
    });
    const argv = [process.execPath, "-e", "process.exit(1)"] as const;
    await assert.rejects(
      applyOwnership(deps({ maxInline: 0, argv }), podWith(), volume(root), signal),
      /applyFSGroup failed for vol .*: it ended early/,
    );
  });
});

test("a walk that is given up ends its process", async () => {
  await inTemporary(async (root) => {
    const argv = [process.execPath, "-e", "process.stdin.resume(); setInterval(() => {}, 1000)"];
    const stop = new AbortController();
    const [program = "", ...args] = argv;
    const work = applyOwnership(
      deps({ maxInline: 0, argv: [program, ...args] }),
      podWith(),
      volume(root),
      stop.signal,
    );
    await systemClock.sleep(20, signal);
    stop.abort();
    await assert.rejects(work, { name: "AbortError" });
  });
});

test("an agent that finds containers of the pod leaves their files as they have made them", async () => {
  await inTemporary(async (rootDir) => {
    const path = join(rootDir, "data");
    await mkdir(path);
    await writeFile(join(path, "file"), "", { mode: 0o600 });
    const apply = fsGroupApplier({ ...deps(), config: { rootDir } });
    const volume = { name: "data" };
    const request = {
      pod: podWith("Always"),
      spec: { name: "data", volume, readOnly: false },
      prepared: { hostPath: path, readOnly: false, ownership: "tree" as const },
    };
    await apply(request, signal);
    assert.equal(await look(join(path, "file")), `0:${gid} 660`);
    await chmod(join(path, "file"), 0o600);
    // What the pod's directory has as soon as a container was started.
    await mkdir(join(rootDir, "pods/uid-1/containers/web"), { recursive: true });
    await apply(request, signal);
    assert.equal(await look(join(path, "file")), `0:${gid} 600`);
  });
});

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";

import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import {
  asyncRemoval,
  type RemovalFiles,
  removeEntry,
} from "../../../src/kubelet/volumes/removal-walk.ts";
import { removeTree } from "../../../src/kubelet/volumes/remove-tree.ts";
import { bindSubPath } from "../../../src/kubelet/volumes/subpath.ts";
import { TakeDown } from "../../../src/kubelet/volumes/take-down.ts";
import { podPaths } from "../../../src/kubelet/volumes/pod-paths.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import type { Logger } from "../../../src/lib/log.ts";

const { signal } = new AbortController();

interface Stage {
  /** Of the node. */
  readonly rootDir: string;
  /** Somebody else's. */
  readonly data: string;
  /** A pod's emptyDir. */
  readonly volume: string;
  readonly logs: { readonly message: string; readonly path: unknown }[];
  readonly tearDown: () => Promise<void>;
}

/** Real mounts, below one directory; nothing of them is left afterwards. */
async function withStage(work: (stage: Stage) => Promise<void>): Promise<void> {
  const rootDir = await mkdtemp(join(tmpdir(), "sentinel-"));
  const data = join(rootDir, "data");
  const volume = join(rootDir, "pods/u/volumes/kubernetes.io~empty-dir/scratch");
  await mkdir(join(data, "sub"), { recursive: true });
  await writeFile(join(data, "sub/file"), "precious");
  await mkdir(join(volume, "where"), { recursive: true });
  await writeFile(join(volume, "own"), "");
  const logs: { message: string; path: unknown }[] = [];
  const logger: Logger = {
    log: (_, message, fields) => void logs.push({ message, path: fields?.["path"] }),
    child: () => logger,
  };
  const stop = new AbortController();
  const takeDown = new TakeDown({
    clock: systemClock,
    logger,
    step: () => undefined,
    mounter: systemMounter,
    plugins: [],
    removeTree,
    signal: stop.signal,
    wake: () => undefined,
  });
  try {
    const tearDown = async (): Promise<void> => takeDown.pod("u", podPaths(rootDir, "u"), signal);
    await work({ rootDir, data, volume, logs, tearDown });
    assert.equal(await readFile(join(data, "sub/file"), "utf8"), "precious");
    assert.deepEqual(await readdir(data), ["sub"]);
  } finally {
    stop.abort();
    for (const { path } of systemMounter.table().below(rootDir)) {
      await systemMounter.unmount(path, signal);
    }
    await rm(rootDir, { recursive: true, force: true });
  }
}

describe("data of others", () => {
  it("that somebody has bound into a pod's volume is still there when the pod is gone, and is told", async () => {
    await withStage(async ({ data, logs, rootDir, tearDown, volume }) => {
      const where = join(volume, "where");
      await systemMounter.bind(data, where, signal);
      await systemMounter.bind(data, where, signal);
      await tearDown();
      assert.deepEqual(await readdir(join(rootDir, "pods/u")), []);
      const message = "unmounted what somebody had mounted inside a volume";
      assert.deepEqual(logs, [
        { message, path: where },
        { message, path: where },
      ]);
    });
  });

  it("that is bound in while the volume is being removed ends the removal right there", async () => {
    await withStage(async ({ data, tearDown, volume }) => {
      const where = join(volume, "where");
      let bound = false;
      const files: RemovalFiles = {
        ...asyncRemoval,
        openNames: async (directory) => {
          // After the mount table was looked at, before the directory is.
          if (!bound) {
            bound = true;
            await systemMounter.bind(data, where, signal);
          }
          return asyncRemoval.openNames(directory);
        },
      };
      const parent = join(volume, "..");
      await assert.rejects(removeEntry(parent, "scratch", { files, signal, seen: () => true }), {
        message: `${where} is a mount point: it was left alone`,
      });
      assert.equal(await readFile(join(where, "sub/file"), "utf8"), "precious");
      await tearDown();
    });
  });

  it("of the same file system is no less foreign: device numbers do not tell, mounts do", async () => {
    await withStage(async ({ data, volume }) => {
      const where = join(volume, "where");
      await systemMounter.bind(data, where, signal);
      const message = `${where} is a mount point: it was left alone`;
      await assert.rejects(removeTree(volume, signal), { message });
      await assert.rejects(removeTree(volume, signal, { maxInline: 0 }), { message });
      await systemMounter.unmount(where, signal);
      // The volume itself, when it is one.
      await systemMounter.bind(data, volume, signal);
      await assert.rejects(removeTree(volume, signal), /scratch is a mount point/);
    });
  });

  it("behind links that take the place of directories is not reached", async () => {
    await withStage(async ({ data, rootDir, volume }) => {
      // Somebody swaps a directory and a link as fast as he can.
      const swapper = spawn(
        "/bin/sh",
        [
          "-c",
          'cd "$1" && while :; do mkdir d 2>/dev/null; rmdir d 2>/dev/null; ln -s "$2" d 2>/dev/null; rm -f d 2>/dev/null; done',
          "sh",
          volume,
          data,
        ],
        { stdio: "ignore" },
      );
      try {
        for (let round = 0; round < 200; round += 1) {
          const name = `t${round}`;
          await mkdir(join(volume, name, "in"), { recursive: true });
          await symlink(data, join(volume, name, "link"));
          await removeTree(join(volume, "d"), signal).catch(() => undefined);
          await removeTree(join(volume, name), signal);
        }
      } finally {
        swapper.kill("SIGKILL");
        await once(swapper, "close");
      }
      await removeTree(volume, signal);
      assert.deepEqual(await readdir(rootDir), ["data", "pods"]);
    });
  });
});

describe("what does not go", () => {
  it("is named by its path while it is in use, and goes afterwards", async () => {
    await withStage(async ({ rootDir, tearDown, volume }) => {
      await systemMounter.mountTmpfs(volume, ["mode=1777"], signal);
      const user = spawn("sleep", ["60"], { cwd: volume, stdio: "ignore" });
      try {
        await once(user, "spawn");
        await assert.rejects(
          tearDown(),
          /failed for volume "scratch" : umount exited with 32: .*busy/,
        );
        assert.notEqual(
          systemMounter.table().at(volume),
          undefined,
          "it was not torn out of the tree",
        );
      } finally {
        user.kill("SIGKILL");
        await once(user, "close");
      }
      await systemClock.sleep(500, signal);
      await tearDown();
      assert.deepEqual(await readdir(join(rootDir, "pods/u")), []);
    });
  });
});

describe("a subPath", () => {
  it("shows a restarted container what is there now, and the same thing only once", async () => {
    await withStage(async ({ rootDir, volume }) => {
      const target = join(rootDir, "pods/u/volume-subpaths/scratch/web/0");
      const bind = async (): Promise<void> =>
        bindSubPath(volume, "file", target, systemMounter, signal);
      await writeFile(join(volume, "file"), "old");
      await bind();
      await bind();
      assert.equal(systemMounter.table().below(target).length, 1);
      await rm(join(volume, "file"));
      await writeFile(join(volume, "file"), "new");
      assert.equal(systemMounter.table().at(target)?.deleted, true);
      assert.equal(await readFile(target, "utf8"), "old");
      await bind();
      assert.equal(await readFile(target, "utf8"), "new");
      assert.equal(systemMounter.table().below(target).length, 1);
      // And if it has become something else altogether.
      await rm(join(volume, "file"));
      await mkdir(join(volume, "file/inside"), { recursive: true });
      await bind();
      assert.deepEqual(await readdir(target), ["inside"]);
      await rm(join(volume, "file"), { recursive: true });
      await writeFile(join(volume, "file"), "a file again");
      await bind();
      assert.equal(await readFile(target, "utf8"), "a file again");
      assert.equal(systemMounter.table().below(target).length, 1);
    });
  });

  it("whose path is swapped for a link while it is bound never shows what the link leads to", async () => {
    await withStage(async ({ data, rootDir, volume }) => {
      const target = join(rootDir, "pods/u/volume-subpaths/scratch/web/0");
      const swapper = spawn(
        "/bin/sh",
        [
          "-c",
          'cd "$1" && while :; do mkdir d 2>/dev/null; mv d e 2>/dev/null; ln -s "$2" d 2>/dev/null; rm -rf d e 2>/dev/null; done',
          "sh",
          volume,
          data,
        ],
        { stdio: "ignore" },
      );
      let bound = 0;
      try {
        for (let round = 0; round < 150; round += 1) {
          try {
            await bindSubPath(volume, "d", target, systemMounter, signal);
          } catch {
            continue;
          }
          bound += 1;
          assert.deepEqual(await readdir(target), []);
          await systemMounter.unmount(target, signal);
        }
      } finally {
        swapper.kill("SIGKILL");
        await once(swapper, "close");
      }
      assert(bound > 0, "the swapper was always faster: nothing was proved");
    });
  });
});

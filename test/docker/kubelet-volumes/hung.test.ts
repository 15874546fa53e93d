import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, open, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";

import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import { hostPathPlugin } from "../../../src/kubelet/volumes/plugins/host-path.ts";
import { podPaths } from "../../../src/kubelet/volumes/pod-paths.ts";
import { removeTree } from "../../../src/kubelet/volumes/remove-tree.ts";
import { Volumes } from "../../../src/kubelet/volumes/volumes.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { container, pod } from "../../unit/kubelet-pods/builders.ts";
import { allContainers } from "../../../src/kubelet/spec/containers.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import type { VolumePlugin } from "../../../src/kubelet/volumes/plugin.ts";

const { signal } = new AbortController();
const addresses = { podIPs: [], hostIPs: [] };
const skip = existsSync("/dev/fuse") ? false : "this machine has no FUSE";

/** A file system whose server never says a word: whoever looks at it waits for ever. */
async function mountDead(directory: string): Promise<AsyncDisposable> {
  await mkdir(directory, { recursive: true });
  const device = await open("/dev/fuse", "r+");
  const options = "fd=3,rootmode=40000,user_id=0,group_id=0";
  const child = spawn("mount", ["-i", "-t", "fuse.dead", "-o", options, "server:/x", directory], {
    stdio: ["ignore", "ignore", "inherit", device.fd],
  });
  const [code] = (await once(child, "close")) as [number];
  assert.equal(code, 0);
  return {
    // Without its server the kernel lets everybody go who still waits.
    [Symbol.asyncDispose]: () => device.close(),
  };
}

/** All threads that wait for disks are free: as many calls as there may be at once come back. */
async function assertThreadsFree(): Promise<void> {
  const calls = Array.from({ length: 16 }, async () => stat("/"));
  const late = systemClock.sleep(2000, signal).then(() => "late");
  assert.notEqual(await Promise.race([Promise.all(calls), late]), "late", "a thread hangs");
}

interface Stage {
  readonly rootDir: string;
  readonly volumes: Volumes;
}

async function withStage(
  plugins: readonly VolumePlugin[],
  work: (stage: Stage) => Promise<void>,
): Promise<void> {
  const rootDir = await mkdtemp(join(tmpdir(), "hung-"));
  const stop = new AbortController();
  const volumes = new Volumes({
    config: { rootDir },
    clock: systemClock,
    logger: silentLogger,
    step: () => undefined,
    mounter: systemMounter,
    tokens: { forget: () => undefined },
    plugins,
    removeTree,
    signal: stop.signal,
    wake: () => undefined,
  });
  try {
    await work({ rootDir, volumes });
  } finally {
    stop.abort();
    await volumes.idle();
    for (const { path } of systemMounter.table().below(rootDir)) {
      await systemMounter.unmount(path, signal);
    }
    await rm(rootDir, { recursive: true, force: true });
  }
}

function podOn(path: string, subPath?: string): AssignedPod {
  const mount = { name: "data", mountPath: "/data", ...(subPath === undefined ? {} : { subPath }) };
  return pod({
    containers: [container("web", { volumeMounts: [mount] })],
    volumes: [{ name: "data", hostPath: { path } }],
  });
}

describe("a server that does not answer", { skip }, () => {
  it("costs the pods that use it their time, and no thread of the agent", async () => {
    const plugin = hostPathPlugin({ mounter: systemMounter });
    await withStage([plugin], async ({ rootDir, volumes }) => {
      const dead = join(rootDir, "dead");
      await using _ = await mountDead(dead);
      const uids = Array.from({ length: 8 }, (_, index) => `pod-${index}`);
      const results = await Promise.all(
        uids.map(async (uid) => {
          const one = podOn(join(dead, "directory"));
          return volumes.setUp({ ...one, metadata: { ...one.metadata, uid } }, addresses, signal);
        }),
      );
      for (const { current, ready } of results) assert.deepEqual([ready, current], [false, false]);
      await assertThreadsFree();
      for (const uid of uids) await volumes.tearDown(uid, signal);
      await assertThreadsFree();
    });
  });

  it("that falls silent later keeps only the container that wants a part of it from its start", async () => {
    await withStage([], async ({ rootDir }) => {
      const dead = join(rootDir, "dead");
      await using _ = await mountDead(dead);
      const remembered: VolumePlugin = {
        directory: "test~remembered",
        supports: () => true,
        setUp: async () => ({ hostPath: dead, readOnly: false, ownership: "done" }),
      };
      await withStage([remembered], async ({ volumes }) => {
        const one = podOn(dead, "sub");
        assert.equal((await volumes.setUp(one, addresses, signal)).ready, true);
        const [entry] = allContainers(one);
        assert(entry !== undefined);
        const given = { environment: new Map<string, string>(), recursiveReadOnly: false };
        const mounts = volumes.mounts(one, entry, given, signal);
        mounts.catch(() => undefined);
        await assertThreadsFree();
        await assert.rejects(mounts, (error: Error) => {
          assert.match(error.message, /^failed to prepare subPath for volumeMount "data"/);
          assert.match(String(error.cause), /server:\/x on .*\/dead does not answer/);
          return true;
        });
        await assertThreadsFree();
      });
    });
  });

  it("and is mounted inside a pod's volume does not keep the pod from going", async () => {
    await withStage([], async ({ rootDir, volumes }) => {
      const paths = podPaths(rootDir, "u");
      const volume = join(paths.volumes, "kubernetes.io~empty-dir/scratch");
      await using _ = await mountDead(join(volume, "dead"));
      await using __ = await mountDead(join(paths.volumes, "kubernetes.io~nfs/data"));
      const down = volumes.tearDown("u", signal);
      await assertThreadsFree();
      await down;
      await volumes.removeDirectories("u", signal);
      assert.deepEqual(await readdir(join(rootDir, "pods")), []);
    });
  });

  it("and appears while a tree is removed ends the removal, and no thread waits", async () => {
    await withStage([], async ({ rootDir }) => {
      const volume = join(rootDir, "tree");
      await using _ = await mountDead(join(volume, "dead"));
      await assert.rejects(removeTree(volume, signal), {
        message: `${join(volume, "dead")} is a mount point: it was left alone`,
      });
      await assertThreadsFree();
    });
  });
});

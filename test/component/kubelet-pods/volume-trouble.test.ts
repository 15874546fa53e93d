import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, readlink, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { CONFIG_MAPS, PODS } from "../../../src/api/resources.ts";
import type { Pod } from "../../../src/api/types.gen.ts";
import type { Mounter } from "../../../src/kubelet/volumes/mounter.ts";
import { JumpingClock, makeWorld, podManifest, type SeenEvent, type World } from "./fixture.ts";

async function withWorld(
  work: (world: World, clock: JumpingClock) => Promise<void>,
): Promise<void> {
  const clock = new JumpingClock();
  const world = await makeWorld({ clock });
  try {
    await work(world, clock);
  } finally {
    await world.close();
  }
}

/** A pod with a volume in memory, and perhaps with others. */
function podWith(name: string, volumes: NonNullable<Pod["spec"]>["volumes"] = []): Pod {
  const all = [{ name: "memory", emptyDir: { medium: "Memory" } }, ...volumes];
  const volumeMounts = all.map((volume) => ({ name: volume.name, mountPath: `/${volume.name}` }));
  return podManifest(name, {
    containers: [{ name: "web", image: "app:1", imagePullPolicy: "IfNotPresent", volumeMounts }],
    volumes: all,
  });
}

function isReady(world: World, name: string): boolean {
  const conditions = world.pod(name)?.status?.conditions ?? [];
  return conditions.some(({ type, status }) => type === "Ready" && status === "True");
}

function told(world: World, reason: string): readonly SeenEvent[] {
  return world.events.filter((event) => event.reason === reason);
}

test("a pod that cannot go says which volume keeps it, once for each try, and goes when it can", async () => {
  await withWorld(async (world, clock) => {
    world.start();
    world.api.put(PODS, podWith("web"));
    await world.until("ready", () => isReady(world, "web"));
    const unmount = world.mounter.unmount.bind(world.mounter);
    let tries = 0;
    world.mounter.unmount = async (path) => {
      tries += 1;
      throw Object.assign(new Error(`umount: ${path}: target is busy.`), { code: "X" });
    };
    world.deletePod("web");
    const [event] = await world.until("told", () => {
      const seen = told(world, "FailedKillPod");
      return seen.length > 0 && seen;
    });
    assert.match(
      event?.message ?? "",
      /^error killing pod: UnmountVolume.TearDown failed for volume "memory" : umount: .*\/memory: target is busy\.$/,
    );
    clock.ahead(600);
    await world.until("told again", () => told(world, "FailedKillPod").length === 2);
    assert.equal(tries, 2);
    world.mounter.unmount = unmount;
    clock.ahead(1100);
    await world.until("gone", () => world.pod("web") === undefined);
    assert.equal(world.mounter.mounted.size, 0);
  });
});

test("a pod whose network does not go says so, too", async () => {
  await withWorld(async (world, clock) => {
    world.start();
    world.api.put(PODS, podWith("web"));
    await world.until("ready", () => isReady(world, "web"));
    const tearDown = world.network.tearDown.bind(world.network);
    world.network.tearDown = async () => Promise.reject(new Error("the bridge is stuck"));
    world.deletePod("web");
    const [event] = await world.until("told", () => {
      const seen = told(world, "FailedKillPod");
      return seen.length > 0 && seen;
    });
    assert.equal(event?.message, "error killing pod: the bridge is stuck");
    world.network.tearDown = tearDown;
    clock.ahead(20_000);
    await world.until("gone", () => world.pod("web") === undefined);
  });
});

test("mounts that hang hold up nobody else's pod, and no deletion of their own", async () => {
  await withWorld(async (world, clock) => {
    world.start();
    const mounter: Mounter = world.mounter;
    const mountTmpfs = mounter.mountTmpfs.bind(mounter);
    const hung = new Set<string>();
    mounter.mountTmpfs = async (path, _options, signal) => {
      hung.add(path);
      await new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(new DOMException("ended", "AbortError")));
      });
    };
    // More than the agent looks at side by side.
    for (let index = 0; index < 20; index += 1) world.api.put(PODS, podWith(`hung-${index}`));
    await world.until("16 hang", () => hung.size >= 16);
    clock.ahead(1000);
    await world.until("all hang", () => hung.size === 20);
    clock.ahead(1000);
    mounter.mountTmpfs = mountTmpfs;
    world.api.put(PODS, podWith("web"));
    await world.until("ready", () => isReady(world, "web"));
    world.deletePod("hung-0");
    await world.until("gone", () => world.pod("hung-0") === undefined);
  });
});

test("a pod that waits for its volumes says so after two minutes, with their names", async () => {
  await withWorld(async (world, clock) => {
    world.start();
    world.api.put(
      PODS,
      podWith("web", [
        { name: "late", configMap: { name: "late" } },
        { name: "never", configMap: { name: "never" } },
      ]),
    );
    await world.until("told", () => told(world, "FailedMount").length >= 2);
    assert.deepEqual(
      told(world, "FailedMount")
        .map(({ message }) => message)
        .toSorted(),
      ["late", "never"].map(
        (name) => `MountVolume.SetUp failed for volume "${name}" : configmap "${name}" not found`,
      ),
    );
    world.api.put(CONFIG_MAPS, { metadata: { name: "late", namespace: "default" }, data: {} });
    clock.ahead(123_000);
    const message =
      "Unable to attach or mount volumes: unmounted volumes=[never], unattached volumes=[], failed to process volumes=[]: context deadline exceeded";
    await world.until("told in so many words", () =>
      told(world, "FailedMount").some((event) => event.message === message),
    );
    assert.equal(world.pod("web")?.status?.phase, "Pending");
    // It comes without waiting for the next try.
    world.api.put(CONFIG_MAPS, { metadata: { name: "never", namespace: "default" }, data: {} });
    await world.until("ready", () => isReady(world, "web"));
  });
});

test("a volume that somebody has unmounted or emptied is made again at the next look", async () => {
  await withWorld(async (world, clock) => {
    world.api.put(CONFIG_MAPS, {
      metadata: { name: "c", namespace: "default" },
      data: { key: "word" },
    });
    world.start();
    const { metadata } = world.api.put<Pod>(
      PODS,
      podWith("web", [{ name: "c", configMap: { name: "c" } }]),
    );
    await world.until("ready", () => isReady(world, "web"));
    const volumes = join(world.rootDir, "pods", metadata.uid, "volumes");
    const memory = join(volumes, "kubernetes.io~empty-dir/memory");
    const config = join(volumes, "kubernetes.io~configmap/c");
    assert(world.mounter.mounted.delete(memory));
    await rm(join(config, "key"));
    await writeFile(join(config, await readlink(join(config, "..data")), "key"), "forged");
    clock.ahead(90_000);
    await world.until("mounted again", () => world.mounter.mounted.has(memory));
    await world.until("looked at", () => existsSync(join(config, "key")));
    await world.until("written again", () => readFileSync(join(config, "key"), "utf8") === "word");
    assert.equal(world.runtime.starts.get("web"), 1, "nothing was restarted for it");
  });
});

test("directories of pods that nobody knows go when the agent starts; others stay", async () => {
  await withWorld(async (world) => {
    const pods = join(world.rootDir, "pods");
    const orphan = join(pods, "0b5f5a5e-7f0f-4c8e-9a0e-3f7f0d8d2c11");
    const volume = join(orphan, "volumes/kubernetes.io~empty-dir/scratch");
    const retired = join(orphan, "volumes/example.com~retired/data");
    await mkdir(volume, { recursive: true });
    await mkdir(retired, { recursive: true });
    await mkdir(join(pods, "lost+found"));
    await writeFile(join(volume, "file"), "");
    world.mounter.mounted.set(volume, "tmpfs");
    world.mounter.mounted.set(retired, "something");
    world.start();
    await world.until("unmounted", () => world.mounter.mounted.size === 0);
    for (;;) {
      const left = await world.podDirectories();
      if (left.length === 1) break;
    }
    assert.deepEqual(await world.podDirectories(), ["lost+found"]);
  });
});

test("an orphan's mount that does not go is told once, by its path", async () => {
  await withWorld(async (world, clock) => {
    const path = join(
      world.rootDir,
      "pods/0b5f5a5e-7f0f-4c8e-9a0e-3f7f0d8d2c11/volumes/kubernetes.io~nfs/data",
    );
    await mkdir(path, { recursive: true });
    world.mounter.mounted.set(path, "server:/data");
    let tries = 0;
    world.mounter.unmount = async () => {
      tries += 1;
      throw new Error(`umount: ${path}: target is busy.`);
    };
    world.start();
    const warnings = (): number =>
      world.logs.filter(({ level, error }) => level === "warn" && String(error).includes(path))
        .length;
    await world.until("told", () => warnings() === 1);
    for (const wait of [600, 1100, 2100]) {
      const before = tries;
      clock.ahead(wait);
      await world.until("tried again", () => tries > before);
    }
    assert.equal(warnings(), 1);
    world.mounter.mounted.clear();
  });
});

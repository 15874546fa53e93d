import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";

import type { FakeCsiDriver } from "../../fakes/csi-driver.ts";
import { type Run, startWorld, type World } from "./world.ts";

class Crash extends Error {}

/** Throws at the `at`-th step, and at all that come after it: nothing runs on after a crash. */
function crashAt(at: number): { readonly step: () => void; readonly happened: () => boolean } {
  let count = 0;
  return {
    step: () => {
      count += 1;
      if (count >= at) throw new Crash(`at step ${count}`);
    },
    happened: () => count >= at,
  };
}

async function filesBelow(directory: string): Promise<readonly string[]> {
  if (!existsSync(directory)) return [];
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map(({ name, parentPath }) => join(parentPath, name));
}

async function registered(world: World, driver: FakeCsiDriver, run: Run): Promise<void> {
  await world.until("registration", () => run.csi.drivers.get(driver.name));
}

async function quietly(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    for (let each = error; each instanceof Error; each = each.cause) {
      if (each instanceof Crash) return;
    }
    throw error;
  }
}

for (const block of [false, true]) {
  describe(`a crash at any step of a ${block ? "raw block volume" : "file system"}'s life`, () => {
    for (const goesOn of [true, false]) {
      it(`leaves nothing once the pod is gone, which ${goesOn ? "runs on" : "ends"} after it`, async () => {
        for (let at = 1; ; at += 1) {
          const world = await startWorld();
          try {
            const driver = world.driver();
            world.csiDriver(driver.name, {});
            await driver.start();
            const pod = world.pod("web");
            const spec = world.claimed("data", block ? { volumeMode: "Block" } : {});
            const crash = crashAt(at);
            const first = world.start({ step: crash.step });
            await registered(world, driver, first);
            await quietly(first.setUp(spec, pod));
            if (!crash.happened()) await quietly(first.tearDown(spec, pod));
            const place = join(world.rootDir, "plugins/kubernetes.io");
            const isUnstaged = (): boolean =>
              driver.staged.size === 0 &&
              [driver.name, "volumeDevices/pv-data"].every(
                (name) => !existsSync(join(place, "csi", name)),
              );
            await world.until("unstaging or crash", () => crash.happened() || isUnstaged());
            await first.stop();
            const second = world.start();
            await registered(world, driver, second);
            if (goesOn) await second.setUp(spec, pod);
            await second.tearDown(spec, pod);
            await world.until(`unstaging after a crash at step ${at}`, isUnstaged);
            await world.until("clean records", () => second.inUse.list([])?.length === 0);
            assert.equal(driver.published.size, 0);
            assert.deepEqual([...world.mounter.mounted], [], `step ${at}`);
            await second.stop();
            assert.deepEqual(await filesBelow(place), [], `step ${at}`);
            const left = await filesBelow(join(world.rootDir, "pods"));
            assert.deepEqual(left, [], `step ${at}`);
            if (!crash.happened()) {
              assert(at > 5, `only ${at - 1} steps were walked`);
              return;
            }
          } finally {
            await world.close();
          }
        }
      });
    }
  });
}

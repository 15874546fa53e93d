import assert from "node:assert/strict";
import { test } from "node:test";

import { CONFIG_MAPS, PODS } from "../../../src/api/resources.ts";
import type { Pod } from "../../../src/api/types.gen.ts";
import { STEP_NAMES, type StepHook, type StepName } from "../../../src/kubelet/steps.ts";
import { type Instance, makeWorld, podManifest, type World } from "./fixture.ts";

class Crash extends Error {}

/** A hook that ends everything at the `nth` time that the step is met. */
function crashAt(step: StepName, nth: number): StepHook {
  let met = 0;
  return (name) => {
    if (name !== step) return;
    met += 1;
    if (met >= nth) throw new Crash(`${step} #${nth}`);
  };
}

function manifest(): Pod {
  return podManifest("web", {
    initContainers: [{ name: "prepare", image: "app:1", imagePullPolicy: "IfNotPresent" }],
    containers: [
      {
        name: "web",
        image: "registry.example/far:1",
        imagePullPolicy: "IfNotPresent",
        volumeMounts: [
          { name: "scratch", mountPath: "/scratch" },
          { name: "scratch", mountPath: "/part", subPath: "a/b" },
          { name: "settings", mountPath: "/settings" },
        ],
      },
      { name: "log", image: "app:1", imagePullPolicy: "IfNotPresent" },
    ],
    volumes: [
      { name: "scratch", emptyDir: { medium: "Memory" } },
      { name: "settings", configMap: { name: "settings" } },
    ],
  });
}

async function makeCrashWorld(): Promise<World> {
  const world = await makeWorld();
  world.runtime.program = ({ name }) => (name === "prepare" ? { exitCode: 0 } : undefined);
  world.runtime.registry.set("registry.example/far:1", {
    id: `sha256:${"f".repeat(64)}`,
    tags: ["registry.example/far:1"],
    digests: [],
    sizeBytes: 1,
    user: {},
    stopSignal: undefined,
  });
  world.api.put(CONFIG_MAPS, {
    metadata: { name: "settings", namespace: "default" },
    data: { a: "1" },
  });
  return world;
}

function isReady(world: World): boolean {
  const conditions = world.pod("web")?.status?.conditions ?? [];
  return conditions.some(({ type, status }) => type === "Ready" && status === "True");
}

async function crashed(instance: Instance, world: World, done: () => boolean): Promise<boolean> {
  const seen: { error?: Error | undefined; ended: boolean } = { ended: false };
  const watch = async (): Promise<void> => {
    seen.error = await instance.ended;
    seen.ended = true;
  };
  const watching = watch();
  await world.until("crashed or done", () => seen.ended || done());
  await instance.stop();
  await watching;
  // A step late in the run may come after what the test waits for.
  assert(seen.error === undefined || seen.error instanceof Crash, String(seen.error));
  return seen.error !== undefined;
}

function assertOneRightPod(world: World, where: string): void {
  const { containers, sandboxes } = world.runtime;
  assert.equal(sandboxes.size, 1, where);
  const running = [...containers.values()]
    .filter(({ state }) => state.kind === "running")
    .map(({ config }) => config.name)
    .toSorted();
  assert.deepEqual(running, ["log", "web"], where);
  const created = [...containers.values()].filter(({ state }) => state.kind === "created");
  assert.equal(created.length, 0, where);
  for (const status of world.pod("web")?.status?.containerStatuses ?? []) {
    assert.equal(status.restartCount, 0, `${where}: ${status.name} was restarted`);
  }
  assert.equal(world.runtime.starts.get("web"), 1, where);
  assert.equal(world.runtime.starts.get("log"), 1, where);
  assert.equal(world.network.leases.size, 1, where);
}

async function assertNothingLeft(world: World, where: string): Promise<void> {
  assert.equal(world.runtime.containers.size, 0, where);
  assert.equal(world.runtime.sandboxes.size, 0, where);
  assert.equal(world.network.leases.size, 0, where);
  assert.equal(world.mounter.mounted.size, 0, where);
  assert.deepEqual(await world.podDirectories(), [], where);
}

/** Steps that starting or deleting this pod meets, and how often. */
async function metSteps(): Promise<{
  readonly start: readonly StepName[];
  readonly remove: readonly StepName[];
}> {
  const world = await makeCrashWorld();
  const start: StepName[] = [];
  const remove: StepName[] = [];
  let into = start;
  try {
    world.start({ step: (name) => void into.push(name) });
    world.api.put(PODS, manifest());
    await world.until("ready", () => isReady(world));
    into = remove;
    world.deletePod("web");
    await world.until("gone", () => world.pod("web") === undefined);
    await world.until("idle", () => remove.includes("deletePodObject"));
    return { start, remove };
  } finally {
    await world.close();
  }
}

function occurrences(steps: readonly StepName[]): readonly (readonly [StepName, number])[] {
  const count = new Map<StepName, number>();
  return steps.map((step) => {
    const nth = (count.get(step) ?? 0) + 1;
    count.set(step, nth);
    return [step, nth] as const;
  });
}

test("a crash at any step of starting a pod ends in exactly one right pod", async () => {
  const { start } = await metSteps();
  for (const [step, nth] of occurrences(start)) {
    const world = await makeCrashWorld();
    try {
      const first = world.start({ step: crashAt(step, nth) });
      world.api.put(PODS, manifest());
      await crashed(first, world, () => isReady(world));
      world.start();
      await world.until(`ready after ${step} #${nth}`, () => isReady(world));
      assertOneRightPod(world, `${step} #${nth}`);
    } finally {
      await world.close();
    }
  }
});

test("a crash at any step of deleting a pod ends with nothing left", async () => {
  const { remove } = await metSteps();
  for (const [step, nth] of occurrences(remove)) {
    const world = await makeCrashWorld();
    try {
      const first = world.start();
      world.api.put(PODS, manifest());
      await world.until("ready", () => isReady(world));
      await first.stop();
      const second = world.start({ step: crashAt(step, nth) });
      world.deletePod("web");
      await crashed(second, world, () => world.pod("web") === undefined);
      world.start();
      const where = `${step} #${nth}`;
      await world.until(`gone after ${where}`, () => world.pod("web") === undefined);
      await world.until(`clean after ${where}`, () => world.runtime.sandboxes.size === 0);
      await assertNothingLeft(world, where);
    } finally {
      await world.close();
    }
  }
});

test("every named step is met by starting, resizing or deleting a pod", async () => {
  const { start, remove } = await metSteps();
  // The crash at an update is in resize.test.ts; this pod has no volume that has to be given to a group.
  const met = new Set<StepName>([...start, ...remove, "updateContainer", "applyOwnership"]);
  assert.deepEqual(
    STEP_NAMES.filter((name) => !met.has(name)),
    [],
  );
});

test("a restart of the agent changes nothing about a pod that is right", async () => {
  const world = await makeCrashWorld();
  try {
    const first = world.start();
    world.api.put(PODS, manifest());
    await world.until("ready", () => isReady(world));
    await first.stop();
    const calls = world.runtime.calls.length;
    const writes = world.api.requests.filter(({ method }) => method === "PATCH").length;
    const second = world.start();
    await world.until("synced", () => second.pods.view.healthy() === undefined);
    await world.until("listed", () => second.pods.view.pods().length === 1);
    assert.deepEqual(world.runtime.calls.slice(calls), []);
    assert.equal(world.api.requests.filter(({ method }) => method === "PATCH").length, writes);
  } finally {
    await world.close();
  }
});

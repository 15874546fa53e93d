import assert from "node:assert/strict";
import { mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import type { PodSpec } from "../../../src/api/types.gen.ts";
import { StorageWatch } from "../../../src/kubelet/pods/storage-watch.ts";
import { measureBytes } from "../../../src/kubelet/stats/tree-usage.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { PodRecord } from "../../../src/runtime/types.ts";
import { JumpingClock, makeWorld, podManifest, type World } from "../kubelet-pods/fixture.ts";
import { app } from "../kubelet-pods/stage.ts";
import { recordedKernel } from "../../fakes/kernel-files.ts";
import { container, pod, record, running } from "../../unit/kubelet-pods/builders.ts";

const signal = new AbortController().signal;
const mib = 1 << 20;

async function fill(world: World, name: string, volume: string, bytes: number): Promise<string> {
  const uid = world.pod(name)?.metadata.uid ?? "";
  const directory = join(world.rootDir, "pods", uid, "volumes/kubernetes.io~empty-dir", volume);
  await writeFile(join(directory, "data"), Buffer.alloc(bytes, 1));
  return directory;
}

const limitedVolume: Partial<PodSpec> = {
  volumes: [{ name: "cache", emptyDir: { sizeLimit: "1Mi" } }],
  containers: [app("web", { volumeMounts: [{ name: "cache", mountPath: "/cache" }] })],
  terminationGracePeriodSeconds: 600,
};

test("a pod that fills its emptyDir beyond the limit is ended within seconds, and says why", async () => {
  const clock = new JumpingClock();
  const world = await makeWorld({ clock });
  try {
    world.start();
    world.api.put(PODS, podManifest("web", limitedVolume));
    world.api.put(PODS, podManifest("other"));
    for (const name of ["web", "other"]) {
      await world.until(
        `${name} runs`,
        () => world.pod(name)?.status?.containerStatuses?.[0]?.ready,
      );
    }
    const directory = await fill(world, "web", "cache", mib / 2);
    clock.ahead(10_000);
    await systemClock.sleep(30, signal);
    assert.equal(world.pod("web")?.status?.phase, "Running");
    // Large on paper only: what is not allocated takes no room.
    await truncate(join(directory, "data"), 100 * mib);
    clock.ahead(10_000);
    await systemClock.sleep(30, signal);
    assert.equal(world.pod("web")?.status?.phase, "Running");
    await fill(world, "web", "cache", 2 * mib);
    // A jump in the middle of a look makes that a long one, with a long rest.
    for (let turn = 0; turn < 20 && world.pod("web")?.status?.phase === "Running"; turn += 1) {
      clock.ahead(10_000);
      await systemClock.sleep(40, signal);
    }
    await world.until("it is ended", () => world.pod("web")?.status?.phase === "Failed");
    const { conditions = [], message, reason } = world.pod("web")?.status ?? {};
    assert.equal(reason, "Evicted");
    assert.equal(message, 'Usage of EmptyDir volume "cache" exceeds the limit "1Mi". ');
    assert.equal(
      conditions.find(({ type }) => type === "DisruptionTarget"),
      undefined,
      "whoever runs it again gets the same",
    );
    const events = world.events.filter((event) => event.reason === "Evicted");
    assert.deepEqual(
      events.map(({ target, type }) => [target.name, type]),
      [["web", "Warning"]],
    );
    const stops = world.runtime.calls.filter((call) => call.startsWith("stopContainer"));
    assert.equal(stops.length, 1);
    assert.match(stops[0] ?? "", / 2$/, "the shortest grace, whatever the pod says");
    assert.equal(world.pod("other")?.status?.phase, "Running");
  } finally {
    await world.close();
  }
});

test("a critical pod is not ended for its limits", async () => {
  const clock = new JumpingClock();
  const world = await makeWorld({ clock });
  try {
    world.start();
    const spec = { ...limitedVolume, priority: 2_000_001_000 };
    world.api.put(PODS, podManifest("web", spec));
    await world.until("it runs", () => world.pod("web")?.status?.containerStatuses?.[0]?.ready);
    await fill(world, "web", "cache", 2 * mib);
    clock.ahead(10_000);
    await systemClock.sleep(30, signal);
    assert.equal(world.pod("web")?.status?.phase, "Running");
  } finally {
    await world.close();
  }
});

test("nothing is measured, and nobody wakes, while no pod has a limit", async () => {
  let measured = 0;
  let slept = 0;
  let pods = [pod()];
  const stop = new AbortController();
  const looked = Promise.withResolvers<void>();
  const watch = new StorageWatch({
    config: { podLogsDir: "/nowhere", rootDir: "/nowhere" },
    runtime: { podRecord: () => Promise.reject(new Error("not asked")) },
    engineDir: () => "/nowhere",
    pods: () => pods,
    onOverrun: () => undefined,
    files: recordedKernel(undefined),
    measure: async () => {
      measured += 1;
      looked.resolve();
      return new Map();
    },
    clock: {
      ...systemClock,
      sleep: async (ms, signal) => {
        slept += 1;
        return systemClock.sleep(ms, signal);
      },
    },
    logger: silentLogger,
  });
  const running = watch.run(stop.signal);
  await systemClock.sleep(5, signal);
  watch.podCame(pod());
  await systemClock.sleep(5, signal);
  assert.deepEqual([measured, slept], [0, 0]);
  const limited = pod({ volumes: [{ name: "v", emptyDir: { sizeLimit: "1Gi" } }] });
  pods = [limited];
  watch.podCame(limited);
  await looked.promise;
  assert.equal(measured, 1);
  stop.abort();
  await running;
});

test("logs, writable layers and volumes count for the limits of containers", async () => {
  const world = await makeWorld();
  try {
    const rootDir = world.rootDir;
    const layer = join(rootDir, "engine/overlay2/a/diff");
    const log = join(rootDir, "engine/containers/a/a-json.log");
    const links = join(rootDir, "logs/ns_web_uid-1/web");
    for (const directory of [layer, join(log, ".."), links]) {
      await mkdir(directory, { recursive: true });
    }
    await writeFile(join(layer, "data"), Buffer.alloc(mib, 1));
    await writeFile(log, Buffer.alloc(mib, 1));
    await symlink(log, join(links, "0.log"));
    const kernel = recordedKernel(undefined);
    kernel.texts.set(
      "/proc/2/mountinfo",
      `1 2 0:1 / / rw - overlay overlay rw,upperdir=${layer},workdir=/w\n`,
    );
    const said: string[] = [];
    const held: PodRecord = {
      uid: "uid-1",
      name: "web",
      namespace: "ns",
      sandboxes: [],
      containers: [record("web", running)],
    };
    const watchFor = (limit: string) =>
      new StorageWatch({
        config: { podLogsDir: join(rootDir, "logs"), rootDir },
        runtime: { podRecord: () => Promise.resolve(held) },
        engineDir: () => join(rootDir, "engine"),
        pods: () => [
          pod({
            containers: [
              container("web", { resources: { limits: { "ephemeral-storage": limit } } }),
            ],
          }),
        ],
        onOverrun: (_, { message }) => void said.push(message),
        files: kernel,
        measure: measureBytes,
        clock: systemClock,
        logger: silentLogger,
      });
    assert.equal(await watchFor("3Mi").look(signal), true);
    assert.deepEqual(said, []);
    await watchFor("1536Ki").look(signal);
    assert.deepEqual(said, [
      "Pod ephemeral local storage usage exceeds the total limit of containers 1536Ki. ",
    ]);
  } finally {
    await world.close();
  }
});

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { CONFIG_MAPS, PODS, SECRETS } from "../../../src/api/resources.ts";
import type { ConfigMap, Pod, PodSpec, Secret, Volume } from "../../../src/api/types.gen.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { makeWorld, podManifest, type World } from "../kubelet-pods/fixture.ts";

async function inWorld(work: (world: World) => Promise<void>): Promise<void> {
  const world = await makeWorld();
  try {
    world.start();
    await work(world);
  } finally {
    await world.close();
  }
}

function configMap(name: string, data: Record<string, string>): ConfigMap {
  return { metadata: { name, namespace: "default" }, data };
}

function showing(name: string, volumes: Volume[], spec: Partial<PodSpec> = {}): Pod {
  const pod = podManifest(name, { volumes, ...spec });
  for (const container of pod.spec?.containers ?? []) {
    container.volumeMounts = volumes.map((volume) => ({
      name: volume.name,
      mountPath: `/${volume.name}`,
    }));
  }
  return pod;
}

function ready(world: World, name: string): boolean {
  const { conditions = [] } = world.pod(name)?.status ?? {};
  return conditions.some(({ status, type }) => type === "Ready" && status === "True");
}

/** Where a volume of the pod shows a file. */
function path(world: World, pod: string, plugin: string, file: string): string {
  const { uid } = world.pod(pod)?.metadata ?? { uid: "" };
  return join(world.rootDir, "pods", uid, "volumes", `kubernetes.io~${plugin}`, file);
}

/** Waits until a file has this text; undefined: until it is gone. */
async function untilText(file: string, text: string | undefined): Promise<void> {
  const give = systemClock.monotonic() + 5000;
  for (;;) {
    const seen = await readFile(file, "utf8").catch(() => undefined);
    if (seen === text) return;
    if (systemClock.monotonic() > give) assert.equal(seen, text, file);
    await systemClock.sleep(2, AbortSignal.timeout(1000));
  }
}

const looks = (world: World): number =>
  world.runtime.calls.filter((call) => call.startsWith("podRecord")).length;

test("a hundred pods that share a ConfigMap show its update without a look at the engine", async () => {
  await inWorld(async (world) => {
    const pods = Array.from({ length: 100 }, (_, index) => `pod-${index}`);
    world.api.put(CONFIG_MAPS, configMap("shared", { key: "1" }));
    const volumes = [{ name: "v", configMap: { name: "shared" } }];
    for (const name of pods) world.api.put(PODS, showing(name, volumes));
    await world.until("all are ready", () => pods.every((name) => ready(world, name)));
    assert.equal(
      world.api.requests.filter(({ path, query }) => /configmaps/.test(path) && query.has("watch"))
        .length,
      1,
    );
    const before = looks(world);
    world.api.put(CONFIG_MAPS, configMap("shared", { key: "2" }));
    for (const name of pods) await untilText(path(world, name, "configmap", "v/key"), "2");
    assert(looks(world) - before < 10, `${looks(world) - before} looks`);
  });
});

test("an optional object may come, change, go and come again while the pod runs", async () => {
  await inWorld(async (world) => {
    const volumes = [
      { name: "v", projected: { sources: [{ secret: { name: "s", optional: true } }] } },
    ];
    world.api.put(PODS, showing("web", volumes));
    await world.until("ready", () => ready(world, "web"));
    const file = path(world, "web", "projected", "v/key");
    const put = (text: string): void => {
      const data = { key: Buffer.from(text).toString("base64") };
      world.api.put<Secret>(SECRETS, { metadata: { name: "s", namespace: "default" }, data });
    };
    put("1");
    await untilText(file, "1");
    put("2");
    await untilText(file, "2");
    world.api.remove(SECRETS, "default/s");
    await untilText(file, undefined);
    put("3");
    await untilText(file, "3");
    assert.equal(world.runtime.starts.get("web"), 1);
  });
});

test("a deleted object leaves its content to the pods that run, and keeps new ones waiting", async () => {
  await inWorld(async (world) => {
    world.api.put(CONFIG_MAPS, configMap("map", { key: "1" }));
    const volumes = [{ name: "v", configMap: { name: "map" } }];
    world.api.put(PODS, showing("old", volumes));
    await world.until("ready", () => ready(world, "old"));
    world.api.remove(CONFIG_MAPS, "default/map");
    const message = 'MountVolume.SetUp failed for volume "v" : configmap "map" not found';
    await world.until("told", () => world.events.some((event) => event.message === message));
    assert.equal(await readFile(path(world, "old", "configmap", "v/key"), "utf8"), "1");
    world.api.put(PODS, showing("new", volumes));
    await world.until("the new one is told", () =>
      world.events.some(({ message: text, target }) => text === message && target.name === "new"),
    );
    assert(ready(world, "old"));
    assert(!ready(world, "new"));
    world.api.put(CONFIG_MAPS, configMap("map", { key: "2" }));
    await world.until("the new one runs", () => ready(world, "new"));
    await untilText(path(world, "old", "configmap", "v/key"), "2");
  });
});

test("a variable's object that changes leaves the pod alone", async () => {
  await inWorld(async (world) => {
    world.api.put(CONFIG_MAPS, configMap("map", { key: "1" }));
    const pod = podManifest("web");
    const [container] = pod.spec?.containers ?? [];
    if (container !== undefined) container.envFrom = [{ configMapRef: { name: "map" } }];
    world.api.put(PODS, pod);
    await world.until("ready", () => ready(world, "web"));
    const before = looks(world);
    world.api.put(CONFIG_MAPS, configMap("map", { key: "2" }));
    world.api.put(CONFIG_MAPS, configMap("other", {}));
    await systemClock.sleep(30, AbortSignal.timeout(1000));
    assert.equal(looks(world), before);
  });
});

test("a file that shows labels and annotations follows them", async () => {
  await inWorld(async (world) => {
    const items = [
      { path: "labels", fieldRef: { fieldPath: "metadata.labels" } },
      { path: "deep/note", fieldRef: { fieldPath: "metadata.annotations['note']" } },
    ];
    world.api.put(PODS, showing("web", [{ name: "v", downwardAPI: { items } }]));
    await world.until("ready", () => ready(world, "web"));
    const pod = world.pod("web");
    assert(pod !== undefined);
    const labels = { a: 'say "hi"' };
    const metadata = { ...pod.metadata, labels, annotations: { note: "line\nline" } };
    world.api.put(PODS, { ...pod, metadata });
    await untilText(path(world, "web", "downward-api", "v/labels"), 'a="say \\"hi\\""');
    await untilText(path(world, "web", "downward-api", "v/deep/note"), "line\nline");
  });
});

test("of five volumes only those are written that show what has changed", async () => {
  await inWorld(async (world) => {
    for (const name of ["one", "two"]) world.api.put(CONFIG_MAPS, configMap(name, { key: "1" }));
    const volumes = ["one", "two"].map((name) => ({ name, configMap: { name } }));
    world.api.put(PODS, showing("web", volumes));
    await world.until("ready", () => ready(world, "web"));
    const before = (await readdir(path(world, "web", "configmap", "two"))).toSorted();
    world.api.put(CONFIG_MAPS, configMap("one", { key: "2" }));
    await untilText(path(world, "web", "configmap", "one/key"), "2");
    assert.deepEqual((await readdir(path(world, "web", "configmap", "two"))).toSorted(), before);
  });
});

test("a volume in memory that somebody has unmounted is mounted again before it is written", async () => {
  await inWorld(async (world) => {
    const put = (text: string): void => {
      const data = { key: Buffer.from(text).toString("base64") };
      world.api.put<Secret>(SECRETS, { metadata: { name: "s", namespace: "default" }, data });
    };
    put("1");
    world.api.put(PODS, showing("web", [{ name: "v", secret: { secretName: "s" } }]));
    await world.until("ready", () => ready(world, "web"));
    const volume = path(world, "web", "secret", "v");
    assert.deepEqual([...world.mounter.mounted.keys()], [volume]);
    world.mounter.mounted.clear();
    put("2");
    await untilText(join(volume, "key"), "2");
    assert.deepEqual([...world.mounter.mounted.keys()], [volume]);
  });
});

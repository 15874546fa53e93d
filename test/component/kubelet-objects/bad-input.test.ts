import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { CONFIG_MAPS, PODS } from "../../../src/api/resources.ts";
import type { Volume } from "../../../src/api/types.gen.ts";
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

/** Puts a pod that mounts this volume. */
function mounting(world: World, volume: Omit<Volume, "name">): void {
  const pod = podManifest("web", { volumes: [{ name: "v", ...volume }] });
  for (const container of pod.spec?.containers ?? []) {
    container.volumeMounts = [{ name: "v", mountPath: "/v" }];
  }
  world.api.put(PODS, pod);
}

async function everything(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  return entries.map(({ name, parentPath }) => join(parentPath, name)).toSorted();
}

/** Keys that an API server would refuse, and paths that it would. */
const escapes: readonly (readonly [
  string,
  Record<string, string>,
  Omit<Volume, "name"> | undefined,
  RegExp,
])[] = [
  [
    "a key that leaves the volume",
    { "../../../escape": "x" },
    undefined,
    /must not contain '\.\.'/,
  ],
  ["an absolute key", { "/etc/remora-escape": "x" }, undefined, /must be relative path/],
  ["an empty key", { "": "x" }, undefined, /must not be empty/],
  ["a key of the writer's own", { "..data": "x" }, undefined, /must not start with '\.\.'/],
  ["a key with NUL", { "a\0b": "x" }, undefined, /must not contain NUL/],
  ["a name of 256 bytes", { ["n".repeat(256)]: "x" }, undefined, /less than or equal to 255/],
  ["a key below another key", { a: "x", "a/b": "y" }, undefined, /a\/b is below the file a/],
  [
    "a path that leaves the volume",
    { key: "x" },
    { configMap: { name: "map", items: [{ key: "key", path: "a/../../b" }] } },
    /must not contain '\.\.'/,
  ],
  [
    "a path of 4097 bytes",
    { key: "x" },
    { configMap: { name: "map", items: [{ key: "key", path: `${"a/".repeat(2048)}b` }] } },
    /less than or equal to 4096/,
  ],
  [
    "two sources that contradict each other",
    { key: "x" },
    {
      projected: {
        sources: [
          { configMap: { name: "map", items: [{ key: "key", path: "p/q" }] } },
          { downwardAPI: { items: [{ path: "p", fieldRef: { fieldPath: "metadata.name" } }] } },
        ],
      },
    },
    /p\/q is below the file p/,
  ],
];

for (const [what, data, volume, message] of escapes) {
  test(`${what} is the pod's problem, and nothing is written`, async () => {
    await inWorld(async (world) => {
      world.api.put(CONFIG_MAPS, { metadata: { name: "map", namespace: "default" }, data });
      mounting(world, volume ?? { configMap: { name: "map" } });
      await world.until("the pod is told", () =>
        world.events.some((event) => event.reason === "FailedMount" && message.test(event.message)),
      );
      assert.equal(world.runtime.starts.get("web"), undefined);
      const { uid } = world.pod("web")?.metadata ?? { uid: "" };
      const own = join(world.rootDir, "pods", uid);
      const paths = await everything(world.rootDir);
      const strangers = paths.filter((path) => path.includes("escape") || path.endsWith("/x"));
      assert.deepEqual(strangers, []);
      const volumes = paths.filter((path) => path.startsWith(join(own, "volumes")));
      assert(!volumes.some((path) => path.includes("..data")), volumes.join(" "));
    });
  });
}

test("odd but legal names, a megabyte and thousands of keys are shown as they are", async () => {
  await inWorld(async (world) => {
    const large = Buffer.alloc(1024 * 1024, 7).toString("base64");
    const many = Object.fromEntries(
      Array.from({ length: 3000 }, (_, at) => [`key-${at}`, `${at}`]),
    );
    world.api.put(CONFIG_MAPS, {
      metadata: { name: "map", namespace: "default" },
      data: { ...many, ".hidden": "dot", "new\nline": "odd" },
      binaryData: { large },
    });
    mounting(world, { configMap: { name: "map" } });
    await world.until("it runs", () => world.runtime.starts.get("web") === 1);
    const { uid } = world.pod("web")?.metadata ?? { uid: "" };
    const volume = join(world.rootDir, "pods", uid, "volumes", "kubernetes.io~configmap", "v");
    assert.equal(await readFile(join(volume, "new\nline"), "utf8"), "odd");
    assert.equal(await readFile(join(volume, ".hidden"), "utf8"), "dot");
    assert.equal(await readFile(join(volume, "key-2999"), "utf8"), "2999");
    assert.equal((await readFile(join(volume, "large"))).length, 1024 * 1024);
  });
});

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import type { VolumeMount } from "../../../src/api/types.gen.ts";
import { mountedImages } from "../../../src/kubelet/volumes/image-volumes.ts";
import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import { isRuntimeFailure } from "../../../src/runtime/errors.ts";
import { testSignal } from "../runtime/fixture.ts";
import { type Layer, loadImage } from "./image-archive.ts";
import { makeNode, type Node } from "./node.ts";

async function withImage(
  layers: readonly Layer[],
  work: (node: Node, image: string) => Promise<void>,
): Promise<void> {
  await using node = await makeNode();
  const image = `remora.local/test-data:${node.fixture.scope}`;
  await loadImage(node.fixture, image, layers);
  try {
    await work(node, image);
  } finally {
    const left = await node.fixture.runtime.imageStatus(image, testSignal());
    if (left !== undefined) {
      await node.fixture.runtime.removeImage(left.id, testSignal()).catch((error: unknown) => {
        if (!isRuntimeFailure(error, "WrongState")) throw error;
      });
    }
  }
}

/** Whether the engine mounts images itself. */
async function mountsImages(node: Node): Promise<boolean> {
  return (await node.fixture.runtime.connect(testSignal())).features.has("imageMounts");
}

/** Ids of the images that the pod's containers are shown, by whoever mounts them. */
async function shownImages(node: Node, pod: string): Promise<readonly string[]> {
  const uid = node.pod(pod)?.metadata.uid ?? "";
  const { containers } = await node.fixture.runtime.podRecord(uid, testSignal());
  return [
    ...new Set([
      ...mountedImages(systemMounter.table(), node.rootDir),
      ...containers.flatMap(({ mountedImages: shown = [] }) => shown),
    ]),
  ];
}

function put(node: Node, image: string, mount: Partial<VolumeMount> = {}): void {
  node.put("web", {
    volumes: [{ name: "content", image: { reference: image, pullPolicy: "Never" } }],
    containers: [
      { name: "main", volumeMounts: [{ name: "content", mountPath: "/content", ...mount }] },
    ],
  });
}

test("an image of sixty layers is one read-only tree whose programs can be run, and gone with its pod", async () => {
  const busybox = await readFile("/bin/busybox");
  const layers: Layer[] = Array.from({ length: 60 }, (_, index) => ({
    [`layers/${index}`]: `${index}`,
    same: `${index}`,
  }));
  layers[0] = { ...layers[0], "bin/busybox": busybox, hidden: "no", "dir/lower": "l" };
  // What a layer takes away, and a directory that it replaces.
  layers[59] = { ...layers[59], ".wh.hidden": "", "dir/.wh..wh..opq": "", "dir/upper": "u" };
  await withImage(layers, async (node, image) => {
    for (const mount of [{}, { readOnly: true }]) {
      put(node, image, mount);
      await node.ready("web");
      const count = await node.run("web", "ls /content/layers | busybox wc -l; cat /content/same");
      assert.deepEqual(count, { exitCode: 0, text: "60\n59" });
      assert.deepEqual(await node.run("web", "cd /content && echo * dir/*"), {
        exitCode: 0,
        text: "bin dir layers same dir/upper",
      });
      const written = await node.run("web", "echo x > /content/new");
      assert.match(written.text, /Read-only file system/);
      const removed = await node.run("web", "rm /content/same");
      assert.match(removed.text, /Read-only file system/);
      const ran = await node.run("web", "/content/bin/busybox echo ran");
      assert.deepEqual(ran, { exitCode: 0, text: "ran" });
      const id = (await node.fixture.runtime.imageStatus(image, testSignal()))?.id;
      assert.deepEqual(await shownImages(node, "web"), [id]);
      const status = node.pod("web")?.status?.containerStatuses?.[0];
      assert.deepEqual(
        status?.volumeMounts?.map(({ mountPath, name }) => [name, mountPath]),
        [["content", "/content"]],
      );
      await node.remove("web");
      assert.deepEqual(mountedImages(systemMounter.table(), node.rootDir), []);
    }
  });
});

test("an image of one layer is shown too, also to containers that are started anew and after a restart of the agent", async () => {
  const busybox = await readFile("/bin/busybox");
  await withImage([{ "a/file": "text", "bin/busybox": busybox }], async (node, image) => {
    node.put("web", {
      volumes: [{ name: "content", image: { reference: image, pullPolicy: "IfNotPresent" } }],
      containers: [
        { name: "main", volumeMounts: [{ name: "content", mountPath: "/content" }] },
        {
          name: "part",
          volumeMounts: [
            { name: "content", mountPath: "/a", subPath: "a" },
            { name: "content", mountPath: "/file", subPath: "a/file" },
            { name: "content", mountPath: "/whole" },
          ],
        },
      ],
    });
    await node.ready("web");
    const tool = await node.run("web", "cat /content/a/file; /content/bin/busybox echo ran");
    assert.equal(tool.text, "textran");
    const part = await node.run("web", "cat /a/file /file /whole/a/file; echo x > /a/new", "part");
    assert.match(part.text, /^texttexttext/);
    assert.match(part.text, /Read-only file system/);
    const byEngine = await mountsImages(node);
    if (!byEngine) {
      // Not even who may mount makes it writable: it is no part of the engine's own directory.
      const [shown] = systemMounter.table().below(join(node.volumes("web"), "kubernetes.io~image"));
      assert.deepEqual([shown?.type, shown?.superOptions.includes("ro")], ["overlay", true]);
    }
    await node.restart();
    const { runtime } = node.fixture;
    const record = await runtime.podRecord(node.pod("web")?.metadata.uid ?? "", testSignal());
    const main = record.containers.find(({ name }) => name === "main");
    await runtime.stopContainer(main?.id ?? "", 0, testSignal());
    await node.until(
      "it runs again",
      () =>
        node.pod("web")?.status?.containerStatuses?.find(({ name }) => name === "main")
          ?.restartCount === 1,
    );
    await node.ready("web");
    assert.equal((await node.run("web", "cat /content/a/file")).text, "text");
    assert.equal((await shownImages(node, "web")).length, 1);
    await node.remove("web");
    if (byEngine) return;
    const layers = await runtime.imageLayers?.(
      (await runtime.imageStatus(image, testSignal()))?.id ?? "",
      testSignal(),
    );
    assert.equal(await readFile(join(layers?.[0] ?? "", "a/file"), "utf8"), "text", "untouched");
  });
});

test("an image without content is an empty directory", async () => {
  await withImage([], async (node, image) => {
    put(node, image);
    await node.ready("web");
    const { text } = await node.run("web", "ls -a /content | busybox wc -l; echo x > /content/y");
    assert.match(text, /^2\n/);
    assert.match(text, /Read-only file system/);
    await node.remove("web");
  });
});

test("a part of an image that is not there keeps its container from being made", async () => {
  await withImage([{ file: "text" }, { other: "text" }], async (node, image) => {
    put(node, image, { subPath: "missing" });
    const waiting = await node.until("it waits", () => {
      const state = node.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting;
      return state?.reason === "CreateContainerError" ? state : undefined;
    });
    assert.match(
      waiting.message ?? "",
      (await mountsImages(node))
        ? /^failed to mount image volume at "\/content": sha256:[0-9a-f]{64} has no "missing" that could be shown$/
        : /^failed to prepare subPath for volumeMount "content" of container "main"$/,
    );
    assert.equal(node.pod("web")?.status?.containerStatuses?.[0]?.restartCount, 0);
    await node.remove("web");
  });
});

test("an image that is not there has the reasons of a container's own", async () => {
  await using node = await makeNode();
  put(node, "remora.local/never:1");
  await node.until(
    "it waits",
    () =>
      node.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting?.reason ===
      "ErrImageNeverPull",
  );
  await node.remove("web");
});

test("an image that an engine mounts is not removed by us, and what it shows outlives its removal by hand", async (context) => {
  await withImage([{ "a/file": "text" }, { "b/file": "more" }], async (node, image) => {
    if (!(await mountsImages(node))) {
      context.skip("this engine mounts no images");
      return;
    }
    const { client, runtime } = node.fixture;
    put(node, image);
    await node.ready("web");
    const { id = "" } = (await runtime.imageStatus(image, testSignal())) ?? {};
    await assert.rejects(runtime.removeImage(id, testSignal()), (error) =>
      isRuntimeFailure(error, "WrongState"),
    );
    const path = `/images/${image}`;
    await client
      .call(
        { op: "remove image", method: "DELETE", path, query: { force: 1 }, timeoutMs: 60_000 },
        testSignal(),
      )
      .catch((error: unknown) => {
        // Newer engines keep it themselves.
        if (!isRuntimeFailure(error, "WrongState")) throw error;
      });
    const { text } = await node.run("web", "cat /content/a/file /content/b/file");
    assert.equal(text, "textmore");
    await node.remove("web");
  });
});

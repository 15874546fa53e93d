import assert from "node:assert/strict";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import type { PodSpec, Volume, VolumeMount } from "../../../src/api/types.gen.ts";
import { ImageCollector } from "../../../src/kubelet/images/image-gc.ts";
import type { PullRecords } from "../../../src/kubelet/images/pull-records.ts";
import { overlayOf } from "../../../src/kubelet/volumes/image-overlay.ts";
import { mountedImages } from "../../../src/kubelet/volumes/image-volumes.ts";
import { MountTable } from "../../../src/kubelet/volumes/mount-table.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import type { Image, PodRecord } from "../../../src/runtime/types.ts";
import { JumpingClock, makeWorld, podManifest, type World } from "../kubelet-pods/fixture.ts";
import { app } from "../kubelet-pods/stage.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const signal = new AbortController().signal;

/** An engine's directory of layers, each with its short link. */
async function layerStore(root: string, count: number): Promise<readonly string[]> {
  const out: string[] = [];
  await mkdir(join(root, "l"), { recursive: true });
  for (let at = 0; at < count; at += 1) {
    const id = String(at).padStart(64, "0");
    const short = `LINK${String(at).padStart(22, "A")}`;
    await mkdir(join(root, id, "diff"), { recursive: true });
    await writeFile(join(root, id, "link"), short);
    await symlink(`../${id}/diff`, join(root, "l", short));
    out.push(join(root, id, "diff"));
  }
  return out;
}

test("layers are stacked by the engine's short links, so that as many fit as an image can have", async () => {
  await inTemporary(async (directory) => {
    const root = join(directory, "overlay2");
    const layers = await layerStore(root, 125);
    const { cwd, options, source, type } = await overlayOf(layers, "/target");
    assert.deepEqual([cwd, source, type], [root, "overlay", "overlay"]);
    assert.equal(options[0], "ro");
    const lowers = (options[1] ?? "").replace("lowerdir=", "").split(":");
    assert.equal(lowers.length, 125);
    assert.equal(lowers[0], `l/LINK${"A".repeat(21)}0`, "the topmost first");
    assert(options.join(",").length < 4096, "one page");
  });
});

test("without short links the layers' own paths are taken, escaped, as long as they fit", async () => {
  const plain = await overlayOf(["/engine/a:b/x/diff", "/engine/a:b/y\\z/diff"], "/target");
  assert.equal(plain.cwd, undefined);
  assert.equal(plain.options.at(-1), "lowerdir=/engine/a\\:b/x/diff:/engine/a\\:b/y\\\\z/diff");
  const many = Array.from({ length: 100 }, (_, at) => `/engine/${"x".repeat(50)}/${at}/diff`);
  await assert.rejects(overlayOf(many, "/target"), /its 100 layers are too many for one mount/);
  await assert.rejects(overlayOf(["/a,b/x/diff", "/a,b/y/diff"], "/t"), /has a comma/);
  await inTemporary(async (directory) => {
    const root = join(directory, "overlay2");
    const layers = await layerStore(root, 2);
    // A link that leads elsewhere is none of these layers'.
    await writeFile(join(layers[0] ?? "", "../link"), `LINK${"A".repeat(21)}1`);
    const request = await overlayOf(layers, "/target");
    assert.equal(request.options.at(-1), `lowerdir=${layers.join(":")}`);
  });
});

test("which images volumes show is read from the mount table", () => {
  const id = "a".repeat(64);
  const line = (path: string): string => `9 1 0:9 / ${path} ro - overlay overlay ro`;
  const table = new MountTable(
    [
      line(`/root/pods/uid/volumes/kubernetes.io~image/v/${id}`),
      line(`/root/pods/uid/volumes/kubernetes.io~image/v/short`),
      line(`/root/pods/uid/volumes/kubernetes.io~empty-dir/v/${"b".repeat(64)}`),
      line(`/elsewhere/pods/uid/volumes/kubernetes.io~image/v/${"c".repeat(64)}`),
    ].join("\n"),
  );
  assert.deepEqual(mountedImages(table, "/root"), [`sha256:${id}`]);
});

test("an image that a volume shows is not removed, however full the disk", async () => {
  const image = (id: string): Image => ({
    id,
    tags: [`${id}:1`],
    digests: [],
    sizeBytes: 1,
    user: {},
    stopSignal: undefined,
  });
  const removed: string[] = [];
  const collector = new ImageCollector({
    config: { nodeName: "worker", imageMinimumGCAgeMs: 0 },
    images: {
      listImages: async () => [image("shown"), image("mounted"), image("unused")],
      imageStatus: async () => undefined,
      pullImage: () => Promise.reject(new Error("not asked")),
      removeImage: async (id) => void removed.push(id),
    },
    runtime: {
      snapshot: async () => {
        const containers = [{ imageID: "own", mountedImages: ["mounted"] }];
        return new Map([["uid", { containers } as unknown as PodRecord]]);
      },
    },
    records: {
      keepOnly: async () => undefined,
      broughtImages: async () =>
        new Map([
          ["shown", new Set(["docker.io/library/shown"])],
          ["mounted", new Set(["docker.io/library/mounted"])],
          ["unused", new Set(["docker.io/library/unused"])],
        ]),
      forget: async () => undefined,
    } as unknown as PullRecords,
    mountedImages: () => ["shown"],
    disk: async () => ({ capacityBytes: 100, availableBytes: 1 }),
    events: { event: () => undefined },
    clock: systemClock,
    logger: silentLogger,
  });
  await assert.rejects(collector.collect(signal), /Failed to free sufficient space/);
  assert.deepEqual(removed, ["unused"]);
});

function imagePod(
  image: NonNullable<Volume["image"]>,
  mount: Partial<VolumeMount> = {},
): Partial<PodSpec> {
  return {
    volumes: [{ name: "content", image }],
    containers: [app("web", { volumeMounts: [{ name: "content", mountPath: "/c", ...mount }] })],
  };
}

function waitingReason(world: World): string | undefined {
  return world.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting?.reason;
}

function isReady(world: World): boolean | undefined {
  return world.pod("web")?.status?.containerStatuses?.[0]?.ready;
}

async function inWorld(work: (world: World, clock: JumpingClock) => Promise<void>): Promise<void> {
  const clock = new JumpingClock();
  const world = await makeWorld({ clock });
  try {
    await work(world, clock);
  } finally {
    await world.close();
  }
}

test("a volume of an image is pulled like a container's, shown read-only, and gone with its pod", async () => {
  await inWorld(async (world) => {
    const id = `sha256:${"b".repeat(64)}`;
    const layers = await layerStore(join(world.rootDir, "overlay2"), 3);
    world.runtime.registry.set("data:2", { ...world.runtime.addImage("other:1"), id });
    world.runtime.layers.set(id, layers);
    world.start();
    world.api.put(PODS, podManifest("web", imagePod({ reference: "data:2" })));
    await world.until("it runs", () => isReady(world));
    const pulled = world.events.filter(({ message }) => message.includes('"data:2"'));
    assert.deepEqual(
      pulled.map(({ reason, target }) => [reason, target.fieldPath]),
      [
        ["Pulling", undefined],
        ["Pulled", undefined],
      ],
    );
    const [container] = world.runtime.containers.values();
    const bound = container?.config.mounts.find(({ containerPath }) => containerPath === "/c");
    const uid = world.pod("web")?.metadata.uid ?? "";
    const path = join(
      world.rootDir,
      `pods/${uid}/volumes/kubernetes.io~image/content/${"b".repeat(64)}`,
    );
    assert.equal(bound?.hostPath, path);
    assert.deepEqual([bound.readOnly, bound.image], [true, undefined]);
    // Kubernetes has no noexec here since 1.36.
    const [first, second] = world.mounter.options.get(path) ?? [];
    assert.deepEqual([first, second?.startsWith("lowerdir=")], ["ro", true]);
    assert.deepEqual(mountedImages(world.mounter.table(), world.rootDir), [id]);
    world.deletePod("web", 0);
    await world.until("it is gone", () => world.pod("web") === undefined);
    await world.until("nothing is mounted", () => world.mounter.mounted.size === 0);
    await world.until("nothing is left", async () => (await world.podDirectories()).length === 0);
  });
});

test("an image that cannot be pulled keeps its containers waiting, with the reason of a container's own", async () => {
  await inWorld(async (world, clock) => {
    world.start();
    world.api.put(PODS, podManifest("web", imagePod({ reference: "missing:1" })));
    await world.until("it waits", () => waitingReason(world) === "ErrImagePull");
    await world.until("it waits longer", () => {
      clock.ahead(1000);
      return waitingReason(world) === "ImagePullBackOff";
    });
    assert(world.events.some(({ message }) => message === "Error: ErrImagePull"));
    const image = world.runtime.addImage("elsewhere:1");
    world.runtime.registry.set("missing:1", image);
    await world.until("it runs", () => {
      clock.ahead(1000);
      return isReady(world);
    });
  });
});

test("an image that is there is not pulled for a policy of Never; one that is not is not either", async () => {
  await inWorld(async (world) => {
    world.runtime.addImage("data:2");
    world.start();
    world.api.put(PODS, podManifest("web", imagePod({ reference: "data:2", pullPolicy: "Never" })));
    await world.until("it runs", () => isReady(world));
    assert(!world.runtime.calls.some((call) => call.startsWith("pullImage")));
  });
  await inWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("web", imagePod({ reference: "data:2", pullPolicy: "Never" })));
    await world.until("it waits", () => waitingReason(world) === "ErrImageNeverPull");
  });
});

test("an image that no container mounts is not even pulled", async () => {
  await inWorld(async (world) => {
    world.start();
    const volumes = [{ name: "content", image: { reference: "missing:1" } }];
    world.api.put(PODS, podManifest("web", { volumes }));
    await world.until("it runs", () => isReady(world));
    assert(!world.runtime.calls.some((call) => call.startsWith("pullImage")));
  });
});

test("an engine without layers cannot show an image, and says what would", async () => {
  await inWorld(async (world) => {
    world.runtime.imageLayers = async () => undefined;
    world.runtime.addImage("data:2");
    world.start();
    world.api.put(PODS, podManifest("web", imagePod({ reference: "data:2" })));
    await world.until("it waits", () => waitingReason(world) === "CreateContainerError");
    assert.match(
      world.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting?.message ?? "",
      /^failed to mount image volume "content": the container engine neither mounts images/,
    );
  });
});

test("an engine that mounts images is asked to, and they are in use as long as their containers are there", async () => {
  await inWorld(async (world) => {
    world.runtime.moreFeatures.add("imageMounts");
    world.runtime.imageLayers = () => Promise.reject(new Error("not asked"));
    const { id } = world.runtime.addImage("data:2");
    world.start();
    const volumeMounts = [
      { name: "content", mountPath: "/c" },
      { name: "content", mountPath: "/d", subPathExpr: "dir/$(WHAT)" },
    ];
    const spec = {
      volumes: [{ name: "content", image: { reference: "data:2" } }],
      containers: [app("web", { env: [{ name: "WHAT", value: "part" }], volumeMounts })],
    };
    world.api.put(PODS, podManifest("web", spec));
    await world.until("it runs", () => isReady(world));
    const [container] = world.runtime.containers.values();
    const shown = container?.config.mounts.filter(({ image }) => image !== undefined);
    assert.deepEqual(shown, [
      {
        hostPath: "",
        containerPath: "/c",
        readOnly: true,
        propagation: "private",
        image: { id, subPath: "" },
      },
      {
        hostPath: "",
        containerPath: "/d",
        readOnly: true,
        propagation: "private",
        image: { id, subPath: "dir/part" },
      },
    ]);
    assert.equal(world.mounter.mounted.size, 0);
    const [pod] = (await world.runtime.snapshot(signal)).values();
    assert.deepEqual(pod?.containers[0]?.mountedImages, [id, id]);
    world.deletePod("web", 0);
    await world.until("nothing is left", async () => (await world.podDirectories()).length === 0);
  });
});

test("a part that an image has not, and a mount that would reach back, keep a container from being made", async () => {
  const cases = [
    {
      mount: { subPath: "missing" },
      reason: "CreateContainerError",
      message: /^failed to mount image volume at "\/c"/,
    },
    { mount: { subPath: "../out" }, reason: "CreateContainerConfigError", message: /'\.\.'/ },
    {
      mount: { mountPropagation: "Bidirectional" },
      reason: "CreateContainerConfigError",
      message: /"Bidirectional" is not supported/,
    },
  ] as const;
  for (const { message, mount, reason } of cases) {
    await inWorld(async (world) => {
      world.runtime.moreFeatures.add("imageMounts");
      world.runtime.addImage("data:2");
      world.runtime.fail = (call) => {
        if (!call.startsWith("createContainer")) return;
        throw new RuntimeError("ImageMountFailed", 'failed to mount image volume at "/c": none');
      };
      world.start();
      world.api.put(PODS, podManifest("web", imagePod({ reference: "data:2" }, mount)));
      await world.until("it waits", () => waitingReason(world) === reason);
      const { waiting } = world.pod("web")?.status?.containerStatuses?.[0]?.state ?? {};
      assert.match(waiting?.message ?? "", message);
    });
  }
});

test("all images of volumes are pulled before the first container; one that fails hinders only who mounts it", async () => {
  await inWorld(async (world) => {
    world.runtime.registry.set("data:2", world.runtime.addImage("other:1"));
    world.runtime.program = ({ name }) => (name === "first" ? { exitCode: 0 } : undefined);
    world.start();
    const volumeMounts = (name: string): VolumeMount[] => [{ name, mountPath: "/c" }];
    world.api.put(
      PODS,
      podManifest("web", {
        volumes: [
          { name: "content", image: { reference: "data:2" } },
          { name: "broken", image: { reference: "missing:1" } },
        ],
        initContainers: [app("first")],
        containers: [
          app("web", { volumeMounts: volumeMounts("content") }),
          app("stuck", { volumeMounts: volumeMounts("broken") }),
        ],
      }),
    );
    await world.until("one runs", () =>
      world.pod("web")?.status?.containerStatuses?.some(({ ready }) => ready),
    );
    const calls = world.runtime.calls.map((call) => call.split(" ").slice(0, 2).join(" "));
    const first = calls.indexOf("createContainer first");
    const pulls = calls.slice(0, first).filter((call) => call.startsWith("pullImage"));
    assert.equal(pulls.length, 2, calls.join(", "));
    await world.until("the other waits", () =>
      world
        .pod("web")
        ?.status?.containerStatuses?.some(({ state }) =>
          ["ErrImagePull", "ImagePullBackOff"].includes(state?.waiting?.reason ?? ""),
        ),
    );
    assert.equal(world.runtime.starts.get("stuck"), undefined);
  });
});

test("a container that is started anew is shown the image that its name stands for by then", async () => {
  await inWorld(async (world, clock) => {
    const first = world.runtime.addImage("data:latest");
    world.runtime.registry.set("data:latest", first);
    world.start();
    const spec = imagePod({ reference: "data:latest", pullPolicy: "Always" });
    world.api.put(PODS, podManifest("web", spec));
    await world.until("it runs", () => isReady(world));
    const id = `sha256:${"e".repeat(64)}`;
    world.runtime.registry.set("data:latest", { ...first, id });
    world.runtime.exit("web", 1);
    clock.ahead(60_000);
    await world.until("it runs again", () => world.runtime.starts.get("web") === 2);
    assert.deepEqual(
      [...mountedImages(world.mounter.table(), world.rootDir)].toSorted(),
      [first.id, id].toSorted(),
    );
  });
});

for (const layers of [0, 1, 3]) {
  test(`a crash while an image of ${layers} layers is mounted leaves nothing that the next agent cannot go on from`, async () => {
    // A bind becomes read-only in a second step.
    const steps = layers === 0 ? 2 : 1;
    for (let nth = 1; nth <= steps; nth += 1) {
      await inWorld(async (world) => {
        const image = world.runtime.addImage("data:2");
        const store = await layerStore(join(world.rootDir, "overlay2"), layers);
        world.runtime.layers.set(image.id, store);
        let left = nth;
        const crashing = world.start({
          step: (name) => {
            if (name !== "mountVolume") return;
            left -= 1;
            if (left === 0) throw new Error("crash");
          },
        });
        world.api.put(PODS, podManifest("web", imagePod({ reference: "data:2" })));
        assert.match(String(await crashing.ended), /crash/);
        await crashing.stop();
        world.start();
        await world.until("it runs", () => isReady(world));
        const [path = ""] = world.mounter.mounted.keys();
        assert.equal(world.mounter.mounted.size, 1);
        const options = world.mounter.options.get(path) ?? [];
        assert(options.includes("ro"));
        const lowers = options.at(-1)?.replace("lowerdir=", "").split(":").length;
        assert.equal(lowers, Math.max(layers, layers === 0 ? 1 : 2), "overlayfs wants two");
        world.deletePod("web", 0);
        await world.until("it is gone", () => world.pod("web") === undefined);
        await world.until("nothing is mounted", () => world.mounter.mounted.size === 0);
      });
    }
  });
}

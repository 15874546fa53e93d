import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";

import { allContainers, type PodContainer } from "../../../src/kubelet/spec/containers.ts";
import { VolumeError } from "../../../src/kubelet/volumes/payload.ts";
import type { PreparedVolume, VolumePlugin } from "../../../src/kubelet/volumes/plugin.ts";
import { removeTree } from "../../../src/kubelet/volumes/remove-tree.ts";
import { TearDownError } from "../../../src/kubelet/volumes/take-down.ts";
import { Volumes, type VolumesOptions } from "../../../src/kubelet/volumes/volumes.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import type { Logger } from "../../../src/lib/log.ts";
import { container, pod } from "../../unit/kubelet-pods/builders.ts";
import { ManualClock, until } from "../api/manual-clock.ts";
import { FakeMounter } from "../kubelet-pods/fixture.ts";

const { signal } = new AbortController();
const addresses = { podIPs: [], hostIPs: [] };

interface Stage {
  readonly volumes: Volumes;
  readonly clock: ManualClock;
  readonly mounter: FakeMounter;
  readonly rootDir: string;
  readonly logs: { readonly message: string; readonly path: unknown }[];
  readonly woken: string[];
}

async function withStage(
  plugins: readonly VolumePlugin[],
  work: (stage: Stage) => Promise<void>,
  more: Partial<VolumesOptions> = {},
): Promise<void> {
  const rootDir = await mkdtemp(join(tmpdir(), "core-"));
  const clock = new ManualClock();
  const mounter = new FakeMounter();
  const woken: string[] = [];
  const logs: { message: string; path: unknown }[] = [];
  const logger: Logger = {
    log: (_, message, fields) => void logs.push({ message, path: fields?.["path"] }),
    child: () => logger,
  };
  const stop = new AbortController();
  const volumes = new Volumes({
    config: { rootDir },
    clock,
    logger,
    step: () => undefined,
    mounter,
    tokens: { forget: () => undefined },
    plugins,
    removeTree,
    signal: stop.signal,
    wake: (uid) => void woken.push(uid),
    ...more,
  });
  try {
    await work({ volumes, clock, mounter, rootDir, logs, woken });
  } finally {
    stop.abort();
    await volumes.idle();
    await rm(rootDir, { recursive: true, force: true });
  }
}

function prepared(hostPath: string, over: Partial<PreparedVolume> = {}): PreparedVolume {
  return { hostPath, readOnly: false, ownership: "done", ...over };
}

/** A plug-in for volumes whose `emptyDir.medium` is its name. */
function plugin(medium: string, over: Partial<VolumePlugin> = {}): VolumePlugin {
  return {
    directory: `test~${medium}`,
    supports: ({ volume }) => volume.emptyDir?.medium === medium,
    setUp: async (_, { path }) => {
      await mkdir(path);
      return prepared(path);
    },
    ...over,
  };
}

/** A pod with one volume for each medium, named like it, all of them mounted. */
function podWith(...media: readonly string[]): AssignedPod {
  const base = pod();
  return {
    ...base,
    spec: {
      ...base.spec,
      containers: [
        container("web", {
          volumeMounts: media.map((name) => ({ name, mountPath: `/${name}` })),
        }),
      ],
      volumes: media.map((name) => ({ name, emptyDir: { medium: name } })),
    },
  };
}

const given = { environment: new Map<string, string>(), recursiveReadOnly: false };

function entryOf(of: AssignedPod): PodContainer {
  const [entry] = allContainers(of);
  assert(entry !== undefined);
  return entry;
}

/** Lets work go on until the round has become tired of what hangs. */
async function tire(clock: ManualClock): Promise<void> {
  await until(() => clock.sleeping, "asleep");
  await new Promise((resolve) => setTimeout(resolve, 20));
  clock.advance(1000);
}

describe("setting up the volumes of a pod", () => {
  it("one that hangs and one that fails keep no other from being ready, and are told", async () => {
    const hang = Promise.withResolvers<PreparedVolume>();
    const plugins = [
      plugin("good"),
      plugin("hangs", { setUp: async () => hang.promise }),
      plugin("fails", { setUp: async () => Promise.reject(new VolumeError("no such thing")) }),
    ];
    await withStage(plugins, async ({ clock, volumes, woken }) => {
      const all = podWith("good", "hangs", "fails");
      const first = volumes.setUp(all, addresses, signal);
      await tire(clock);
      const result = await first;
      assert.equal(result.ready, false);
      assert.deepEqual(result.problems, [
        {
          reason: "FailedMount",
          message: 'MountVolume.SetUp failed for volume "fails" : no such thing',
        },
      ]);
      const mounts = await volumes.mounts(podWith("good"), entryOf(podWith("good")), given, signal);
      assert.equal(mounts.length, 1);
      hang.resolve(prepared("/late"));
      await until(() => woken.length > 0, "woken");
      assert.deepEqual(
        woken,
        [all.metadata.uid],
        "what takes long wakes the pod when it is through",
      );
    });
  });

  it("a volume that no container uses is left alone", async () => {
    let asked = 0;
    const counting = plugin("spare", {
      setUp: async (_, { path }) => {
        asked += 1;
        return prepared(path);
      },
    });
    await withStage([counting], async ({ volumes }) => {
      const unused = podWith("spare");
      const spec = { ...unused.spec, containers: [container("web")] };
      const result = await volumes.setUp({ ...unused, spec }, addresses, signal);
      assert.deepEqual([result.ready, result.current, asked], [true, true, 0]);
    });
  });

  it("the mount table is read once for all volumes of a look, and only if somebody asks", async () => {
    const asking = (medium: string): VolumePlugin =>
      plugin(medium, {
        setUp: async (_, { mounts, path }) => {
          mounts?.().at(path);
          return prepared(path);
        },
      });
    await withStage([asking("a"), asking("b"), plugin("c")], async ({ mounter, volumes }) => {
      let reads = 0;
      const read = mounter.table.bind(mounter);
      mounter.table = () => {
        reads += 1;
        return read();
      };
      await volumes.setUp(podWith("a", "b"), addresses, signal);
      assert.equal(reads, 1);
      await volumes.setUp(podWith("c"), addresses, signal);
      assert.equal(reads, 1);
    });
  });

  it("what was ready stays usable when it cannot be made current", async () => {
    let broken = false;
    const flaky = plugin("x", {
      setUp: async (_, { path }) => {
        if (broken) throw new VolumeError("gone");
        return prepared(path);
      },
    });
    await withStage([flaky], async ({ volumes }) => {
      const one = podWith("x");
      await volumes.setUp(one, addresses, signal);
      broken = true;
      const result = await volumes.setUp(one, addresses, signal);
      assert.deepEqual([result.ready, result.current], [true, false]);
      assert.equal((await volumes.mounts(one, entryOf(one), given, signal)).length, 1);
    });
  });

  it("a container is not made without a volume that was never ready", async () => {
    await withStage([], async ({ volumes }) => {
      const one = podWith("x");
      const { problems } = await volumes.setUp(one, addresses, signal);
      assert.match(problems[0]?.message ?? "", /volume type emptyDir is not supported/);
      await assert.rejects(volumes.mounts(one, entryOf(one), given, signal), {
        message: 'cannot find volume "x" to mount into container "web"',
      });
    });
  });

  it("files go to the pod's fsGroup once, where the plug-in asks for it", async () => {
    const given: string[] = [];
    const plugins = [
      plugin("tree", { setUp: async (_, { path }) => prepared(path, { ownership: "tree" }) }),
      plugin("done", { setUp: async (_, { path }) => prepared(path) }),
    ];
    const applyOwnership: VolumesOptions["applyOwnership"] = async ({ spec }) => {
      given.push(spec.name);
    };
    await withStage(
      plugins,
      async ({ volumes }) => {
        const one = podWith("tree", "done");
        await volumes.setUp(one, addresses, signal);
        assert.deepEqual(given, [], "no fsGroup");
        const grouped = { ...one, metadata: { ...one.metadata, uid: "other" } };
        const spec = {
          ...one.spec,
          containers: one.spec?.containers ?? [],
          securityContext: { fsGroup: 7 },
        };
        await volumes.setUp({ ...grouped, spec }, addresses, signal);
        await volumes.setUp({ ...grouped, spec }, addresses, signal);
        assert.deepEqual(given, ["tree"]);
      },
      { applyOwnership },
    );
  });

  it("a large tree is given to the group once, however long that takes", async () => {
    const walk = Promise.withResolvers<void>();
    let walks = 0;
    const tree = plugin("tree", {
      setUp: async (_, { path }) => prepared(path, { ownership: "tree" }),
    });
    const applyOwnership: VolumesOptions["applyOwnership"] = async () => {
      walks += 1;
      await walk.promise;
    };
    await withStage(
      [tree],
      async ({ clock, volumes, woken }) => {
        const base = podWith("tree");
        const { containers = [] } = base.spec ?? {};
        const one = {
          ...base,
          spec: { ...base.spec, containers, securityContext: { fsGroup: 7 } },
        };
        const first = volumes.setUp(one, addresses, signal);
        await tire(clock);
        assert.equal((await first).ready, false);
        clock.advance(60_000);
        assert.equal((await volumes.setUp(one, addresses, signal)).ready, false);
        walk.resolve();
        await until(() => woken.length > 0, "woken");
        const { current, ready } = await volumes.setUp(one, addresses, signal);
        assert.deepEqual([ready, current, walks], [true, true, 1]);
      },
      { applyOwnership },
    );
  });

  it("a volume behind a claim is called by its PersistentVolume; a raw one is a device", async () => {
    const seen: string[] = [];
    const raw: VolumePlugin = {
      directory: "test~raw",
      supports: ({ persistent }) => persistent !== undefined,
      setUp: async (_, { path }) => {
        seen.push(path);
        if (seen.length === 1) throw new VolumeError("no device");
        return prepared("/dev/x", { readOnly: true });
      },
    };
    const resolveClaim: VolumesOptions["resolveClaim"] = async (_, volume) => ({
      name: volume.name,
      volume,
      readOnly: false,
      persistent: {
        claim: { metadata: { name: "c" } },
        volume: { metadata: { name: "pv-1" }, spec: { volumeMode: "Block" } },
      },
    });
    await withStage(
      [raw],
      async ({ clock, rootDir, volumes }) => {
        const base = podWith();
        const one: AssignedPod = {
          ...base,
          spec: {
            ...base.spec,
            containers: [
              container("web", { volumeDevices: [{ name: "data", devicePath: "/dev/data" }] }),
            ],
            volumes: [{ name: "data", persistentVolumeClaim: { claimName: "c" } }],
          },
        };
        const { problems } = await volumes.setUp(one, addresses, signal);
        assert.deepEqual(problems, [
          {
            reason: "FailedMapVolume",
            message: 'MapVolume.SetUpDevice failed for volume "pv-1" : no device',
          },
        ]);
        clock.advance(500);
        await volumes.setUp(one, addresses, signal);
        const directory = join(rootDir, "pods", one.metadata.uid, "volumeDevices/test~raw");
        assert.deepEqual(seen, [join(directory, "pv-1"), join(directory, "pv-1")]);
        assert.deepEqual(volumes.devices(one, entryOf(one)), [
          { hostPath: "/dev/x", containerPath: "/dev/data", permissions: "r" },
        ]);
      },
      { resolveClaim },
    );
  });

  it("a claim that cannot be used is told with all that waits for it", async () => {
    const resolveClaim: VolumesOptions["resolveClaim"] = async () =>
      Promise.reject(new VolumeError('persistentvolumeclaim "c" not found'));
    await withStage(
      [plugin("good")],
      async ({ volumes }) => {
        const base = podWith("good", "data");
        const one = {
          ...base,
          spec: {
            ...base.spec,
            containers: base.spec?.containers ?? [],
            volumes: [
              { name: "good", emptyDir: { medium: "good" } },
              { name: "data", persistentVolumeClaim: { claimName: "c" } },
            ],
          },
        };
        const { problems } = await volumes.setUp(one, addresses, signal);
        assert.deepEqual(
          problems.map(({ message }) => message),
          [
            'Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process volumes=[data]: persistentvolumeclaim "c" not found',
          ],
        );
      },
      { resolveClaim },
    );
  });
});

describe("taking down the volumes of a pod", () => {
  it("goes by the disk: the plug-in of a directory is asked, whatever process made it", async () => {
    const asked: unknown[] = [];
    const asking = plugin("x", {
      tearDown: async (at) => {
        asked.push(at);
      },
    });
    await withStage([asking], async ({ rootDir, volumes }) => {
      const path = join(rootDir, "pods/u/volumes/test~x/data");
      await mkdir(join(path, "content"), { recursive: true });
      await mkdir(join(rootDir, "pods/u/volumes/from~another-version/y"), { recursive: true });
      await mkdir(join(rootDir, "pods/u/containers/web"), { recursive: true });
      await volumes.tearDown("u", signal);
      assert.deepEqual(asked, [{ podUID: "u", name: "data", path }]);
      assert.deepEqual(await readdir(join(rootDir, "pods/u")), ["containers"]);
      await volumes.removeDirectories("u", signal);
      assert.deepEqual(await readdir(join(rootDir, "pods")), []);
      await volumes.tearDown("u", signal);
    });
  });

  it("of one that fails keeps no other from it, and is tried again when its time has come", async () => {
    let tries = 0;
    const plugins = [
      plugin("good"),
      plugin("stuck", {
        tearDown: async () => {
          tries += 1;
          if (tries === 1) throw new VolumeError("the driver does not answer");
        },
      }),
    ];
    await withStage(plugins, async ({ clock, rootDir, volumes }) => {
      const directory = join(rootDir, "pods/u/volumes");
      await mkdir(join(directory, "test~good/a"), { recursive: true });
      await mkdir(join(directory, "test~stuck/b"), { recursive: true });
      const wanted = {
        message: 'UnmountVolume.TearDown failed for volume "b" : the driver does not answer',
        retryInMs: 500,
      };
      await assert.rejects(volumes.tearDown("u", signal), { ...wanted, news: true });
      assert.deepEqual(await readdir(directory), ["test~stuck"]);
      clock.advance(100);
      await assert.rejects(volumes.tearDown("u", signal), {
        ...wanted,
        retryInMs: 400,
        news: false,
      });
      assert.equal(tries, 1);
      clock.advance(400);
      await volumes.tearDown("u", signal);
      assert.deepEqual(await readdir(join(rootDir, "pods/u")), []);
    });
  });

  it("unmounts first what lies deepest; what somebody else has mounted is told by its path", async () => {
    await withStage([plugin("x")], async ({ logs, mounter, rootDir, volumes }) => {
      const path = join(rootDir, "pods/u/volumes/test~x/data");
      await mkdir(path, { recursive: true });
      const order: string[] = [];
      for (const at of [path, join(path, "mount"), join(path, "some/where")]) {
        mounter.mounted.set(at, "tmpfs");
      }
      mounter.unmount = async (at) => {
        order.push(at.slice(path.length));
        mounter.mounted.delete(at);
        return "unmounted";
      };
      await volumes.tearDown("u", signal);
      assert.deepEqual(order, ["/some/where", "/mount", ""]);
      assert.deepEqual(logs, [
        {
          message: "unmounted what somebody had mounted inside a volume",
          path: join(path, "some/where"),
        },
      ]);
    });
  });

  it("removes nothing while something is mounted, and names it", async () => {
    await withStage([plugin("x")], async ({ mounter, rootDir, volumes }) => {
      const path = join(rootDir, "pods/u/volumes/test~x/data");
      await mkdir(path, { recursive: true });
      await writeFile(join(path, "precious"), "");
      mounter.mounted.set(path, "tmpfs");
      mounter.unmount = async () => "unmounted";
      await assert.rejects(volumes.tearDown("u", signal), {
        message: `UnmountVolume.TearDown failed for volume "data" : still mounted: ${path}`,
      });
      assert.deepEqual(await readdir(path), ["precious"]);
      await assert.rejects(volumes.removeDirectories("u", signal), /still mounted/);
    });
  });

  it("that hangs holds up one look for a second, and is told when it has lasted half a minute", async () => {
    const hang = Promise.withResolvers<void>();
    const hanging = plugin("x", { tearDown: async () => hang.promise });
    await withStage([hanging], async ({ clock, rootDir, volumes, woken }) => {
      await mkdir(join(rootDir, "pods/u/volumes/test~x/data"), { recursive: true });
      const first = volumes.tearDown("u", signal);
      first.catch(() => undefined);
      await tire(clock);
      const message = 'UnmountVolume.TearDown failed for volume "data" : it is still in progress';
      await assert.rejects(first, { message, news: false });
      clock.advance(30_000);
      await assert.rejects(volumes.tearDown("u", signal), { message, news: true });
      await assert.rejects(volumes.tearDown("u", signal), { message, news: false });
      hang.resolve();
      await until(() => woken.length > 0, "woken");
      await volumes.tearDown("u", signal);
    });
  });

  it("waits for a set-up that does not end, and says which", async () => {
    const hang = Promise.withResolvers<PreparedVolume>();
    const hanging = plugin("x", { setUp: async () => hang.promise });
    await withStage([hanging], async ({ clock, volumes }) => {
      const one = podWith("x");
      const setUp = volumes.setUp(one, addresses, signal);
      await tire(clock);
      await setUp;
      const tearDown = volumes.tearDown(one.metadata.uid, signal);
      tearDown.catch(() => undefined);
      await tire(clock);
      await assert.rejects(tearDown, (error) => {
        assert(error instanceof TearDownError);
        assert.equal(error.message, "still being set up: volumes=[x]");
        return true;
      });
      hang.resolve(prepared("/x"));
      await new Promise((resolve) => setImmediate(resolve));
      await volumes.tearDown(one.metadata.uid, signal);
    });
  });

  it("touches no directory that no pod can have made", async () => {
    await withStage([], async ({ rootDir, volumes }) => {
      assert.deepEqual(await volumes.podsOnDisk(), []);
      const uid = "0b5f5a5e-7f0f-4c8e-9a0e-3f7f0d8d2c11";
      const fromFile = "0b5f5a5e7f0f4c8e9a0e3f7f0d8d2c11";
      for (const name of [uid, fromFile, "lost+found", "backup"]) {
        await mkdir(join(rootDir, "pods", name), { recursive: true });
      }
      assert.deepEqual([...(await volumes.podsOnDisk())].toSorted(), [uid, fromFile].toSorted());
    });
  });
});

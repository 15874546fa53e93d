import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import type {
  ContainerStateWaiting,
  PodSpec,
  Volume,
  VolumeMount,
} from "../../../src/api/types.gen.ts";
import { systemMounter } from "../../../src/kubelet/volumes/mounter.ts";
import { testSignal } from "../runtime/fixture.ts";
import { makeNode, type Node, sleeper } from "./node.ts";

let node: Node;
let directory = "";
before(async () => {
  node = await makeNode();
  directory = await mkdtemp(join(tmpdir(), "host-"));
});
after(async () => {
  await node[Symbol.asyncDispose]();
  for (const { path } of systemMounter.table().below(directory)) {
    await systemMounter.unmount(path, testSignal());
  }
  await rm(directory, { recursive: true, force: true });
});

const user = { runAsUser: 1000, runAsGroup: 1000 };

function mounted(
  volumes: readonly Volume[],
  more: Partial<VolumeMount> = {},
): Pick<PodSpec, "containers" | "volumes"> {
  const volumeMounts = volumes.map(({ name }) => ({ name, mountPath: `/${name}`, ...more }));
  return { volumes: [...volumes], containers: [{ name: "main", volumeMounts }] };
}

function mount(...argv: readonly string[]): void {
  const { status, stderr } = spawnSync("mount", argv, { encoding: "utf8" });
  assert.equal(status, 0, stderr);
}

function waiting(name: string): ContainerStateWaiting | undefined {
  return node.pod(name)?.status?.containerStatuses?.[0]?.state?.waiting;
}

describe("emptyDir", () => {
  it("is everybody's on the disk and in memory, and the group's with an fsGroup", async () => {
    const volumes = [
      { name: "disk", emptyDir: {} },
      { name: "memory", emptyDir: { medium: "Memory", sizeLimit: "1Mi" } },
    ];
    node.put("plain", { ...mounted(volumes), securityContext: user });
    node.put("group", { ...mounted(volumes), securityContext: { ...user, fsGroup: 4000 } });
    await Promise.all([node.ready("plain"), node.ready("group")]);
    const look = "busybox stat -c '%a %u:%g' /disk /memory; touch /disk/f /memory/f && echo made";
    const seen = `${look}; busybox stat -c '%u:%g' /disk/f /memory/f`;
    assert.equal(
      (await node.run("plain", seen)).text,
      "777 0:0\n1777 0:0\nmade\n1000:1000\n1000:1000",
    );
    assert.equal(
      (await node.run("group", seen)).text,
      "2777 0:4000\n3777 0:4000\nmade\n1000:4000\n1000:4000",
    );
    const full = await node.run("plain", "busybox dd if=/dev/zero of=/memory/f bs=1M count=2");
    assert.match(full.text, /No space left on device/);
    const entry = systemMounter
      .table()
      .at(join(node.volumes("plain"), "kubernetes.io~empty-dir/memory"));
    assert.equal(entry?.type, "tmpfs");
    assert(entry.superOptions.includes("size=1024k"));
    const [, major = "0", minor = "0"] =
      /^(\d+)\.(\d+)/.exec(await readFile("/proc/sys/kernel/osrelease", "utf8")) ?? [];
    const swapless = Number(major) * 100 + Number(minor) >= 604;
    assert.equal(entry.superOptions.includes("noswap"), swapless);
    await node.remove("plain");
    await node.remove("group");
  });

  it("keeps what is in it over a crash of a container and a restart of the agent", async () => {
    const volumes = [
      { name: "disk", emptyDir: {} },
      { name: "memory", emptyDir: { medium: "Memory" } },
    ];
    const { containers } = mounted(volumes);
    const script = `for each in disk memory; do echo "$HOSTNAME" >> /$each/runs; busybox chmod 700 /$each; done; ${sleeper[3] ?? ""}`;
    const [main] = containers;
    assert(main !== undefined);
    node.put("crash", {
      volumes,
      containers: [{ ...main, command: [...sleeper.slice(0, 3), script] }],
    });
    await node.ready("crash");
    await node.restart();
    const { runtime } = node.fixture;
    const { containers: records } = await runtime.podRecord(
      node.pod("crash")?.metadata.uid ?? "",
      testSignal(),
    );
    await runtime.stopContainer(records[0]?.id ?? "", 0, testSignal());
    await node.until(
      "it runs again",
      () => node.pod("crash")?.status?.containerStatuses?.[0]?.restartCount === 1,
    );
    await node.ready("crash");
    const { text } = await node.run(
      "crash",
      "busybox wc -l < /disk/runs; busybox wc -l < /memory/runs; busybox stat -c %a /disk /memory",
    );
    // The root's mode is what the container has made of it.
    assert.equal(text, "2\n2\n700\n700");
    await node.remove("crash");
  });

  it("in huge pages is a file system of such pages", async (t) => {
    const names = await readFile("/proc/filesystems", "utf8");
    const pages = await readFile(
      "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
      "utf8",
    ).catch(() => undefined);
    if (!names.includes("hugetlbfs") || pages === undefined) {
      t.skip("this kernel has no pages of 2 MiB");
      return;
    }
    const spec = mounted([{ name: "huge", emptyDir: { medium: "HugePages" } }]);
    const resources = { limits: { "hugepages-2Mi": "4Mi", memory: "64Mi" } };
    const containers = spec.containers.map((each) => ({ ...each, resources }));
    node.put("huge", { ...spec, containers });
    await node.ready("huge");
    const { text } = await node.run(
      "huge",
      "grep ' /huge ' /proc/mounts; busybox stat -c %a /huge",
    );
    assert.match(text, /^nodev \/huge hugetlbfs rw,.*pagesize=2M,size=4194304.*\n1777$/);
    await node.remove("huge");
  });
});

describe("limits on the disk", () => {
  it("end a pod that fills a volume or its writable layer beyond them", async () => {
    const spec = mounted([{ name: "cache", emptyDir: { sizeLimit: "1Mi" } }]);
    const resources = { limits: { "ephemeral-storage": "2Mi" } };
    node.put("volume", spec);
    node.put("layer", { containers: [{ name: "main", resources }] });
    await Promise.all([node.ready("volume"), node.ready("layer")]);
    const fill = "busybox dd if=/dev/zero bs=1M count=4";
    await node.run("volume", `${fill} of=/cache/data`);
    await node.run("layer", `${fill} of=/data`);
    for (const name of ["volume", "layer"]) {
      await node.until(`${name} is evicted`, () => node.pod(name)?.status?.phase === "Failed", 40);
      assert.equal(node.pod(name)?.status?.reason, "Evicted");
    }
    assert.equal(
      node.pod("volume")?.status?.message,
      'Usage of EmptyDir volume "cache" exceeds the limit "1Mi". ',
    );
    assert.equal(
      node.pod("layer")?.status?.message,
      "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ",
    );
    const { runtime } = node.fixture;
    for (const name of ["volume", "layer"]) {
      const uid = node.pod(name)?.metadata.uid ?? "";
      const { containers } = await runtime.podRecord(uid, testSignal());
      assert(containers.every(({ state }) => state.kind === "exited"));
      await node.remove(name);
    }
  });
});

describe("hostPath", () => {
  it("is shown, written to unless read-only, and never removed", async () => {
    const path = join(directory, "data");
    await mkdir(path);
    await writeFile(join(path, "file"), "host");
    const volume = { name: "host", hostPath: { path, type: "Directory" as const } };
    node.put("writer", mounted([volume]));
    node.put("reader", mounted([volume], { readOnly: true }));
    await Promise.all([node.ready("writer"), node.ready("reader")]);
    assert.equal((await node.run("writer", "cat /host/file && echo pod > /host/new")).text, "host");
    const refused = await node.run("reader", "cat /host/new; echo x > /host/no");
    assert.match(refused.text, /^pod\n.*Read-only file system/s);
    await node.remove("writer");
    await node.remove("reader");
    assert.equal(await readFile(join(path, "file"), "utf8"), "host");
    assert.equal(await readFile(join(path, "new"), "utf8"), "pod\n");
  });

  it("of the wrong type keeps the pod waiting, with the reason on it", async () => {
    const path = join(directory, "missing");
    node.put("wrong", mounted([{ name: "host", hostPath: { path, type: "File" } }]));
    const event = `Warning FailedMount MountVolume.SetUp failed for volume "host" : hostPath type check failed: ${path} is not a file`;
    await node.until("it says so", () => node.events.includes(event));
    await node.until("it waits", () => waiting("wrong")?.reason === "ContainerCreating");
    await writeFile(path, "");
    await node.ready("wrong");
    await node.remove("wrong");
  });

  it("shows later mounts of the host with HostToContainer and Bidirectional, and none without", async () => {
    const path = join(directory, "shared");
    await mkdir(join(path, "later"), { recursive: true });
    mount("--bind", path, path);
    mount("--make-shared", path);
    const volume = { name: "host", hostPath: { path } };
    for (const [name, mountPropagation] of [
      ["none", "None"],
      ["down", "HostToContainer"],
      ["both", "Bidirectional"],
    ] as const) {
      node.put(name, mounted([volume], { mountPropagation }));
    }
    for (const name of ["none", "down", "both"]) await node.ready(name);
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", join(path, "later"));
    await writeFile(join(path, "later/file"), "late");
    const seen = async (name: string): Promise<boolean> =>
      (await node.run(name, "cat /host/later/file")).exitCode === 0;
    assert.deepEqual(
      [await seen("none"), await seen("down"), await seen("both")],
      [false, true, true],
    );
    for (const name of ["none", "down", "both"]) await node.remove(name);
    assert.equal(await readFile(join(path, "later/file"), "utf8"), "late", "the host's is left");
  });

  it("on a mount that is not shared refuses Bidirectional with the reason", async () => {
    const path = join(directory, "private");
    await mkdir(path);
    mount("--bind", path, path);
    mount("--make-private", path);
    node.put(
      "private",
      mounted([{ name: "host", hostPath: { path } }], { mountPropagation: "Bidirectional" }),
    );
    const state = await node.until("it waits", () => {
      const now = waiting("private");
      return now?.reason === "ContainerCreating" ? undefined : now;
    });
    assert.match(
      `${state.reason} ${state.message}`,
      /^(Run|Create)ContainerError .*is not a shared mount/,
    );
    await node.remove("private");
  });
});

describe("recursiveReadOnly", () => {
  it("is refused where it must be and cannot, and left out where it need not be", async () => {
    const path = join(directory, "below");
    await mkdir(join(path, "mount"), { recursive: true });
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", join(path, "mount"));
    const { features } = await node.fixture.runtime.connect(testSignal());
    const supported = features.has("recursiveReadOnlyMounts");
    const volume = { name: "host", hostPath: { path } };
    const mode = (recursiveReadOnly: string): Partial<VolumeMount> => ({
      readOnly: true,
      recursiveReadOnly,
    });
    node.put("must", mounted([volume], mode("Enabled")));
    node.put("may", mounted([volume], mode("IfPossible")));
    await node.ready("may");
    const below = await node.run("may", "echo x > /host/mount/file; echo x > /host/file");
    assert.equal(/mount\/file.*Read-only/.test(below.text), supported);
    assert.match(below.text, /\/host\/file: Read-only file system/);
    const status = node.pod("may")?.status?.containerStatuses?.[0]?.volumeMounts?.[0];
    assert.equal(status?.recursiveReadOnly, supported ? "Enabled" : "Disabled");
    if (supported) {
      await node.ready("must");
    } else {
      const state = await node.until("it waits", () => {
        const now = waiting("must");
        return now?.reason === "CreateContainerConfigError" ? now : undefined;
      });
      assert.equal(
        state.message,
        'failed to resolve recursive read-only mode: volume "host" requested recursive read-only mode, but it is not supported by the runtime',
      );
    }
    await node.remove("must");
    await node.remove("may");
  });
});

import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { CgroupError, cgroupTree } from "../../../src/kubelet/cgroups/cgroup-tree.ts";
import { PodCgroups } from "../../../src/kubelet/cgroups/pod-cgroups.ts";
import { bestEffortSettings, kubepodsSettings } from "../../../src/kubelet/cgroups/settings.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { container, pod } from "../../unit/kubelet-pods/builders.ts";

async function withRoot(work: (root: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "remora-cgroup-"));
  try {
    await work(root);
  } finally {
    await rm(root, { recursive: true });
  }
}

/** The kernel fills a new cgroup with its files; here they are laid out before. */
async function lay(directory: string, files: Readonly<Record<string, string>>): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
}

test("v1: each hierarchy gets its own files, and one that is missing is left out", async () => {
  await withRoot(async (root) => {
    await lay(join(root, "cpu/kubepods"), { "cpu.shares": "1024\n", "cpu.cfs_quota_us": "-1\n" });
    await lay(join(root, "memory/kubepods"), { "memory.limit_in_bytes": "9223372036854771712\n" });
    await cgroupTree(root).ensure(
      "kubepods",
      kubepodsSettings({ cpuMilli: 2000, memoryBytes: 4096 }),
    );
    assert.equal(await readFile(join(root, "cpu/kubepods/cpu.shares"), "utf8"), "2048");
    // What the kernel holds already is not written.
    assert.equal(await readFile(join(root, "cpu/kubepods/cpu.cfs_quota_us"), "utf8"), "-1\n");
    assert.equal(
      await readFile(join(root, "memory/kubepods/memory.limit_in_bytes"), "utf8"),
      "4096",
    );
    await assert.rejects(readFile(join(root, "pids/kubepods/pids.max")), { code: "ENOENT" });
  });
});

test("v2: controllers are handed down on the way", async () => {
  await withRoot(async (root) => {
    const above = { "cgroup.controllers": "cpu memory io", "cgroup.subtree_control": "io" };
    await lay(root, above);
    await lay(join(root, "kubepods"), above);
    await lay(join(root, "kubepods/besteffort"), { "cpu.weight": "100\n", "memory.max": "max\n" });
    await cgroupTree(root).ensure("kubepods/besteffort", bestEffortSettings);
    const control = (directory: string): Promise<string> =>
      readFile(join(directory, "cgroup.subtree_control"), "utf8");
    assert.equal(await control(root), "+cpu +memory");
    assert.equal(await control(join(root, "kubepods")), "+cpu +memory");
    assert.equal(await readFile(join(root, "kubepods/besteffort/cpu.weight"), "utf8"), "1");
  });
});

test("v2: single files are written where the cgroup is, or into one that is made for them", async () => {
  await withRoot(async (root) => {
    const above = { "cgroup.controllers": "cpu hugetlb", "cgroup.subtree_control": "cpu" };
    await lay(root, above);
    const tree = cgroupTree(root);
    const file = {
      controller: "hugetlb",
      name: "hugetlb.2MB.max",
      value: "0",
      reads: "0",
    } as const;
    await tree.adjust("kubepods.slice", () => [file]);
    await assert.rejects(stat(join(root, "kubepods.slice")), { code: "ENOENT" });
    await tree.adjust("kubepods.slice", () => [], true);
    await assert.rejects(stat(join(root, "kubepods.slice")), { code: "ENOENT" });
    await tree.adjust("kubepods.slice", () => [file], true);
    assert.equal(await readFile(join(root, "cgroup.subtree_control"), "utf8"), "+hugetlb");
    await lay(join(root, "kubepods.slice"), { "hugetlb.2MB.max": "max\n" });
    await tree.adjust("kubepods.slice", () => [file], true);
    assert.equal(await readFile(join(root, "kubepods.slice/hugetlb.2MB.max"), "utf8"), "0");
  });
});

test("v1: single files are made room for in their own hierarchy only", async () => {
  await withRoot(async (root) => {
    await mkdir(join(root, "hugetlb"));
    const name = "hugetlb.2MB.limit_in_bytes";
    const files = ["hugetlb", "memory"] as const;
    await cgroupTree(root).adjust(
      "kubepods",
      () => files.map((controller) => ({ controller, name, value: "0", reads: "0" })),
      true,
    );
    assert.ok((await stat(join(root, "hugetlb/kubepods"))).isDirectory());
    await assert.rejects(stat(join(root, "memory")), { code: "ENOENT" });
  });
});

test("the memory in use is read where the hierarchy keeps it", async () => {
  const path = "kubepods/pod1/c1";
  const usage = async (root: string): Promise<readonly (number | undefined)[]> => {
    const tree = cgroupTree(root);
    return [await tree.memoryUsage?.(path), await tree.memoryUsage?.("kubepods/gone")];
  };
  await withRoot(async (root) => {
    await lay(root, { "cgroup.controllers": "memory" });
    await lay(join(root, path), { "memory.current": "4096\n" });
    assert.deepEqual(await usage(root), [4096, undefined]);
  });
  await withRoot(async (root) => {
    await lay(join(root, "memory", path), { "memory.usage_in_bytes": "8192\n" });
    assert.deepEqual(await usage(root), [8192, undefined]);
  });
});

test("a value that the kernel refuses is an error that names the file", async () => {
  await withRoot(async (root) => {
    await mkdir(join(root, "cpu/kubepods/cpu.shares"), { recursive: true });
    await assert.rejects(
      cgroupTree(root).ensure("kubepods", bestEffortSettings),
      (error: unknown) =>
        error instanceof CgroupError && /cannot set .*cpu\.shares to 2/.test(error.message),
    );
  });
});

test("pods and tiers: written once, changed with the pods, gone with them", async () => {
  const writes: string[] = [];
  const cgroups = new PodCgroups({
    config: {
      cgroupsPerQOS: true,
      cgroupRoot: "/",
      podPidsLimit: -1,
      kubeReserved: { cpu: "500m" },
      systemReserved: { memory: "1Ki" },
    },
    tree: {
      ensure: async (path, { cpuShares, memoryLimitBytes }) => {
        writes.push(`${path} ${cpuShares} ${memoryLimitBytes ?? "-"}`);
      },
      adjust: async (path, files) => {
        const names = files(2).map(({ name }) => name);
        writes.push(`${path} ${names.join(",")}`);
      },
      remove: async (path) => {
        writes.push(`remove ${path}`);
      },
    },
    runtimeInfo: () => ({ cgroupDriver: "cgroupfs", cgroupVersion: 2 }),
    capacity: () => ({ cpu: "2", memory: "8Ki", "hugepages-2Mi": "0", pods: "110" }),
    logger: silentLogger,
  });
  const taken = (): readonly string[] => writes.splice(0);
  const light = pod({ containers: [container("web", { resources: { requests: { cpu: "1" } } })] });

  assert.equal(cgroups.isCurrent(light), false);
  await cgroups.ensure(light);
  assert.deepEqual(taken(), [
    "kubepods 1536 7168",
    "kubepods/burstable 1024 -",
    "kubepods/besteffort 2 -",
    "kubepods/burstable/poduid-1 1024 -",
  ]);
  assert.equal(cgroups.isCurrent(light), true);

  const heavy = pod({ containers: [container("web", { resources: { requests: { cpu: "2" } } })] });
  assert.equal(cgroups.isCurrent(heavy), false);
  await cgroups.ensure(heavy);
  assert.deepEqual(taken().slice(1), [
    "kubepods/burstable 2048 -",
    "kubepods/besteffort 2 -",
    "kubepods/burstable/poduid-1 2048 -",
  ]);

  await cgroups.adjustContainer(heavy, container("web"), "abc");
  assert.deepEqual(taken(), [
    "kubepods/burstable/poduid-1/abc hugetlb.2MB.max,memory.oom.group",
    "kubepods/burstable/poduid-1 hugetlb.2MB.max",
  ]);

  await cgroups.remove("uid-1", ["kubepods/burstable/poduid-1"]);
  assert.deepEqual(taken().slice(0, 3), [
    "remove kubepods/burstable/poduid-1",
    "kubepods 1536 7168",
    "kubepods/burstable 2 -",
  ]);
});

test("a host whose tree cannot be written lets pods run; a refused value does not", async () => {
  const refusing = (code: string): PodCgroups =>
    new PodCgroups({
      config: {
        cgroupsPerQOS: true,
        cgroupRoot: "/",
        podPidsLimit: -1,
        kubeReserved: {},
        systemReserved: {},
      },
      tree: {
        ensure: async () => {
          const cause = Object.assign(new Error(code), { code });
          throw new CgroupError("cannot make the cgroup", { cause });
        },
        adjust: async () => undefined,
        remove: async () => undefined,
      },
      runtimeInfo: () => ({ cgroupDriver: "cgroupfs", cgroupVersion: 1 }),
      capacity: () => ({}),
      logger: silentLogger,
    });
  await refusing("EROFS").ensure(pod());
  await assert.rejects(refusing("EINVAL").ensure(pod()), CgroupError);
});

test("tiers end up at what all pods ask for, however slow a write is", async () => {
  const held = new Map<string, number>();
  const writing: (() => void)[] = [];
  const cgroups = new PodCgroups({
    config: {
      cgroupsPerQOS: true,
      cgroupRoot: "/",
      podPidsLimit: -1,
      kubeReserved: {},
      systemReserved: {},
    },
    tree: {
      ensure: async (path, { cpuShares }) => {
        // The write that was asked for last is the first to be done.
        await new Promise<void>((resolve) => writing.push(resolve));
        held.set(path, cpuShares);
      },
      adjust: async () => undefined,
      remove: async () => undefined,
    },
    runtimeInfo: () => ({ cgroupDriver: "cgroupfs", cgroupVersion: 2 }),
    capacity: () => ({}),
    logger: silentLogger,
  });
  const asking = (uid: string, cpu: string): ReturnType<typeof pod> => {
    const containers = [container("web", { resources: { requests: { cpu } } })];
    const made = pod({ containers });
    return { ...made, metadata: { ...made.metadata, uid } };
  };
  const both = Promise.all([
    cgroups.ensure(asking("one", "1")),
    cgroups.ensure(asking("two", "2")),
  ]);
  for (let turn = 0; turn < 50; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    writing.pop()?.();
  }
  await both;
  assert.equal(held.get("kubepods/burstable"), 3 * 1024);
});

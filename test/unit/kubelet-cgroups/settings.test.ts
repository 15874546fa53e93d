import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Container, PodSpec } from "../../../src/api/types.gen.ts";
import { cgroupFiles, containerFiles, cpuWeight } from "../../../src/kubelet/cgroups/files.ts";
import {
  bestEffortSettings,
  burstableSettings,
  type CgroupSettings,
  kubepodsSettings,
  podCgroupSettings,
} from "../../../src/kubelet/cgroups/settings.ts";
import {
  changeSlice,
  sliceProperties,
  startSlice,
} from "../../../src/kubelet/cgroups/systemd-slices.ts";
import { cgroupLimits, oomScoreAdj } from "../../../src/kubelet/spec/resources.ts";
import { container, pod } from "../kubelet-pods/builders.ts";

const machine = { hugePageSizes: [2 ** 21], podPidsLimit: -1 };

function sized(name: string, resources: Container["resources"], more: Partial<Container> = {}) {
  return container(name, { ...(resources === undefined ? {} : { resources }), ...more });
}

/** Settings in one line: shares, quota, memory, huge pages of 2 MiB. */
function line(spec: Partial<PodSpec>): string {
  const settings = podCgroupSettings(pod(spec), machine);
  const { cpuQuotaMicros, cpuShares, hugePageLimits, memoryLimitBytes } = settings;
  return [
    cpuShares,
    cpuQuotaMicros ?? "-",
    memoryLimitBytes ?? "-",
    hugePageLimits.get(2 ** 21),
  ].join(" ");
}

const half = { cpu: "500m", memory: "64Mi" };
const mib = 2 ** 20;

const table: readonly (readonly [string, Partial<PodSpec>, string])[] = [
  ["BestEffort gets the least shares and no limit", { containers: [sized("a", {})] }, "2 - - 0"],
  [
    "Guaranteed is limited to the sum",
    { containers: [sized("a", { limits: half }), sized("b", { limits: half })] },
    `1024 100000 ${128 * mib} 0`,
  ],
  [
    "Burstable with every limit set is limited too",
    {
      containers: [
        sized("a", { requests: { cpu: "100m" }, limits: half }),
        sized("b", { requests: { memory: "1Mi" }, limits: half }),
      ],
    },
    `614 100000 ${128 * mib} 0`,
  ],
  [
    "one container without a limit lifts the limit of that resource only",
    { containers: [sized("a", { limits: half }), sized("b", { limits: { memory: "64Mi" } })] },
    `512 - ${128 * mib} 0`,
  ],
  [
    "the larger step of the initialisation counts",
    {
      initContainers: [sized("i", { limits: { cpu: "2", memory: "256Mi" } })],
      containers: [sized("a", { limits: half })],
    },
    `2048 200000 ${256 * mib} 0`,
  ],
  [
    "a sidecar counts beside the containers",
    {
      initContainers: [sized("s", { limits: half }, { restartPolicy: "Always" })],
      containers: [sized("a", { limits: half })],
    },
    `1024 100000 ${128 * mib} 0`,
  ],
  [
    "resources of the pod itself replace the sum and limit containers without limits",
    {
      resources: { requests: { cpu: "1" }, limits: { cpu: "2", memory: "1Gi" } },
      containers: [sized("a", {}), sized("b", { requests: { cpu: "100m" } })],
    },
    `1024 200000 ${1024 * mib} 0`,
  ],
  [
    "overhead is added to shares and to limits that are there",
    {
      overhead: { cpu: "250m", memory: "32Mi" },
      containers: [sized("a", { limits: { memory: "64Mi" }, requests: { cpu: "250m" } })],
    },
    `512 - ${96 * mib} 0`,
  ],
  [
    "huge pages are limited to what is asked for",
    { containers: [sized("a", { limits: { "hugepages-2Mi": "4Mi", ...half } })] },
    `512 50000 ${64 * mib} ${4 * mib}`,
  ],
];

describe("the cgroup of a pod", () => {
  for (const [name, spec, expected] of table) {
    test(name, () => assert.equal(line(spec), expected));
  }

  test("podPidsLimit holds for each pod; -1 is none", () => {
    assert.equal(podCgroupSettings(pod(), machine).pidsLimit, undefined);
    assert.equal(podCgroupSettings(pod(), { ...machine, podPidsLimit: 99 }).pidsLimit, 99);
  });
});

test("tiers: Burstable weighs what its pods ask for, BestEffort the least", () => {
  const burstable = pod({ containers: [sized("a", { requests: { cpu: "250m" } })] });
  const guaranteed = pod({ containers: [sized("a", { limits: half })] });
  assert.equal(burstableSettings([burstable, burstable, guaranteed, pod()]).cpuShares, 512);
  assert.equal(burstableSettings([]).cpuShares, 2);
  assert.equal(bestEffortSettings.cpuShares, 2);
  const all = kubepodsSettings({ cpuMilli: 2000, memoryBytes: 1000 });
  assert.deepEqual([all.cpuShares, all.memoryLimitBytes], [2048, 1000]);
});

test("a container without a limit is held to its pod's, and shares its spare memory for the OOM killer", () => {
  const shared = pod({
    resources: { requests: { memory: "600Mi" }, limits: { cpu: "1", memory: "1Gi" } },
    containers: [
      sized("a", { requests: { memory: "100Mi" } }),
      sized("b", { limits: { cpu: "500m" } }),
    ],
  });
  const [a = container(""), b = container("")] = shared.spec?.containers ?? [];
  assert.deepEqual(cgroupLimits(shared, a), {
    cpuShares: 1024,
    cpuQuotaMicros: 100_000,
    memoryLimitBytes: 1024 * mib,
  });
  assert.equal(cgroupLimits(shared, b).cpuQuotaMicros, 50_000);
  // (600 - 100) / 2 = 250 MiB for each beside its own.
  assert.equal(oomScoreAdj(shared, a, 1000 * mib), 1000 - 350);
  assert.equal(oomScoreAdj(shared, b, 1000 * mib), 1000 - 250);
});

const settings: CgroupSettings = {
  cpuShares: 1024,
  cpuQuotaMicros: 50_000,
  memoryLimitBytes: 100_000_000,
  pidsLimit: 64,
  hugePageLimits: new Map([
    [2 ** 21, 0],
    [2 ** 30, 2 ** 30],
  ]),
};
const free: CgroupSettings = {
  cpuShares: 2,
  cpuQuotaMicros: undefined,
  memoryLimitBytes: undefined,
  pidsLimit: undefined,
  hugePageLimits: new Map(),
};

function written(version: 1 | 2, of: CgroupSettings): readonly string[] {
  return cgroupFiles(of, version).map(({ name, value }) => `${name}=${value}`);
}

test("files of cgroup v1", () => {
  assert.deepEqual(written(1, settings), [
    "cpu.shares=1024",
    "cpu.cfs_period_us=100000",
    "cpu.cfs_quota_us=50000",
    "memory.limit_in_bytes=100000000",
    "pids.max=64",
    "hugetlb.2MB.limit_in_bytes=0",
    "hugetlb.1GB.limit_in_bytes=1073741824",
  ]);
  assert.deepEqual(written(1, free), [
    "cpu.shares=2",
    "cpu.cfs_period_us=100000",
    "cpu.cfs_quota_us=-1",
    "memory.limit_in_bytes=-1",
    "pids.max=max",
  ]);
});

test("files of cgroup v2", () => {
  assert.deepEqual(written(2, settings), [
    "cpu.weight=39",
    "cpu.max=50000 100000",
    "memory.max=100000000",
    "pids.max=64",
    "hugetlb.2MB.max=0",
    "hugetlb.1GB.max=1073741824",
  ]);
  assert.deepEqual(written(2, free), [
    "cpu.weight=1",
    "cpu.max=max 100000",
    "memory.max=max",
    "pids.max=max",
  ]);
  assert.equal(cpuWeight(262_144), 10_000);
});

test("the kernel shows whole pages, and no limit as a number of its own", () => {
  const reads = (of: CgroupSettings): string | undefined =>
    cgroupFiles(of, 1).find(({ controller }) => controller === "memory")?.reads;
  assert.equal(reads(settings), "99999744");
  assert.equal(reads(free), "9223372036854771712");
});

test("containers: processes die together on v2; huge pages on both", () => {
  const pages = new Map([[2 ** 21, 2 ** 22]]);
  assert.deepEqual(
    containerFiles(pages, 2).map(({ name, value }) => `${name}=${value}`),
    ["hugetlb.2MB.max=4194304", "memory.oom.group=1"],
  );
  assert.deepEqual(
    containerFiles(pages, 1).map(({ name, value }) => `${name}=${value}`),
    ["hugetlb.2MB.limit_in_bytes=4194304"],
  );
});

test("slices in systemd's words, on both cgroup versions", () => {
  assert.deepEqual(sliceProperties(settings, 2), [
    ["CPUWeight", "t", "39"],
    ["CPUQuotaPerSecUSec", "t", "500000"],
    ["MemoryMax", "t", "100000000"],
    ["TasksMax", "t", "64"],
  ]);
  assert.deepEqual(sliceProperties(free, 1), [
    ["CPUShares", "t", "2"],
    ["CPUQuotaPerSecUSec", "t", "18446744073709551615"],
    ["MemoryLimit", "t", "18446744073709551615"],
    ["TasksMax", "t", "18446744073709551615"],
  ]);
  const properties = [["CPUShares", "t", "2"]] as const;
  assert.deepEqual(startSlice("kubepods.slice", properties).slice(-14), [
    "ssa(sv)a(sa(sv))",
    "kubepods.slice",
    "replace",
    "3",
    "Description",
    "s",
    "Kubernetes pods: kubepods.slice",
    "DefaultDependencies",
    "b",
    "false",
    "CPUShares",
    "t",
    "2",
    "0",
  ]);
  assert.deepEqual(changeSlice("kubepods.slice", properties).slice(-7), [
    "sba(sv)",
    "kubepods.slice",
    "true",
    "1",
    "CPUShares",
    "t",
    "2",
  ]);
});

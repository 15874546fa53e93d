import type { CgroupSettings } from "./settings.ts";

/** One file to write in a cgroup's directory. */
export interface CgroupFile {
  /** cgroup v1: the hierarchy it is in; v2: the controller that must be enabled. */
  readonly controller: "cpu" | "memory" | "pids" | "hugetlb";
  readonly name: string;
  readonly value: string;
  /** What the kernel shows when it holds already: some files read back other words than were written. */
  readonly reads: string;
}

const periodMicros = 100_000;
const pageBytes = 4096;

/** Page sizes as the kernel names them in file names: `2MB`, `1GB`. */
function pageName(bytes: number): string {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let value = bytes;
  let unit = 0;
  while (value % 1024 === 0 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value}${units[unit] ?? ""}`;
}

/** Weight on cgroup v2 from shares on v1, as the kubelet converts them. */
export function cpuWeight(shares: number): number {
  return Math.floor(1 + ((shares - 2) * 9999) / 262_142);
}

function file(
  controller: CgroupFile["controller"],
  name: string,
  value: string | number,
  reads: string | number = value,
): CgroupFile {
  return { controller, name, value: String(value), reads: String(reads) };
}

/** The largest limit that v1 shows, for "none": what fits a signed 64-bit count of whole pages. */
const noneV1 = "9223372036854771712";

/** Memory limits read back in whole pages. */
function pages(bytes: number | undefined): number | undefined {
  return bytes === undefined ? undefined : Math.floor(bytes / pageBytes) * pageBytes;
}

function filesV1(settings: CgroupSettings): readonly CgroupFile[] {
  const { cpuQuotaMicros, hugePageLimits, memoryLimitBytes, pidsLimit } = settings;
  return [
    file("cpu", "cpu.shares", settings.cpuShares),
    file("cpu", "cpu.cfs_period_us", periodMicros),
    file("cpu", "cpu.cfs_quota_us", cpuQuotaMicros ?? -1),
    file(
      "memory",
      "memory.limit_in_bytes",
      memoryLimitBytes ?? -1,
      pages(memoryLimitBytes) ?? noneV1,
    ),
    file("pids", "pids.max", pidsLimit ?? "max"),
    ...hugePageFiles(hugePageLimits, 1),
  ];
}

function filesV2(settings: CgroupSettings): readonly CgroupFile[] {
  const { cpuQuotaMicros, hugePageLimits, memoryLimitBytes, pidsLimit } = settings;
  return [
    file("cpu", "cpu.weight", cpuWeight(settings.cpuShares)),
    file("cpu", "cpu.max", `${cpuQuotaMicros ?? "max"} ${periodMicros}`),
    file("memory", "memory.max", memoryLimitBytes ?? "max", pages(memoryLimitBytes) ?? "max"),
    file("pids", "pids.max", pidsLimit ?? "max"),
    ...hugePageFiles(hugePageLimits, 2),
  ];
}

/** The files that hold a cgroup to its settings. Pure. */
export function cgroupFiles(settings: CgroupSettings, version: 1 | 2): readonly CgroupFile[] {
  return version === 1 ? filesV1(settings) : filesV2(settings);
}

/** The files of huge pages alone: neither the engine nor systemd knows them. */
export function hugePageFiles(
  limits: ReadonlyMap<number, number>,
  version: 1 | 2,
): readonly CgroupFile[] {
  const suffix = version === 1 ? "limit_in_bytes" : "max";
  return [...limits].map(([size, bytes]) =>
    file("hugetlb", `hugetlb.${pageName(size)}.${suffix}`, bytes),
  );
}

/** What the engine cannot be told about one container: huge pages, and that its processes die together (v2). */
export function containerFiles(
  hugePageLimits: ReadonlyMap<number, number>,
  version: 1 | 2,
): readonly CgroupFile[] {
  return [
    ...hugePageFiles(hugePageLimits, version),
    ...(version === 2 ? [file("memory", "memory.oom.group", 1)] : []),
  ];
}

import {
  type InterfaceCounters,
  parseCount,
  parseNetDev,
  parsePressure,
  type Pressure,
  statValue,
} from "./cgroup-text.ts";
import type { CgroupUsage, Level } from "./cgroup.ts";
import type { KernelFiles } from "./kernel-files.ts";

/** The whole machine. */
export interface NodeUsage extends CgroupUsage {
  readonly totalMemoryBytes: number;
  readonly totalSwapBytes: number;
  /** From level `summary` on, as the rest. */
  readonly interfaces: readonly InterfaceCounters[];
  readonly tasks: number | undefined;
  readonly maxTasks: number | undefined;
}

/** procfs counts CPU time in these (USER_HZ; the same on every architecture that we run on). */
const tickNs = 10_000_000;

/** Value of a line of /proc/meminfo or /proc/PID/status, bytes. */
function meminfo(text: string, name: string): number {
  const match = new RegExp(`^${name.replaceAll(/[()]/g, String.raw`\$&`)}:\\s+(\\d+)`, "m").exec(
    text,
  );
  return Number(match?.[1] ?? 0) * 1024;
}

/** Swap that the machine has, bytes. */
export function swapTotal(files: KernelFiles): number {
  return meminfo(files.text("/proc/meminfo") ?? "", "SwapTotal");
}

/** When the machine was started, milliseconds since the epoch. */
export function bootTimeMs(files: KernelFiles): number {
  return (statValue(files.text("/proc/stat") ?? "", "btime") ?? 0) * 1000;
}

interface CpuTicks {
  readonly user: number;
  readonly system: number;
}

function cpuTicks(stat: string): CpuTicks {
  // cpu user nice system idle iowait irq softirq steal guest guest_nice; guests are counted in user already.
  const fields = (stat.split("\n", 1)[0] ?? "").trim().split(/\s+/).slice(1).map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields;
  return { user: user + nice, system: system + irq + softirq };
}

function pressure(files: KernelFiles, name: string): Pressure | undefined {
  return parsePressure(files.text(`/proc/pressure/${name}`));
}

/**
 * The machine as procfs counts it: right also where this process is in a cgroup namespace, and the same on v1 and v2.
 * Memory in use is anonymous and file pages, as the kernel counts it for cgroups.
 */
export function readNode(files: KernelFiles, level: Level, nowMs: number): NodeUsage {
  const ticks = cpuTicks(files.text("/proc/stat") ?? "");
  const memory = files.text("/proc/meminfo") ?? "";
  const of = (name: string): number => meminfo(memory, name);
  const cacheBytes = of("Cached") + of("Buffers") + of("SwapCached");
  const memoryBytes = of("AnonPages") + cacheBytes;
  const inactiveFileBytes = of("Inactive(file)");
  const totalMemoryBytes = of("MemTotal");
  const totalSwapBytes = of("SwapTotal");
  const base = {
    timeMs: nowMs,
    cpuNs: (ticks.user + ticks.system) * tickNs,
    memoryBytes,
    workingSetBytes: Math.max(memoryBytes - inactiveFileBytes, 0),
    swapBytes: totalSwapBytes - of("SwapFree"),
    swapLimitBytes: totalSwapBytes,
    totalMemoryBytes,
    totalSwapBytes,
  };
  if (level === "resource") {
    return { ...base, interfaces: [], tasks: undefined, maxTasks: undefined };
  }
  const vmstat = files.text("/proc/vmstat") ?? "";
  const faults = statValue(vmstat, "pgfault") ?? 0;
  const majorFaults = statValue(vmstat, "pgmajfault") ?? 0;
  return {
    ...base,
    more: {
      rssBytes: of("AnonPages"),
      pageFaults: faults,
      majorPageFaults: majorFaults,
      memoryLimitBytes: totalMemoryBytes,
      cpuPressure: pressure(files, "cpu"),
      memoryPressure: pressure(files, "memory"),
      ioPressure: pressure(files, "io"),
    },
    detail: {
      cpuUserNs: ticks.user * tickNs,
      cpuSystemNs: ticks.system * tickNs,
      throttling: undefined,
      cpuShares: undefined,
      cpuPeriodMicros: undefined,
      cpuQuotaMicros: undefined,
      cacheBytes,
      mappedFileBytes: of("Mapped"),
      activeFileBytes: of("Active(file)"),
      inactiveFileBytes,
      kernelBytes: of("Slab") + of("KernelStack") + of("PageTables"),
      maxMemoryBytes: undefined,
      limitHits: 0,
      oomKills: statValue(vmstat, "oom_kill") ?? 0,
      allPageFaults: faults,
      allMajorPageFaults: majorFaults,
      memoryReservationBytes: undefined,
      threads: undefined,
      maxThreads: undefined,
      io: [],
    },
    interfaces: parseNetDev(files.text("/proc/self/net/dev")),
    ...tasksOf(files),
  };
}

function tasksOf(files: KernelFiles): Pick<NodeUsage, "maxTasks" | "tasks"> {
  const tasks = parseCount(/\/(\d+) /.exec(files.text("/proc/loadavg") ?? "")?.[1]);
  const limits = ["pid_max", "threads-max"].flatMap(
    (name) => parseCount(files.text(`/proc/sys/kernel/${name}`)) ?? [],
  );
  return { tasks, maxTasks: limits.length === 0 ? undefined : Math.min(...limits) };
}

/** One process that has no cgroup of its own. */
export interface ProcessUsage extends CgroupUsage {
  readonly startedAtMs: number;
}

/** Undefined when it has ended. */
export function readProcess(
  files: KernelFiles,
  pid: number | "self",
  bootMs: number,
  nowMs: number,
): ProcessUsage | undefined {
  const text = files.text(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // The name may hold spaces and brackets; fields are counted from behind it, the first is number 3 of proc(5).
  const fields = text
    .slice(text.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
  const field = (number: number): number => fields[number - 3] ?? 0;
  const rssBytes = meminfo(files.text(`/proc/${pid}/status`) ?? "", "VmRSS");
  return {
    timeMs: nowMs,
    startedAtMs: bootMs + field(22) * 10,
    cpuNs: (field(14) + field(15)) * tickNs,
    memoryBytes: rssBytes,
    workingSetBytes: rssBytes,
    swapBytes: 0,
    swapLimitBytes: undefined,
    more: {
      rssBytes,
      pageFaults: field(10) + field(12),
      majorPageFaults: field(12),
      memoryLimitBytes: undefined,
      cpuPressure: undefined,
      memoryPressure: undefined,
      ioPressure: undefined,
    },
  };
}

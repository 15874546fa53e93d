import {
  type DeviceIO,
  parseBlkio,
  parseCount,
  parseIoStat,
  parseLimit,
  parsePressure,
  type Pressure,
  statValue,
} from "./cgroup-text.ts";
import type { KernelFiles, OpenFile } from "./kernel-files.ts";

/** How much is read: each level holds all that the one before does. */
export type Level = "resource" | "summary" | "cadvisor";

/** One look at one cgroup. Counters are since it was made. */
export interface CgroupUsage {
  /** When it was read, milliseconds since the epoch. */
  readonly timeMs: number;
  readonly cpuNs: number;
  readonly memoryBytes: number;
  /** Memory in use without the file pages that could be dropped at once. */
  readonly workingSetBytes: number;
  readonly swapBytes: number;
  /** What it may swap at most; undefined for no limit. */
  readonly swapLimitBytes: number | undefined;
  /** From level `summary` on. */
  readonly more?: CgroupMore;
  /** Level `cadvisor`. */
  readonly detail?: CgroupDetail;
}

export interface CgroupMore {
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  readonly memoryLimitBytes: number | undefined;
  /** Absent where the kernel keeps none: cgroup v1, or without CONFIG_PSI. */
  readonly cpuPressure: Pressure | undefined;
  readonly memoryPressure: Pressure | undefined;
  readonly ioPressure: Pressure | undefined;
}

export interface CgroupDetail {
  readonly cpuUserNs: number;
  readonly cpuSystemNs: number;
  /** How quotas were enforced; undefined without a quota. */
  readonly throttling: Throttling | undefined;
  /** cgroup v1 scale, 1024 = one CPU. */
  readonly cpuShares: number | undefined;
  readonly cpuPeriodMicros: number | undefined;
  readonly cpuQuotaMicros: number | undefined;
  readonly cacheBytes: number;
  readonly mappedFileBytes: number;
  readonly activeFileBytes: number;
  readonly inactiveFileBytes: number;
  readonly kernelBytes: number;
  /** Undefined where the kernel does not keep it (v2 before 5.19). */
  readonly maxMemoryBytes: number | undefined;
  readonly limitHits: number;
  readonly oomKills: number;
  /** Of the cgroup itself; {@link CgroupMore} has those of everything below it too. */
  readonly ownPageFaults: number;
  readonly ownMajorPageFaults: number;
  readonly memoryReservationBytes: number | undefined;
  readonly threads: number | undefined;
  readonly maxThreads: number | undefined;
  readonly io: readonly DeviceIO[];
}

export interface Throttling {
  readonly periods: number;
  readonly throttledPeriods: number;
  readonly throttledNs: number;
  readonly burstPeriods: number;
  readonly burstNs: number;
}

/** Directories of one cgroup, by controller; with v2 all are the same. */
export type CgroupDirectory = (
  controller: "cpu" | "cpuacct" | "memory" | "pids" | "blkio",
) => string;

/** A cgroup that is looked at again and again: what every look needs stays open. */
export interface Cgroup {
  /** Undefined when it has gone. */
  read(level: Level, nowMs: number): CgroupUsage | undefined;
  close(): void;
}

interface CgroupOptions {
  readonly files: KernelFiles;
  readonly directory: CgroupDirectory;
  /** Without swap in the machine nothing about it is read. */
  readonly swap: boolean;
}

/** Opens on first use, and closes all at once. */
class KeptFiles {
  readonly #files: KernelFiles;
  readonly #open = new Map<string, OpenFile>();

  constructor(files: KernelFiles) {
    this.#files = files;
  }

  text(path: string): string | undefined {
    let file = this.#open.get(path);
    if (file === undefined) {
      file = this.#files.open(path);
      if (file === undefined) return undefined;
      this.#open.set(path, file);
    }
    return file.text();
  }

  close(): void {
    for (const file of this.#open.values()) file.close();
    this.#open.clear();
  }
}

const nanosPerMicro = 1000;

/** One cgroup of the unified hierarchy. */
export function cgroupV2({ directory, files, swap }: CgroupOptions): Cgroup {
  const kept = new KeptFiles(files);
  const at = directory("memory");
  const text = (name: string): string | undefined => files.text(`${at}/${name}`);
  const more = (stat: string): CgroupMore => ({
    rssBytes: statValue(stat, "anon") ?? 0,
    pageFaults: statValue(stat, "pgfault") ?? 0,
    majorPageFaults: statValue(stat, "pgmajfault") ?? 0,
    memoryLimitBytes: parseLimit(text("memory.max")),
    cpuPressure: parsePressure(text("cpu.pressure")),
    memoryPressure: parsePressure(text("memory.pressure")),
    ioPressure: parsePressure(text("io.pressure")),
  });
  const detail = (stat: string, cpu: string): CgroupDetail => {
    const [quota = "max", period] = (text("cpu.max") ?? "max").trim().split(" ");
    const events = text("memory.events") ?? "";
    const weight = parseCount(text("cpu.weight"));
    const micros = (key: string): number => (statValue(cpu, key) ?? 0) * nanosPerMicro;
    return {
      cpuUserNs: micros("user_usec"),
      cpuSystemNs: micros("system_usec"),
      throttling:
        quota === "max"
          ? undefined
          : {
              periods: statValue(cpu, "nr_periods") ?? 0,
              throttledPeriods: statValue(cpu, "nr_throttled") ?? 0,
              throttledNs: micros("throttled_usec"),
              burstPeriods: statValue(cpu, "nr_bursts") ?? 0,
              burstNs: micros("burst_usec"),
            },
      cpuShares: weight === undefined ? undefined : sharesOfWeight(weight),
      cpuPeriodMicros: parseCount(period),
      cpuQuotaMicros: parseLimit(quota),
      cacheBytes: statValue(stat, "file") ?? 0,
      mappedFileBytes: statValue(stat, "file_mapped") ?? 0,
      activeFileBytes: statValue(stat, "active_file") ?? 0,
      inactiveFileBytes: statValue(stat, "inactive_file") ?? 0,
      kernelBytes: statValue(stat, "kernel") ?? 0,
      maxMemoryBytes: parseCount(text("memory.peak")),
      limitHits: statValue(events, "max") ?? 0,
      oomKills: statValue(events, "oom_kill") ?? 0,
      // The unified hierarchy counts everything below too, and has no other figure.
      ownPageFaults: statValue(stat, "pgfault") ?? 0,
      ownMajorPageFaults: statValue(stat, "pgmajfault") ?? 0,
      memoryReservationBytes: parseLimit(text("memory.min")),
      threads: parseCount(text("pids.current")),
      maxThreads: parseLimit(text("pids.max")),
      io: parseIoStat(text("io.stat")),
    };
  };
  return {
    read(level, timeMs) {
      const cpu = kept.text(`${at}/cpu.stat`);
      const memoryBytes = parseCount(kept.text(`${at}/memory.current`));
      const stat = kept.text(`${at}/memory.stat`);
      if (cpu === undefined || memoryBytes === undefined || stat === undefined) return undefined;
      return {
        timeMs,
        cpuNs: (statValue(cpu, "usage_usec") ?? 0) * nanosPerMicro,
        memoryBytes,
        workingSetBytes: Math.max(memoryBytes - (statValue(stat, "inactive_file") ?? 0), 0),
        swapBytes: swap ? (parseCount(text("memory.swap.current")) ?? 0) : 0,
        swapLimitBytes: swap ? parseLimit(text("memory.swap.max")) : 0,
        ...(level === "resource" ? {} : { more: more(stat) }),
        ...(level === "cadvisor" ? { detail: detail(stat, cpu) } : {}),
      };
    },
    close: () => kept.close(),
  };
}

/** The v1 scale of a v2 weight, as cAdvisor shows it. */
function sharesOfWeight(weight: number): number {
  return Math.floor(2 + ((weight - 1) * 262_142) / 9999);
}

/** One cgroup of the hierarchies of v1. */
export function cgroupV1({ directory, files, swap }: CgroupOptions): Cgroup {
  const kept = new KeptFiles(files);
  const memory = directory("memory");
  const text = (controller: Parameters<CgroupDirectory>[0], name: string): string | undefined =>
    files.text(`${directory(controller)}/${name}`);
  const limit = (name: string): number | undefined => parseLimit(text("memory", name));
  const swapLimit = (): number | undefined => {
    const both = limit("memory.memsw.limit_in_bytes");
    const own = limit("memory.limit_in_bytes");
    return both === undefined || own === undefined ? undefined : both - own;
  };
  const more = (stat: string): CgroupMore => ({
    rssBytes: statValue(stat, "total_rss") ?? 0,
    pageFaults: statValue(stat, "total_pgfault") ?? 0,
    majorPageFaults: statValue(stat, "total_pgmajfault") ?? 0,
    memoryLimitBytes: limit("memory.limit_in_bytes"),
    cpuPressure: undefined,
    memoryPressure: undefined,
    ioPressure: undefined,
  });
  const detail = (stat: string): CgroupDetail => {
    const quota = parseLimit(text("cpu", "cpu.cfs_quota_us"));
    const cpu = quota === undefined ? "" : (text("cpu", "cpu.stat") ?? "");
    const bytes = (key: string): number => statValue(stat, key) ?? 0;
    return {
      cpuUserNs: parseCount(text("cpuacct", "cpuacct.usage_user")) ?? 0,
      cpuSystemNs: parseCount(text("cpuacct", "cpuacct.usage_sys")) ?? 0,
      throttling:
        quota === undefined
          ? undefined
          : {
              periods: statValue(cpu, "nr_periods") ?? 0,
              throttledPeriods: statValue(cpu, "nr_throttled") ?? 0,
              throttledNs: statValue(cpu, "throttled_time") ?? 0,
              burstPeriods: statValue(cpu, "nr_bursts") ?? 0,
              burstNs: statValue(cpu, "burst_time") ?? 0,
            },
      cpuShares: parseCount(text("cpu", "cpu.shares")),
      cpuPeriodMicros: parseCount(text("cpu", "cpu.cfs_period_us")),
      cpuQuotaMicros: quota,
      cacheBytes: bytes("total_cache"),
      mappedFileBytes: bytes("total_mapped_file"),
      activeFileBytes: bytes("total_active_file"),
      inactiveFileBytes: bytes("total_inactive_file"),
      kernelBytes: parseCount(text("memory", "memory.kmem.usage_in_bytes")) ?? 0,
      maxMemoryBytes: parseCount(text("memory", "memory.max_usage_in_bytes")),
      limitHits: parseCount(text("memory", "memory.failcnt")) ?? 0,
      oomKills: statValue(text("memory", "memory.oom_control") ?? "", "oom_kill") ?? 0,
      ownPageFaults: bytes("pgfault"),
      ownMajorPageFaults: bytes("pgmajfault"),
      memoryReservationBytes: limit("memory.soft_limit_in_bytes"),
      threads: parseCount(text("pids", "pids.current")),
      maxThreads: parseLimit(text("pids", "pids.max")),
      io: parseBlkio(
        text("blkio", "blkio.throttle.io_service_bytes"),
        text("blkio", "blkio.throttle.io_serviced"),
      ),
    };
  };
  return {
    read(level, timeMs) {
      const cpuNs = parseCount(kept.text(`${directory("cpuacct")}/cpuacct.usage`));
      const memoryBytes = parseCount(kept.text(`${memory}/memory.usage_in_bytes`));
      const stat = kept.text(`${memory}/memory.stat`);
      if (cpuNs === undefined || memoryBytes === undefined || stat === undefined) return undefined;
      const inactive = statValue(stat, "total_inactive_file") ?? 0;
      return {
        timeMs,
        cpuNs,
        memoryBytes,
        workingSetBytes: Math.max(memoryBytes - inactive, 0),
        swapBytes: swap ? (statValue(stat, "total_swap") ?? 0) : 0,
        swapLimitBytes: swap ? swapLimit() : 0,
        ...(level === "resource" ? {} : { more: more(stat) }),
        ...(level === "cadvisor" ? { detail: detail(stat) } : {}),
      };
    },
    close: () => kept.close(),
  };
}

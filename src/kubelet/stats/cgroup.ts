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
  /** v1 counts those of the cgroup itself, as upstream shows them; v2 has but one figure, for all below it too. */
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
  /** With those of everything below it. */
  readonly allPageFaults: number;
  readonly allMajorPageFaults: number;
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

const controllers = ["cpu", "cpuacct", "memory", "pids", "blkio"] as const;

/** Directories of one cgroup, by controller; with v2 all are the same. */
export type CgroupDirectory = (controller: (typeof controllers)[number]) => string;

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

/** Files of one cgroup by their names; opens them on first use, and closes all at once. */
class KeptFiles {
  readonly #files: KernelFiles;
  readonly #directory: CgroupDirectory;
  readonly #open = new Map<string, OpenFile>();

  constructor({ directory, files }: CgroupOptions) {
    this.#files = files;
    this.#directory = directory;
  }

  /** What every look needs. */
  kept(name: string): string | undefined {
    return this.#file(name)?.text();
  }

  count(name: string): number | undefined {
    return this.#file(name)?.count();
  }

  value(name: string, key: string): number | undefined {
    return this.#file(name)?.value(key);
  }

  #file(name: string): OpenFile | undefined {
    const known = this.#open.get(name);
    if (known !== undefined) return known;
    const file = this.#files.open(this.#path(name));
    if (file !== undefined) this.#open.set(name, file);
    return file;
  }

  /** What few looks need. */
  once(name: string): string | undefined {
    return this.#files.text(this.#path(name));
  }

  close(): void {
    for (const file of this.#open.values()) file.close();
    this.#open.clear();
  }

  /** The part before the dot is the controller; pressure is in the unified hierarchy, where it does not matter. */
  #path(name: string): string {
    const prefix = name.slice(0, name.indexOf("."));
    const controller = controllers.find((known) => known === prefix) ?? "memory";
    return `${this.#directory(controller)}/${name}`;
  }
}

/** What of memory.stat is shown. */
interface Pages {
  readonly inactiveBytes: number;
  readonly swapBytes: number;
  readonly rssBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
}

/**
 * Remembers what memory.stat said, which costs the kernel five times as much as both counters together. A cgroup that has
 * not run since, and uses as many bytes as before, has its pages where they were.
 */
class Unmoved<T> {
  #cpu = -1;
  #memoryBytes = -1;
  #value: T | undefined;

  of(cpu: number, memoryBytes: number, read: () => T | undefined): T | undefined {
    if (cpu !== this.#cpu || memoryBytes !== this.#memoryBytes || this.#value === undefined) {
      this.#value = read();
      this.#cpu = cpu;
      this.#memoryBytes = memoryBytes;
    }
    return this.#value;
  }
}

/** Reads memory.stat as far as a level shows it. */
class PageReader {
  readonly #files: KeptFiles;
  readonly #keys: Readonly<Record<keyof Pages, string>>;
  /** Swap is shown at every level. */
  readonly #swap: boolean;
  readonly #inactive = new Unmoved<number>();
  readonly #all = new Unmoved<Pages>();

  constructor(files: KeptFiles, keys: Readonly<Record<keyof Pages, string>>, swap: boolean) {
    this.#files = files;
    this.#keys = keys;
    this.#swap = swap;
  }

  /** Undefined when the cgroup has gone. */
  read(level: Level, cpu: number, memoryBytes: number): Pages | undefined {
    if (level !== "resource" || this.#swap) {
      return this.#all.of(cpu, memoryBytes, () => this.#parse());
    }
    const inactiveBytes = this.#inactive.of(cpu, memoryBytes, () =>
      this.#files.value("memory.stat", this.#keys.inactiveBytes),
    );
    if (inactiveBytes === undefined) return undefined;
    return { inactiveBytes, swapBytes: 0, rssBytes: 0, pageFaults: 0, majorPageFaults: 0 };
  }

  #parse(): Pages | undefined {
    const stat = this.#files.kept("memory.stat");
    if (stat === undefined) return undefined;
    const keys = this.#keys;
    return {
      inactiveBytes: statValue(stat, keys.inactiveBytes) ?? 0,
      swapBytes: statValue(stat, keys.swapBytes) ?? 0,
      rssBytes: statValue(stat, keys.rssBytes) ?? 0,
      pageFaults: statValue(stat, keys.pageFaults) ?? 0,
      majorPageFaults: statValue(stat, keys.majorPageFaults) ?? 0,
    };
  }
}

const v1Keys = {
  inactiveBytes: "total_inactive_file",
  swapBytes: "total_swap",
  rssBytes: "total_rss",
  pageFaults: "pgfault",
  majorPageFaults: "pgmajfault",
} as const;

const v2Keys = { ...v1Keys, inactiveBytes: "inactive_file", rssBytes: "anon" } as const;

const nanosPerMicro = 1000;

/** One cgroup of the unified hierarchy. */
export function cgroupV2(options: CgroupOptions): Cgroup {
  const files = new KeptFiles(options);
  const { swap } = options;
  const pagesOf = new PageReader(files, v2Keys, false);
  const kept = (name: string): string | undefined => files.kept(name);
  const text = (name: string): string | undefined => files.once(name);
  const more = ({ majorPageFaults, pageFaults, rssBytes }: Pages): CgroupMore => ({
    rssBytes,
    pageFaults,
    majorPageFaults,
    memoryLimitBytes: parseLimit(kept("memory.max")),
    cpuPressure: parsePressure(kept("cpu.pressure")),
    memoryPressure: parsePressure(kept("memory.pressure")),
    ioPressure: parsePressure(kept("io.pressure")),
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
      allPageFaults: statValue(stat, "pgfault") ?? 0,
      allMajorPageFaults: statValue(stat, "pgmajfault") ?? 0,
      memoryReservationBytes: parseLimit(text("memory.min")),
      threads: parseCount(text("pids.current")),
      maxThreads: parseLimit(text("pids.max")),
      io: parseIoStat(text("io.stat")),
    };
  };
  return {
    read(level, timeMs) {
      const cpuMicros = files.value("cpu.stat", "usage_usec");
      const memoryBytes = files.count("memory.current");
      if (cpuMicros === undefined || memoryBytes === undefined) return undefined;
      const pages = pagesOf.read(level, cpuMicros, memoryBytes);
      if (pages === undefined) return undefined;
      return {
        timeMs,
        cpuNs: cpuMicros * nanosPerMicro,
        memoryBytes,
        workingSetBytes: Math.max(memoryBytes - pages.inactiveBytes, 0),
        swapBytes: swap ? (files.count("memory.swap.current") ?? 0) : 0,
        swapLimitBytes: swap ? parseLimit(kept("memory.swap.max")) : 0,
        ...(level === "resource" ? {} : { more: more(pages) }),
        ...(level === "cadvisor"
          ? { detail: detail(kept("memory.stat") ?? "", kept("cpu.stat") ?? "") }
          : {}),
      };
    },
    close: () => files.close(),
  };
}

/** The v1 scale of a v2 weight, as cAdvisor shows it. */
function sharesOfWeight(weight: number): number {
  return Math.floor(2 + ((weight - 1) * 262_142) / 9999);
}

/** One cgroup of the hierarchies of v1. */
export function cgroupV1(options: CgroupOptions): Cgroup {
  const files = new KeptFiles(options);
  const { swap } = options;
  const pagesOf = new PageReader(files, v1Keys, swap);
  const kept = (name: string): string | undefined => files.kept(name);
  const text = (name: string): string | undefined => files.once(name);
  const limit = (name: string): number | undefined => parseLimit(text(name));
  const swapLimit = (): number | undefined => {
    const both = limit("memory.memsw.limit_in_bytes");
    const own = limit("memory.limit_in_bytes");
    return both === undefined || own === undefined ? undefined : both - own;
  };
  const more = ({ majorPageFaults, pageFaults, rssBytes }: Pages): CgroupMore => ({
    rssBytes,
    pageFaults,
    majorPageFaults,
    memoryLimitBytes: parseLimit(kept("memory.limit_in_bytes")),
    cpuPressure: undefined,
    memoryPressure: undefined,
    ioPressure: undefined,
  });
  const detail = (stat: string): CgroupDetail => {
    const quota = parseLimit(text("cpu.cfs_quota_us"));
    const cpu = quota === undefined ? "" : (text("cpu.stat") ?? "");
    const bytes = (key: string): number => statValue(stat, key) ?? 0;
    return {
      cpuUserNs: parseCount(text("cpuacct.usage_user")) ?? 0,
      cpuSystemNs: parseCount(text("cpuacct.usage_sys")) ?? 0,
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
      cpuShares: parseCount(text("cpu.shares")),
      cpuPeriodMicros: parseCount(text("cpu.cfs_period_us")),
      cpuQuotaMicros: quota,
      cacheBytes: bytes("total_cache"),
      mappedFileBytes: bytes("total_mapped_file"),
      activeFileBytes: bytes("total_active_file"),
      inactiveFileBytes: bytes("total_inactive_file"),
      kernelBytes: parseCount(text("memory.kmem.usage_in_bytes")) ?? 0,
      maxMemoryBytes: parseCount(text("memory.max_usage_in_bytes")),
      limitHits: parseCount(text("memory.failcnt")) ?? 0,
      oomKills: statValue(text("memory.oom_control") ?? "", "oom_kill") ?? 0,
      allPageFaults: bytes("total_pgfault"),
      allMajorPageFaults: bytes("total_pgmajfault"),
      memoryReservationBytes: limit("memory.soft_limit_in_bytes"),
      threads: parseCount(text("pids.current")),
      maxThreads: parseLimit(text("pids.max")),
      io: parseBlkio(text("blkio.throttle.io_service_bytes"), text("blkio.throttle.io_serviced")),
    };
  };
  return {
    read(level, timeMs) {
      const cpuNs = files.count("cpuacct.usage");
      const memoryBytes = files.count("memory.usage_in_bytes");
      if (cpuNs === undefined || memoryBytes === undefined) return undefined;
      const pages = pagesOf.read(level, cpuNs, memoryBytes);
      if (pages === undefined) return undefined;
      return {
        timeMs,
        cpuNs,
        memoryBytes,
        workingSetBytes: Math.max(memoryBytes - pages.inactiveBytes, 0),
        swapBytes: pages.swapBytes,
        swapLimitBytes: swap ? swapLimit() : 0,
        ...(level === "resource" ? {} : { more: more(pages) }),
        ...(level === "cadvisor" ? { detail: detail(kept("memory.stat") ?? "") } : {}),
      };
    },
    close: () => files.close(),
  };
}

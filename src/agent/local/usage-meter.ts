import { statfs } from "node:fs/promises";

import { type InterfaceCounters, parseNetDev } from "../../kubelet/stats/cgroup-text.ts";
import type { KernelFiles } from "../../kubelet/stats/kernel-files.ts";
import type { Statistics } from "../../kubelet/stats/statistics.ts";
import type { Clock } from "../../lib/clock.ts";
import type { UsageSummary } from "./types.ts";

/** What a pod uses: cores and bytes. */
export interface PodUsage {
  readonly cpu: number | undefined;
  readonly memory: number | undefined;
}

export interface Usage {
  readonly node: UsageSummary;
  /** By uid. */
  readonly pods: ReadonlyMap<string, PodUsage>;
}

export interface UsageMeterOptions {
  readonly statistics: Pick<Statistics, "summary">;
  readonly files: KernelFiles;
  /** On the file system that is looked at. */
  readonly directory: string;
  readonly clock: Clock;
}

/** Counters of the machine. */
interface Reading {
  /** Monotonic milliseconds. */
  readonly at: number;
  readonly busyTicks: number;
  readonly allTicks: number;
  readonly cpus: number;
  readonly received: number;
  readonly sent: number;
}

/** Rates over less say more of the reader than of the machine. */
const shortestMs = 200;
/** What happened before somebody looked is not what happens now. */
const longestMs = 30_000;

/** Ticks of all processors since the start, of which busy; proc_stat(5). */
export function cpuTicks(stat: string): Pick<Reading, "busyTicks" | "allTicks" | "cpus"> {
  // cpu user nice system idle iowait irq softirq steal; what guests use is counted in user.
  const [first = ""] = stat.split("\n", 1);
  const fields = first.trim().split(/\s+/).slice(1, 9).map(Number);
  const allTicks = fields.reduce((sum, ticks) => sum + ticks, 0);
  const [, , , idle = 0, iowait = 0] = fields;
  return {
    busyTicks: allTicks - idle - iowait,
    allTicks,
    cpus: stat.match(/^cpu\d/gm)?.length ?? 1,
  };
}

/**
 * Of a machine's interfaces those that lead out of it: with hardware behind them, or, where there is none, all that are
 * neither bridges nor parts of others.
 */
export function ownInterfaces(
  all: readonly InterfaceCounters[],
  files: KernelFiles,
): readonly InterfaceCounters[] {
  const has = (name: string, entry: string): boolean =>
    files.names(`/sys/class/net/${name}`).includes(entry);
  const hardware = all.filter(({ name }) => has(name, "device"));
  if (hardware.length > 0) return hardware;
  return all.filter(({ name }) => !has(name, "bridge") && !has(name, "master"));
}

/** How much of the machine and of each pod is in use. Reads when it is asked; of former readings it keeps one. */
export class UsageMeter {
  readonly #options: UsageMeterOptions;
  #before: Reading | undefined;

  constructor(options: UsageMeterOptions) {
    this.#options = options;
  }

  /** Rates are since the call before, if that was a moment ago; else over a fifth of a second, which it waits. */
  async read(signal: AbortSignal): Promise<Usage> {
    const { clock, directory, statistics } = this.#options;
    const before = await this.#begin(signal);
    const [{ node, pods }, disk] = await Promise.all([
      statistics.summary(true, signal),
      statfs(directory),
    ]);
    const aged = clock.monotonic() - before.at;
    if (aged < shortestMs) await clock.sleep(shortestMs - aged, signal);
    const now = this.#read();
    this.#before = now;
    const seconds = (now.at - before.at) / 1000;
    const rate = (from: number, to: number): number =>
      Math.max(Math.round((to - from) / seconds), 0);
    const ticks = now.allTicks - before.allTicks;
    const busy = ticks <= 0 ? 0 : ((now.busyTicks - before.busyTicks) / ticks) * now.cpus;
    const { memory } = node;
    return {
      node: {
        cpu: Math.max(Math.round(busy * 1000) / 1000, 0),
        cpuCapacity: now.cpus,
        memory: memory.workingSetBytes,
        memoryCapacity: memory.workingSetBytes + (memory.availableBytes ?? 0),
        disk: {
          used: (disk.blocks - disk.bfree) * disk.bsize,
          // As df counts: what is kept back for root is no room.
          capacity: (disk.blocks - disk.bfree + disk.bavail) * disk.bsize,
        },
        network: {
          received: rate(before.received, now.received),
          sent: rate(before.sent, now.sent),
        },
      },
      pods: new Map(
        pods.map(({ cpu, memory: used, podRef }) => {
          const nanoCores = cpu?.usageNanoCores;
          const cores = nanoCores === undefined ? undefined : nanoCores / 1e9;
          return [podRef.uid, { cpu: cores, memory: used?.workingSetBytes }];
        }),
      ),
    };
  }

  async #begin(signal: AbortSignal): Promise<Reading> {
    const { clock } = this.#options;
    const known = this.#before;
    if (known !== undefined && clock.monotonic() - known.at <= longestMs) return known;
    const first = this.#read();
    await clock.sleep(shortestMs, signal);
    return first;
  }

  #read(): Reading {
    const { clock, files } = this.#options;
    const interfaces = ownInterfaces(parseNetDev(files.text("/proc/self/net/dev")), files);
    return {
      at: clock.monotonic(),
      ...cpuTicks(files.text("/proc/stat") ?? ""),
      received: interfaces.reduce((sum, { rxBytes }) => sum + rxBytes, 0),
      sent: interfaces.reduce((sum, { txBytes }) => sum + txBytes, 0),
    };
  }
}

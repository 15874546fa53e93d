import { setImmediate } from "node:timers/promises";

import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { PodRecord, RuntimeInfo } from "../../runtime/types.ts";
import { podCgroup } from "../spec/pod-cgroup.ts";
import { CgroupFinder, type CgroupPaths } from "./cgroup-finder.ts";
import { parseNetDev } from "./cgroup-text.ts";
import type { Cgroup, CgroupUsage, Level } from "./cgroup.ts";
import { CpuRates } from "./cpu-rates.ts";
import { EngineProcess } from "./engine-process.ts";
import { countHandles } from "./handle-counts.ts";
import type { KernelFiles } from "./kernel-files.ts";
import { bootTimeMs, readNode, readProcess, swapTotal } from "./node-usage.ts";
import type { CgroupSample, ContainerSample, PodSample, Sample, SystemSample } from "./sample.ts";

export interface SamplerOptions {
  readonly config: Pick<AgentConfig, "cgroupRoot" | "cgroupsPerQOS" | "dockerSocket">;
  /** What the runtime holds, as last seen. */
  readonly records: () => readonly PodRecord[];
  readonly runtimeInfo: () => Pick<RuntimeInfo, "cgroupDriver">;
  readonly files: KernelFiles;
  readonly clock: Clock;
}

/** A sample answers everybody who asks within this time. */
const freshMs = 1000;
/** After so many cgroups whoever else waits for the loop has a turn. */
const turnSize = 64;

const ranks: Readonly<Record<Level, number>> = { resource: 0, summary: 1, cadvisor: 2 };

interface Watched {
  readonly paths: CgroupPaths;
  readonly cgroup: Cgroup;
}

/** One walk over everything. */
interface Round {
  readonly level: Level;
  /** Keys of what was read. */
  readonly seen: Set<string>;
  read: number;
}

/** What stands for a pod's cgroup on a host where pods have none. */
function sumOf(containers: readonly ContainerSample[]): CgroupSample | undefined {
  const [first] = containers;
  if (first === undefined) return undefined;
  const add = (of: (usage: CgroupUsage) => number): number =>
    containers.reduce((total, { usage }) => total + of(usage), 0);
  return {
    id: "",
    startedAtMs: Math.min(...containers.map(({ startedAtMs }) => startedAtMs)),
    nanoCores: containers.reduce((total, { nanoCores }) => total + (nanoCores ?? 0), 0),
    usage: {
      timeMs: first.usage.timeMs,
      cpuNs: add(({ cpuNs }) => cpuNs),
      memoryBytes: add(({ memoryBytes }) => memoryBytes),
      workingSetBytes: add(({ workingSetBytes }) => workingSetBytes),
      swapBytes: add(({ swapBytes }) => swapBytes),
      swapLimitBytes: undefined,
      ...(first.usage.more === undefined
        ? {}
        : {
            more: {
              rssBytes: add(({ more }) => more?.rssBytes ?? 0),
              pageFaults: add(({ more }) => more?.pageFaults ?? 0),
              majorPageFaults: add(({ more }) => more?.majorPageFaults ?? 0),
              memoryLimitBytes: undefined,
              cpuPressure: undefined,
              memoryPressure: undefined,
              ioPressure: undefined,
            },
          }),
    },
  };
}

/**
 * The one reader of cgroups and procfs for all views. It reads when somebody asks, so an idle node costs nothing, and
 * keeps open what it will read again.
 */
export class Sampler {
  readonly #options: SamplerOptions;
  readonly #finder: CgroupFinder;
  readonly #engine: EngineProcess;
  readonly #rates = new CpuRates();
  readonly #watched = new Map<string, Watched>();
  readonly #bootMs: number;
  #last: Sample | undefined;
  #running: { readonly level: Level; readonly sample: Promise<Sample> } | undefined;

  constructor(options: SamplerOptions) {
    this.#options = options;
    const { clock, config, files } = options;
    this.#finder = new CgroupFinder(files, swapTotal(files) > 0);
    this.#engine = new EngineProcess({ files, clock, socketPath: config.dockerSocket });
    this.#bootMs = bootTimeMs(files);
  }

  /** A sample of at least this level that is no older than a second. */
  async sample(level: Level): Promise<Sample> {
    const last = this.#last;
    const age = this.#options.clock.monotonic() - (last?.takenAt ?? 0);
    if (last !== undefined && age < freshMs && ranks[last.level] >= ranks[level]) return last;
    const running = this.#running;
    if (running !== undefined && ranks[running.level] >= ranks[level]) return running.sample;
    const sample = this.#take(level);
    this.#running = { level, sample };
    try {
      this.#last = await sample;
      return this.#last;
    } finally {
      if (this.#running?.sample === sample) this.#running = undefined;
    }
  }

  /** Lets go of all open files; the next sample opens them again. */
  close(): void {
    for (const { cgroup } of this.#watched.values()) cgroup.close();
    this.#watched.clear();
  }

  async #take(level: Level): Promise<Sample> {
    const { clock, files, records } = this.#options;
    const round: Round = { level, seen: new Set(), read: 0 };
    const takenAt = clock.monotonic();
    const node = readNode(files, clock.now());
    const nodeNanoCores = this.#rates.note("node", node, this.#bootMs);
    const system = this.#system(round);
    const tiers = level === "cadvisor" ? this.#tiers(round) : [];
    const pods: PodSample[] = [];
    for (const record of records()) {
      const pod = this.#pod(record, round);
      if (pod !== undefined) pods.push(pod);
      if (round.read < turnSize) continue;
      round.read = 0;
      await setImmediate();
    }
    this.#letGo(round);
    return {
      level,
      takenAt,
      node,
      nodeStartedAtMs: this.#bootMs,
      nodeNanoCores,
      pods,
      system,
      tiers,
    };
  }

  /** Closes what was not read: a lower level reads less, and has nothing open that it would not read. */
  #letGo({ level, seen }: Round): void {
    for (const [key, { cgroup }] of this.#watched) {
      const skipped = level !== "cadvisor" && (key.startsWith("sandbox ") || key.startsWith("at "));
      if (seen.has(key) || skipped) continue;
      cgroup.close();
      this.#watched.delete(key);
    }
    const alive = new Set(this.#watched.keys());
    for (const key of ["node", "kubelet", "runtime"]) alive.add(key);
    this.#rates.keepOnly(alive);
  }

  /** Reads one cgroup; undefined when it has gone. */
  #read(
    key: string,
    find: () => CgroupPaths | undefined,
    startMs: number | undefined,
    round: Round,
  ): (CgroupSample & { readonly paths: CgroupPaths }) | undefined {
    const watched = this.#watched.get(key) ?? this.#watch(key, find);
    if (watched === undefined) return undefined;
    round.seen.add(key);
    round.read += 1;
    const { clock } = this.#options;
    const read = (): CgroupUsage | undefined => watched.cgroup.read(round.level, clock.now());
    let usage = read();
    if (usage === undefined) {
      // Removed and made again under its name: what is open is of the one that has gone.
      watched.cgroup.close();
      usage = read();
    }
    if (usage === undefined) return undefined;
    const { paths } = watched;
    const nanoCores = this.#rates.note(key, usage, startMs);
    return { id: paths.id, startedAtMs: startMs ?? usage.timeMs, usage, nanoCores, paths };
  }

  #watch(key: string, find: () => CgroupPaths | undefined): Watched | undefined {
    const paths = find();
    if (paths === undefined) return undefined;
    const watched = { paths, cgroup: this.#finder.open(paths) };
    this.#watched.set(key, watched);
    return watched;
  }

  #pod(record: PodRecord, round: Round): PodSample | undefined {
    const { files } = this.#options;
    const sandbox = record.sandboxes.find(({ ready }) => ready);
    const containers = record.containers.flatMap((container) => {
      const { state } = container;
      if (state.kind !== "running") return [];
      return this.#container({ ...container, state }, round) ?? [];
    });
    if (sandbox === undefined && containers.length === 0) return undefined;
    const { pid } = sandbox ?? {};
    const ownNetwork = sandbox?.network === "pod" && pid !== undefined;
    const text =
      ownNetwork && round.level !== "resource" ? files.text(`/proc/${pid}/net/dev`) : undefined;
    const cgroup = this.#podCgroup(record, containers, round);
    return {
      record,
      own: cgroup ?? sumOf(containers),
      containers,
      sandbox,
      sandboxCgroup: round.level === "cadvisor" ? this.#sandbox(record, round) : undefined,
      interfaces: text === undefined ? undefined : parseNetDev(text),
    };
  }

  #sandbox({ sandboxes }: PodRecord, round: Round): CgroupSample | undefined {
    const sandbox = sandboxes.find(({ ready }) => ready);
    if (sandbox?.pid === undefined) return undefined;
    const { createdAt, id, pid } = sandbox;
    const find = (): CgroupPaths | undefined => this.#finder.ofContainer(id, pid);
    return this.#read(`sandbox ${id} ${pid}`, find, createdAt, round);
  }

  #podCgroup(
    { sandboxes, uid }: PodRecord,
    containers: readonly ContainerSample[],
    round: Round,
  ): CgroupSample | undefined {
    const sandbox = sandboxes.find(({ ready }) => ready);
    const find = (): CgroupPaths | undefined => {
      const processes = [
        ...(sandbox?.pid === undefined ? [] : [{ id: sandbox.id, pid: sandbox.pid }]),
        ...containers.map(({ record: { id, state } }) => ({
          id,
          pid: state.kind === "running" ? state.pid : 0,
        })),
      ];
      for (const { id, pid } of processes) {
        const paths = this.#finder.ofContainer(id, pid);
        if (paths !== undefined) return this.#finder.podAbove(paths, uid);
      }
      return undefined;
    };
    const startMs = sandbox?.createdAt ?? containers[0]?.startedAtMs;
    return this.#read(`pod ${uid}`, find, startMs, round);
  }

  #container(
    record: ContainerSample["record"] & {
      readonly state: {
        readonly kind: "running";
        readonly pid: number;
        readonly startedAt: number;
      };
    },
    round: Round,
  ): ContainerSample | undefined {
    const { id, state } = record;
    // The same container that was started again begins to count anew.
    const key = `container ${id} ${state.pid} ${state.startedAt}`;
    const find = (): CgroupPaths | undefined => this.#finder.ofContainer(id, state.pid);
    const sample = this.#read(key, find, state.startedAt, round);
    if (sample === undefined) return undefined;
    if (round.level === "resource") return { ...sample, record };
    const processes = this.#finder.processes(sample.paths);
    const base = { ...sample, record, processes: processes.length };
    if (round.level === "summary") return base;
    return { ...base, handles: countHandles(this.#options.files, state.pid, processes) };
  }

  /** The agent, the engine, and all pods together. */
  #system(round: Round): readonly SystemSample[] {
    const pid = this.#engine.pid();
    const kubelet = this.#daemon("kubelet", "self", round);
    const runtime = pid === undefined ? undefined : this.#daemon("runtime", pid, round);
    const top = this.#tierPaths()[0];
    const pods = top === undefined ? undefined : this.#at("pods", top, round);
    return [kubelet, runtime, pods === undefined ? undefined : { ...pods, name: "pods" as const }]
      .filter((sample) => sample !== undefined)
      .map(({ id, name, nanoCores, startedAtMs, usage }) => ({
        id,
        name,
        nanoCores,
        startedAtMs,
        usage,
      }));
  }

  /** A daemon's cgroup; without one of its own the process alone, and not everything that shares the cgroup. */
  #daemon(
    name: "kubelet" | "runtime",
    pid: number | "self",
    round: Round,
  ): SystemSample | undefined {
    const { clock, files } = this.#options;
    const paths = this.#finder.ofProcess(pid);
    const own = [paths?.id, paths?.of("cpuacct")].every((path) => (path ?? "/") !== "/");
    const process = readProcess(files, pid, this.#bootMs, clock.now());
    if (process === undefined) return undefined;
    const { startedAtMs } = process;
    if (paths !== undefined && own) {
      const sample = this.#read(`${name} ${pid}`, () => paths, startedAtMs, round);
      if (sample !== undefined) return { ...sample, name };
    }
    const nanoCores = this.#rates.note(name, process, startedAtMs);
    return { id: paths?.id ?? "/", name, startedAtMs, usage: process, nanoCores };
  }

  #at(key: string, paths: CgroupPaths, round: Round): CgroupSample | undefined {
    return this.#read(key, () => paths, this.#finder.madeAt(paths), round);
  }

  #tiers(round: Round): readonly CgroupSample[] {
    return this.#tierPaths()
      .slice(1)
      .flatMap((paths) => this.#at(`at ${paths.id}`, paths, round) ?? []);
  }

  /** `kubepods`, and what is below it beside the pods. */
  #tierPaths(): readonly CgroupPaths[] {
    const { config, runtimeInfo } = this.#options;
    if (!config.cgroupsPerQOS) return [];
    const options = { cgroupRoot: config.cgroupRoot, driver: runtimeInfo().cgroupDriver };
    const paths = (["Guaranteed", "Burstable", "BestEffort"] as const).map((qos) => {
      const { path } = podCgroup("", qos, options);
      return this.#finder.at(`/${path.slice(0, path.lastIndexOf("/"))}`);
    });
    return paths.filter((each) => this.#finder.exists(each));
  }
}

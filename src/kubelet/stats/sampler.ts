import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { Breather } from "../../lib/in-slices.ts";
import type {
  ContainerRecord,
  PodRecord,
  RuntimeInfo,
  SandboxRecord,
} from "../../runtime/types.ts";
import { podCgroup } from "../spec/pod-cgroup.ts";
import { CgroupFinder, type CgroupPaths } from "./cgroup-finder.ts";
import { parseNetDev } from "./cgroup-text.ts";
import type { Cgroup, CgroupUsage, Level } from "./cgroup.ts";
import { CpuRate } from "./cpu-rate.ts";
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

const ranks: Readonly<Record<Level, number>> = { resource: 0, summary: 1, cadvisor: 2 };

/** One life of one cgroup. */
interface Watched {
  /** From which level on it is read. */
  readonly level: Level;
  readonly paths: CgroupPaths;
  readonly cgroup: Cgroup;
  readonly rate: CpuRate;
  readonly startMs: number | undefined;
  /** Its first process; another one, or another start, is another life. */
  readonly pid: number;
  /** Number of the round that read it last. */
  round: number;
  /** How many processes were in it, and at what CPU time: none comes or goes without taking some. */
  processes: { readonly cpuNs: number; readonly count: number } | undefined;
}

/** What to read, and how it is found when it was not read before. */
interface Wanted extends Pick<Watched, "level" | "pid" | "startMs"> {
  /** Unique among all. */
  readonly key: string;
  readonly find: () => CgroupPaths | undefined;
  /** How much of it is read; default as much as of all. */
  readonly depth?: Level;
}

/** One walk over everything. */
interface Round {
  readonly level: Level;
  readonly number: number;
}

type Found = CgroupSample & Pick<Watched, "paths"> & { readonly watched: Watched };

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
  readonly #watched = new Map<string, Watched>();
  readonly #bootMs: number;
  readonly #nodeRate: CpuRate;
  /** Of daemons that have no cgroup of their own, by their start. */
  readonly #daemonRates = new Map<string, { readonly startMs: number; readonly rate: CpuRate }>();
  #rounds = 0;
  #last: Sample | undefined;
  #running: { readonly level: Level; readonly sample: Promise<Sample> } | undefined;

  constructor(options: SamplerOptions) {
    this.#options = options;
    const { clock, config, files } = options;
    this.#finder = new CgroupFinder(files, swapTotal(files) > 0);
    this.#engine = new EngineProcess({ files, clock, socketPath: config.dockerSocket });
    this.#bootMs = bootTimeMs(files);
    this.#nodeRate = new CpuRate(this.#bootMs);
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
    this.#rounds += 1;
    const round: Round = { level, number: this.#rounds };
    const takenAt = clock.monotonic();
    const node = readNode(files, level, clock.now());
    const system = level === "resource" ? [] : this.#system(round);
    const tiers = level === "cadvisor" ? this.#tiers(round) : [];
    const pods: PodSample[] = [];
    const breather = new Breather(clock, 1);
    for (const record of records()) {
      const pod = this.#pod(record, round);
      if (pod !== undefined) pods.push(pod);
      // Whoever else waits for the loop has a turn, but not while there is little to do: each costs what they do.
      if (breather.due()) await breather.rest();
    }
    this.#letGo(round);
    return {
      level,
      takenAt,
      node,
      nodeStartedAtMs: this.#bootMs,
      nodeNanoCores: this.#nodeRate.note(node),
      pods,
      system,
      tiers,
    };
  }

  /** Closes what has gone: what this round, and any that began since, would have read. */
  #letGo({ level, number }: Round): void {
    for (const [key, watched] of this.#watched) {
      if (watched.round >= number || ranks[watched.level] > ranks[level]) continue;
      watched.cgroup.close();
      this.#watched.delete(key);
    }
  }

  /** Reads one cgroup; undefined when it has gone. */
  #read(wanted: Wanted, round: Round): Found | undefined {
    const watched = this.#watch(wanted);
    if (watched === undefined) return undefined;
    watched.round = round.number;
    const { cgroup, paths, rate } = watched;
    const { clock } = this.#options;
    const depth = wanted.depth ?? round.level;
    let usage = cgroup.read(depth, clock.now());
    if (usage === undefined) {
      // Removed and made again under its name: what is open is of the one that has gone.
      cgroup.close();
      usage = cgroup.read(depth, clock.now());
    }
    if (usage === undefined) return undefined;
    const startedAtMs = wanted.startMs ?? usage.timeMs;
    return { id: paths.id, startedAtMs, usage, nanoCores: rate.note(usage), paths, watched };
  }

  #watch({ find, key, level, pid, startMs }: Wanted): Watched | undefined {
    const known = this.#watched.get(key);
    if (known !== undefined) {
      if (known.pid === pid && known.startMs === startMs) return known;
      known.cgroup.close();
      this.#watched.delete(key);
    }
    const paths = find();
    if (paths === undefined) return undefined;
    const cgroup = this.#finder.open(paths);
    const rate = new CpuRate(startMs);
    const watched: Watched = {
      level,
      paths,
      cgroup,
      rate,
      startMs,
      pid,
      round: 0,
      processes: undefined,
    };
    this.#watched.set(key, watched);
    return watched;
  }

  #pod(record: PodRecord, round: Round): PodSample | undefined {
    const { files } = this.#options;
    const sandbox = record.sandboxes.find(({ ready }) => ready);
    const containers = record.containers.flatMap((container) => {
      const { state } = container;
      return state.kind === "running" ? (this.#container(container, state, round) ?? []) : [];
    });
    if (sandbox === undefined && containers.length === 0) return undefined;
    const { pid } = sandbox ?? {};
    const ownNetwork = sandbox?.network === "pod" && pid !== undefined;
    const own = this.#podCgroup(record, containers, round);
    if (own === undefined && containers.length === 0 && !this.#isAlive(sandbox)) return undefined;
    const text =
      ownNetwork && round.level !== "resource" ? files.text(`/proc/${pid}/net/dev`) : undefined;
    return {
      record,
      own: own ?? sumOf(containers),
      containers,
      sandbox,
      sandboxCgroup: round.level === "cadvisor" ? this.#sandbox(sandbox, round) : undefined,
      interfaces: text === undefined ? undefined : parseNetDev(text),
    };
  }

  /** What was seen last may be over. */
  #isAlive(sandbox: SandboxRecord | undefined): boolean {
    if (sandbox?.pid === undefined) return false;
    return this.#finder.ofContainer(sandbox.id, sandbox.pid) !== undefined;
  }

  #sandbox(sandbox: SandboxRecord | undefined, round: Round): CgroupSample | undefined {
    if (sandbox?.pid === undefined) return undefined;
    const { createdAt: startMs, id, pid } = sandbox;
    const find = (): CgroupPaths | undefined => this.#finder.ofContainer(id, pid);
    // It sleeps all its life: that it is there is all there is to see.
    const wanted = { key: id, level: "cadvisor", depth: "summary", pid, startMs, find } as const;
    return this.#read(wanted, round);
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
    // It outlives its sandboxes and all that is in them.
    const oldest = sandboxes.at(-1) ?? sandbox;
    const startMs = oldest?.createdAt ?? containers[0]?.startedAtMs;
    return this.#read({ key: uid, level: "resource", pid: 0, startMs, find }, round);
  }

  #container(
    record: ContainerRecord,
    { pid, startedAt: startMs }: { readonly pid: number; readonly startedAt: number },
    round: Round,
  ): ContainerSample | undefined {
    const { id } = record;
    const find = (): CgroupPaths | undefined => this.#finder.ofContainer(id, pid);
    const sample = this.#read({ key: id, level: "resource", pid, startMs, find }, round);
    if (sample === undefined) return undefined;
    if (round.level === "resource") return { ...sample, record };
    const { paths, usage, watched } = sample;
    const known = watched.processes;
    if (round.level === "summary" && known?.cpuNs === usage.cpuNs) {
      return { ...sample, record, processes: known.count };
    }
    const processes = this.#finder.processes(paths);
    watched.processes = { cpuNs: usage.cpuNs, count: processes.length };
    const base = { ...sample, record, processes: processes.length };
    if (round.level === "summary") return base;
    return { ...base, handles: countHandles(this.#options.files, pid, processes) };
  }

  /** The agent, the engine, and all pods together. */
  #system(round: Round): readonly SystemSample[] {
    const engine = this.#engine.pid();
    const top = this.#tierPaths()[0];
    const pods = top === undefined ? undefined : this.#at(top, round);
    return [
      this.#daemon("kubelet", "self", round),
      engine === undefined ? undefined : this.#daemon("runtime", engine, round),
      pods === undefined ? undefined : { ...pods, name: "pods" as const },
    ].filter((sample) => sample !== undefined);
  }

  /** A daemon's cgroup; without one of its own the process alone, and not everything that shares the cgroup. */
  #daemon(
    name: "kubelet" | "runtime",
    pid: number | "self",
    round: Round,
  ): SystemSample | undefined {
    const { clock, files } = this.#options;
    const paths = this.#finder.ofProcess(pid);
    const usage = readProcess(files, pid, this.#bootMs, clock.now());
    if (usage === undefined) return undefined;
    const { startedAtMs } = usage;
    if (paths !== undefined && paths.id !== "/" && paths.of("cpuacct") !== "/") {
      const wanted = { key: name, level: "summary", startMs: startedAtMs } as const;
      const find = (): CgroupPaths => paths;
      const sample = this.#read({ ...wanted, pid: pid === "self" ? 0 : pid, find }, round);
      if (sample !== undefined) return { ...sample, name };
    }
    let known = this.#daemonRates.get(name);
    if (known?.startMs !== startedAtMs) {
      known = { startMs: startedAtMs, rate: new CpuRate(startedAtMs) };
      this.#daemonRates.set(name, known);
    }
    return { id: paths?.id ?? "/", name, startedAtMs, usage, nanoCores: known.rate.note(usage) };
  }

  #at(paths: CgroupPaths, round: Round, level: Level = "summary"): CgroupSample | undefined {
    // Its directory's time changes with each cgroup that is made in it.
    const startMs = this.#watched.get(paths.id)?.startMs ?? this.#finder.madeAt(paths);
    return this.#read({ key: paths.id, level, pid: 0, startMs, find: () => paths }, round);
  }

  #tiers(round: Round): readonly CgroupSample[] {
    return this.#tierPaths()
      .slice(1)
      .flatMap((paths) => this.#at(paths, round, "cadvisor") ?? []);
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
    return paths.filter((each) => this.#finder.madeAt(each) !== undefined);
  }
}

import type { AssignedPod } from "../types.ts";
import type { InterfaceCounters, Pressure, PressureLine } from "./cgroup-text.ts";
import type { CgroupUsage } from "./cgroup.ts";
import type { Disks, Filesystem, PodDisks, TreeUsage } from "./disk-types.ts";
import type { NodeUsage } from "./node-usage.ts";
import type { OwnVolume } from "./own-volumes.ts";
import type { CgroupSample, ContainerSample, PodSample, Sample, SystemSample } from "./sample.ts";
import type {
  ContainerStats,
  CpuStats,
  FsStats,
  InterfaceStats,
  IoStats,
  MemoryStats,
  NetworkStats,
  NodeStats,
  PodStats,
  PsiData,
  PsiStats,
  Summary,
  SwapStats,
  VolumeStats,
} from "./summary-types.ts";

export interface SummaryInput {
  readonly nodeName: string;
  /** Level `summary` or above, except for {@link cpuAndMemorySummary}. */
  readonly sample: Sample;
  readonly disks: Disks;
  /** The pods as the API knows them, by uid. */
  readonly pods: ReadonlyMap<string, AssignedPod>;
}

/** RFC 3339 with whole seconds, as `metav1.Time` is written. */
function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

const last = { second: 0, text: formatTime(0) };

/** The same; of a thousand times on a page all but a few are within the same second. */
function time(ms: number): string {
  const second = Math.floor(ms / 1000);
  if (second !== last.second) {
    last.second = second;
    last.text = formatTime(ms);
  }
  return last.text;
}

function psiData({ avg10, avg60, avg300, totalNs }: PressureLine): PsiData {
  return { total: totalNs, avg10, avg60, avg300 };
}

const noPressure: PsiData = { total: 0, avg10: 0, avg60: 0, avg300: 0 };

/** Always there, as upstream's: zero where the kernel counts none for cgroups (v1). */
function psi(pressure: Pressure | undefined): PsiStats {
  if (pressure === undefined) return { full: noPressure, some: noPressure };
  return { full: psiData(pressure.full), some: psiData(pressure.some) };
}

function cpu({ cpuNs, more, timeMs }: CgroupUsage, nanoCores: number | undefined): CpuStats {
  return {
    time: time(timeMs),
    ...(nanoCores === undefined ? {} : { usageNanoCores: nanoCores }),
    usageCoreNanoSeconds: cpuNs,
    ...(more === undefined ? {} : { psi: psi(more.cpuPressure) }),
  };
}

function memory({ memoryBytes, more, timeMs, workingSetBytes }: CgroupUsage): MemoryStats {
  const base = { time: time(timeMs), usageBytes: memoryBytes, workingSetBytes };
  if (more === undefined) return base;
  const { majorPageFaults, memoryLimitBytes, memoryPressure, pageFaults, rssBytes } = more;
  return {
    ...base,
    ...(memoryLimitBytes === undefined
      ? {}
      : { availableBytes: Math.max(memoryLimitBytes - workingSetBytes, 0) }),
    rssBytes,
    pageFaults,
    majorPageFaults,
    psi: psi(memoryPressure),
  };
}

function io({ more, timeMs }: CgroupUsage): { readonly io?: IoStats } {
  return more === undefined ? {} : { io: { time: time(timeMs), psi: psi(more.ioPressure) } };
}

function swap({ swapBytes, swapLimitBytes, timeMs }: CgroupUsage): SwapStats {
  return {
    time: time(timeMs),
    ...(swapLimitBytes === undefined
      ? {}
      : { swapAvailableBytes: Math.max(swapLimitBytes - swapBytes, 0) }),
    swapUsageBytes: swapBytes,
  };
}

/** The interface whose figures stand for all (upstream's defaultNetworkInterfaceName). */
const mainInterface = "eth0";

function network(interfaces: readonly InterfaceCounters[], timeMs: number): NetworkStats {
  const all = interfaces.map(({ name, rxBytes, rxErrors, txBytes, txErrors }): InterfaceStats => ({
    name,
    rxBytes,
    rxErrors,
    txBytes,
    txErrors,
  }));
  const main = all.find(({ name }) => name === mainInterface);
  return { time: time(timeMs), name: "", ...main, interfaces: all };
}

type InodeStats = Pick<FsStats, "inodes" | "inodesFree" | "inodesUsed">;

function inodes({ inodes: table }: Filesystem, used: number | undefined): InodeStats {
  if (table === undefined) return {};
  return {
    inodesFree: table.free,
    inodes: table.total,
    ...(used === undefined ? {} : { inodesUsed: used }),
  };
}

/** A part of a filesystem: free and total are those of the whole. */
function partOf(
  whole: Filesystem,
  used: Omit<TreeUsage, "timeMs"> | undefined,
  timeMs = whole.timeMs,
): FsStats {
  return {
    time: time(timeMs),
    availableBytes: whole.availableBytes,
    capacityBytes: whole.capacityBytes,
    ...(used === undefined ? {} : { usedBytes: used.bytes }),
    ...inodes(whole, used?.inodes),
  };
}

function wholeOf(whole: Filesystem): FsStats {
  const { inodes: table } = whole;
  const used = table === undefined ? 0 : table.total - table.free;
  return partOf(whole, { bytes: whole.usedBytes, inodes: used });
}

function sum(parts: readonly (TreeUsage | undefined)[]): TreeUsage | undefined {
  const known = parts.filter((part) => part !== undefined);
  if (known.length === 0) return undefined;
  return {
    timeMs: Math.max(...known.map(({ timeMs }) => timeMs)),
    bytes: known.reduce((total, { bytes }) => total + bytes, 0),
    inodes: known.reduce((total, part) => total + part.inodes, 0),
  };
}

function usageOf(sample: CgroupSample): Pick<ContainerStats, "cpu" | "io" | "memory" | "swap"> {
  const { nanoCores, usage } = sample;
  return { cpu: cpu(usage, nanoCores), memory: memory(usage), ...io(usage), swap: swap(usage) };
}

function container(
  sample: ContainerSample,
  disks: Disks,
  ofPod: PodDisks | undefined,
): ContainerStats {
  const { id, name } = sample.record;
  const rootfs = ofPod?.writableLayers.get(id);
  const logs = ofPod?.logs.get(name);
  return {
    name,
    startTime: time(sample.startedAtMs),
    ...usageOf(sample),
    ...(disks.images === undefined ? {} : { rootfs: partOf(disks.images, rootfs, rootfs?.timeMs) }),
    ...(disks.node === undefined ? {} : { logs: partOf(disks.node, logs, logs?.timeMs) }),
  };
}

function system(sample: SystemSample): ContainerStats {
  return { name: sample.name, startTime: time(sample.startedAtMs), ...usageOf(sample) };
}

function claimRef(claim: string | undefined, namespace: string): Pick<VolumeStats, "pvcRef"> {
  return claim === undefined ? {} : { pvcRef: { name: claim, namespace } };
}

function ownVolume({ claim, figures, name, timeMs }: OwnVolume, namespace: string): VolumeStats {
  const { inodes: table, ...bytes } = figures;
  return {
    time: time(timeMs),
    ...bytes,
    ...(table === undefined
      ? {}
      : { inodesFree: table.free, inodes: table.total, inodesUsed: table.used }),
    name,
    ...claimRef(claim, namespace),
  };
}

function volumes({ own = [], volumes: all }: PodDisks, namespace: string): readonly VolumeStats[] {
  const onNode = all.map(({ claim, filesystem, name, usage }) => ({
    ...partOf(filesystem, usage, usage?.timeMs),
    name,
    ...claimRef(claim, namespace),
  }));
  return [...onNode, ...own.map((each) => ownVolume(each, namespace))];
}

/** What the pod takes of the node's disk: writable layers, logs, and volumes that live as long as it does. */
function ephemeralStorage(node: Filesystem, disks: PodDisks | undefined): FsStats {
  const used = sum([
    ...(disks?.writableLayers.values() ?? []),
    ...(disks?.logs.values() ?? []),
    ...(disks?.volumes ?? []).filter(({ ephemeral }) => ephemeral).map(({ usage }) => usage),
    disks?.files,
  ]);
  return partOf(node, used, Math.max(node.timeMs, used?.timeMs ?? 0));
}

function startOf({ record, sandbox }: PodSample, pod: AssignedPod | undefined): string {
  const known = pod?.status?.startTime;
  if (known !== undefined) return known;
  const created = sandbox?.createdAt ?? record.containers.at(-1)?.state.createdAt ?? 0;
  return time(created);
}

function processes(sample: PodSample): number {
  const inContainers = sample.containers.reduce((total, each) => total + (each.processes ?? 0), 0);
  return inContainers + (sample.sandbox === undefined ? 0 : 1);
}

function podStats(sample: PodSample, { disks, pods }: SummaryInput): PodStats {
  const { name, namespace, uid } = sample.record;
  const { interfaces, own } = sample;
  const ofPod = disks.pods.get(uid);
  const listed = ofPod === undefined ? [] : volumes(ofPod, namespace);
  const timeMs = own?.usage.timeMs ?? sample.containers[0]?.usage.timeMs;
  return {
    podRef: { name, namespace, uid },
    startTime: startOf(sample, pods.get(uid)),
    containers: sample.containers.map((each) => container(each, disks, ofPod)),
    ...(own === undefined ? {} : usageOf(own)),
    ...(interfaces === undefined || timeMs === undefined
      ? {}
      : { network: network(interfaces, timeMs) }),
    ...(listed.length === 0 ? {} : { volume: listed }),
    ...(disks.node === undefined
      ? {}
      : { "ephemeral-storage": ephemeralStorage(disks.node, ofPod) }),
    process_stats: { process_count: processes(sample) },
  };
}

function runtimeStats({ imageBytes, images, pods }: Disks): Pick<NodeStats, "runtime"> {
  if (images === undefined) return {};
  const written = [...pods.values()].flatMap((pod) => [...pod.writableLayers.values()]);
  const used = images.inodes === undefined ? 0 : images.inodes.total - images.inodes.free;
  return {
    runtime: {
      imageFs: partOf(
        images,
        // Layers that images share are counted with each, and cannot be more than there is.
        imageBytes === undefined
          ? undefined
          : { bytes: Math.min(imageBytes, images.usedBytes), inodes: used },
      ),
      containerFs: partOf(images, { bytes: sum(written)?.bytes ?? 0, inodes: used }),
    },
  };
}

function rlimit({ maxTasks, tasks, timeMs }: NodeUsage): Pick<NodeStats, "rlimit"> {
  return {
    rlimit: {
      time: time(timeMs),
      ...(maxTasks === undefined ? {} : { maxpid: maxTasks }),
      ...(tasks === undefined ? {} : { curproc: tasks }),
    },
  };
}

/** All of `/stats/summary`. */
export function summary(input: SummaryInput): Summary {
  const { disks, nodeName, sample } = input;
  const { node, nodeNanoCores, nodeStartedAtMs } = sample;
  return {
    node: {
      nodeName,
      systemContainers: sample.system.map(system),
      startTime: time(nodeStartedAtMs),
      cpu: cpu(node, nodeNanoCores),
      memory: memory(node),
      ...io(node),
      network: network(node.interfaces, node.timeMs),
      ...(disks.node === undefined ? {} : { fs: wholeOf(disks.node) }),
      ...runtimeStats(disks),
      ...rlimit(node),
      swap: swap(node),
    },
    pods: sample.pods.map((pod) => podStats(pod, input)),
  };
}

/** The same with `?only_cpu_and_memory=true`. */
export function cpuAndMemorySummary({ nodeName, pods, sample }: SummaryInput): Summary {
  const { node, nodeNanoCores, nodeStartedAtMs } = sample;
  const usage = ({
    nanoCores,
    usage: of,
  }: CgroupSample): Omit<ContainerStats, "name" | "startTime"> => ({
    cpu: cpu(of, nanoCores),
    memory: memory(of),
    swap: swap(of),
  });
  return {
    node: {
      nodeName,
      systemContainers: sample.system.map((each) => ({
        name: each.name,
        startTime: time(each.startedAtMs),
        ...usage(each),
      })),
      startTime: time(nodeStartedAtMs),
      cpu: cpu(node, nodeNanoCores),
      memory: memory(node),
      swap: swap(node),
    },
    pods: sample.pods.map((each) => ({
      podRef: { name: each.record.name, namespace: each.record.namespace, uid: each.record.uid },
      startTime: startOf(each, pods.get(each.record.uid)),
      containers: each.containers.map((one) => ({
        name: one.record.name,
        startTime: time(one.startedAtMs),
        ...usage(one),
      })),
      ...(each.own === undefined ? {} : usage(each.own)),
    })),
  };
}

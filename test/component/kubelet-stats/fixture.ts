import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { Statistics, type StatisticsOptions } from "../../../src/kubelet/stats/statistics.ts";
import type { ContainerRecord, PodRecord, SandboxRecord } from "../../../src/runtime/types.ts";
import { type FakeKernelFiles, recordedKernel } from "../../fakes/kernel-files.ts";
import { ManualClock } from "../api/manual-clock.ts";

/** Of the pod in the recordings: container `a…` works, `b…` is the sandbox. */
export const uid = "11111111-2222-3333-4444-555555555555";
export const containerID = "a".repeat(64);
export const sandboxID = "b".repeat(64);
/** When the recordings' containers were started, as the tests have it. */
export const startedAt = 1_795_279_900_000;
/** Host pids of sandbox and container in the recordings. */
export const pids = { 1: [26_134, 26_135], 2: [91, 92] } as const;

export function sandbox(pid: number, more: Partial<SandboxRecord> = {}): SandboxRecord {
  return {
    id: sandboxID,
    metadata: { name: "web", namespace: "ns", uid, attempt: 0 },
    ready: true,
    pid,
    network: "pod",
    createdAt: startedAt - 1000,
    labels: {},
    record: "",
    ...more,
  };
}

export function container(pid: number, more: Partial<ContainerRecord> = {}): ContainerRecord {
  return {
    id: containerID,
    sandboxID,
    podUID: uid,
    podName: "web",
    podNamespace: "ns",
    name: "main",
    attempt: 0,
    state: { kind: "running", createdAt: startedAt, startedAt, pid },
    image: `sha256:${"f".repeat(64)}`,
    imageID: `sha256:${"f".repeat(64)}`,
    specHash: "",
    labels: {},
    record: "",
    ...more,
  };
}

export function podRecord(version: 1 | 2, more: Partial<PodRecord> = {}): PodRecord {
  const [pause, main] = pids[version];
  return {
    uid,
    name: "web",
    namespace: "ns",
    sandboxes: [sandbox(pause)],
    containers: [container(main)],
    ...more,
  };
}

export const apiPod: AssignedPod = {
  metadata: { name: "web", namespace: "ns", uid, resourceVersion: "1" },
  spec: {
    containers: [{ name: "main", image: "app:1" }],
    volumes: [
      { name: "scratch", emptyDir: {} },
      { name: "memory", emptyDir: { medium: "Memory" } },
      { name: "host", hostPath: { path: "/etc" } },
      { name: "settings", configMap: { name: "settings" } },
    ],
  },
  status: { startTime: "2026-11-21T16:51:00Z" },
};

export interface Bench {
  readonly files: FakeKernelFiles;
  readonly clock: ManualClock;
  readonly statistics: Statistics;
  /** What the runtime holds. */
  records: PodRecord[];
  /** Bytes of a tree by its path. */
  readonly trees: Map<string, number>;
  /** Every walk, as the paths it was asked for. */
  readonly walks: (readonly string[])[];
}

export const disk = {
  capacityBytes: 1000,
  availableBytes: 600,
  usedBytes: 300,
  inodes: { total: 100, free: 90 },
};

/** A node of which the recording of this version is the kernel. */
export function bench(version: 1 | 2, more: Partial<StatisticsOptions> = {}): Bench {
  const files = recordedKernel(version);
  const clock = new ManualClock(startedAt + 30_000);
  const trees = new Map<string, number>();
  const walks: (readonly string[])[] = [];
  const state: Bench = {
    files,
    clock,
    trees,
    walks,
    records: [podRecord(version)],
    statistics: new Statistics({
      config: {
        nodeName: "n1",
        cgroupRoot: "/",
        cgroupsPerQOS: true,
        dockerSocket: "/run/docker.sock",
        rootDir: "/kubelet",
        podLogsDir: "/nowhere",
      },
      records: () => state.records,
      pods: () => [apiPod],
      runtimeInfo: () => ({
        cgroupDriver: version === 1 ? "cgroupfs" : "systemd",
        rootDir: "/var/lib/docker",
        version: "29.0.0",
      }),
      images: {
        listImages: async () => [
          {
            id: "i",
            tags: [],
            digests: [],
            sizeBytes: 120,
            user: {},
            stopSignal: undefined,
          },
        ],
      },
      identity: () => ({
        bootID: "boot",
        kernelVersion: "6.1",
        machineID: "machine",
        osImage: "Linux",
        systemUUID: "system",
      }),
      files,
      filesystem: async () => disk,
      measure: async (paths) => {
        walks.push(paths);
        return new Map(
          paths.flatMap((path) => {
            const bytes = trees.get(path);
            return bytes === undefined ? [] : [[path, { bytes, inodes: 2 }] as const];
          }),
        );
      },
      clock,
      logger: silentLogger,
      ...more,
    }),
  };
  return state;
}

export const neverAborted = new AbortController().signal;

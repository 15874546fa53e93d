import type { ContainerRecord, PodRecord, SandboxRecord } from "../../runtime/types.ts";
import type { InterfaceCounters } from "./cgroup-text.ts";
import type { CgroupUsage, Level } from "./cgroup.ts";
import type { NodeUsage } from "./node-usage.ts";

/** One cgroup, with what only two looks together tell. */
export interface CgroupSample {
  /** Path below the root of the hierarchy, with a leading slash. */
  readonly id: string;
  /** When its counters were zero, milliseconds since the epoch. */
  readonly startedAtMs: number;
  readonly usage: CgroupUsage;
  /** Nanoseconds of CPU time per second, over the last window. */
  readonly nanoCores: number | undefined;
}

/** What a container's processes hold open. */
export interface HandleCounts {
  readonly descriptors: number;
  /** Undefined when there are too many descriptors to look at each. */
  readonly sockets: number | undefined;
  /** Of its first process; Infinity for none. */
  readonly maxOpenFiles: number | undefined;
}

/** One running container. */
export interface ContainerSample extends CgroupSample {
  readonly record: ContainerRecord;
  /** From level `summary` on. */
  readonly processes?: number;
  /** Level `cadvisor`. */
  readonly handles?: HandleCounts;
}

/** One pod that has a sandbox, or containers that run. */
export interface PodSample {
  readonly record: PodRecord;
  /** The pod's cgroup; where pods have none the sum of its containers, with an empty id. */
  readonly own: CgroupSample | undefined;
  readonly containers: readonly ContainerSample[];
  /** The sandbox's process; its cgroup from level `cadvisor` on. */
  readonly sandbox: SandboxRecord | undefined;
  readonly sandboxCgroup: CgroupSample | undefined;
  /** From level `summary` on; undefined for a pod on the node's network. */
  readonly interfaces: readonly InterfaceCounters[] | undefined;
}

export type SystemContainerName = "kubelet" | "runtime" | "pods";

/** A daemon that the node works with, or all pods together. */
export interface SystemSample extends CgroupSample {
  readonly name: SystemContainerName;
}

export interface Sample {
  readonly level: Level;
  /** Monotonic milliseconds. */
  readonly takenAt: number;
  readonly node: NodeUsage;
  readonly nodeStartedAtMs: number;
  readonly nodeNanoCores: number | undefined;
  readonly pods: readonly PodSample[];
  readonly system: readonly SystemSample[];
  /** The tiers above the pods; level `cadvisor`. */
  readonly tiers: readonly CgroupSample[];
}

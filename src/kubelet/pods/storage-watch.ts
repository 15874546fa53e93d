import { stat } from "node:fs/promises";

import type { AgentConfig } from "../../config/types.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { ContainerRuntime, PodRecord } from "../../runtime/types.ts";
import { podTargets, type PodTargets, type TargetOptions } from "../stats/disk-targets.ts";
import type { KernelFiles } from "../stats/kernel-files.ts";
import type { MeasureBytes } from "../stats/tree-usage.ts";
import type { AssignedPod } from "../types.ts";
import { isCritical } from "./preemption.ts";
import {
  hasStorageLimits,
  limitedVolumes,
  limitsContainers,
  type StorageOverrun,
  storageOverrun,
  type StorageUsage,
} from "./storage-limits.ts";

export interface StorageWatchOptions {
  readonly config: Pick<AgentConfig, "podLogsDir" | "rootDir">;
  readonly runtime: Pick<ContainerRuntime, "podRecord">;
  /** The engine's directory. */
  readonly engineDir: () => string;
  /** Pods that run, or are about to, and were admitted. */
  readonly pods: () => Iterable<AssignedPod>;
  /** A pod has used more than it may: it has to end. */
  readonly onOverrun: (pod: AssignedPod, overrun: StorageOverrun) => void;
  readonly files: KernelFiles;
  readonly measure: MeasureBytes;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** As often as the kubelet looks. */
const periodMs = 10_000;
/** A walk over large trees may take a tenth of the time. */
const restFactor = 9;
const maxPeriodMs = 120_000;
const walkDeadlineMs = 120_000;

interface Measured {
  readonly pod: AssignedPod;
  readonly targets: PodTargets;
  readonly record: PodRecord | undefined;
}

/**
 * Holds pods to the limits that they have on the node's disk (`emptyDir.sizeLimit`, `ephemeral-storage`): measured
 * every ten seconds while there is such a pod, and not at all otherwise.
 */
export class StorageWatch {
  readonly #options: StorageWatchOptions;
  #wake: () => void = () => undefined;

  constructor(options: StorageWatchOptions) {
    this.#options = options;
  }

  /** A pod is new. */
  podCame(pod: AssignedPod): void {
    if (isWatched(pod)) this.#wake();
  }

  /** Runs until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    while (!signal.aborted) {
      const beganAt = clock.monotonic();
      let any = true;
      try {
        any = await this.look(signal);
      } catch (error) {
        if (signal.aborted && isAbort(error)) return;
        logger.log("warn", "what pods use of the disk could not be measured", {
          error: errorMessage(error),
        });
      }
      const tookMs = clock.monotonic() - beganAt;
      const restMs = Math.min(Math.max(periodMs, tookMs * restFactor), maxPeriodMs);
      if (any) await clock.sleep(restMs, signal).catch(() => undefined);
      else await this.#untilOneComes(signal);
    }
  }

  /** One look; false when there is no pod to look at. */
  async look(signal: AbortSignal): Promise<boolean> {
    const { config, engineDir, measure, onOverrun } = this.#options;
    const pods = [...this.#options.pods()].filter(isWatched);
    if (pods.length === 0) return false;
    const all = await Promise.all(pods.map((pod) => this.#targets(pod, signal)));
    const paths = all.flatMap(({ targets }) => pathsOf(targets));
    const sizes = await measure(paths, deadline(signal, walkDeadlineMs));
    const layersApart = await onAnotherDisk(config.rootDir, engineDir());
    for (const { pod, record, targets } of all) {
      const overrun = storageOverrun(pod, usageOf(targets, record, sizes), layersApart);
      if (overrun !== undefined) onOverrun(pod, overrun);
    }
    return true;
  }

  async #untilOneComes(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    // One that came before this.
    if ([...this.#options.pods()].some(isWatched)) resolve();
    const stop = (): void => resolve();
    signal.addEventListener("abort", stop, { once: true });
    await promise;
    signal.removeEventListener("abort", stop);
  }

  /** A pod with limits on volumes only has nothing else measured. */
  async #targets(pod: AssignedPod, signal: AbortSignal): Promise<Measured> {
    const { config, engineDir, files, runtime } = this.#options;
    const { name, namespace = "", uid } = pod.metadata;
    const options: TargetOptions = {
      ...config,
      layersBelow: [engineDir(), "/var/lib/containerd"],
      files,
    };
    if (limitsContainers(pod)) {
      const record = await runtime.podRecord(uid, signal);
      return { pod, record, targets: await podTargets(record, pod, options) };
    }
    const nothing: PodRecord = { uid, name, namespace, sandboxes: [], containers: [] };
    const { files: hosts, volumes } = await podTargets(nothing, pod, options);
    const limited = new Set(limitedVolumes(pod));
    const targets = {
      uid,
      files: hosts,
      volumes: volumes.filter((volume) => limited.has(volume.name)),
      layers: new Map<string, string>(),
      logs: new Map<string, readonly string[]>(),
    };
    return { pod, record: undefined, targets };
  }
}

function isWatched(pod: AssignedPod): boolean {
  return !isCritical(pod) && hasStorageLimits(pod);
}

function pathsOf({ files, layers, logs, volumes }: PodTargets): readonly string[] {
  return [
    files,
    ...layers.values(),
    ...[...logs.values()].flat(),
    ...volumes.map(({ path }) => path),
  ];
}

function usageOf(
  { files, layers, logs, volumes }: PodTargets,
  record: PodRecord | undefined,
  sizes: ReadonlyMap<string, number>,
): StorageUsage {
  const sum = (paths: readonly string[]): number =>
    paths.reduce((total, path) => total + (sizes.get(path) ?? 0), 0);
  const containers = (record?.containers ?? []).flatMap(({ id, name, state }) => {
    const layer = layers.get(id);
    if (state.kind !== "running") return [];
    const used = {
      logs: sum(logs.get(name) ?? []),
      layer: layer === undefined ? 0 : sum([layer]),
    };
    return [[name, used] as const];
  });
  const ephemeral = volumes.filter((volume) => volume.ephemeral).map(({ path }) => path);
  return {
    volumes: new Map(
      volumes.flatMap(({ name, path }) => {
        const size = sizes.get(path);
        return size === undefined ? [] : [[name, size] as const];
      }),
    ),
    containers: new Map(containers),
    total: sum([files, ...layers.values(), ...[...logs.values()].flat(), ...ephemeral]),
  };
}

async function onAnotherDisk(rootDir: string, engineDir: string): Promise<boolean> {
  try {
    const [root, engine] = await Promise.all([stat(rootDir), stat(engineDir)]);
    return root.dev !== engine.dev;
  } catch {
    // An engine in another mount namespace: what it counts as its own disk is not known.
    return false;
  }
}

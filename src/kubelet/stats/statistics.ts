import { statfs } from "node:fs/promises";

import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { ImageService, PodRecord, RuntimeInfo } from "../../runtime/types.ts";
import type { AssignedPod, PodVolume } from "../types.ts";
import { cadvisorText } from "./cadvisor-text.ts";
import type { Disks } from "./disk-types.ts";
import { type AskFilesystem, DiskUsage } from "./disk-usage.ts";
import type { KernelFiles } from "./kernel-files.ts";
import { blockDeviceName, cpuTopology, type MachineFacts, mountedDevice } from "./machine-facts.ts";
import { type ClaimFigures } from "./claim-metrics.ts";
import { OwnVolumes } from "./own-volumes.ts";
import { resourceText } from "./resource-text.ts";
import type { Sample } from "./sample.ts";
import { Sampler } from "./sampler.ts";
import { cpuAndMemorySummary, summary, type SummaryInput } from "./summary.ts";
import type { Summary } from "./summary-types.ts";
import { type MeasureTrees, measureTrees } from "./tree-usage.ts";

export interface StatisticsOptions {
  readonly config: Pick<
    AgentConfig,
    | "cgroupRoot"
    | "cgroupsPerQOS"
    | "dockerSocket"
    | "nodeName"
    | "podLogsDir"
    | "rootDir"
    | "volumeStatsAggPeriodMs"
  >;
  /** What the runtime holds, as last seen. */
  readonly records: () => readonly PodRecord[];
  readonly pods: () => readonly AssignedPod[];
  /** Volumes of a pod with room of their own; default: there are none. */
  readonly volumes?: (podUID: string) => readonly PodVolume[];
  readonly runtimeInfo: () => Pick<
    RuntimeInfo,
    "cgroupDriver" | "imageRootDir" | "rootDir" | "version"
  >;
  readonly images: Pick<ImageService, "listImages">;
  readonly identity: () => Pick<
    MachineFacts,
    "bootID" | "kernelVersion" | "machineID" | "osImage" | "systemUUID"
  >;
  readonly files: KernelFiles;
  /** Default du(1). */
  readonly measure?: MeasureTrees;
  /** Default statfs(2). */
  readonly filesystem?: AskFilesystem;
  /** How long a walk over volumes, logs and layers took. */
  readonly onDisksMeasured?: (seconds: number) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

const askFilesystem: AskFilesystem = async (path) => {
  const { bavail, bfree, blocks, bsize, ffree, files } = await statfs(path);
  return {
    capacityBytes: blocks * bsize,
    availableBytes: bavail * bsize,
    usedBytes: (blocks - bfree) * bsize,
    inodes: files === 0 ? undefined : { total: files, free: ffree },
  };
};

/** How much of the node and of each pod is in use: one sampler, three pages. Costs nothing while nobody asks. */
export class Statistics {
  readonly #options: StatisticsOptions;
  readonly #sampler: Sampler;
  readonly #disks: DiskUsage;
  readonly #own: OwnVolumes;
  #machine: MachineFacts | undefined;

  constructor(options: StatisticsOptions) {
    this.#options = options;
    this.#sampler = new Sampler(options);
    this.#own = new OwnVolumes({ ...options, volumes: options.volumes ?? (() => []) });
    this.#disks = new DiskUsage({
      ...options,
      own: this.#own,
      engineDir: () => imageRootOf(options.runtimeInfo()),
      measure: options.measure ?? measureTrees,
      filesystem: options.filesystem ?? askFilesystem,
      ...(options.onDisksMeasured === undefined ? {} : { onMeasured: options.onDisksMeasured }),
    });
  }

  /** `/stats/summary`, or the part of it that needs no disk. */
  async summary(onlyCpuAndMemory: boolean, signal: AbortSignal): Promise<Summary> {
    if (onlyCpuAndMemory) {
      return cpuAndMemorySummary(this.#input(await this.#sampler.sample("summary"), noDisks));
    }
    const disks = await this.#disks.disks(signal);
    return summary(this.#input(await this.#sampler.sample("summary"), disks));
  }

  /** `/metrics/resource`. Never rejects: what went wrong is a figure on it. */
  async resource(): Promise<string> {
    try {
      return resourceText(await this.#sampler.sample("resource"));
    } catch (error) {
      this.#options.logger.log("warn", "resource usage could not be read", {
        error: errorMessage(error),
      });
      return resourceText(undefined);
    }
  }

  /** `/metrics/cadvisor`. */
  async cadvisor(signal: AbortSignal): Promise<string> {
    const disks = await this.#disks.disks(signal);
    const input = this.#input(await this.#sampler.sample("cadvisor"), disks);
    const nowMs = this.#options.clock.now();
    return cadvisorText({ ...input, machine: this.#facts(), nowMs });
  }

  /** How full the volumes behind claims are, as last asked; those of long ago are asked anew, behind. */
  claims(): readonly ClaimFigures[] {
    const pods = this.#options.pods();
    // It never rejects, and each question has its own end.
    void this.#own.refresh(pods.map(({ metadata }) => metadata.uid));
    return pods.flatMap(({ metadata }) =>
      this.#own.of(metadata.uid).flatMap(({ claim, figures }) => {
        const { namespace = "" } = metadata;
        return claim === undefined ? [] : [{ namespace, claim, figures }];
      }),
    );
  }

  /** Lets go of what is open; resolves when no walk is under way. */
  async close(): Promise<void> {
    this.#sampler.close();
    await this.#disks.idle();
  }

  #input(sample: Sample, disks: Disks): SummaryInput {
    const { config, pods } = this.#options;
    const byUID = new Map(pods().map((pod) => [pod.metadata.uid, pod]));
    return { nodeName: config.nodeName, sample, disks, pods: byUID };
  }

  #facts(): MachineFacts {
    const { config, files, identity, runtimeInfo } = this.#options;
    const { version } = runtimeInfo();
    // Another engine may stand behind the socket after an upgrade.
    if (this.#machine !== undefined) return { ...this.#machine, engineVersion: version };
    const names = new Map<string, string>();
    this.#machine = {
      ...identity(),
      ...cpuTopology(files),
      engineVersion: version,
      deviceName: (major, minor) => {
        const key = `${major}:${minor}`;
        const name = names.get(key) ?? blockDeviceName(files, major, minor);
        names.set(key, name);
        return name;
      },
      nodeDevice: mountedDevice(files, config.rootDir),
      engineDevice: mountedDevice(files, imageRootOf(runtimeInfo())),
    };
    return this.#machine;
  }
}

function imageRootOf({
  imageRootDir,
  rootDir,
}: Pick<RuntimeInfo, "imageRootDir" | "rootDir">): string {
  return imageRootDir ?? rootDir;
}

const noDisks: Disks = {
  node: undefined,
  images: undefined,
  imageBytes: undefined,
  pods: new Map(),
};

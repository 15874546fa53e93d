import type { AgentConfig } from "../../config/types.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { ImageService, PodRecord } from "../../runtime/types.ts";
import type { AssignedPod } from "../types.ts";
import { podTargets, type PodTargets } from "./disk-targets.ts";
import type { Disks, Filesystem, PodDisks, TreeUsage, VolumeUsage } from "./disk-types.ts";
import type { KernelFiles } from "./kernel-files.ts";
import type { OwnVolumes } from "./own-volumes.ts";
import type { MeasureTrees } from "./tree-usage.ts";

/** Sizes of the filesystem that holds a path. */
export type AskFilesystem = (path: string) => Promise<Omit<Filesystem, "timeMs">>;

export interface DiskUsageOptions {
  readonly config: Pick<AgentConfig, "podLogsDir" | "rootDir" | "volumeStatsAggPeriodMs">;
  /** The engine's directory. */
  readonly engineDir: () => string;
  readonly records: () => readonly PodRecord[];
  readonly pods: () => readonly AssignedPod[];
  readonly images: Pick<ImageService, "listImages">;
  readonly files: KernelFiles;
  readonly measure: MeasureTrees;
  readonly filesystem: AskFilesystem;
  /** Volumes that are no part of the node's own disks. Default: there are none. */
  readonly own?: OwnVolumes;
  /** How long a walk took, for the metrics. */
  readonly onMeasured?: (seconds: number) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** How old sizes of trees may be while somebody asks for them (`volumeStatsAggPeriod`; 0 is the default's other name). */
const defaultPeriodMs = 60_000;
/** Pods that came since are not let wait for so long. */
const soonMs = 10_000;
const walkDeadlineMs = 60_000;
const maxPauseMs = 3_600_000;
/** How long a request waits for a disk: after that it is answered with what was known before. */
const patienceMs = 1000;
const filesystemFreshMs = 5000;

interface Walked {
  readonly endedAt: number;
  readonly pods: ReadonlyMap<string, PodDisks>;
  readonly imageBytes: number | undefined;
}

/**
 * Sizes on disks. Nothing is measured unless somebody asks, and nobody who asks waits longer than a second: walks go on
 * behind, one at a time, and their last results are shown with the time at which they were true.
 */
export class DiskUsage {
  readonly #options: DiskUsageOptions;
  readonly #filesystems = new Map<
    string,
    { readonly askedAt: number; readonly value: Filesystem }
  >();
  readonly #asking = new Map<string, Promise<void>>();
  #walked: Walked | undefined;
  #walking: Promise<void> | undefined;
  #failures = 0;
  #nextAt = 0;

  constructor(options: DiskUsageOptions) {
    this.#options = options;
  }

  /** What is known now. */
  async disks(signal: AbortSignal): Promise<Disks> {
    const { config, engineDir, own, records } = this.#options;
    this.#refresh(records(), signal);
    const asked = own?.refresh(records().map(({ uid }) => uid));
    const walk = this.#isStale() ? this.#walking : undefined;
    const engine = engineDir();
    await this.#patiently(
      Promise.all([this.#ask(config.rootDir), this.#ask(engine), walk, asked]),
      signal,
    );
    return {
      node: this.#filesystems.get(config.rootDir)?.value,
      images: this.#filesystems.get(engine)?.value,
      imageBytes: this.#walked?.imageBytes,
      pods: this.#pods(),
    };
  }

  #pods(): ReadonlyMap<string, PodDisks> {
    const { own } = this.#options;
    const walked = this.#walked?.pods ?? new Map<string, PodDisks>();
    if (own === undefined) return walked;
    return new Map([...walked].map(([uid, disks]) => [uid, { ...disks, own: own.of(uid) }]));
  }

  /** Resolves when no walk is under way. */
  async idle(): Promise<void> {
    await this.#walking;
  }

  async #patiently(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const enough = AbortSignal.any([signal, stop.signal]);
    const patience = this.#options.clock.sleep(patienceMs, enough).catch(() => undefined);
    await Promise.race([work, patience]);
    stop.abort();
  }

  /** Sizes of one filesystem; whoever hangs is asked once only. */
  async #ask(path: string): Promise<void> {
    const known = this.#filesystems.get(path);
    const now = this.#options.clock.monotonic();
    if (known !== undefined && now - known.askedAt < filesystemFreshMs) return;
    let asking = this.#asking.get(path);
    if (asking === undefined) {
      asking = this.#askNow(path).finally(() => this.#asking.delete(path));
      this.#asking.set(path, asking);
    }
    await asking;
  }

  async #askNow(path: string): Promise<void> {
    const { clock, filesystem } = this.#options;
    try {
      const value = { timeMs: clock.now(), ...(await filesystem(path)) };
      this.#filesystems.set(path, { askedAt: clock.monotonic(), value });
    } catch (error) {
      this.#tell("filesystem cannot be asked for its size", error);
    }
  }

  get #periodMs(): number {
    const configured = this.#options.config.volumeStatsAggPeriodMs ?? 0;
    return configured === 0 ? defaultPeriodMs : configured;
  }

  /** Nothing was measured yet, or so long ago that nobody should be shown it without waiting for better. */
  #isStale(): boolean {
    const walked = this.#walked;
    return (
      walked === undefined || this.#options.clock.monotonic() - walked.endedAt >= this.#periodMs
    );
  }

  #refresh(present: readonly PodRecord[], signal: AbortSignal): void {
    const { clock } = this.#options;
    if (this.#walking !== undefined || this.#periodMs < 0 || signal.aborted) return;
    const now = clock.monotonic();
    const walked = this.#walked;
    const known = walked?.pods;
    const missing = known !== undefined && present.some(({ uid }) => !known.has(uid));
    const due = missing && this.#failures === 0 ? (walked?.endedAt ?? 0) + soonMs : this.#nextAt;
    if (now < due && walked !== undefined) return;
    if (now < this.#nextAt && walked === undefined) return;
    // Not the request's own signal: others wait for the result as well.
    this.#walking = this.#walk(present, AbortSignal.timeout(walkDeadlineMs)).finally(() => {
      this.#walking = undefined;
    });
  }

  async #walk(present: readonly PodRecord[], signal: AbortSignal): Promise<void> {
    const { clock, onMeasured } = this.#options;
    const startedAt = clock.monotonic();
    try {
      const targets = await this.#targets(present);
      const [sizes, imageBytes] = await Promise.all([
        this.#options.measure(pathsOf(targets), signal),
        this.#imageBytes(signal),
      ]);
      const timeMs = clock.now();
      const usage = (path: string): TreeUsage | undefined => {
        const size = sizes.get(path);
        return size === undefined ? undefined : { timeMs, ...size };
      };
      const pods = new Map<string, PodDisks>();
      for (const each of targets) pods.set(each.uid, await this.#podDisks(each, usage));
      const endedAt = clock.monotonic();
      this.#walked = { endedAt, pods, imageBytes };
      this.#failures = 0;
      // Before it is due, so that who asks often never waits.
      this.#nextAt = endedAt + (this.#periodMs * 2) / 3;
      onMeasured?.((endedAt - startedAt) / 1000);
    } catch (error) {
      // What is stuck stays stuck: each further try would add one more process to it.
      this.#failures += 1;
      this.#nextAt =
        clock.monotonic() +
        Math.min(this.#periodMs * 2 ** Math.min(this.#failures, 10), maxPauseMs);
      this.#tell("disk usage could not be measured", error);
    }
  }

  async #targets(present: readonly PodRecord[]): Promise<readonly PodTargets[]> {
    const { config, engineDir, files, pods } = this.#options;
    const known = new Map(pods().map((pod) => [pod.metadata.uid, pod]));
    const layersBelow = [engineDir(), "/var/lib/containerd"];
    const options = { rootDir: config.rootDir, podLogsDir: config.podLogsDir, layersBelow, files };
    const out: PodTargets[] = [];
    for (const record of present)
      out.push(await podTargets(record, known.get(record.uid), options));
    return out;
  }

  async #imageBytes(signal: AbortSignal): Promise<number | undefined> {
    try {
      const list = await this.#options.images.listImages(deadline(signal, 30_000));
      return list.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    } catch (error) {
      this.#tell("images could not be listed for their sizes", error);
      return undefined;
    }
  }

  async #podDisks(
    { files, layers, logs, volumes }: PodTargets,
    usage: (path: string) => TreeUsage | undefined,
  ): Promise<PodDisks> {
    const measured: VolumeUsage[] = [];
    for (const { ephemeral, mounted, name, path } of volumes) {
      const of = usage(path);
      // Not set up yet, or gone already.
      if (of === undefined) continue;
      const filesystem = await this.#filesystemOf(mounted ? path : this.#options.config.rootDir);
      if (filesystem === undefined) continue;
      measured.push({ name, ephemeral, claim: undefined, filesystem, usage: of });
    }
    const layersOf = [...layers].flatMap(([id, path]) => {
      const of = usage(path);
      return of === undefined ? [] : [[id, of] as const];
    });
    const logsOf = [...logs].flatMap(([container, paths]) => {
      const parts = paths.flatMap((path) => usage(path) ?? []);
      return parts.length === 0 ? [] : [[container, total(parts)] as const];
    });
    return {
      volumes: measured,
      writableLayers: new Map(layersOf),
      logs: new Map(logsOf),
      files: usage(files),
    };
  }

  async #filesystemOf(path: string): Promise<Filesystem | undefined> {
    const { clock, config, filesystem } = this.#options;
    if (path === config.rootDir) {
      await this.#ask(path);
      return this.#filesystems.get(path)?.value;
    }
    try {
      return { timeMs: clock.now(), ...(await filesystem(path)) };
    } catch {
      // Unmounted meanwhile.
      return undefined;
    }
  }

  #tell(msg: string, error: unknown): void {
    const level = this.#failures <= 1 ? "warn" : "debug";
    this.#options.logger.log(level, msg, { error: errorMessage(error) });
  }
}

function total(parts: readonly TreeUsage[]): TreeUsage {
  return {
    timeMs: Math.max(...parts.map(({ timeMs }) => timeMs)),
    bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
    inodes: parts.reduce((sum, { inodes }) => sum + inodes, 0),
  };
}

function pathsOf(targets: readonly PodTargets[]): readonly string[] {
  return targets.flatMap(({ files, layers, logs, volumes }) => [
    files,
    ...layers.values(),
    ...[...logs.values()].flat(),
    ...volumes.map(({ path }) => path),
  ]);
}

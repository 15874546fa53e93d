import { mkdir, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";

import type { Clock } from "../../lib/clock.ts";
import { errorCode, errorMessage, isAbort } from "../../lib/errors.ts";
import { KeyedQueue } from "../../lib/keyed-queue.ts";
import type { Logger } from "../../lib/log.ts";
import type { Given } from "../../lib/protobuf-message.ts";
import { namesIn } from "../../lib/names-in.ts";
import type { StepHook } from "../steps.ts";
import type { VolumesInUse } from "../volumes/in-use.ts";
import { KeyedLock } from "../volumes/keyed-lock.ts";
import type { Mounter } from "../volumes/mounter.ts";
import { VolumeError } from "../volumes/payload.ts";
import { podsDirectory } from "../volumes/pod-paths.ts";
import type { RemoveTree } from "../volumes/remove-tree.ts";
import { type DriverConnection, withDriver } from "./driver-connection.ts";
import type { CsiDrivers } from "./drivers.ts";
import type { NodeStageVolumeRequest } from "./messages.ts";
import { nodeMethods } from "./methods.ts";
import {
  csiDirectory,
  type CsiPaths,
  parseVolumeName,
  uniqueVolumeName,
  type VolumeID,
} from "./paths.ts";
import { RpcError } from "./rpc.ts";
import {
  loadVolumeData,
  removeVolumeData,
  saveVolumeData,
  type VolumeData,
} from "./volume-data.ts";

export interface StagingOptions {
  readonly rootDir: string;
  readonly paths: CsiPaths;
  readonly drivers: CsiDrivers;
  readonly inUse: VolumesInUse;
  readonly mounter: Pick<Mounter, "table">;
  readonly removeTree: RemoveTree;
  readonly step: StepHook;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Where one volume is staged. */
interface StagedVolume {
  readonly volume: VolumeID;
  readonly target: string;
  /** Holds what is kept of it. */
  readonly dataDirectory: string;
  /** Name of the PersistentVolume; raw block volumes only. */
  readonly block?: string;
}

/** A volume to stage. */
export interface StageOrder {
  readonly volume: VolumeID;
  /** Name of the PersistentVolume; raw block volumes only. */
  readonly block?: string;
  readonly data: VolumeData;
  /** All but volume and target. */
  readonly request: Given<NodeStageVolumeRequest>;
}

const backoff = { firstMs: 500, maxMs: 122_000 };
const concurrency = 4;
const reservedNames: ReadonlySet<string> = new Set(["staging", "publish"]);

/**
 * Volumes that drivers have made ready on this node for all its pods (`NodeStageVolume`). One that no pod has any more is
 * unstaged, whoever staged it: only the directories count.
 */
export class Staging {
  readonly #options: StagingOptions;
  readonly #lock = new KeyedLock();
  /** Pods that have a volume or are to have it, by its name. */
  readonly #users = new Map<string, Set<string>>();
  /** Staged by this process: after a restart each is staged anew, which drivers take for the same. */
  readonly #staged = new Set<string>();
  readonly #failures = new Map<string, number>();
  #queue: KeyedQueue | undefined;

  constructor(options: StagingOptions) {
    this.#options = options;
  }

  /** Unstages what is not needed, until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, drivers, logger } = this.#options;
    const queue = new KeyedQueue({
      work: (name, inner) => this.#sweep(name, inner),
      onError: (name, error) => {
        if (isAbort(error) && signal.aborted) return;
        const failures = (this.#failures.get(name) ?? 0) + 1;
        this.#failures.set(name, failures);
        logger.log(failures === 1 ? "warn" : "debug", "volume was not unstaged, will retry", {
          volume: name,
          attempt: failures,
          error: errorMessage(error),
        });
        queue.addAfter(name, Math.min(backoff.firstMs * 2 ** (failures - 1), backoff.maxMs));
      },
      concurrency,
      clock,
      signal,
    });
    this.#queue = queue;
    // What failed because its driver was not there need not wait any longer.
    const unsubscribe = drivers.subscribe((driver) => {
      for (const name of this.#failures.keys()) {
        if (parseVolumeName(name)?.driver === driver) queue.add(name);
      }
    });
    try {
      await this.#adopt(queue, signal);
      if (!signal.aborted) {
        await new Promise<void>((resolve) => {
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
    } finally {
      unsubscribe();
    }
    await queue.idle();
  }

  /** A pod is to have the volume. */
  want(volume: VolumeID, podUID: string, attachable: boolean): void {
    const name = uniqueVolumeName(volume);
    const users = this.#users.get(name) ?? new Set<string>();
    users.add(podUID);
    this.#users.set(name, users);
    if (attachable) this.#options.inUse.add(name, podUID);
  }

  /** The pod has nothing of the volume any more: when it was the last one, the volume is unstaged soon. */
  release(volume: VolumeID, podUID: string): void {
    const name = uniqueVolumeName(volume);
    this.#users.get(name)?.delete(podUID);
    this.#options.inUse.release(name, podUID);
    this.#queue?.add(name);
  }

  /** Does `work` while nobody else stages, publishes or unstages the volume. */
  async hold<T>(volume: VolumeID, work: () => Promise<T>): Promise<T> {
    return this.#lock.hold(uniqueVolumeName(volume), work);
  }

  /**
   * Has the driver stage a volume; call while holding it. Nothing is done where this process has done so already.
   *
   * @returns Where; undefined when the driver does not stage volumes.
   * @throws {RpcError}
   */
  async stage(driver: DriverConnection, order: StageOrder): Promise<string | undefined> {
    if (!(await driver.can("stageUnstageVolume"))) return undefined;
    const { step } = this.#options;
    const staged = this.#place(order.volume, order.block);
    const name = uniqueVolumeName(order.volume);
    if (this.#staged.has(name)) return staged.target;
    await step("mountVolume");
    await mkdir(staged.dataDirectory, { recursive: true, mode: 0o750 });
    await mkdir(staged.target, { recursive: true, mode: 0o750 });
    await saveVolumeData(staged.dataDirectory, order.data);
    try {
      await driver.call(nodeMethods.stage, {
        ...order.request,
        volumeId: order.volume.handle,
        stagingTargetPath: staged.target,
      });
    } catch (error) {
      // Nothing is under way: nobody has to undo it.
      if (error instanceof RpcError && error.final)
        await this.#forget(staged).catch(() => undefined);
      throw error;
    }
    this.#staged.add(name);
    return staged.target;
  }

  /** Where the volume is staged, if its driver stages volumes. */
  target(volume: VolumeID, block?: string): string {
    return this.#place(volume, block).target;
  }

  #place(volume: VolumeID, block: string | undefined): StagedVolume {
    const { paths } = this.#options;
    if (block === undefined) {
      return { volume, target: paths.stagingTarget(volume), dataDirectory: paths.staged(volume) };
    }
    const dataDirectory = paths.blockData(block);
    return { volume, target: paths.blockStaging(block), dataDirectory, block };
  }

  /** What a former run left is in use until a look at it has shown that it is not. */
  async #adopt(queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const { inUse, logger } = this.#options;
    try {
      const [staged, published] = await Promise.all([this.#onDisk(), this.#published()]);
      const names = new Set(staged.map(({ volume }) => uniqueVolumeName(volume)));
      inUse.restore([...names, ...published]);
      for (const name of names) if (!published.has(name)) queue.add(name);
    } catch (error) {
      if (signal.aborted) return;
      logger.log("error", "volumes of a former run cannot be looked for", {
        error: errorMessage(error),
      });
    }
  }

  async #sweep(name: string, signal: AbortSignal): Promise<void> {
    const volume = parseVolumeName(name);
    if (volume === undefined) return;
    await this.hold(volume, async () => {
      if ((this.#users.get(name)?.size ?? 0) > 0) return;
      if ((await this.#published()).has(name)) return;
      for (const staged of await this.#onDisk()) {
        if (uniqueVolumeName(staged.volume) === name) await this.#unstage(staged, signal);
      }
      this.#failures.delete(name);
      this.#options.inUse.drop(name);
      // A pod may want it again by now.
      if (this.#users.get(name)?.size === 0) this.#users.delete(name);
    });
  }

  async #unstage(staged: StagedVolume, signal: AbortSignal): Promise<void> {
    const { step } = this.#options;
    const { target: stagingTargetPath, volume } = staged;
    await withDriver(
      this.#options,
      volume.driver,
      async (driver) => {
        if (!(await driver.can("stageUnstageVolume"))) return;
        await step("unmountVolume");
        await driver.call(nodeMethods.unstage, { volumeId: volume.handle, stagingTargetPath });
      },
      signal,
    );
    this.#staged.delete(uniqueVolumeName(volume));
    await this.#forget(staged, signal);
  }

  /** Removes what is kept of a volume that is not staged (any more). */
  async #forget(staged: StagedVolume, signal?: AbortSignal): Promise<void> {
    const { mounter, paths, removeTree, step } = this.#options;
    const { block, dataDirectory, target } = staged;
    if (mounter.table().below(target).length > 0) throw new VolumeError(`still mounted: ${target}`);
    await step("removeVolume");
    if (block === undefined) {
      await removeEmpty(target);
      await removeVolumeData(dataDirectory);
      await removeEmpty(dataDirectory);
      await removeEmpty(dirname(dataDirectory));
      return;
    }
    const stop = signal ?? new AbortController().signal;
    await removeTree(target, stop);
    await removeEmpty(paths.blockPublishDirectory(block));
    await removeTree(paths.blockDirectory(block), stop);
  }

  /** What is kept of volumes that may be staged. */
  async #onDisk(): Promise<readonly StagedVolume[]> {
    const { paths } = this.#options;
    const found: StagedVolume[] = [];
    for (const driver of await namesIn(paths.plugin)) {
      if (join(paths.plugin, driver) === paths.blockVolumes) continue;
      for (const digest of await namesIn(join(paths.plugin, driver))) {
        const dataDirectory = join(paths.plugin, driver, digest);
        const volume = await this.#volumeOf(dataDirectory);
        if (volume === undefined) continue;
        found.push({ volume, target: join(dataDirectory, "globalmount"), dataDirectory });
      }
    }
    for (const block of await namesIn(paths.blockVolumes)) {
      if (reservedNames.has(block)) continue;
      const volume = await this.#volumeOf(paths.blockData(block));
      if (volume !== undefined) found.push(this.#place(volume, block));
    }
    return found;
  }

  async #volumeOf(directory: string): Promise<VolumeID | undefined> {
    try {
      const data = await loadVolumeData(directory);
      return data && { driver: data.driverName, handle: data.volumeHandle };
    } catch (error) {
      if (!(error instanceof VolumeError)) throw error;
      this.#options.logger.log("error", "a CSI volume cannot be undone", { error: error.message });
      return undefined;
    }
  }

  /** Names of the volumes that some pod has, or may have. */
  async #published(): Promise<ReadonlySet<string>> {
    const found = new Set<string>();
    const pods = podsDirectory(this.#options.rootDir);
    for (const uid of await namesIn(pods)) {
      for (const kind of ["volumes", "volumeDevices"]) {
        const volumes = join(pods, uid, kind, csiDirectory);
        for (const name of await namesIn(volumes)) {
          const volume = await this.#volumeOf(join(volumes, name));
          if (volume !== undefined) found.add(uniqueVolumeName(volume));
        }
      }
    }
    return found;
  }
}

/** Not there is success; what holds something is left. */
async function removeEmpty(directory: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    const code = errorCode(error);
    if (code !== "ENOENT" && code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
  }
}

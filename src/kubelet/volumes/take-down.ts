import { basename, dirname, join, relative } from "node:path";

import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { StepHook } from "../steps.ts";
import type { MountEntry, MountTable } from "./mount-table.ts";
import type { Mounter } from "./mounter.ts";
import { namesIn } from "../../lib/names-in.ts";
import { Operations, type Standing, type Work } from "./operations.ts";
import { VolumeError } from "./payload.ts";
import type { VolumePlugin } from "./plugin.ts";
import type { PodPaths } from "./pod-paths.ts";
import type { RemoveTree } from "./remove-tree.ts";
import { removeEmpty } from "./volume-bind.ts";

export interface TakeDownOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly step: StepHook;
  readonly mounter: Mounter;
  readonly plugins: readonly VolumePlugin[];
  readonly removeTree: RemoveTree;
  /** Ends everything that goes on apart from a look at a pod. */
  readonly signal: AbortSignal;
  /** The pod has to be looked at again: what it waited for is through. */
  readonly wake: (uid: string) => void;
}

/** Volumes of a pod do not go yet. */
export class TearDownError extends VolumeError {
  /** When to try again, milliseconds from now. */
  readonly retryInMs: number;
  /** Nobody was told of it before, and it is worth telling. */
  readonly news: boolean;

  constructor(message: string, { news, retryInMs }: { news: boolean; retryInMs: number }) {
    super(message);
    this.news = news;
    this.retryInMs = retryInMs;
  }
}

/** What only takes its time is no news before this. */
const slowMs = 30_000;

/** Takes down what pods have on disk and in the mount table; what that is they alone tell. */
export class TakeDown {
  readonly #options: TakeDownOptions;
  readonly #operations: Operations<void>;
  /** When the pod was first found to be slow, and whether that was told. */
  readonly #slow = new Map<string, { readonly since: number; told: boolean }>();

  constructor(options: TakeDownOptions) {
    this.#options = options;
    const { clock, signal, wake } = options;
    this.#operations = new Operations({ clock, signal, onSettled: wake });
  }

  /**
   * Each volume by itself: what does not go keeps no other from it.
   *
   * @throws {TearDownError} naming what does not go, and why.
   */
  async pod(uid: string, paths: PodPaths, signal: AbortSignal): Promise<void> {
    const there = new Set(await namesIn(paths.root));
    // Read once: with a hundred pods the kernel takes milliseconds to write it.
    let table: MountTable | undefined;
    const mounts = (path: string): readonly MountEntry[] =>
      (table ??= this.#options.mounter.table()).below(path);
    const { subPaths } = paths;
    if (there.has(basename(subPaths))) {
      // They show what is in volumes, which are in use for as long.
      const removal: Work<void> = async (stop) => this.#remove(subPaths, mounts(subPaths), stop);
      await this.#round(uid, new Map([[subPaths, removal]]), signal);
    }
    const works = new Map<string, Work<void>>();
    const roots = [paths.volumes, paths.volumeDevices].filter((root) => there.has(basename(root)));
    for (const root of roots) {
      for (const plugin of await namesIn(root)) {
        for (const name of await namesIn(join(root, plugin))) {
          const path = join(root, plugin, name);
          works.set(path, async (stop) => {
            await this.#askPlugin(uid, path, stop);
            await this.#remove(path, mounts(path), stop);
            // The last of its kind.
            await removeEmpty(dirname(path));
          });
        }
      }
    }
    await this.#round(uid, works, signal);
    // Only empty directories are left, unless somebody has mounted or put something between them.
    const rest = roots.map((root): [string, Work<void>] => [
      root,
      async (stop) => {
        if (!(await this.#removeIfEmpty(root))) await this.remove(root, stop);
      },
    ]);
    await this.#round(uid, new Map(rest), signal);
    this.#slow.delete(uid);
    await this.#operations.stop(uid, signal);
  }

  /**
   * Unmounts everything at and below `path` and removes it. Not there is success.
   *
   * @throws {VolumeError} with the exact path that does not go.
   */
  async remove(path: string, signal: AbortSignal): Promise<void> {
    await this.#remove(path, this.#options.mounter.table().below(path), signal);
  }

  /** Resolves when nothing goes on any more. Call after the signal has aborted. */
  async idle(): Promise<void> {
    await this.#operations.idle();
  }

  /** Whether a pod has taken so long to go that it is told; true once. */
  isSlow(uid: string): boolean {
    const now = this.#options.clock.monotonic();
    const slow = this.#slow.get(uid) ?? { since: now, told: false };
    this.#slow.set(uid, slow);
    if (slow.told || now - slow.since < slowMs) return false;
    slow.told = true;
    return true;
  }

  async #askPlugin(podUID: string, path: string, signal: AbortSignal): Promise<void> {
    const directory = basename(dirname(path));
    const plugin = this.#options.plugins.find((each) => each.directory === directory);
    await plugin?.tearDown?.({ podUID, name: basename(path), path }, signal);
  }

  /** @param mounts What is to be unmounted first. What is mounted besides ends the removal. */
  async #remove(path: string, mounts: readonly MountEntry[], signal: AbortSignal): Promise<void> {
    const { mounter, removeTree, step } = this.#options;
    for (const mount of mounts) await this.#unmount(path, mount, signal);
    if (mounts.length > 0) {
      // What was a mount point rarely holds anything itself.
      if (await this.#removeIfEmpty(path)) return;
      const left = mounter.table().below(path);
      if (left.length > 0) {
        throw new VolumeError(`still mounted: ${left.map((mount) => mount.path).join(", ")}`);
      }
    }
    await step("removeVolume");
    await removeTree(path, signal);
  }

  async #removeIfEmpty(path: string): Promise<boolean> {
    await this.#options.step("removeVolume");
    return removeEmpty(path);
  }

  async #unmount(volume: string, mount: MountEntry, signal: AbortSignal): Promise<void> {
    const { logger, mounter, step } = this.#options;
    const { path, source, type } = mount;
    await step("unmountVolume");
    const how = await mounter.unmount(path, signal);
    if (how === "detached") {
      logger.log("warn", "file system does not answer: taken out of the tree as it was", {
        path,
        type,
        source,
      });
    } else if (isForeign(volume, path)) {
      logger.log("warn", "unmounted what somebody had mounted inside a volume", {
        path,
        type,
        source,
      });
    }
  }

  async #round(
    uid: string,
    works: ReadonlyMap<string, Work<void>>,
    signal: AbortSignal,
  ): Promise<void> {
    if (works.size === 0) return;
    const now = this.#options.clock.monotonic();
    const standings = await this.#operations.round(uid, works, "", signal);
    const open = [...standings].filter(([, { kind }]) => kind !== "done");
    if (open.length === 0) return;
    const times = open.flatMap(([, standing]) =>
      standing.kind === "failed" ? [standing.retryAt - now] : [],
    );
    const running = open.some(([, { kind }]) => kind === "running");
    const news =
      (running && this.isSlow(uid)) ||
      open.some(([, standing]) => standing.kind === "failed" && standing.news);
    const texts = open.map(([path, standing]) => problem(path, standing));
    const retryInMs = Math.max(Math.min(...times, slowMs), 0);
    throw new TearDownError(texts.join("; "), { news, retryInMs });
  }
}

/** What plug-ins mount is the volume itself, or `mount` in it. */
function isForeign(volume: string, path: string): boolean {
  const below = relative(volume, path);
  return basename(volume) !== "volume-subpaths" && below !== "" && below !== "mount";
}

function problem(path: string, standing: Standing<void>): string {
  const why = standing.kind === "failed" ? errorMessage(standing.error) : "it is still in progress";
  return `UnmountVolume.TearDown failed for volume "${basename(path)}" : ${why}`;
}

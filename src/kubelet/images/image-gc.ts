import type { EventRecorder } from "../../api/event-types.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort, RemoraError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { isRuntimeFailure } from "../../runtime/errors.ts";
import type { ContainerRuntime, Image, ImageService } from "../../runtime/types.ts";
import type { PodMetrics } from "../stats/pod-metrics.ts";
import { repositoryOf } from "./credentials.ts";
import type { PullRecords } from "./pull-records.ts";

export interface DiskUsage {
  readonly capacityBytes: number;
  readonly availableBytes: number;
}

export interface ImageCollectorOptions {
  readonly config: Pick<
    AgentConfig,
    | "nodeName"
    | "imageGCHighThresholdPercent"
    | "imageGCLowThresholdPercent"
    | "imageMinimumGCAgeMs"
    | "imageMaximumGCAgeMs"
  >;
  readonly images: ImageService;
  readonly runtime: Pick<ContainerRuntime, "snapshot">;
  readonly records: PullRecords;
  /** Ids of images that volumes of pods show; default: none. */
  readonly mountedImages?: () => Iterable<string>;
  /** The file system that holds the images. */
  readonly disk: () => Promise<DiskUsage>;
  readonly events: EventRecorder;
  readonly metrics?: { readonly pods: Pick<PodMetrics, "imageCollected"> };
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The disk is full, and not with images that may go. */
class ImageCollectionError extends RemoraError {
  readonly code = "REMORA_IMAGE_GC";
  override readonly retryable = true;
}

interface Seen {
  /** Milliseconds since the epoch; 0 for what was there when we came. */
  readonly firstSeen: number;
  /** 0 when it was never seen in use. */
  lastUsed: number;
}

interface Candidate extends Seen {
  readonly image: Image;
}

const periodMs = 300_000;

/** As the kubelet writes sizes. */
export function formatSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = bytes;
  let at = 0;
  while (size >= 1024 && at < units.length - 1) {
    size /= 1024;
    at += 1;
  }
  return at === 0 ? `${Math.trunc(size)} B` : `${size.toFixed(1)} ${units[at] ?? ""}`;
}

/**
 * Removes images that no container uses, the longest unused first, when the disk is full or they are old. Only what this
 * node pulled, and only while nobody has given it a name of his own: other people's images share the engine.
 */
export class ImageCollector {
  readonly #options: ImageCollectorOptions;
  readonly #seen = new Map<string, Seen>();
  readonly #beganAt: number;
  #looked = false;
  #failed = false;

  constructor(options: ImageCollectorOptions) {
    this.#options = options;
    this.#beganAt = options.clock.now();
  }

  /** Looks every five minutes until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, config } = this.#options;
    const high = config.imageGCHighThresholdPercent ?? 85;
    if (high === 100 && (config.imageMaximumGCAgeMs ?? 0) === 0) return;
    while (!signal.aborted) {
      await this.#collectOrSay(signal);
      await clock.sleep(periodMs, signal).catch(() => undefined);
    }
  }

  async #collectOrSay(signal: AbortSignal): Promise<void> {
    const { logger } = this.#options;
    try {
      await this.collect(signal);
      this.#failed = false;
    } catch (error) {
      if (signal.aborted && isAbort(error)) return;
      const message = errorMessage(error);
      logger.log("warn", "unused images could not be removed", { error: message });
      // Once may be bad luck.
      if (this.#failed) this.#event("ImageGCFailed", message);
      this.#failed = true;
    }
  }

  /**
   * One look.
   *
   * @throws {RemoraError} when the disk stays too full, or an image could not be removed.
   */
  async collect(signal: AbortSignal): Promise<void> {
    const { clock, config, disk, images, records } = this.#options;
    const now = clock.now();
    const present = await images.listImages(signal);
    const used = await this.#usedImages(signal);
    this.#note(present, used, now);
    await records.keepOnly(new Set(present.map(({ id }) => id)));
    const old = await this.#removeOld(await this.#candidates(present, used), now, signal);
    const { availableBytes, capacityBytes } = await disk();
    if (capacityBytes === 0) {
      this.#event("InvalidDiskCapacity", "invalid capacity 0 on image filesystem");
      throw new ImageCollectionError("invalid capacity 0 on image filesystem");
    }
    const available = Math.min(availableBytes, capacityBytes);
    const usage = 100 - Math.trunc((available * 100) / capacityBytes);
    if (usage < (config.imageGCHighThresholdPercent ?? 85)) return;
    const low = config.imageGCLowThresholdPercent ?? 80;
    const wanted = Math.trunc((capacityBytes * (100 - low)) / 100) - available;
    const freed = await this.#freeSpace(old, { wanted, now }, signal);
    if (freed >= wanted) return;
    const message = `Insufficient free disk space on the node's image filesystem (${usage}% of ${formatSize(capacityBytes)} used). Failed to free sufficient space by deleting unused images (freed ${freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.`;
    this.#event("FreeDiskSpaceFailed", message);
    throw new ImageCollectionError(message);
  }

  async #usedImages(signal: AbortSignal): Promise<ReadonlySet<string>> {
    const { mountedImages = () => [], runtime } = this.#options;
    const snapshot = await runtime.snapshot(signal);
    const used = [...snapshot.values()].flatMap(({ containers }) =>
      containers.flatMap(({ imageID, mountedImages: shown = [] }) => [imageID, ...shown]),
    );
    return new Set([...used, ...mountedImages()]);
  }

  /** Remembers when each image was first seen and last used. */
  #note(present: readonly Image[], used: ReadonlySet<string>, now: number): void {
    const ids = new Set(present.map(({ id }) => id));
    for (const id of this.#seen.keys()) if (!ids.has(id)) this.#seen.delete(id);
    for (const id of ids) {
      const seen = this.#seen.get(id) ?? { firstSeen: this.#looked ? now : 0, lastUsed: 0 };
      if (used.has(id)) seen.lastUsed = now;
      this.#seen.set(id, seen);
    }
    this.#looked = true;
  }

  /** What may be removed, the longest unused first. */
  async #candidates(
    present: readonly Image[],
    used: ReadonlySet<string>,
  ): Promise<readonly Candidate[]> {
    const brought = await this.#options.records.broughtImages();
    return present
      .filter((image) => {
        const repositories = brought.get(image.id);
        const named = [...image.tags, ...image.digests].map(repositoryOf);
        const ours = repositories !== undefined && named.every((name) => repositories.has(name));
        return ours && image.pinned !== true && !used.has(image.id);
      })
      .map((image) => ({ firstSeen: 0, lastUsed: 0, ...this.#seen.get(image.id), image }))
      .toSorted((a, b) => a.lastUsed - b.lastUsed || a.firstSeen - b.firstSeen);
  }

  async #removeOld(
    candidates: readonly Candidate[],
    now: number,
    signal: AbortSignal,
  ): Promise<readonly Candidate[]> {
    const maxAgeMs = this.#options.config.imageMaximumGCAgeMs ?? 0;
    // What was used before we came is not known, so nothing is old before we have been here that long.
    if (maxAgeMs === 0 || now - this.#beganAt <= maxAgeMs) return candidates;
    const kept: Candidate[] = [];
    for (const candidate of candidates) {
      const isOld = now - candidate.lastUsed > maxAgeMs;
      if (!isOld || !(await this.#remove(candidate.image, "age", signal))) kept.push(candidate);
    }
    return kept;
  }

  async #freeSpace(
    candidates: readonly Candidate[],
    { now, wanted }: { readonly now: number; readonly wanted: number },
    signal: AbortSignal,
  ): Promise<number> {
    const minAgeMs = this.#options.config.imageMinimumGCAgeMs ?? 120_000;
    let freed = 0;
    for (const { firstSeen, image } of candidates) {
      if (freed >= wanted) break;
      // Somebody may be about to use it.
      if (now - firstSeen < minAgeMs) continue;
      if (await this.#remove(image, "space", signal)) freed += image.sizeBytes;
    }
    return freed;
  }

  /** False when a container that is not ours uses it. */
  async #remove(image: Image, why: "age" | "space", signal: AbortSignal): Promise<boolean> {
    const { images, logger, metrics, records } = this.#options;
    try {
      await images.removeImage(image.id, signal);
    } catch (error) {
      if (isRuntimeFailure(error, "WrongState")) return false;
      throw error;
    }
    await records.forget(image.id);
    metrics?.pods.imageCollected(why);
    logger.log("info", "unused image removed", {
      image: image.tags[0] ?? image.id,
      sizeBytes: image.sizeBytes,
    });
    return true;
  }

  #event(reason: string, message: string): void {
    const name = this.#options.config.nodeName;
    const target = { kind: "Node", apiVersion: "v1", namespace: "", name, uid: name };
    this.#options.events.event(target, "Warning", reason, message);
  }
}

import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import type { AgentConfig } from "../../config/types.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Image, ImageService } from "../../runtime/types.ts";
import type { Keyring } from "../images/credentials.ts";
import type { ImagePuller } from "../images/puller.ts";
import type { PodContainer } from "../spec/containers.ts";
import type { StepHook } from "../steps.ts";
import type { AssignedPod } from "../types.ts";
import { imageOptions, overlayOf } from "./image-overlay.ts";
import type { MountTable } from "./mount-table.ts";
import type { Mounter } from "./mounter.ts";
import { VolumeError } from "./payload.ts";
import { podPaths, podsDirectory } from "./pod-paths.ts";
import { bindVolume } from "./volume-bind.ts";

/** Below the volumes of a pod. */
export const imageDirectory = "kubernetes.io~image";

const digest = "sha256:";

export interface ImageVolumesOptions {
  readonly config: Pick<AgentConfig, "rootDir">;
  readonly images: Pick<ImageService, "imageLayers">;
  readonly puller: Pick<ImagePuller, "ensureVolume">;
  readonly mounter: Mounter;
  readonly step: StepHook;
  readonly metrics?: { imageVolume(mounted: boolean): void };
}

/** Images that the containers of pods are shown as volumes (KEP-4639). */
export class ImageVolumes {
  readonly #options: ImageVolumesOptions;

  constructor(options: ImageVolumesOptions) {
    this.#options = options;
  }

  /**
   * Makes the images that a container mounts present, pulling them as their policies say.
   *
   * @returns By the volume's name.
   * @throws {ImageError} as for the image of the container itself.
   */
  async pull(
    pod: AssignedPod,
    { container }: PodContainer,
    keyring: Keyring,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, Image>> {
    const out = new Map<string, Image>();
    const mounted = new Set((container.volumeMounts ?? []).map(({ name }) => name));
    for (const { image, name } of pod.spec?.volumes ?? []) {
      if (image === undefined || !mounted.has(name)) continue;
      out.set(name, await this.#options.puller.ensureVolume(pod, image, keyring, signal));
    }
    return out;
  }

  /**
   * Shows these images in directories of the pod, one for each image that a volume has had: a container that is started
   * anew may be shown a newer one while others still use the first.
   *
   * @returns The directories, by the volume's name.
   * @throws {VolumeError} when the engine has no layers to show.
   */
  async mount(
    pod: AssignedPod,
    images: ReadonlyMap<string, Image>,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, string>> {
    const out = new Map<string, string>();
    for (const [name, { id }] of images) {
      const { metrics } = this.#options;
      try {
        out.set(name, await this.#mountOne(pod, name, id, signal));
        metrics?.imageVolume(true);
      } catch (error) {
        signal.throwIfAborted();
        metrics?.imageVolume(false);
        const text = `failed to mount image volume "${name}": ${errorMessage(error)}`;
        throw new VolumeError(text, { cause: error });
      }
    }
    return out;
  }

  async #mountOne(
    pod: AssignedPod,
    name: string,
    id: string,
    signal: AbortSignal,
  ): Promise<string> {
    const { config, images, mounter, step } = this.#options;
    const { volumes } = podPaths(config.rootDir, pod.metadata.uid);
    const path = join(volumes, imageDirectory, name, id.replace(digest, ""));
    const present = mounter.table().at(path);
    // A bind without its options was cut short.
    if (present !== undefined && imageOptions.every((option) => present.options.includes(option))) {
      return path;
    }
    const layers = await images.imageLayers?.(id, signal);
    if (layers === undefined) {
      throw new VolumeError(
        "the container engine keeps no layers of images that could be mounted (its storage driver overlay2 does)",
      );
    }
    await mkdir(path, { recursive: true, mode: 0o755 });
    if (layers.length === 0) {
      const empty = { source: path, path, options: imageOptions };
      await bindVolume({ mounter, step }, empty, signal);
      return path;
    }
    // One layer is stacked on the empty directory: a mere bind of it could be made writable by whoever may mount.
    const request = await overlayOf(layers.length === 1 ? [...layers, path] : layers, path);
    await step("mountVolume");
    await mounter.mount(request, signal);
    return path;
  }
}

/** Ids of the images that volumes of pods show at this moment: the mount table knows after any restart. */
export function mountedImages(table: MountTable, rootDir: string): readonly string[] {
  return table.below(podsDirectory(rootDir)).flatMap(({ path }) => {
    const [id = "", , plugin] = path.split("/").toReversed();
    return plugin === imageDirectory && /^[0-9a-f]{64}$/.test(id) ? [`${digest}${id}`] : [];
  });
}

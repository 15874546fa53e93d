import { join } from "node:path";

import type { AgentConfig } from "../../config/types.ts";
import { errorMessage } from "../../lib/errors.ts";
import { isRuntimeFailure } from "../../runtime/errors.ts";
import type { Image, ImageService, RuntimeInfo } from "../../runtime/types.ts";
import type { Keyring } from "../images/credentials.ts";
import type { ImagePuller } from "../images/puller.ts";
import type { PodContainer } from "../spec/containers.ts";
import type { StepHook } from "../steps.ts";
import type { AssignedPod } from "../types.ts";
import { imageOptions, overlayOf } from "./image-overlay.ts";
import { makeDirectory } from "./make-directory.ts";
import type { MountTable } from "./mount-table.ts";
import type { Mounter } from "./mounter.ts";
import { VolumeError } from "./payload.ts";
import { podPaths, podsDirectory } from "./pod-paths.ts";
import { usedVolumes } from "./used-volumes.ts";
import { bindVolume } from "./volume-bind.ts";

/** Below the volumes of a pod. */
export const imageDirectory = "kubernetes.io~image";

const digest = "sha256:";

/** How a container is shown an image. */
export type ShownImage =
  /** The agent has mounted it here. */
  | { readonly kind: "directory"; readonly path: string }
  /** The container runtime mounts it for each container. */
  | { readonly kind: "runtime"; readonly id: string };

/** The images of one pod's volumes in one round of starts: all that are used are pulled before the first container. */
export interface PodImages {
  /**
   * Those that the container mounts, by the volume's name.
   *
   * @param keyring What the pod's pull secrets have.
   * @throws {ImageError} as for the image of the container itself; one that only others mount is no hindrance.
   */
  of(
    entry: PodContainer,
    keyring: Keyring,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, Image>>;
}

export interface ImageVolumesOptions {
  readonly config: Pick<AgentConfig, "rootDir">;
  readonly images: Pick<ImageService, "imageLayers">;
  readonly puller: Pick<ImagePuller, "ensureVolume">;
  readonly mounter: Mounter;
  readonly step: StepHook;
  readonly runtimeInfo: () => Pick<RuntimeInfo, "features">;
  readonly metrics?: { imageVolume(mounted: boolean): void };
}

type Pulls = ReadonlyMap<string, PromiseSettledResult<Image>>;

/** Images that the containers of pods are shown as volumes (KEP-4639). */
export class ImageVolumes {
  readonly #options: ImageVolumesOptions;

  constructor(options: ImageVolumesOptions) {
    this.#options = options;
  }

  /** One round of starts. Nothing is pulled before something is asked for. */
  round(pod: AssignedPod): PodImages {
    let pulls: Promise<Pulls> | undefined;
    return {
      of: async ({ container }, keyring, signal) => {
        pulls ??= this.#pullAll(pod, keyring, signal);
        const out = new Map<string, Image>();
        const all = await pulls;
        signal.throwIfAborted();
        for (const { name } of container.volumeMounts ?? []) {
          const pulled = all.get(name);
          if (pulled?.status === "rejected") throw pulled.reason;
          if (pulled !== undefined) out.set(name, pulled.value);
        }
        return out;
      },
    };
  }

  /**
   * Sees to it that a container can be shown these images. Where the runtime does not mount them itself, they are mounted
   * in directories of the pod, one for each image that a volume has had: a container that is started anew may be shown a
   * newer one while others still use the first.
   *
   * @returns By the volume's name.
   * @throws {VolumeError} when the engine has no layers to show.
   */
  async show(
    pod: AssignedPod,
    images: ReadonlyMap<string, Image>,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, ShownImage>> {
    const { metrics, runtimeInfo } = this.#options;
    const byRuntime = runtimeInfo().features.has("imageMounts");
    const out = new Map<string, ShownImage>();
    for (const [name, { id }] of images) {
      if (byRuntime) {
        out.set(name, { kind: "runtime", id });
        continue;
      }
      try {
        out.set(name, { kind: "directory", path: await this.#mountOne(pod, name, id, signal) });
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

  /**
   * Makes a container that is shown images, and takes note of how that went.
   *
   * @throws What `create` throws.
   */
  async counted<T>(images: ReadonlyMap<string, ShownImage>, create: () => Promise<T>): Promise<T> {
    const byRuntime = [...images.values()].filter(({ kind }) => kind === "runtime");
    const count = (mounted: boolean): void => {
      for (const _ of byRuntime) this.#options.metrics?.imageVolume(mounted);
    };
    try {
      const created = await create();
      count(true);
      return created;
    } catch (error) {
      count(!isRuntimeFailure(error, "ImageMountFailed"));
      throw error;
    }
  }

  async #pullAll(pod: AssignedPod, keyring: Keyring, signal: AbortSignal): Promise<Pulls> {
    const { puller } = this.#options;
    const wanted = usedVolumes(pod).flatMap(({ image, name }) =>
      image === undefined ? [] : [{ image, name }],
    );
    const settled = await Promise.allSettled(
      wanted.map(async ({ image }) => puller.ensureVolume(pod, image, keyring, signal)),
    );
    return new Map(settled.map((each, index) => [wanted[index]?.name ?? "", each]));
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
        "the container engine neither mounts images (Docker 28 does) nor keeps layers of them that could be mounted (the storage driver overlay2 does)",
      );
    }
    await makeDirectory(path, 0o755);
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

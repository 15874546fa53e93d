import { chmod, chown, mkdir, readdir, rm } from "node:fs/promises";

import type { Volume } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorCode, errorMessage, isAbort } from "../../lib/errors.ts";
import type { Mount } from "../../runtime/types.ts";
import type { ReferencedObjects } from "../objects/referenced-objects.ts";
import { ContainerConfigError } from "../spec/env.ts";
import type { PodContainer } from "../spec/containers.ts";
import type { PodAddresses } from "../spec/field-values.ts";
import { type Resources, wholeUnits } from "../spec/quantities.ts";
import {
  containerPath,
  mountPropagation,
  mountsRecursivelyReadOnly,
  mountSubPath,
  subPathError,
} from "../spec/mounts.ts";
import { podMemoryLimitBytes } from "../spec/resources.ts";
import type { StepHook } from "../steps.ts";
import type { AssignedPod } from "../types.ts";
import { writeAtomicVolume } from "./atomic-writer.ts";
import { setUpHostPath } from "./host-path.ts";
import type { Mounter } from "./mounter.ts";
import { VolumeError } from "./payload.ts";
import { podPaths, type PodPaths, podsDirectory } from "./pod-paths.ts";
import { commonUser, volumePayload } from "./projection.ts";
import type { ServiceAccountTokens } from "./service-account-token.ts";
import { bindSubPath } from "./subpath.ts";
import { type SupportedVolume, volumeKind } from "./volume-kinds.ts";

export interface VolumesOptions {
  readonly config: Pick<AgentConfig, "rootDir">;
  readonly clock: Clock;
  readonly random: () => number;
  readonly step: StepHook;
  readonly mounter: Mounter;
  readonly objects: ReferencedObjects;
  readonly tokens: ServiceAccountTokens;
  readonly allocatable: () => Resources;
}

/** Sets up, shows and takes down the volumes of pods. All calls are idempotent. */
export class Volumes {
  readonly #options: VolumesOptions;

  constructor(options: VolumesOptions) {
    this.#options = options;
  }

  /** Where the pod's files are. */
  paths(uid: string): PodPaths {
    return podPaths(this.#options.config.rootDir, uid);
  }

  /** Uids of all pods that have a directory. */
  async podsOnDisk(): Promise<readonly string[]> {
    try {
      return await readdir(podsDirectory(this.#options.config.rootDir));
    } catch (error) {
      if (errorCode(error) === "ENOENT") return [];
      throw error;
    }
  }

  /** Makes the pod's own directories. */
  async makeDirectories(uid: string): Promise<void> {
    const paths = this.paths(uid);
    for (const directory of [paths.volumes, paths.containers]) {
      await mkdir(directory, { recursive: true, mode: 0o750 });
    }
  }

  /**
   * Makes all volumes of the pod ready and their content current.
   *
   * @throws {VolumeError} naming the volume; its message is what the FailedMount event says.
   */
  async setUp(pod: AssignedPod, addresses: PodAddresses, signal: AbortSignal): Promise<void> {
    for (const volume of pod.spec?.volumes ?? []) {
      try {
        await this.#setUpOne(pod, volume, addresses, signal);
      } catch (error) {
        if (isAbort(error) && signal.aborted) throw error;
        throw new VolumeError(
          `MountVolume.SetUp failed for volume "${volume.name}" : ${errorMessage(error)}`,
          { cause: error },
        );
      }
    }
  }

  /**
   * The binds of one container.
   *
   * @throws {ContainerConfigError} when a mount cannot be resolved.
   */
  async mounts(
    pod: AssignedPod,
    entry: PodContainer,
    given: {
      readonly environment: ReadonlyMap<string, string>;
      /** Whether the pod's runtime handler can make what is mounted below read-only too. */
      readonly recursiveReadOnly: boolean;
    },
    signal: AbortSignal,
  ): Promise<readonly Mount[]> {
    const { container } = entry;
    const out: Mount[] = [];
    for (const [index, mount] of (container.volumeMounts ?? []).entries()) {
      const volume = (pod.spec?.volumes ?? []).find(({ name }) => name === mount.name);
      if (volume === undefined) {
        throw new ContainerConfigError(
          `cannot find volume "${mount.name}" to mount into container "${container.name}"`,
        );
      }
      const source = this.#sourcePath(pod, volume);
      const subPath = mountSubPath(mount, given.environment);
      let { hostPath } = source;
      if (subPath !== "") {
        hostPath = this.paths(pod.metadata.uid).subPath(volume.name, container.name, index);
        await this.#bind(source.hostPath, subPath, hostPath, signal).catch((error: unknown) => {
          if (!(error instanceof VolumeError)) throw error;
          throw subPathError(mount, container.name, error);
        });
      }
      out.push({
        hostPath,
        containerPath: containerPath(mount.mountPath),
        readOnly: (mount.readOnly ?? false) || source.readOnly,
        propagation: mountPropagation(mount),
        ...(mountsRecursivelyReadOnly(mount, given.recursiveReadOnly)
          ? { recursiveReadOnly: true }
          : {}),
      });
    }
    return out;
  }

  /** Unmounts everything below the pod's directory and removes its volumes; logs of containers stay. */
  async tearDown(uid: string, signal: AbortSignal): Promise<void> {
    const paths = this.paths(uid);
    const { mounter, tokens } = this.#options;
    for (const point of await mounter.mountPoints(paths.root)) await mounter.unmount(point, signal);
    // A recursive removal must never reach into something that is still mounted: that would be other people's data.
    const left = await mounter.mountPoints(paths.root);
    if (left.length > 0) throw new VolumeError(`still mounted: ${left.join(", ")}`);
    tokens.forget(uid);
    await rm(paths.subPaths, { recursive: true, force: true });
    await rm(paths.volumes, { recursive: true, force: true });
  }

  /** Removes the pod's directory. Call after {@link tearDown}. */
  async removeDirectories(uid: string): Promise<void> {
    const { root } = this.paths(uid);
    const left = await this.#options.mounter.mountPoints(root);
    if (left.length > 0) throw new VolumeError(`still mounted: ${left.join(", ")}`);
    await rm(root, { recursive: true, force: true });
  }

  #sourcePath(
    pod: AssignedPod,
    volume: Volume,
  ): { readonly hostPath: string; readonly readOnly: boolean } {
    const found = volumeKind(volume);
    if (found.kind === "unsupported") {
      throw new ContainerConfigError(
        `volume "${volume.name}" of type ${found.type} is not mounted`,
      );
    }
    if (volume.hostPath !== undefined) return { hostPath: volume.hostPath.path, readOnly: false };
    const hostPath = this.paths(pod.metadata.uid).volume(found.kind, volume.name);
    return { hostPath, readOnly: found.kind !== "emptyDir" };
  }

  async #bind(source: string, subPath: string, target: string, signal: AbortSignal): Promise<void> {
    await this.#options.step("setUpVolume");
    await bindSubPath(source, subPath, target, this.#options.mounter, signal);
  }

  async #setUpOne(
    pod: AssignedPod,
    volume: Volume,
    addresses: PodAddresses,
    signal: AbortSignal,
  ): Promise<void> {
    const found = volumeKind(volume);
    if (found.kind === "unsupported") {
      throw new VolumeError(`volume type ${found.type} is not supported by this node`);
    }
    if (volume.hostPath !== undefined) {
      await setUpHostPath(volume.hostPath);
      return;
    }
    const path = this.paths(pod.metadata.uid).volume(found.kind, volume.name);
    if (found.kind === "emptyDir") await this.#setUpEmptyDir(pod, volume, path, signal);
    else await this.#setUpPayload(pod, volume, found.kind, path, { addresses, signal });
  }

  async #setUpEmptyDir(
    pod: AssignedPod,
    volume: Volume,
    path: string,
    signal: AbortSignal,
  ): Promise<void> {
    const medium = volume.emptyDir?.medium ?? "";
    if (medium !== "" && medium !== "Memory") {
      throw new VolumeError(`emptyDir medium ${medium} is not supported by this node`);
    }
    const fresh = await makeDirectory(path);
    let mounted = false;
    if (medium === "Memory") {
      mounted = await this.#mountTmpfs(pod, volume, { path, fresh }, signal);
    }
    if (!fresh && !mounted) return;
    await openToAll(path, pod.spec?.securityContext?.fsGroup, medium === "Memory");
  }

  /** On a directory that was there before, something may be mounted already. Returns whether it has mounted. */
  async #mountTmpfs(
    pod: AssignedPod,
    volume: Volume | undefined,
    { path, fresh }: { readonly path: string; readonly fresh: boolean },
    signal: AbortSignal,
  ): Promise<boolean> {
    const { mounter, step } = this.#options;
    if (!fresh && (await mounter.mountPoints(path)).includes(path)) return false;
    const sizes = volume === undefined ? [] : this.#tmpfsLimits(pod, volume);
    const size = sizes.length === 0 ? [] : [`size=${Math.min(...sizes)}`];
    await step("setUpVolume");
    await mounter.mountTmpfs(path, ["mode=1777", ...size], signal);
    return true;
  }

  #tmpfsLimits(pod: AssignedPod, volume: Volume): readonly number[] {
    const node = this.#options.allocatable()["memory"];
    const own = volume.emptyDir?.sizeLimit;
    return [
      ...(node === undefined ? [] : [wholeUnits(node)]),
      ...(own === undefined ? [] : [wholeUnits(own)]),
      podMemoryLimitBytes(pod),
    ].filter((bytes) => bytes > 0);
  }

  async #setUpPayload(
    pod: AssignedPod,
    volume: Volume,
    kind: SupportedVolume,
    path: string,
    context: { readonly addresses: PodAddresses; readonly signal: AbortSignal },
  ): Promise<void> {
    const { clock, objects, random, step, tokens } = this.#options;
    const { addresses, signal } = context;
    const { namespace = "" } = pod.metadata;
    const payload = await volumePayload(
      pod,
      volume,
      {
        get: async (of, name) => objects.get(of, { namespace, name }, signal),
        tokens,
        addresses,
        allocatable: this.#options.allocatable(),
      },
      signal,
    );
    // Secrets must not reach a disk.
    const inMemory = kind === "secret" || kind === "projected";
    const fresh = await makeDirectory(path);
    if (inMemory) await this.#mountTmpfs(pod, undefined, { path, fresh }, signal);
    const fsGroup = pod.spec?.securityContext?.fsGroup;
    const owner = kind === "projected" && fsGroup === undefined ? commonUser(pod) : undefined;
    await step("setUpVolume");
    await writeAtomicVolume(path, payload, {
      fsGroup,
      uid: owner,
      now: clock.now(),
      inMemory,
      suffix: String(Math.floor(random() * 1e9)).padStart(9, "0"),
    });
    await openToAll(path, fsGroup, inMemory);
  }
}

/** A volume's root is everybody's; a group owns what is made in it, and a tmpfs is sticky, as mount(8) leaves it. */
async function openToAll(path: string, fsGroup: number | undefined, tmpfs: boolean): Promise<void> {
  if (fsGroup !== undefined) await chown(path, 0, fsGroup);
  await chmod(path, 0o777 | (fsGroup === undefined ? 0 : 0o2000) | (tmpfs ? 0o1000 : 0));
}

/** True when it was not there before. */
async function makeDirectory(path: string): Promise<boolean> {
  const made = await mkdir(path, { recursive: true, mode: 0o755 });
  return made !== undefined;
}

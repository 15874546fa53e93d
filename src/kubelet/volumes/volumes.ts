import { basename, join } from "node:path";

import type { Volume } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { Device, Mount } from "../../runtime/types.ts";
import type { PodContainer } from "../spec/containers.ts";
import { ContainerConfigError } from "../spec/env.ts";
import type { PodAddresses } from "../spec/field-values.ts";
import {
  containerPath,
  imagePropagation,
  ImageSubPathError,
  mountPropagation,
  mountsRecursivelyReadOnly,
  mountSubPath,
  subPathError,
} from "../spec/mounts.ts";
import type { StepHook } from "../steps.ts";
import type { AssignedPod, PodVolume, VolumeFigures } from "../types.ts";
import { volumeGroup } from "./claims.ts";
import { makeDirectory } from "./make-directory.ts";
import type { MountTable } from "./mount-table.ts";
import type { ShownImage } from "./image-volumes.ts";
import { mayHang, type Mounter } from "./mounter.ts";
import { namesIn } from "../../lib/names-in.ts";
import { Operations, type Work } from "./operations.ts";
import { VolumeError } from "./payload.ts";
import type {
  ApplyOwnership,
  PreparedVolume,
  ResolveClaim,
  VolumePlugin,
  VolumeSpec,
} from "./plugin.ts";
import { podPaths, type PodPaths, podsDirectory } from "./pod-paths.ts";
import type { RemoveTree } from "./remove-tree.ts";
import type { ServiceAccountTokens } from "./service-account-token.ts";
import { ResolveError, SetUpError, SetUpReport, type SetUpResult } from "./set-up-report.ts";
import { bindSubPath } from "./subpath.ts";
import { TakeDown, TearDownError } from "./take-down.ts";
import { usedVolumes } from "./used-volumes.ts";
import { volumeKind } from "./volume-kinds.ts";

export interface VolumesOptions {
  readonly config: Pick<AgentConfig, "rootDir">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly step: StepHook;
  readonly mounter: Mounter;
  readonly tokens: Pick<ServiceAccountTokens, "forget">;
  readonly plugins: readonly VolumePlugin[];
  readonly removeTree: RemoveTree;
  /** Absent: claims are refused. */
  readonly resolveClaim?: ResolveClaim;
  /** Called when a pod has no volumes any more. */
  readonly released?: (uid: string) => void;
  /** Absent: volumes that need it are refused. */
  readonly applyOwnership?: ApplyOwnership;
  /** Ends everything that goes on apart from a look at a pod. */
  readonly signal: AbortSignal;
  /** The pod has to be looked at again: what it waited for is through. */
  readonly wake: (uid: string) => void;
}

/** When to look again after a set-up that does not end although it was told to. */
const busyMs = 10_000;
/** What this agent makes directories of pods for: uids of the API server, and of pods from files. */
const podUID = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;

/** What one volume of a pod came to. */
interface SetUp {
  readonly plugin: VolumePlugin;
  readonly spec: VolumeSpec;
  readonly prepared: PreparedVolume;
}

/** Sets up, shows and takes down the volumes of pods. All calls are idempotent. */
export class Volumes {
  readonly #options: VolumesOptions;
  readonly #setUps: Operations<SetUp>;
  readonly #takeDown: TakeDown;
  /** By pod and volume. A restart loses it: set-up comes before every use. */
  readonly #prepared = new Map<string, Map<string, SetUp>>();
  readonly #reports = new Map<string, SetUpReport>();

  constructor(options: VolumesOptions) {
    this.#options = options;
    const { clock, signal, wake } = options;
    this.#setUps = new Operations({ clock, signal, onSettled: wake });
    this.#takeDown = new TakeDown(options);
  }

  /** Where the pod's files are. */
  paths(uid: string): PodPaths {
    return podPaths(this.#options.config.rootDir, uid);
  }

  /** Uids of all pods that have a directory. What is called otherwise (`lost+found`) is somebody else's. */
  async podsOnDisk(): Promise<readonly string[]> {
    const names = await namesIn(podsDirectory(this.#options.config.rootDir));
    return names.filter((name) => podUID.test(name));
  }

  /** Makes the pod's own directories; those of its volumes come with them. */
  async makeDirectories(uid: string): Promise<void> {
    await makeDirectory(this.paths(uid).containers, 0o750);
  }

  /** Something that the pod's volumes are made of has changed. */
  contentChanged(uid: string): void {
    this.#setUps.changed(uid);
  }

  /**
   * Makes the volumes that the pod's containers use ready and their content current. What fails or takes long keeps no
   * other volume from it, and goes on apart from this call; the pod is woken when it is through.
   *
   * @param wanted Which of them; default all.
   * @throws The signal's reason.
   */
  async setUp(
    pod: AssignedPod,
    addresses: PodAddresses,
    signal: AbortSignal,
    wanted: (volume: Volume) => boolean = () => true,
  ): Promise<SetUpResult> {
    const { uid } = pod.metadata;
    let table: MountTable | undefined;
    const mounts = (): MountTable => (table ??= this.#options.mounter.table());
    const volumes = usedVolumes(pod).filter(wanted);
    const works = new Map<string, Work<SetUp>>(
      volumes.map((volume) => [
        volume.name,
        async (stop) => this.#setUpOne(volume, { pod, addresses, signal: stop, mounts }),
      ]),
    );
    const standings = await this.#setUps.round(uid, works, basisOf(pod, addresses), signal);
    const prepared = this.#prepared.get(uid) ?? new Map<string, SetUp>();
    this.#prepared.set(uid, prepared);
    for (const [name, standing] of standings) {
      if (standing.kind === "done") prepared.set(name, standing.value);
    }
    const report = this.#reports.get(uid) ?? new SetUpReport();
    this.#reports.set(uid, report);
    return report.of(standings, new Set(prepared.keys()), this.#options.clock);
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
      /** How images are shown, by the volume's name; default: there are none. */
      readonly images?: ReadonlyMap<string, ShownImage>;
    },
    signal: AbortSignal,
  ): Promise<readonly Mount[]> {
    const { container } = entry;
    const out: Mount[] = [];
    for (const [index, mount] of (container.volumeMounts ?? []).entries()) {
      const image = given.images?.get(mount.name);
      const directory = image?.kind === "directory" ? image.path : undefined;
      const source =
        image === undefined
          ? this.#preparedVolume(pod, mount.name)
          : { hostPath: directory ?? "", readOnly: true };
      if (source === undefined) {
        throw new ContainerConfigError(
          `cannot find volume "${mount.name}" to mount into container "${container.name}"`,
        );
      }
      const subPath = mountSubPath(mount, given.environment);
      let { hostPath } = source;
      if (subPath !== "" && image?.kind !== "runtime") {
        // Of each image that a volume has had, its own.
        const shown = directory === undefined ? mount.name : `${mount.name}@${basename(directory)}`;
        hostPath = this.paths(pod.metadata.uid).subPath(shown, container.name, index);
        const binding = { source: source.hostPath, subPath, target: hostPath };
        await this.#bind(pod, mount.name, binding, signal).catch((error: unknown) => {
          if (!(error instanceof VolumeError)) throw error;
          const problem = subPathError(mount, container.name, error);
          throw image === undefined
            ? problem
            : new ImageSubPathError(problem.message, { cause: error });
        });
      }
      const recursiveReadOnly = mountsRecursivelyReadOnly(mount, given.recursiveReadOnly);
      out.push({
        hostPath,
        containerPath: containerPath(mount.mountPath),
        readOnly: (mount.readOnly ?? false) || source.readOnly,
        propagation: image?.kind === "runtime" ? imagePropagation(mount) : mountPropagation(mount),
        ...(recursiveReadOnly ? { recursiveReadOnly } : {}),
        ...(image?.kind === "runtime" ? { image: { id: image.id, subPath } } : {}),
      });
    }
    return out;
  }

  /**
   * The raw block volumes of one container, as devices.
   *
   * @throws {ContainerConfigError} when one of them is not there.
   */
  devices(pod: AssignedPod, { container }: PodContainer): readonly Device[] {
    return (container.volumeDevices ?? []).map(({ devicePath, name }) => {
      const source = this.#preparedVolume(pod, name);
      if (source === undefined) {
        throw new ContainerConfigError(
          `cannot find volume "${name}" to pass into container "${container.name}"`,
        );
      }
      return {
        hostPath: source.hostPath,
        containerPath: containerPath(devicePath),
        permissions: source.readOnly ? "r" : "mrw",
      };
    });
  }

  /** Groups that the pod's processes are in because of its volumes. */
  groups(pod: AssignedPod): readonly number[] {
    const volumes = this.#prepared.get(pod.metadata.uid)?.values() ?? [];
    return [...volumes].flatMap(({ prepared }) => prepared.gid ?? []);
  }

  /** Volumes of the pod with room of their own. */
  withFigures(uid: string): readonly PodVolume[] {
    const volumes = this.#prepared.get(uid)?.values() ?? [];
    return [...volumes].flatMap(({ plugin, prepared, spec }) => {
      if (plugin.figures === undefined) return [];
      const claim = spec.persistent?.claim.metadata?.name;
      const { hostPath: path } = prepared;
      const figures = async (signal: AbortSignal): Promise<VolumeFigures | undefined> =>
        plugin.figures?.(spec, prepared, signal);
      return [{ name: spec.name, claim, path, figures }];
    });
  }

  /**
   * Takes down the pod's volumes, each by itself, and removes them; logs of containers stay. Call when all its
   * containers have stopped.
   *
   * @throws {TearDownError} naming what does not go and why.
   */
  async tearDown(uid: string, signal: AbortSignal): Promise<void> {
    const busy = await this.#setUps.stop(uid, signal);
    if (busy.length > 0) {
      const message = `still being set up: volumes=[${busy.toSorted().join(" ")}]`;
      const news = this.#takeDown.isSlow(uid);
      throw new TearDownError(message, { news, retryInMs: busyMs });
    }
    await this.#takeDown.pod(uid, this.paths(uid), signal);
    this.#options.tokens.forget(uid);
    this.#options.released?.(uid);
    this.#prepared.delete(uid);
    this.#reports.delete(uid);
  }

  /**
   * Removes the pod's directory. Call after {@link tearDown}.
   *
   * @throws {VolumeError} with the exact path that does not go.
   */
  async removeDirectories(uid: string, signal: AbortSignal): Promise<void> {
    await this.#takeDown.remove(this.paths(uid).root, signal);
  }

  /** Resolves when nothing goes on any more. Call after the signal has aborted. */
  async idle(): Promise<void> {
    await Promise.all([this.#setUps.idle(), this.#takeDown.idle()]);
  }

  #preparedVolume(pod: AssignedPod, name: string): PreparedVolume | undefined {
    return this.#prepared.get(pod.metadata.uid)?.get(name)?.prepared;
  }

  async #bind(
    pod: AssignedPod,
    volume: string,
    { source, subPath, target }: Record<"source" | "subPath" | "target", string>,
    signal: AbortSignal,
  ): Promise<void> {
    const { mounter, step } = this.#options;
    // Nothing of a file system that may hang is looked at by our own threads before it has answered another process.
    if (!isOfThisNode(pod.spec?.volumes?.find(({ name }) => name === volume))) {
      const mount = mounter.table().containing(source);
      if (mount !== undefined && mayHang(mount)) {
        await mounter.answers(source, signal).catch((cause: unknown) => {
          signal.throwIfAborted();
          throw new VolumeError(`${mount.source} on ${mount.path} does not answer`, { cause });
        });
      }
    }
    await step("bindSubPath");
    await bindSubPath(source, subPath, target, mounter, signal);
  }

  async #resolve(pod: AssignedPod, volume: Volume, signal: AbortSignal): Promise<VolumeSpec> {
    if (volume.persistentVolumeClaim === undefined && volume.ephemeral === undefined) {
      return { name: volume.name, volume, readOnly: false };
    }
    const { resolveClaim } = this.#options;
    if (resolveClaim === undefined) {
      throw new VolumeError("volumes behind claims are not supported by this node");
    }
    return resolveClaim(pod, volume, signal);
  }

  async #setUpOne(
    volume: Volume,
    context: {
      readonly pod: AssignedPod;
      readonly addresses: PodAddresses;
      readonly signal: AbortSignal;
      readonly mounts: () => MountTable;
    },
  ): Promise<SetUp> {
    const { pod, signal } = context;
    const spec = await this.#resolve(pod, volume, signal).catch((cause: unknown) => {
      throw cause instanceof SetUpError ? cause : new ResolveError(cause);
    });
    const { persistent } = spec;
    const isBlock = persistent?.volume.spec?.volumeMode === "Block";
    const name = persistent?.volume.metadata?.name ?? spec.name;
    try {
      const plugin = this.#options.plugins.find((each) => each.supports(spec));
      if (plugin === undefined) throw unsupported(spec);
      const paths = this.paths(pod.metadata.uid);
      const parent = join(isBlock ? paths.volumeDevices : paths.volumes, plugin.directory);
      await makeDirectory(parent, 0o750);
      const prepared = await plugin.setUp(spec, { ...context, path: join(parent, name) });
      await this.#applyOwnership(pod, spec, prepared, signal);
      const gid = volumeGroup(spec);
      return { plugin, spec, prepared: gid === undefined ? prepared : { ...prepared, gid } };
    } catch (cause) {
      if (cause instanceof SetUpError) throw cause;
      throw isBlock
        ? new SetUpError("FailedMapVolume", "MapVolume.SetUpDevice", name, cause)
        : new SetUpError("FailedMount", "MountVolume.SetUp", name, cause);
    }
  }

  async #applyOwnership(
    pod: AssignedPod,
    spec: VolumeSpec,
    prepared: PreparedVolume,
    signal: AbortSignal,
  ): Promise<void> {
    const { applyOwnership, step } = this.#options;
    if (prepared.ownership === "done" || pod.spec?.securityContext?.fsGroup === undefined) return;
    // Once is enough: what containers make later is theirs to give.
    if (this.#preparedVolume(pod, spec.name)?.ownership === "tree") return;
    if (applyOwnership === undefined) {
      throw new VolumeError("this node cannot give the volume to the pod's fsGroup");
    }
    await step("applyOwnership");
    await applyOwnership({ pod, spec, prepared }, signal);
  }
}

/** Whether the agent itself has made what is in a volume, on this node. */
function isOfThisNode(volume: Volume | undefined): boolean {
  const { configMap, downwardAPI, emptyDir, image, projected, secret } = volume ?? {};
  return (configMap ?? downwardAPI ?? emptyDir ?? image ?? projected ?? secret) !== undefined;
}

/** What volumes show of the pod itself. */
function basisOf({ metadata }: AssignedPod, addresses: PodAddresses): string {
  const { annotations, generation, labels } = metadata;
  return JSON.stringify([generation, labels, annotations, addresses]);
}

function unsupported({ persistent, volume }: VolumeSpec): VolumeError {
  if (persistent !== undefined) return new VolumeError("no volume plugin matched");
  const found = volumeKind(volume);
  const type = found.kind === "unsupported" ? found.type : found.kind;
  return new VolumeError(`volume type ${type} is not supported by this node`);
}

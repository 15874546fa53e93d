import { rmdir } from "node:fs/promises";
import { join } from "node:path";

import type { CSIDriverSpec } from "../../../api/types.gen.ts";
import { errorCode } from "../../../lib/errors.ts";
import { callSecrets, publishContext, type PublishContext } from "../../csi/call-context.ts";
import { AttachError } from "../../csi/attachments.ts";
import type { Csi } from "../../csi/csi.ts";
import {
  type DriverConnection,
  DriverMissingError,
  volumeCapability,
  withDriver,
} from "../../csi/driver-connection.ts";
import { type Expansion, expandVolume } from "../../csi/expansion.ts";
import { driverFigures } from "../../csi/figures.ts";
import { nodeMethods } from "../../csi/methods.ts";
import { attachmentName, csiDirectory, type VolumeID } from "../../csi/paths.ts";
import { RpcError } from "../../csi/rpc.ts";
import {
  accessModeOf,
  checkLifecycleMode,
  type CsiVolume,
  csiVolume,
  groupOwnsFiles,
  isAttachable,
} from "../../csi/source.ts";
import {
  loadVolumeData,
  removeVolumeData,
  saveVolumeData,
  type VolumeData,
} from "../../csi/volume-data.ts";
import type { VolumeFigures } from "../../types.ts";
import { type BlockMapDeps, isDevicePath, mapDevice, unmapDevice } from "../block-map.ts";
import { makeDirectory } from "../make-directory.ts";
import { VolumeError } from "../payload.ts";
import type {
  PreparedVolume,
  SetUpContext,
  VolumeOnDisk,
  VolumePlugin,
  VolumeSpec,
} from "../plugin.ts";
import type { PluginDeps } from "../plugins.ts";
import { PodRejection, SetUpError } from "../set-up-report.ts";

/** Everything about one volume of one pod while it is set up. */
interface Order {
  readonly spec: VolumeSpec;
  readonly volume: CsiVolume;
  readonly driver: CSIDriverSpec | undefined;
  readonly context: SetUpContext;
  /** Told by the driver's controller. */
  readonly publishContext: Readonly<Record<string, string>>;
}

/** What this process has done for one volume of one pod. */
interface Published {
  readonly id: VolumeID;
  /** Where the driver has published it. */
  readonly volumePath: string;
  /** Given to containers. */
  readonly hostPath: string;
  /** It was a mount point when it was published, and has to be one. */
  readonly mounted: boolean;
  /** The driver sees to the pod's fsGroup. */
  readonly groupByDriver: boolean;
}

class CsiPlugin implements VolumePlugin {
  readonly directory = csiDirectory;
  readonly #deps: PluginDeps & BlockMapDeps;
  readonly #csi: Csi;
  /** By the pod's path of the volume. A restart loses it: volumes are then published anew, which drivers take for the same. */
  readonly #published = new Map<string, Published>();
  readonly #wanted = new Map<string, VolumeID>();
  /** What each volume was last grown to, by its path in the pod. */
  readonly #sizes = new Map<string, Expansion>();

  constructor(deps: PluginDeps & BlockMapDeps, csi: Csi) {
    this.#deps = deps;
    this.#csi = csi;
  }

  supports(spec: VolumeSpec): boolean {
    const { persistent, volume } = spec;
    return (persistent === undefined ? volume.csi : persistent.volume.spec?.csi) !== undefined;
  }

  async setUp(spec: VolumeSpec, context: SetUpContext): Promise<PreparedVolume> {
    const { path, pod, signal } = context;
    const volume = csiVolume(spec, pod);
    if (volume === undefined) throw new VolumeError("no volume plugin matched");
    // From now on it has to be taken down, whatever comes of it.
    await makeDirectory(path, 0o750);
    const driver = await this.#csi.driverObjects.get(volume.id.driver, signal);
    checkLifecycleMode(volume, driver);
    const attachable = isAttachable(volume, driver);
    this.#wanted.set(path, volume.id);
    if (!volume.inline) this.#csi.staging.want(volume.id, pod.metadata.uid, attachable);
    const before = this.#published.get(path);
    const current =
      before !== undefined &&
      driver?.requiresRepublish !== true &&
      (!before.mounted || this.#deps.mounter.table().at(before.hostPath) !== undefined);
    const order = { spec, volume, driver, context, publishContext: {} };
    const published = current ? before : await this.#publish(order, attachable);
    this.#published.set(path, published);
    await this.#expand(order, published);
    const byTree = !volume.block && !published.groupByDriver && groupOwnsFiles(volume, driver);
    return {
      hostPath: published.hostPath,
      readOnly: volume.readOnly,
      ownership: byTree ? "tree" : "done",
    };
  }

  async tearDown(at: VolumeOnDisk, signal: AbortSignal): Promise<void> {
    const data = await loadVolumeData(at.path);
    const volume =
      data === undefined
        ? this.#wanted.get(at.path)
        : { driver: data.driverName, handle: data.volumeHandle };
    const block = isDevicePath(at.path);
    if (block) await unmapDevice(this.#deps, at.path, signal);
    if (data !== undefined && volume !== undefined) {
      const { paths } = this.#csi;
      const target = block ? paths.blockPublishTarget(at.name, at.podUID) : targetOf(at.path);
      await this.#csi.staging.hold(volume, () => this.#unpublish(volume, target, signal));
      // The driver should have removed it.
      if (!block) await removeDirectory(target);
      await removeVolumeData(at.path);
    }
    this.#published.delete(at.path);
    this.#wanted.delete(at.path);
    this.#sizes.delete(at.path);
    this.#csi.forget(at.podUID);
    if (volume !== undefined) this.#csi.staging.release(volume, at.podUID);
  }

  /** Bound, because it is handed on. */
  readonly figures = async (
    _spec: VolumeSpec,
    { hostPath }: PreparedVolume,
    signal: AbortSignal,
  ): Promise<VolumeFigures | undefined> => {
    const published = [...this.#published.values()].find((each) => each.hostPath === hostPath);
    if (published === undefined) return undefined;
    const { id, volumePath } = published;
    return withDriver(
      { drivers: this.#csi.drivers, clock: this.#deps.clock },
      id.driver,
      (driver) => driverFigures(driver, { volumeId: id.handle, volumePath }),
      signal,
    );
  };

  async #unpublish(volume: VolumeID, targetPath: string, signal: AbortSignal): Promise<void> {
    const { clock, step } = this.#deps;
    const prefix = "kubernetes.io/csi: Unmounter.TearDownAt failed";
    try {
      await withDriver(
        { drivers: this.#csi.drivers, clock },
        volume.driver,
        async (driver) => {
          await step("unmountVolume");
          await driver.call(nodeMethods.unpublish, { volumeId: volume.handle, targetPath });
        },
        signal,
      );
    } catch (error) {
      if (error instanceof DriverMissingError) {
        throw new VolumeError(`${prefix} to get CSI client: ${error.message}`, { cause: error });
      }
      if (!(error instanceof RpcError)) throw error;
      throw new VolumeError(`${prefix}: ${error.message}`, { cause: error });
    }
  }

  async #publish(order: Order, attachable: boolean): Promise<Published> {
    const { context, volume } = order;
    const { signal } = context;
    const given = attachable ? await this.#attachment(volume, signal) : {};
    return this.#csi.staging.hold(volume.id, () =>
      this.#withDriver({ ...order, publishContext: given }),
    );
  }

  async #attachment(
    volume: CsiVolume,
    signal: AbortSignal,
  ): Promise<Readonly<Record<string, string>>> {
    const { attachments } = this.#csi;
    try {
      await attachments.wait(volume.id, signal);
      return await attachments.context(volume.id, signal);
    } catch (error) {
      signal.throwIfAborted();
      // Only where somebody counts anew: elsewhere the pod would come back here.
      const full =
        error instanceof AttachError &&
        error.exhausted &&
        (await this.#csi.recount(volume.id.driver, signal));
      if (full) {
        const text = "Node has reached its volume attachment limit, rejecting pod.";
        const reason = "VolumeAttachmentLimitExceeded";
        throw failed(volume, "WaitForAttach", new PodRejection(reason, text, { cause: error }));
      }
      throw failed(volume, "WaitForAttach", error);
    }
  }

  async #withDriver(order: Order): Promise<Published> {
    const { context, volume } = order;
    try {
      return await withDriver(
        { drivers: this.#csi.drivers, clock: this.#deps.clock },
        volume.id.driver,
        async (driver) => {
          const staged = volume.inline ? undefined : await this.#stage(order, driver);
          return volume.block
            ? this.#publishBlock(order, driver, staged)
            : this.#publishFiles(order, driver, staged);
        },
        context.signal,
      );
    } catch (error) {
      if (!(error instanceof DriverMissingError)) throw error;
      this.#csi.waitForDriver(error.driver, context.pod.metadata.uid);
      if (volume.inline) {
        const text = `kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: ${error.message}`;
        throw new VolumeError(text, { cause: error });
      }
      const where = volume.block ? "blockMapper.SetUpDevice failed to get CSI client" : undefined;
      const text = `kubernetes.io/csi: ${where ?? "attacher.MountDevice failed to create newCsiDriverClient"}: ${error.message}`;
      throw failed(volume, stageStep(volume), new VolumeError(text, { cause: error }));
    }
  }

  async #stage(order: Order, driver: DriverConnection): Promise<string | undefined> {
    const { context, volume } = order;
    const { pod, signal } = context;
    try {
      if (!(await driver.can("stageUnstageVolume"))) return undefined;
      const secrets = await callSecrets(
        this.#deps.client,
        volume.stageSecret,
        "NodeStageSecretRef",
        signal,
      );
      const groupByDriver = !volume.block && (await driver.can("volumeMountGroup"));
      return await this.#csi.staging.stage(driver, {
        volume: volume.id,
        ...(volume.block ? { block: volume.name } : {}),
        data: { driverName: volume.id.driver, volumeHandle: volume.id.handle },
        request: {
          publishContext: order.publishContext,
          volumeCapability: await volumeCapability(driver, {
            accessMode: accessModeOf(volume),
            block: volume.block,
            fsType: volume.fsType,
            mountOptions: volume.block ? [] : volume.mountOptions,
            fsGroup: groupByDriver ? pod.spec?.securityContext?.fsGroup : undefined,
          }),
          secrets,
          volumeContext: volume.attributes,
        },
      });
    } catch (error) {
      signal.throwIfAborted();
      throw failed(volume, stageStep(volume), error);
    }
  }

  /** What is kept beside the mount in the pod, for whoever undoes it. */
  #data(volume: CsiVolume): VolumeData {
    const { nodeName } = this.#deps.config;
    return {
      specVolID: volume.name,
      volumeHandle: volume.id.handle,
      driverName: volume.id.driver,
      nodeName,
      volumeLifecycleMode: volume.inline ? "Ephemeral" : "Persistent",
      attachmentID: attachmentName(volume.id, nodeName),
    };
  }

  async #publishFiles(
    order: Order,
    driver: DriverConnection,
    staged: string | undefined,
  ): Promise<Published> {
    const { context, volume } = order;
    const { path, pod, signal } = context;
    const target = targetOf(path);
    const groupByDriver = await driver.can("volumeMountGroup");
    const given = await publishContext(this.#deps, { pod, volume, driver: order.driver }, signal);
    const fresh = (await loadVolumeData(path)) === undefined;
    const fsGroup = groupByDriver ? pod.spec?.securityContext?.fsGroup : undefined;
    const capability = await volumeCapability(driver, {
      accessMode: accessModeOf(volume),
      block: false,
      fsType: volume.fsType,
      mountOptions: volume.mountOptions,
      fsGroup,
    });
    await this.#deps.step("mountVolume");
    await saveVolumeData(path, this.#data(volume));
    try {
      await publish(driver, order, { given, staged, target, capability });
    } catch (error) {
      // Nothing is under way, and nothing was there before: nobody has to undo it.
      if (fresh && error instanceof RpcError && error.final) await this.#unmade(path, target);
      throw error;
    }
    const mounted = this.#deps.mounter.table().at(target) !== undefined;
    return { id: volume.id, volumePath: target, hostPath: target, mounted, groupByDriver };
  }

  async #publishBlock(
    order: Order,
    driver: DriverConnection,
    staged: string | undefined,
  ): Promise<Published> {
    const { context, volume } = order;
    const { path, pod, signal } = context;
    const { paths } = this.#csi;
    const target = paths.blockPublishTarget(volume.name, pod.metadata.uid);
    try {
      const given = await publishContext(this.#deps, { pod, volume, driver: order.driver }, signal);
      const fresh = (await loadVolumeData(path)) === undefined;
      const capability = await volumeCapability(driver, {
        accessMode: accessModeOf(volume),
        block: true,
        fsType: "",
        mountOptions: [],
      });
      await this.#deps.step("mountVolume");
      await makeDirectory(paths.blockPublishDirectory(volume.name), 0o750);
      await saveVolumeData(path, this.#data(volume));
      try {
        await publish(driver, order, { given, staged, target, capability });
      } catch (error) {
        if (fresh && error instanceof RpcError && error.final) await removeVolumeData(path);
        throw error;
      }
      const { readOnly } = volume;
      const hostPath = await mapDevice(this.#deps, { device: target, path, readOnly }, signal);
      return { id: volume.id, volumePath: target, hostPath, mounted: true, groupByDriver: true };
    } catch (error) {
      signal.throwIfAborted();
      throw failed(volume, "MapPodDevice", error);
    }
  }

  async #unmade(path: string, target: string): Promise<void> {
    if (this.#deps.mounter.table().below(target).length > 0) return;
    await removeDirectory(target);
    await removeVolumeData(path);
  }

  /** A claim that was made larger: the file system follows, while it is in use. */
  async #expand({ context, spec, volume }: Order, published: Published): Promise<void> {
    const { path, pod, signal } = context;
    const { persistent } = spec;
    if (persistent === undefined) return;
    const done = await expandVolume(
      { ...this.#deps, drivers: this.#csi.drivers },
      {
        pod,
        volume,
        persistent,
        before: this.#sizes.get(path),
        volumePath: published.volumePath,
        stagingTargetPath: this.#csi.staging.target(
          volume.id,
          volume.block ? volume.name : undefined,
        ),
      },
      signal,
    );
    this.#sizes.set(path, done);
  }
}

/** `NodePublishVolume`. */
async function publish(
  driver: DriverConnection,
  { publishContext, volume }: Order,
  how: {
    readonly given: PublishContext;
    readonly staged: string | undefined;
    readonly target: string;
    readonly capability: Awaited<ReturnType<typeof volumeCapability>>;
  },
): Promise<void> {
  await driver.call(nodeMethods.publish, {
    ...how.given,
    volumeId: volume.id.handle,
    publishContext,
    stagingTargetPath: how.staged ?? "",
    targetPath: how.target,
    volumeCapability: how.capability,
    readonly: volume.readOnly,
  });
}

function targetOf(path: string): string {
  return join(path, "mount");
}

function stageStep(volume: CsiVolume): string {
  return volume.block ? "SetUpDevice" : "MountDevice";
}

function failed(volume: CsiVolume, step: string, cause: unknown): SetUpError {
  return volume.block
    ? new SetUpError("FailedMapVolume", `MapVolume.${step}`, volume.name, cause)
    : new SetUpError("FailedMount", `MountVolume.${step}`, volume.name, cause);
}

/** Not there is success; what is in use, or holds something, is left to the removal of the pod. */
async function removeDirectory(directory: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    const code = errorCode(error) ?? "";
    if (!["ENOENT", "ENOTEMPTY", "EEXIST", "EBUSY", "ENOTDIR"].includes(code)) throw error;
  }
}

/** Volumes of CSI drivers: inline, behind claims, as file systems and as devices. */
export function csiPlugin(deps: PluginDeps & BlockMapDeps, csi: Csi): VolumePlugin {
  return new CsiPlugin(deps, csi);
}

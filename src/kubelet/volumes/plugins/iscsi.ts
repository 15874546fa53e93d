import { dirname, join } from "node:path";

import { errorMessage } from "../../../lib/errors.ts";
import { isDevicePath, mapDevice, mappedDevice, unmapDevice } from "../block-map.ts";
import { isBlock } from "../claims.ts";
import {
  type DiskPluginDeps,
  isExclusive,
  tellingMismatch,
  volumeOptions,
} from "../disk-plugin.ts";
import { DiskRecords } from "../disk-records.ts";
import { tearDownDisk } from "../disk-tear-down.ts";
import {
  formatRecord,
  type IscsiAccess,
  iscsiDisk,
  type IscsiDisk,
  parseRecord,
  sharedName,
  sharedNameOf,
  targetPrefix,
} from "../iscsi/disk.ts";
import { lunDevices, multipathDevice, namesIn } from "../kernel-devices.ts";
import { type Credentials, IscsiSessions } from "../iscsi/session.ts";
import { KeyedLock } from "../keyed-lock.ts";
import { VolumeError } from "../payload.ts";
import type { PreparedVolume, SetUpContext, VolumePlugin, VolumeSpec } from "../plugin.ts";
import { mountShared, unmountShared } from "../shared-disk.ts";
import { diskFigures } from "../volume-figures.ts";
import { bindVolume, removeEmpty } from "../volume-bind.ts";

export interface IscsiPluginDeps extends DiskPluginDeps {
  /** Keys and values of a Secret; undefined when there is none. */
  readonly secret: (
    at: { readonly namespace: string; readonly name: string },
    signal: AbortSignal,
  ) => Promise<Readonly<Record<string, string>> | undefined>;
  readonly records?: readonly string[];
}

const directory = "kubernetes.io~iscsi";

function isSameDisk(a: IscsiDisk, b: IscsiDisk | undefined): boolean {
  return b !== undefined && sharedName(a) === sharedName(b);
}

/**
 * `iscsi`, inline or behind a PersistentVolume, as a file system or as a raw block device. What belongs to which pod is
 * read from the mount table and from records that lie in the directories of pods, below what is mounted there.
 */
export function iscsiPlugin(deps: IscsiPluginDeps): VolumePlugin {
  const { config, mounter, step } = deps;
  const sessions = new IscsiSessions(deps);
  const locks = new KeyedLock();
  const root = join(config.rootDir, "plugins/kubernetes.io/iscsi");
  const records = new DiskRecords<IscsiDisk>({
    rootDir: config.rootDir,
    directory,
    file: "iscsi.json",
    format: formatRecord,
    parse: parseRecord,
  });

  function sharedPath(disk: IscsiDisk, block: boolean): string {
    return join(root, ...(block ? ["volumeDevices"] : []), sharedName(disk));
  }

  async function credentials(access: IscsiAccess, signal: AbortSignal): Promise<Credentials> {
    const { chapDiscovery, chapSession, secret: at } = access;
    if (at === undefined || !(chapDiscovery || chapSession)) {
      return { chapDiscovery, chapSession, secret: {} };
    }
    const missing = (reason: string): VolumeError =>
      new VolumeError(`couldn't get secret ${at.namespace}/${at.name} error: ${reason}`);
    const secret = await deps.secret(at, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      throw missing(errorMessage(error));
    });
    if (secret === undefined) throw missing(`secrets "${at.name}" not found`);
    return { chapDiscovery, chapSession, secret };
  }

  /** What the mount table may call the disk. */
  function diskSources(disk: IscsiDisk, shared: string | undefined): ReadonlySet<string> {
    const { kernel = {} } = deps;
    const devices = lunDevices(disk, kernel).map((name) => join(kernel.dev ?? "/dev", name));
    const above = devices.flatMap((device) => multipathDevice(device, kernel) ?? []);
    return new Set([...devices, ...above, ...(shared === undefined ? [] : [shared])]);
  }

  /** Whether a pod other than that of `path` has the disk, or is about to. */
  async function isUsedElsewhere(disk: IscsiDisk, path: string): Promise<boolean> {
    const block = isDevicePath(path);
    const sources = diskSources(disk, mounter.table().at(sharedPath(disk, block))?.source);
    for (const other of records.others(path)) {
      const mounted = mounter.table().at(other);
      const same =
        mounted === undefined
          ? isSameDisk(disk, await records.read(other))
          : sources.has(mounted.source);
      if (same) return true;
    }
    return false;
  }

  /** Whether volumes of the node are on the same target, apart from those that were let go. */
  function targetIsBusy(disk: IscsiDisk): boolean {
    return [root, join(root, "volumeDevices")].some((parent) =>
      namesIn(parent)
        .filter((name) => name.startsWith("iface-"))
        .some((name) =>
          namesIn(join(parent, name)).some((each) => each.startsWith(targetPrefix(disk))),
        ),
    );
  }

  async function setUpDisk(
    spec: VolumeSpec,
    { access, disk }: { readonly disk: IscsiDisk; readonly access: IscsiAccess },
    { path, signal }: SetUpContext,
  ): Promise<PreparedVolume> {
    const { readOnly } = access;
    const block = isBlock(spec);
    const shared = sharedPath(disk, block);
    const options = volumeOptions(spec, readOnly);
    const prepared = { hostPath: path, readOnly } as const;
    if (!block && mounter.table().at(path) !== undefined) {
      await bindVolume(deps, { source: shared, path, options }, signal);
      return { ...prepared, ownership: readOnly ? "done" : "tree" };
    }
    const mapped = mappedDevice(path);
    if (block && mounter.table().at(mapped) !== undefined) {
      const hostPath = await mapDevice(deps, { device: mapped, path, readOnly }, signal);
      return { hostPath, readOnly, ownership: "done" };
    }
    const login = await credentials(access, signal);
    if (mounter.table().at(shared) === undefined) await records.write(shared, disk);
    await step("mountVolume");
    const device = await sessions.attach(disk, login, signal);
    if (block) {
      const hostPath = await mapDevice(deps, { device, path, readOnly }, signal);
      return { hostPath, readOnly, ownership: "done" };
    }
    const { fsType } = access;
    await tellingMismatch(deps, spec, async () =>
      mountShared(deps, { device, target: shared, fsType, options, readOnly }, signal),
    );
    await bindVolume(deps, { source: shared, path, options }, signal);
    const owned = readOnly || (await isUsedElsewhere(disk, path));
    return { ...prepared, ownership: owned ? "done" : "tree" };
  }

  /** @returns Whether nothing of the disk is left on this node. */
  async function release(disk: IscsiDisk, path: string, signal: AbortSignal): Promise<boolean> {
    const block = isDevicePath(path);
    if (block) await unmapDevice(deps, path, signal);
    if (await isUsedElsewhere(disk, path)) return false;
    const shared = sharedPath(disk, block);
    if (!block) await unmountShared(deps, shared, signal);
    await records.remove(shared);
    await removeEmpty(shared);
    await removeEmpty(dirname(shared));
    await step("unmountVolume");
    await sessions.detach(disk, !targetIsBusy(disk), signal);
    return true;
  }

  function isOnNode(uniqueName: string): boolean {
    const name = sharedNameOf(uniqueName);
    if (name === undefined) return false;
    return [root, join(root, "volumeDevices")].some((parent) =>
      namesIn(parent)
        .filter((each) => each.startsWith("iface-"))
        .some((iface) => namesIn(join(parent, iface)).includes(name)),
    );
  }

  /** Waits, if it has to, until no other node may have the disk. From here on the pod's directory has to be taken down. */
  async function claim(
    spec: VolumeSpec,
    disk: IscsiDisk,
    { path, pod, signal }: SetUpContext,
  ): Promise<void> {
    const { attachments } = deps;
    const known = isBlock(spec) ? mappedDevice(path) : path;
    const mounted = mounter.table().at(known) !== undefined;
    if (!mounted) {
      await step("mountVolume");
      await records.write(path, disk);
    }
    if (attachments === undefined || disk.uniqueName === undefined) return;
    attachments.hold(disk.uniqueName, pod.metadata.uid);
    if (!mounted && isExclusive(spec)) await attachments.waitFor(disk.uniqueName, signal);
  }

  deps.attachments?.keepWhile(isOnNode);
  return {
    directory,
    supports: ({ persistent, volume }) =>
      (persistent === undefined ? volume.iscsi : persistent.volume.spec?.iscsi) !== undefined,

    async setUp(spec, context) {
      const found = iscsiDisk(spec, context.pod.metadata.namespace ?? "");
      if (found === undefined) {
        throw new VolumeError("Spec does not reference an ISCSI volume type");
      }
      await claim(spec, found.disk, context);
      return locks.hold(found.disk.iqn, async () => setUpDisk(spec, found, context));
    },

    tearDown: (volume, signal) =>
      tearDownDisk(
        { ...deps, records, release, locked: (disk, work) => locks.hold(disk.iqn, work) },
        volume,
        signal,
      ),

    figures: (spec, { hostPath }, signal) => diskFigures(deps, spec, hostPath, signal),
  };
}

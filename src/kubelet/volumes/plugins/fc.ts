import { join } from "node:path";

import type { FCVolumeSource } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { isRecord } from "../../../lib/guard.ts";
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
import { runChecked } from "../host-programs.ts";
import {
  deviceLink,
  deviceName,
  multipathDevice,
  namesIn,
  slaveDevices,
} from "../kernel-devices.ts";
import { writeKernelFile } from "../kernel-write.ts";
import { KeyedLock } from "../keyed-lock.ts";
import { makeDirectory } from "../make-directory.ts";
import { VolumeError } from "../payload.ts";
import type { PreparedVolume, SetUpContext, VolumePlugin, VolumeSpec } from "../plugin.ts";
import { mountShared, unmountShared } from "../shared-disk.ts";
import { diskFigures } from "../volume-figures.ts";
import { bindVolume, removeEmpty } from "../volume-bind.ts";

const directory = "kubernetes.io~fc";
const programMs = 30_000;
const notFound = "fc: no fc disk information found";

function fcSource({ persistent, volume }: VolumeSpec): FCVolumeSource | undefined {
  return persistent === undefined ? volume.fc : persistent.volume.spec?.fc;
}

/** It becomes part of a path and of a pattern. */
function checkedWord(word: string): string {
  if (/^[\w.:+-]+$/.test(word) && word !== "." && word !== "..") return word;
  throw new VolumeError(`fc: invalid identifier ${JSON.stringify(word)}`);
}

/** Where udev links the disk, and what it is called below the plug-in's directory. */
function diskNames(source: FibreChannelDisk["source"]): {
  readonly links: readonly { readonly below: string; readonly pattern: RegExp }[];
  readonly name: string;
} {
  const { lun, targetWWNs = [], wwids = [] } = source;
  if (lun !== undefined && targetWWNs.length > 0) {
    const links = targetWWNs.map((wwn) => ({
      below: "disk/by-path",
      pattern: new RegExp(
        `^(pci-.*-fc|fc)-0x${checkedWord(wwn).replaceAll(".", String.raw`\.`)}-lun-${lun}$`,
      ),
    }));
    return { links, name: `${targetWWNs.join("-")}-lun-${lun}` };
  }
  // udev writes an underscore for a space.
  const ids = wwids.map((wwid) => checkedWord(wwid.replaceAll(" ", "_")));
  if (ids.length === 0) throw new VolumeError(notFound);
  const links = ids.map((id) => ({
    below: "disk/by-id",
    pattern: new RegExp(`^scsi-${id.replaceAll(/[.+]/g, String.raw`\$&`)}$`),
  }));
  return { links, name: ids.join("-") };
}

/** What a pod's directory keeps. */
interface FibreChannelDisk {
  /** Below the plug-in's directory. */
  readonly name: string;
  readonly source: Pick<FCVolumeSource, "lun" | "targetWWNs" | "wwids">;
  /** Of a PersistentVolume: what the status of nodes calls it. */
  readonly uniqueName?: string;
}

const uniquePrefix = "kubernetes.io/fc/";

/** As Go prints lists. */
function uniqueNameOf({ lun, targetWWNs = [], wwids = [] }: FibreChannelDisk["source"]): string {
  return targetWWNs.length > 0 && lun !== undefined
    ? `${uniquePrefix}[${targetWWNs.join(" ")}]:${lun}`
    : `${uniquePrefix}[${wwids.join(" ")}]`;
}

/** Below the plug-in's directory, of a disk that a node's status names. */
function sharedNameOf(uniqueName: string): string | undefined {
  const found = /^kubernetes\.io\/fc\/\[([^\]]*)\](?::(\d+))?$/.exec(uniqueName);
  if (found === null) return undefined;
  const [, words = "", lun] = found;
  const name = words.replaceAll(" ", "-");
  return lun === undefined ? name : `${name}-lun-${lun}`;
}

function parseDisk(text: string): FibreChannelDisk | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (!isRecord(value) || !isRecord(value["source"])) return undefined;
    const { lun, targetWWNs, wwids } = value["source"];
    const words = (list: unknown): string[] =>
      Array.isArray(list) ? list.filter((each) => typeof each === "string") : [];
    const source = {
      targetWWNs: words(targetWWNs),
      wwids: words(wwids),
      ...(typeof lun === "number" ? { lun } : {}),
    };
    const { uniqueName } = value;
    return {
      name: diskNames(source).name,
      source,
      ...(typeof uniqueName === "string" ? { uniqueName } : {}),
    };
  } catch {
    // Damaged: nothing can be told from it.
    return undefined;
  }
}

/**
 * `fc`, inline or behind a PersistentVolume: a disk that the machine's adapters see by itself. It is found by udev's
 * links, mounted once for all pods, and forgotten by the kernel when the last pod has let it go.
 */
export function fibreChannelPlugin(deps: DiskPluginDeps): VolumePlugin {
  const { config, kernel = {}, logger, mounter, programs, step } = deps;
  const { dev = "/dev", sys = "/sys" } = kernel;
  const locks = new KeyedLock();
  const records = new DiskRecords<FibreChannelDisk>({
    rootDir: config.rootDir,
    directory,
    file: "fc.json",
    format: (disk) => JSON.stringify(disk),
    parse: parseDisk,
  });

  function findLink(source: FibreChannelDisk["source"]): string | undefined {
    for (const { below, pattern } of diskNames(source).links) {
      const link = deviceLink(join(dev, below), pattern);
      if (link !== undefined) return link;
    }
    return undefined;
  }

  async function findDevice(source: FCVolumeSource, signal: AbortSignal): Promise<string> {
    let link = findLink(source);
    if (link === undefined) {
      for (const host of namesIn(join(sys, "class/scsi_host"))) {
        const scan = join(sys, "class/scsi_host", host, "scan");
        await writeKernelFile(programs, scan, "- - -", signal).catch(() => undefined);
        signal.throwIfAborted();
      }
      link = findLink(source);
    }
    if (link === undefined) throw new VolumeError("no fc disk found");
    return multipathDevice(link, kernel) ?? link;
  }

  function sharedPath(name: string, block: boolean): string {
    const root = join(config.rootDir, "plugins/kubernetes.io/fc");
    return block ? join(root, "volumeDevices", name) : join(root, name);
  }

  function isKnown(spec: VolumeSpec, path: string): boolean {
    return mounter.table().at(isBlock(spec) ? mappedDevice(path) : path) !== undefined;
  }

  function diskOf(spec: VolumeSpec, source: FCVolumeSource): FibreChannelDisk {
    const own = spec.persistent === undefined ? {} : { uniqueName: uniqueNameOf(source) };
    return { name: diskNames(source).name, source, ...own };
  }

  /** Waits, if it has to, until no other node may have the disk. From here on the pod's directory has to be taken down. */
  async function claim(
    spec: VolumeSpec,
    source: FCVolumeSource,
    { path, pod, signal }: SetUpContext,
  ): Promise<void> {
    const disk = diskOf(spec, source);
    const known = isKnown(spec, path);
    if (!known) {
      await step("mountVolume");
      await records.write(path, disk);
    }
    const { attachments } = deps;
    if (attachments === undefined || disk.uniqueName === undefined) return;
    attachments.hold(disk.uniqueName, pod.metadata.uid);
    if (!known && isExclusive(spec)) await attachments.waitFor(disk.uniqueName, signal);
  }

  async function setUpDisk(
    spec: VolumeSpec,
    source: FCVolumeSource,
    { path, signal }: SetUpContext,
  ): Promise<PreparedVolume> {
    const readOnly = spec.readOnly || (source.readOnly ?? false);
    const disk = diskOf(spec, source);
    const block = isBlock(spec);
    const known = isKnown(spec, path);
    if (block) {
      // Nothing but the sign that the disk is on this node.
      await makeDirectory(sharedPath(disk.name, true), 0o750);
      const device = known ? mappedDevice(path) : await findDevice(source, signal);
      const hostPath = await mapDevice(deps, { device, path, readOnly }, signal);
      return { hostPath, readOnly, ownership: "done" };
    }
    const options = volumeOptions(spec, readOnly);
    const target = sharedPath(disk.name, false);
    if (!known) {
      const device = await findDevice(source, signal);
      const { fsType = "" } = source;
      await tellingMismatch(deps, spec, async () =>
        mountShared(deps, { device, target, fsType, options, readOnly }, signal),
      );
    }
    await bindVolume(deps, { source: target, path, options }, signal);
    const shared = readOnly || (await isUsedElsewhere(disk, path));
    return { hostPath: path, readOnly, ownership: shared ? "done" : "tree" };
  }

  /** Whether a pod other than that of `path` has the disk, or is about to. */
  async function isUsedElsewhere(disk: FibreChannelDisk, path: string): Promise<boolean> {
    const link = findLink(disk.source);
    const name = link === undefined ? undefined : deviceName(link);
    const own = name === undefined ? undefined : join(dev, name);
    const above = own === undefined ? undefined : multipathDevice(own, kernel);
    const sources = [mounter.table().at(sharedPath(disk.name, false))?.source, own, above];
    for (const other of records.others(path)) {
      const mounted = mounter.table().at(other);
      const same =
        mounted === undefined
          ? (await records.read(other))?.name === disk.name
          : sources.includes(mounted.source);
      if (same) return true;
    }
    return false;
  }

  /** The kernel forgets the disk, so that the fabric may give its number to another. */
  async function removeDevice(source: string, signal: AbortSignal): Promise<void> {
    const above = multipathDevice(source, kernel);
    const slaves = above === undefined ? [] : slaveDevices(above, kernel);
    const own = deviceName(source) ?? "";
    const disks = slaves.length > 0 ? slaves : [own];
    const tell = (error: unknown): void => {
      signal.throwIfAborted();
      const text = errorMessage(error);
      logger.log("warn", "Fibre Channel disk could not be let go", { device: source, error: text });
    };
    if (above !== undefined) {
      await runChecked(programs, ["multipath", "-f", above], programMs, signal).catch(tell);
    }
    for (const name of disks.filter((each) => /^sd[a-z]+$/.test(each))) {
      const flush = ["blockdev", "--flushbufs", join(dev, name)] as const;
      await runChecked(programs, flush, programMs, signal).catch(tell);
      const file = join(sys, "block", name, "device/delete");
      await writeKernelFile(programs, file, "1", signal).catch(tell);
    }
  }

  /** @returns Whether nothing of the disk is in use on this node. */
  async function release(
    disk: FibreChannelDisk,
    path: string,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (isDevicePath(path)) await unmapDevice(deps, path, signal);
    if (await isUsedElsewhere(disk, path)) return false;
    const device = findLink(disk.source);
    if (isDevicePath(path)) await removeEmpty(sharedPath(disk.name, true));
    else await unmountShared(deps, sharedPath(disk.name, false), signal);
    if (device === undefined) return true;
    await step("unmountVolume");
    await removeDevice(device, signal);
    return true;
  }

  /** By the directory of its shared mount, or by its sign as a device. */
  function isOnNode(uniqueName: string): boolean {
    const name = sharedNameOf(uniqueName);
    if (name === undefined) return false;
    return [false, true].some((block) => namesIn(sharedPath("", block)).includes(name));
  }

  deps.attachments?.keepWhile(isOnNode);

  return {
    directory,
    supports: (spec) => fcSource(spec) !== undefined,

    async setUp(spec, context) {
      const source = fcSource(spec);
      if (source === undefined) throw new VolumeError(notFound);
      await claim(spec, source, context);
      return locks.hold(diskNames(source).name, async () => setUpDisk(spec, source, context));
    },

    tearDown: (volume, signal) =>
      tearDownDisk(
        { ...deps, records, release, locked: (disk, work) => locks.hold(disk.name, work) },
        volume,
        signal,
      ),

    figures: (spec, { hostPath }, signal) => diskFigures(deps, spec, hostPath, signal),
  };
}

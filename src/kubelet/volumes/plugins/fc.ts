import { join } from "node:path";

import type { FCVolumeSource } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { isRecord } from "../../../lib/guard.ts";
import { isDevicePath, mapDevice, mappedDevice, unmapDevice } from "../block-map.ts";
import { isBlock } from "../claims.ts";
import { type DiskPluginDeps, tellingMismatch, volumeOptions } from "../disk-plugin.ts";
import { DiskRecords } from "../disk-records.ts";
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
import { VolumeError } from "../payload.ts";
import type { PreparedVolume, SetUpContext, VolumePlugin, VolumeSpec } from "../plugin.ts";
import { mountShared, unmountShared } from "../shared-disk.ts";
import { deviceFigures, filesystemFigures } from "../volume-figures.ts";
import { bindVolume, unmountAll } from "../volume-bind.ts";

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
    return { name: diskNames(source).name, source };
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

  function sharedPath(name: string): string {
    return join(config.rootDir, "plugins/kubernetes.io/fc", name);
  }

  async function setUpDisk(
    spec: VolumeSpec,
    source: FCVolumeSource,
    { path, signal }: SetUpContext,
  ): Promise<PreparedVolume> {
    const readOnly = spec.readOnly || (source.readOnly ?? false);
    const disk = { name: diskNames(source).name, source };
    const block = isBlock(spec);
    const known = mounter.table().at(block ? mappedDevice(path) : path) !== undefined;
    if (!known) {
      await step("mountVolume");
      await records.write(path, disk);
    }
    if (block) {
      const device = known ? mappedDevice(path) : await findDevice(source, signal);
      const hostPath = await mapDevice(deps, { device, path, readOnly }, signal);
      return { hostPath, readOnly, ownership: "done" };
    }
    const options = volumeOptions(spec, readOnly);
    const target = sharedPath(disk.name);
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
    const sources = [mounter.table().at(sharedPath(disk.name))?.source, own, above];
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

  async function release(disk: FibreChannelDisk, path: string, signal: AbortSignal): Promise<void> {
    if (isDevicePath(path)) await unmapDevice(deps, path, signal);
    if (await isUsedElsewhere(disk, path)) return;
    const device = findLink(disk.source);
    if (!isDevicePath(path)) await unmountShared(deps, sharedPath(disk.name), signal);
    if (device === undefined) return;
    await step("unmountVolume");
    await removeDevice(device, signal);
  }

  return {
    directory,
    supports: (spec) => fcSource(spec) !== undefined,

    async setUp(spec, context) {
      const source = fcSource(spec);
      if (source === undefined) throw new VolumeError(notFound);
      return locks.hold(diskNames(source).name, async () => setUpDisk(spec, source, context));
    },

    async tearDown({ path }, signal) {
      if (!isDevicePath(path)) await unmountAll(mounter, path, signal);
      const disk = await records.read(path);
      // Without a record nothing was begun.
      if (disk === undefined) return;
      await locks.hold(disk.name, async () => {
        await release(disk, path, signal);
        await records.remove(path);
      });
    },

    figures: async (spec, { hostPath }, signal) =>
      isBlock(spec)
        ? deviceFigures(deps, hostPath, signal)
        : filesystemFigures(deps, hostPath, signal),
  };
}

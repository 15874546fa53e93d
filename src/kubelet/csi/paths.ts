import { createHash } from "node:crypto";
import { join } from "node:path";

import { VolumeError } from "../volumes/payload.ts";

/** Of the plug-in, in names of volumes and in messages. */
export const csiPluginName = "kubernetes.io/csi";
/** Below the `volumes` and `volumeDevices` of pods. */
export const csiDirectory = "kubernetes.io~csi";

/** A volume as drivers know it: its driver's name and its handle. */
export interface VolumeID {
  readonly driver: string;
  readonly handle: string;
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** As the attach-detach controller names it in the status of nodes. */
export function uniqueVolumeName({ driver, handle }: VolumeID): string {
  return `${csiPluginName}/${driver}^${handle}`;
}

/** Undo of {@link uniqueVolumeName}; undefined for the name of another plug-in's volume. */
export function parseVolumeName(name: string): VolumeID | undefined {
  const prefix = `${csiPluginName}/`;
  const caret = name.indexOf("^");
  if (!name.startsWith(prefix) || caret < 0) return undefined;
  return { driver: name.slice(prefix.length, caret), handle: name.slice(caret + 1) };
}

/** Name of the VolumeAttachment. */
export function attachmentName({ driver, handle }: VolumeID, nodeName: string): string {
  return `csi-${sha256(`${handle}${driver}${nodeName}`)}`;
}

/** Handle of a volume that lives in a pod only. */
export function inlineHandle(podUID: string, volumeName: string): string {
  return `csi-${sha256(`${podUID}${volumeName}`)}`;
}

/** Where the files of CSI volumes are, laid out as drivers and their tools expect it below the kubelet's root. */
export interface CsiPaths {
  /** Sockets of plug-ins that want to register. */
  readonly registry: string;
  readonly plugin: string;
  /** Holds what is kept of a staged volume. */
  readonly staged: (volume: VolumeID) => string;
  /** Where the driver stages it. */
  readonly stagingTarget: (volume: VolumeID) => string;
  readonly blockVolumes: string;
  /** Of raw block volumes, by the PersistentVolume's name. */
  readonly blockStaging: (volumeName: string) => string;
  readonly blockPublishDirectory: (volumeName: string) => string;
  readonly blockPublishTarget: (volumeName: string, podUID: string) => string;
  readonly blockDirectory: (volumeName: string) => string;
  readonly blockData: (volumeName: string) => string;
}

export function csiPaths(rootDir: string): CsiPaths {
  const plugin = join(rootDir, "plugins", csiPluginName);
  const block = join(plugin, "volumeDevices");
  const staged = ({ driver, handle }: VolumeID): string =>
    join(plugin, pathSegment(driver), sha256(handle));
  return {
    registry: join(rootDir, "plugins_registry"),
    plugin,
    staged,
    stagingTarget: (volume) => join(staged(volume), "globalmount"),
    blockVolumes: block,
    blockStaging: (name) => join(block, "staging", pathSegment(name)),
    blockPublishDirectory: (name) => join(block, "publish", pathSegment(name)),
    blockPublishTarget: (name, podUID) =>
      join(block, "publish", pathSegment(name), pathSegment(podUID)),
    blockDirectory: (name) => join(block, pathSegment(name)),
    blockData: (name) => join(block, pathSegment(name), "data"),
  };
}

/** Names come from objects that the server has checked; a path is not built on that alone. */
function pathSegment(name: string): string {
  if (name === "" || name === "." || name === ".." || /[/\0]/.test(name)) {
    throw new VolumeError(`${JSON.stringify(name)} is no name of a driver or a volume`);
  }
  return name;
}

import type { CSIDriverSpec, SecretReference } from "../../api/types.gen.ts";
import type { AssignedPod } from "../types.ts";
import { VolumeError } from "../volumes/payload.ts";
import type { VolumeSpec } from "../volumes/plugin.ts";
import { inlineHandle, type VolumeID } from "./paths.ts";

/** A volume of a CSI driver as a pod has it: behind a claim, or inline in the pod. */
export interface CsiVolume {
  readonly id: VolumeID;
  /** Lives with the pod, and is not staged. */
  readonly inline: boolean;
  /** Of the PersistentVolume, or of the inline volume: how messages call it. */
  readonly name: string;
  readonly block: boolean;
  readonly readOnly: boolean;
  readonly fsType: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly accessModes: readonly string[];
  readonly mountOptions: readonly string[];
  readonly stageSecret: SecretReference | undefined;
  readonly publishSecret: SecretReference | undefined;
  readonly expandSecret: SecretReference | undefined;
}

/** Undefined for a volume of another type. */
export function csiVolume(spec: VolumeSpec, pod: AssignedPod): CsiVolume | undefined {
  const { persistent, volume } = spec;
  if (persistent === undefined) {
    const source = volume.csi;
    if (source === undefined) return undefined;
    const secret = source.nodePublishSecretRef?.name;
    return {
      id: { driver: source.driver, handle: inlineHandle(pod.metadata.uid, spec.name) },
      inline: true,
      name: spec.name,
      block: false,
      readOnly: source.readOnly ?? false,
      fsType: source.fsType ?? "",
      attributes: source.volumeAttributes ?? {},
      accessModes: [],
      mountOptions: [],
      stageSecret: undefined,
      publishSecret:
        secret === undefined ? undefined : { name: secret, namespace: pod.metadata.namespace },
      expandSecret: undefined,
    };
  }
  const { metadata, spec: persistentSpec } = persistent.volume;
  const source = persistentSpec?.csi;
  if (source === undefined) return undefined;
  return {
    id: { driver: source.driver, handle: source.volumeHandle },
    inline: false,
    name: metadata?.name ?? "",
    block: persistentSpec?.volumeMode === "Block",
    readOnly: spec.readOnly,
    fsType: source.fsType ?? "",
    attributes: source.volumeAttributes ?? {},
    accessModes: persistentSpec?.accessModes ?? [],
    mountOptions: persistentSpec?.mountOptions ?? [],
    stageSecret: source.nodeStageSecretRef,
    publishSecret: source.nodePublishSecretRef,
    expandSecret: source.nodeExpandSecretRef,
  };
}

/** The mode that the driver is asked for. */
export function accessModeOf({ accessModes }: CsiVolume): string {
  return accessModes[0] ?? "ReadWriteOnce";
}

/** Whether controllers attach it. Without a CSIDriver object they do. */
export function isAttachable(volume: CsiVolume, driver: CSIDriverSpec | undefined): boolean {
  return !volume.inline && driver?.attachRequired !== false;
}

/**
 * Refuses inline volumes of drivers that do not say that they can have such, and the other way round (KEP-596).
 *
 * @throws {VolumeError}
 */
export function checkLifecycleMode(volume: CsiVolume, driver: CSIDriverSpec | undefined): void {
  const mode = volume.inline ? "Ephemeral" : "Persistent";
  const prefix = "kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode";
  const not = `volume mode "${mode}" not supported by driver ${volume.id.driver}`;
  if (driver === undefined) {
    if (!volume.inline) return;
    throw new VolumeError(`${prefix}: ${not} (no CSIDriver object)`);
  }
  const modes = driver.volumeLifecycleModes ?? ["Persistent"];
  if (modes.includes(mode)) return;
  const quoted = modes.map((each) => JSON.stringify(each)).join(" ");
  throw new VolumeError(`${prefix}: ${not} (only supports [${quoted}])`);
}

/**
 * Whether the pod's fsGroup is to be given the files of a volume whose driver does not do that itself
 * (`CSIDriver.spec.fsGroupPolicy`, KEP-1682).
 */
export function groupOwnsFiles(volume: CsiVolume, driver: CSIDriverSpec | undefined): boolean {
  if (volume.readOnly) return false;
  switch (driver?.fsGroupPolicy ?? "ReadWriteOnceWithFSType") {
    case "None":
      return false;
    case "File":
      return true;
    default:
      if (volume.fsType === "") return false;
      return (
        volume.inline ||
        volume.accessModes.some((mode) => mode === "ReadWriteOnce" || mode === "ReadWriteOncePod")
      );
  }
}

import { podLimits } from "../../api/pod-requests.ts";
import { formatQuantity, parseQuantity, quantityOf } from "../../api/quantity.ts";
import type { Container, Volume } from "../../api/types.gen.ts";
import { allContainers } from "../spec/containers.ts";
import { wholeUnits } from "../spec/quantities.ts";
import type { AssignedPod } from "../types.ts";

/** What a pod has written to the node's disk, in bytes. */
export interface StorageUsage {
  /** By the volume's name. */
  readonly volumes: ReadonlyMap<string, number>;
  /** By the name of a running container. */
  readonly containers: ReadonlyMap<string, { readonly logs: number; readonly layer: number }>;
  /** Writable layers, logs and volumes that live as long as the pod. */
  readonly total: number;
}

/** Which limit was passed, as upstream's metric names it. */
export type StorageSignal =
  | "emptydirfs.limit"
  | "ephemeralpodfs.limit"
  | "ephemeralcontainerfs.limit";

/** A pod uses more of the node's disk than it may. */
export interface StorageOverrun {
  readonly signal: StorageSignal;
  readonly message: string;
}

const resource = "ephemeral-storage";

/** The limit of an emptyDir on the disk; one in memory is as large as its mount. */
function sizeLimit({ emptyDir }: Volume): string | number | undefined {
  const { medium = "", sizeLimit: limit } = emptyDir ?? {};
  if (limit === undefined || medium !== "" || wholeUnits(limit) <= 0) return undefined;
  return limit;
}

function containerLimit({ resources }: Container): string | number | undefined {
  return resources?.limits?.[resource];
}

/** Names of the volumes that have a limit of their own. */
export function limitedVolumes({ spec }: AssignedPod): readonly string[] {
  return (spec?.volumes ?? []).flatMap((volume) =>
    sizeLimit(volume) === undefined ? [] : [volume.name],
  );
}

/** Whether what the containers of the pod write is limited. */
export function limitsContainers(pod: AssignedPod): boolean {
  return allContainers(pod).some(({ container }) => containerLimit(container) !== undefined);
}

/** Whether the pod's use of the node's disk has to be watched at all. */
export function hasStorageLimits(pod: AssignedPod): boolean {
  return limitedVolumes(pod).length > 0 || limitsContainers(pod);
}

/** As upstream writes sizes: as the pod does, in the canonical form. */
function shown(bytes: number, like: string | number): string {
  return formatQuantity(quantityOf(bytes, parseQuantity(String(like)).format));
}

function volumeOverrun(pod: AssignedPod, usage: StorageUsage): StorageOverrun | undefined {
  for (const volume of pod.spec?.volumes ?? []) {
    const limit = sizeLimit(volume);
    const used = usage.volumes.get(volume.name);
    if (limit === undefined || used === undefined || used <= wholeUnits(limit)) continue;
    const size = JSON.stringify(formatQuantity(parseQuantity(String(limit))));
    const message = `Usage of EmptyDir volume "${volume.name}" exceeds the limit ${size}. `;
    return { signal: "emptydirfs.limit", message };
  }
  return undefined;
}

function podOverrun(pod: AssignedPod, { total }: StorageUsage): StorageOverrun | undefined {
  const limit = podLimits(pod).get(resource);
  const like = allContainers(pod).flatMap(({ container }) => containerLimit(container) ?? [])[0];
  if (limit === undefined || like === undefined || total <= limit) return undefined;
  const message = `Pod ephemeral local storage usage exceeds the total limit of containers ${shown(limit, like)}. `;
  return { signal: "ephemeralpodfs.limit", message };
}

function containerOverrun(
  pod: AssignedPod,
  { containers }: StorageUsage,
  layersApart: boolean,
): StorageOverrun | undefined {
  for (const container of pod.spec?.containers ?? []) {
    const limit = containerLimit(container);
    const used = containers.get(container.name);
    if (limit === undefined || used === undefined || wholeUnits(limit) === 0) continue;
    // Layers on a disk of their own take nothing from the node's.
    if (used.logs + (layersApart ? 0 : used.layer) <= wholeUnits(limit)) continue;
    const size = JSON.stringify(shown(wholeUnits(limit), limit));
    const message = `Container ${container.name} exceeded its local ephemeral storage limit ${size}. `;
    return { signal: "ephemeralcontainerfs.limit", message };
  }
  return undefined;
}

/**
 * The first limit that a pod has passed, in the kubelet's order and words (eviction for local storage limits). Pure.
 *
 * @param layersApart Writable layers are on another file system than volumes and logs.
 */
export function storageOverrun(
  pod: AssignedPod,
  usage: StorageUsage,
  layersApart: boolean,
): StorageOverrun | undefined {
  return (
    volumeOverrun(pod, usage) ?? podOverrun(pod, usage) ?? containerOverrun(pod, usage, layersApart)
  );
}

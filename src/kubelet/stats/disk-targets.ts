import { readlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import type { Volume } from "../../api/types.gen.ts";
import { namesIn } from "../../lib/names-in.ts";
import type { PodRecord } from "../../runtime/types.ts";
import type { AssignedPod } from "../types.ts";
import { podPaths } from "../volumes/pod-paths.ts";
import { volumeKind } from "../volumes/volume-kinds.ts";
import type { KernelFiles } from "./kernel-files.ts";

export interface VolumeTarget {
  readonly name: string;
  readonly path: string;
  readonly ephemeral: boolean;
  /** It is a filesystem of its own. */
  readonly mounted: boolean;
}

/** What is to be measured of one pod. */
export interface PodTargets {
  readonly uid: string;
  readonly volumes: readonly VolumeTarget[];
  /** By container id. */
  readonly layers: ReadonlyMap<string, string>;
  /** By container name. */
  readonly logs: ReadonlyMap<string, readonly string[]>;
  readonly files: string;
}

/** Volumes in memory, and those that count as ephemeral storage (as upstream counts them). */
function volumeTarget(volume: Volume, path: string): VolumeTarget {
  const { configMap, emptyDir, name, projected, secret } = volume;
  const inMemory = (emptyDir?.medium ?? "") !== "";
  const bare = [configMap, projected, secret, volume.downwardAPI].every(
    (kind) => kind === undefined,
  );
  return {
    name,
    path,
    ephemeral: configMap !== undefined || (bare && !inMemory),
    mounted: inMemory || secret !== undefined || projected !== undefined,
  };
}

function volumeTargets(pod: AssignedPod, rootDir: string): readonly VolumeTarget[] {
  const paths = podPaths(rootDir, pod.metadata.uid);
  return (pod.spec?.volumes ?? []).flatMap((volume) => {
    const found = volumeKind(volume);
    // Directories of the host are not the pod's.
    if (found.kind === "unsupported" || found.kind === "hostPath") return [];
    return [volumeTarget(volume, paths.volume(found.kind, volume.name))];
  });
}

/**
 * Where a container's own writes are, from the mount table of its first process: right for every engine with overlayfs.
 * Only below the given directories: what is mounted inside is the container's own business.
 */
export function writableLayer(
  mountinfo: string | undefined,
  below: readonly string[],
): string | undefined {
  for (const line of (mountinfo ?? "").split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    if (before.split(" ")[4] !== "/" || !after.startsWith("overlay ")) continue;
    const upper = /(?:^|[ ,])upperdir=([^,]+)/.exec(after)?.[1];
    if (upper === undefined || upper.includes("/../")) return undefined;
    return below.some((directory) => upper.startsWith(`${directory}/`)) ? upper : undefined;
  }
  return undefined;
}

async function targetOf(link: string): Promise<string | undefined> {
  try {
    return await readlink(link);
  } catch {
    // No link, or gone.
    return undefined;
  }
}

/** The engine's file behind each log link, with those that it has rotated away. */
async function logFiles(directory: string): Promise<readonly string[]> {
  const out: string[] = [];
  for (const name of await namesIn(directory)) {
    const target = await targetOf(join(directory, name));
    if (target === undefined) continue;
    const file = basename(target);
    const rotated = await namesIn(dirname(target));
    for (const each of rotated) {
      if (each === file || each.startsWith(`${file}.`)) out.push(join(dirname(target), each));
    }
  }
  return out;
}

async function podLogs(directory: string): Promise<ReadonlyMap<string, readonly string[]>> {
  const out = new Map<string, readonly string[]>();
  for (const container of await namesIn(directory)) {
    out.set(container, await logFiles(join(directory, container)));
  }
  return out;
}

export interface TargetOptions {
  readonly rootDir: string;
  readonly podLogsDir: string;
  /** Directories that engines keep writable layers in. */
  readonly layersBelow: readonly string[];
  readonly files: KernelFiles;
}

/** What of a pod takes room on a disk. */
export async function podTargets(
  record: PodRecord,
  pod: AssignedPod | undefined,
  { files, layersBelow, podLogsDir, rootDir }: TargetOptions,
): Promise<PodTargets> {
  const { name, namespace, uid } = record;
  const layers = new Map<string, string>();
  for (const { id, state } of record.containers) {
    if (state.kind !== "running") continue;
    const layer = writableLayer(files.text(`/proc/${state.pid}/mountinfo`), layersBelow);
    if (layer !== undefined) layers.set(id, layer);
  }
  return {
    uid,
    volumes: pod === undefined ? [] : volumeTargets(pod, rootDir),
    layers,
    logs: await podLogs(join(podLogsDir, `${namespace}_${name}_${uid}`)),
    files: podPaths(rootDir, uid).etcHosts,
  };
}

import { chmod, chown, lstat, rename } from "node:fs/promises";

import type { Volume } from "../../../api/types.gen.ts";
import { errorCode } from "../../../lib/errors.ts";
import { wholeUnits } from "../../spec/quantities.ts";
import { podMemoryLimitBytes } from "../../spec/resources.ts";
import type { AssignedPod } from "../../types.ts";
import { hugePagesOf, isHugePages } from "../huge-pages.ts";
import { makeDirectory } from "../make-directory.ts";
import { VolumeError } from "../payload.ts";
import type { SetUpContext, VolumePlugin } from "../plugin.ts";
import type { PluginDeps } from "../plugins.ts";
import { pluginDirectories, volumeKind } from "../volume-kinds.ts";

type EmptyDirDeps = Pick<PluginDeps, "allocatable" | "mounter" | "step">;

/** No volume has such a name: they are DNS labels. */
const unfinished = ".unfinished";

/** A volume's root is everybody's; a group owns what is made in it. */
function rootMode(fsGroup: number | undefined): number {
  return 0o777 | (fsGroup === undefined ? 0 : 0o2000);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

/** Once it has its name it is finished, and what containers make of it is left alone ever after. */
async function makeOnDisk(
  { step }: Pick<EmptyDirDeps, "step">,
  { path, pod }: SetUpContext,
): Promise<void> {
  if (await isThere(path)) return;
  const fsGroup = pod.spec?.securityContext?.fsGroup;
  const making = `${path}${unfinished}`;
  await makeDirectory(making, 0o750);
  if (fsGroup !== undefined) await chown(making, 0, fsGroup);
  // Whatever the umask.
  await chmod(making, rootMode(fsGroup));
  await step("writeVolume");
  await rename(making, path);
}

/** Options of a mount whose root is finished at once; sticky, as mount(8) leaves a tmpfs. */
function rootOptions({ spec }: AssignedPod): readonly string[] {
  const fsGroup = spec?.securityContext?.fsGroup;
  const mode = `mode=${(rootMode(fsGroup) | 0o1000).toString(8)}`;
  return fsGroup === undefined ? [mode] : [mode, `gid=${fsGroup}`];
}

/** The smallest of what limits a volume; none is no limit. */
function sizeOption(limits: readonly number[]): readonly string[] {
  const set = limits.filter((bytes) => bytes > 0);
  return set.length === 0 ? [] : [`size=${Math.min(...set)}`];
}

function ownLimit({ emptyDir }: Volume): readonly number[] {
  return emptyDir?.sizeLimit === undefined ? [] : [wholeUnits(emptyDir.sizeLimit)];
}

function memoryLimits(deps: EmptyDirDeps, pod: AssignedPod, volume: Volume): readonly number[] {
  const node = deps.allocatable()["memory"];
  return [
    ...(node === undefined ? [] : [wholeUnits(node)]),
    ...ownLimit(volume),
    podMemoryLimitBytes(pod),
  ];
}

/** Mounts the file system of a medium, unless it is there: then it has what the pod has written. */
async function mountMedium(
  deps: EmptyDirDeps,
  volume: Volume,
  type: "hugetlbfs" | "tmpfs",
  { mounts, path, pod, signal }: SetUpContext,
): Promise<void> {
  const { mounter, step } = deps;
  const fresh = (await makeDirectory(path, 0o750)) !== undefined;
  if (!fresh && (mounts?.() ?? mounter.table()).at(path) !== undefined) return;
  const root = rootOptions(pod);
  if (type === "tmpfs") {
    const size = sizeOption(memoryLimits(deps, pod, volume));
    await step("mountVolume");
    await mounter.mountTmpfs(path, [...root, ...size], signal);
    return;
  }
  const pages = hugePagesOf(pod, volume.emptyDir?.medium ?? "");
  // No engine holds a container to its huge pages, so the volume holds itself to them.
  const size = sizeOption([...ownLimit(volume), pages.limitBytes]);
  const options = [`pagesize=${pages.pageBytes}`, ...root, ...size];
  await step("mountVolume");
  await mounter.mount({ source: "nodev", target: path, type, options }, signal);
}

/** `emptyDir`: a directory of the pod's own, on the node's disk, in its memory or in its huge pages. */
export function emptyDirPlugin(deps: EmptyDirDeps): VolumePlugin {
  return {
    directory: pluginDirectories.emptyDir,
    supports: ({ volume, persistent }) =>
      persistent === undefined && volumeKind(volume).kind === "emptyDir",
    async setUp({ volume }, context) {
      const medium = volume.emptyDir?.medium ?? "";
      if (medium === "") await makeOnDisk(deps, context);
      else if (medium === "Memory") await mountMedium(deps, volume, "tmpfs", context);
      else if (isHugePages(medium)) await mountMedium(deps, volume, "hugetlbfs", context);
      else throw new VolumeError(`unknown storage medium "${medium}"`);
      return { hostPath: context.path, readOnly: false, ownership: "done" };
    },
  };
}

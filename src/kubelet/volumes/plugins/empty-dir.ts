import { mkdir } from "node:fs/promises";

import type { Volume } from "../../../api/types.gen.ts";
import { wholeUnits } from "../../spec/quantities.ts";
import { podMemoryLimitBytes } from "../../spec/resources.ts";
import type { AssignedPod } from "../../types.ts";
import { VolumeError } from "../payload.ts";
import type { VolumePlugin } from "../plugin.ts";
import type { PluginDeps } from "../plugins.ts";
import { pluginDirectories, volumeKind } from "../volume-kinds.ts";
import { openVolumeRoot } from "../volume-root.ts";

/** The smallest of what limits a volume in memory; none is no limit. */
function tmpfsLimits(deps: PluginDeps, pod: AssignedPod, volume: Volume): readonly number[] {
  const node = deps.allocatable()["memory"];
  const own = volume.emptyDir?.sizeLimit;
  return [
    ...(node === undefined ? [] : [wholeUnits(node)]),
    ...(own === undefined ? [] : [wholeUnits(own)]),
    podMemoryLimitBytes(pod),
  ].filter((bytes) => bytes > 0);
}

/** `emptyDir`: a directory of the pod's own, on the node's disk or in its memory. */
export function emptyDirPlugin(deps: PluginDeps): VolumePlugin {
  return {
    directory: pluginDirectories.emptyDir,
    supports: ({ volume, persistent }) =>
      persistent === undefined && volumeKind(volume).kind === "emptyDir",
    async setUp({ volume }, { mounts, path, pod, signal }) {
      const medium = volume.emptyDir?.medium ?? "";
      if (medium !== "" && medium !== "Memory") {
        throw new VolumeError(`emptyDir medium ${medium} is not supported by this node`);
      }
      const inMemory = medium === "Memory";
      const fresh = (await mkdir(path, { recursive: true, mode: 0o755 })) !== undefined;
      const table = fresh || !inMemory ? undefined : (mounts?.() ?? deps.mounter.table());
      const mount = inMemory && table?.at(path) === undefined;
      if (mount) {
        const sizes = tmpfsLimits(deps, pod, volume);
        const size = sizes.length === 0 ? [] : [`size=${Math.min(...sizes)}`];
        await deps.step("mountVolume");
        await deps.mounter.mountTmpfs(path, ["mode=1777", ...size], signal);
      }
      if (fresh || mount) await openVolumeRoot(path, pod.spec?.securityContext?.fsGroup, inMemory);
      return { hostPath: path, readOnly: false, ownership: "done" };
    },
  };
}

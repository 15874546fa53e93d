import { setUpHostPath } from "../host-path.ts";
import type { VolumePlugin } from "../plugin.ts";
import { pluginDirectories } from "../volume-kinds.ts";

/** `hostPath`: something of the node's own, shown where it is. Nothing of it is ever taken down. */
export function hostPathPlugin(): VolumePlugin {
  return {
    directory: pluginDirectories.hostPath,
    supports: ({ volume, persistent }) => persistent === undefined && volume.hostPath !== undefined,
    async setUp({ volume: { hostPath } }) {
      const path = hostPath === undefined ? "" : await setUpHostPath(hostPath);
      return { hostPath: path, readOnly: false, ownership: "done" };
    },
  };
}

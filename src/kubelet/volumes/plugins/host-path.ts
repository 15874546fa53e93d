import { setUpHostPath } from "../host-path.ts";
import { mayHang, type Mounter } from "../mounter.ts";
import { VolumeError } from "../payload.ts";
import type { VolumePlugin } from "../plugin.ts";
import { pluginDirectories } from "../volume-kinds.ts";

/** `hostPath`: something of the node's own, shown where it is. Nothing of it is ever taken down. */
export function hostPathPlugin({ mounter }: { readonly mounter: Mounter }): VolumePlugin {
  return {
    directory: pluginDirectories.hostPath,
    supports: ({ volume, persistent }) => persistent === undefined && volume.hostPath !== undefined,
    async setUp({ readOnly, volume: { hostPath } }, { mounts, signal }) {
      if (hostPath === undefined) {
        throw new VolumeError("spec does not reference an HostPath volume type");
      }
      const mount = (mounts?.() ?? mounter.table()).containing(hostPath.path);
      // What a dead server holds would otherwise hold one of our few threads for each pod.
      if (mount !== undefined && mayHang(mount)) await mounter.answers(mount.path, signal);
      return { hostPath: await setUpHostPath(hostPath), readOnly, ownership: "done" };
    },
  };
}

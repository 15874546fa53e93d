import { isBlock } from "../claims.ts";
import { checkNoBacksteps } from "../disk-plugin.ts";
import { setUpHostPath } from "../host-path.ts";
import { mountOptions, volumeName } from "../mount-options.ts";
import { VolumeError } from "../payload.ts";
import type { VolumePlugin } from "../plugin.ts";
import { pluginDirectories } from "../volume-kinds.ts";
import { SetUpError } from "../set-up-report.ts";

/** `hostPath` behind a PersistentVolume: shown where it is, as the inline one. Nothing of it is ever taken down. */
export function hostPathVolumePlugin(): VolumePlugin {
  return {
    directory: pluginDirectories.hostPath,
    supports: ({ persistent }) => persistent?.volume.spec?.hostPath !== undefined,
    async setUp(spec) {
      const source = spec.persistent?.volume.spec?.hostPath;
      if (source === undefined) throw new VolumeError("spec.PersistentVolume.Spec.HostPath is nil");
      if (isBlock(spec)) throw new VolumeError("hostPath does not support volumeMode Block");
      if (mountOptions(spec).length > 0) {
        const cause = new VolumeError("mount options are not supported for this volume type");
        const operation = "MountVolume.MountOptionSupport check";
        throw new SetUpError("FailedMount", operation, volumeName(spec), cause);
      }
      checkNoBacksteps(source.path);
      const hostPath = await setUpHostPath(source);
      return { hostPath, readOnly: spec.readOnly, ownership: "done" };
    },
  };
}

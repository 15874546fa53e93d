import { join } from "node:path";

import type { PersistentVolume } from "../../../api/types.gen.ts";
import { isDevicePath, mapDevice, unmapDevice } from "../block-map.ts";
import { isBlock } from "../claims.ts";
import {
  checkNoBacksteps,
  type DiskPluginDeps,
  tellingMismatch,
  volumeOptions,
  warnPod,
} from "../disk-plugin.ts";
import { type FileStatus, fileStatus } from "../file-status.ts";
import { KeyedLock } from "../keyed-lock.ts";
import { volumeName } from "../mount-options.ts";
import { VolumeError } from "../payload.ts";
import type { PreparedVolume, SetUpContext, VolumePlugin, VolumeSpec } from "../plugin.ts";
import { mountShared, otherPodMounts, unmountShared } from "../shared-disk.ts";
import { diskFigures } from "../volume-figures.ts";
import { bindVolume, unmountAll } from "../volume-bind.ts";

const directory = "kubernetes.io~local-volume";
const alreadyMounted = "AlreadyMountedVolume";

/** Where a disk behind a `local` volume is mounted for all pods of the node. */
function sharedPath(rootDir: string, name: string): string {
  return join(rootDir, "plugins/kubernetes.io/local-volume/mounts", name);
}

/**
 * `local`: a directory or a disk of this node behind a PersistentVolume. A directory is never made; a disk gets a file
 * system only if it is certain to be empty.
 */
export function localPlugin(deps: DiskPluginDeps): VolumePlugin {
  const locks = new KeyedLock();
  const { config, mounter, programs } = deps;

  async function setUpFilesystem(
    spec: VolumeSpec,
    source: NonNullable<NonNullable<PersistentVolume["spec"]>["local"]>,
    { path, pod, signal }: SetUpContext,
  ): Promise<PreparedVolume> {
    const { readOnly } = spec;
    const options = volumeOptions(spec, readOnly);
    const others = otherPodMounts(mounter, config.rootDir, path);
    if (mounter.table().at(path) === undefined) {
      const status = await fileStatus(programs, source.path, signal);
      warnOfGroup(spec, status, others, pod);
      let shown = source.path;
      if (status.kind === "blockDevice") {
        shown = sharedPath(config.rootDir, volumeName(spec));
        const { fsType = "" } = source;
        await checkSame(shown, status, signal);
        const disk = { device: source.path, target: shown, fsType, options, readOnly };
        await tellingMismatch(deps, spec, async () => mountShared(deps, disk, signal));
      } else if (status.kind !== "directory") {
        throw new VolumeError("only directory and block device are supported");
      }
      await bindVolume(deps, { source: shown, path, options }, signal);
    } else {
      await bindVolume(deps, { source: source.path, path, options }, signal);
    }
    // The group of a volume that others use already is theirs to choose.
    return { hostPath: path, readOnly, ownership: readOnly || others.length > 0 ? "done" : "tree" };
  }

  /** A volume that was made anew on another disk has the same place until the pods of the former one are gone. */
  async function checkSame(
    shared: string,
    { device }: FileStatus,
    signal: AbortSignal,
  ): Promise<void> {
    const mounted = mounter.table().at(shared);
    if (mounted === undefined) return;
    const present = await fileStatus(programs, mounted.source, signal);
    if (present.device === device) return;
    throw new VolumeError(`another disk, ${mounted.source}, is still mounted at ${shared}`);
  }

  function warnOfGroup(
    spec: VolumeSpec,
    { gid, kind }: FileStatus,
    others: readonly string[],
    pod: SetUpContext["pod"],
  ): void {
    const fsGroup = pod.spec?.securityContext?.fsGroup;
    if (fsGroup === undefined || others.length === 0 || kind !== "directory" || gid === fsGroup) {
      return;
    }
    const text = `The requested fsGroup is ${fsGroup}, but the volume ${volumeName(spec)} has GID ${gid}. The volume may not be shareable.`;
    warnPod(deps, pod, alreadyMounted, text);
  }

  return {
    directory,
    supports: ({ persistent }) => persistent?.volume.spec?.local !== undefined,

    async setUp(spec, context) {
      const source = spec.persistent?.volume.spec?.local;
      if (source === undefined || source.path === "") {
        throw new VolumeError("local volume source is nil or local path is not set");
      }
      checkNoBacksteps(source.path);
      return locks.hold(volumeName(spec), async () => {
        if (!isBlock(spec)) return setUpFilesystem(spec, source, context);
        const { path, signal } = context;
        const { readOnly } = spec;
        const hostPath = await mapDevice(deps, { device: source.path, path, readOnly }, signal);
        return { hostPath, readOnly, ownership: "done" };
      });
    },

    async tearDown({ name, path }, signal) {
      await locks.hold(name, async () => {
        if (isDevicePath(path)) {
          await unmapDevice(deps, path, signal);
          return;
        }
        await unmountAll(mounter, path, signal);
        if (otherPodMounts(mounter, config.rootDir, path).length > 0) return;
        await unmountShared(deps, sharedPath(config.rootDir, name), signal);
      });
    },

    figures: (spec, { hostPath }, signal) => diskFigures(deps, spec, hostPath, signal),
  };
}

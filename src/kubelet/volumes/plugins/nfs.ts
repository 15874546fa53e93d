import { isIPv6 } from "node:net";

import type { NFSVolumeSource } from "../../../api/types.gen.ts";
import { isBlock } from "../claims.ts";
import { type DiskPluginDeps, volumeOptions } from "../disk-plugin.ts";
import { missingProgram, MissingProgramError } from "../host-programs.ts";
import { KeyedLock } from "../keyed-lock.ts";
import { makeDirectory } from "../make-directory.ts";
import { joinMountOptions } from "../mount-options.ts";
import { VolumeError } from "../payload.ts";
import type { VolumePlugin, VolumeSpec } from "../plugin.ts";
import { filesystemFigures } from "../volume-figures.ts";
import { removeEmpty, unmountAll } from "../volume-bind.ts";

/** A server that does not answer costs its pod this long; then it is asked again, after a pause. */
const mountSeconds = 110;
/** More than timeout(1) takes, which also ends the helpers that mount(8) has started. */
const mountMs = 120_000;
const timedOut = [124, 137];

function nfsSource({ persistent, volume }: VolumeSpec): NFSVolumeSource | undefined {
  return persistent === undefined ? volume.nfs : persistent.volume.spec?.nfs;
}

/** Words of mount(8) when it found no mount.nfs, and the kernel alone could not do it. */
const noHelper = /might need a \/sbin\/mount\.|unknown filesystem type|wrong fs type/;
const askMs = 10_000;

/**
 * `nfs`, inline or behind a PersistentVolume: mounted for each pod by itself, by the host's mount.nfs in a process that
 * is given up when the server does not answer. Nothing here looks into what is mounted: that could wait for ever.
 */
export function nfsPlugin(deps: DiskPluginDeps): VolumePlugin {
  const { mounter, programs, step } = deps;
  const locks = new KeyedLock();

  async function mountExport(
    { path: exported, server }: NFSVolumeSource,
    { options, target }: { readonly options: readonly string[]; readonly target: string },
    signal: AbortSignal,
  ): Promise<void> {
    const source = `${isIPv6(server) ? `[${server}]` : server}:${exported}`;
    const flags = options.length === 0 ? [] : ["-o", options.join(",")];
    const args = ["-t", "nfs", ...flags, "--", source, target];
    const { exitCode, stderr, stdout } = await programs.run(
      ["timeout", "--kill-after=5", String(mountSeconds), "mount", ...args],
      mountMs,
      signal,
    );
    if (exitCode === 0) return;
    if (timedOut.includes(exitCode ?? 0)) {
      throw new VolumeError(`${server} did not answer within ${mountSeconds} s`);
    }
    const said = `${stdout}${stderr}`;
    if (noHelper.test(said)) {
      await programs.run(["mount.nfs", "-V"], askMs, signal).catch((error: unknown) => {
        throw error instanceof MissingProgramError ? missingProgram("mount.nfs") : error;
      });
    }
    const shown = args.filter((arg) => arg !== "--").join(" ");
    throw new VolumeError(
      `mount failed: exit status ${exitCode ?? "unknown"}\nMounting command: mount\nMounting arguments: ${shown}\nOutput: ${said}`,
    );
  }

  /** Mounted already is success. */
  async function mountOnce(
    source: NFSVolumeSource,
    at: { readonly options: readonly string[]; readonly target: string },
    signal: AbortSignal,
  ): Promise<void> {
    const { target } = at;
    if (mounter.table().at(target) !== undefined) return;
    await makeDirectory(target, 0o750);
    await step("mountVolume");
    try {
      await mountExport(source, at, signal);
    } catch (error) {
      signal.throwIfAborted();
      // A mount that was given up may have come about at the last moment.
      await unmountAll(mounter, target, signal);
      await removeEmpty(target);
      throw error;
    }
  }

  return {
    directory: "kubernetes.io~nfs",
    supports: (spec) => nfsSource(spec) !== undefined,

    async setUp(spec, { path, signal }) {
      const source = nfsSource(spec);
      if (source === undefined) throw new VolumeError("Spec does not reference a NFS volume type");
      if (isBlock(spec)) throw new VolumeError("nfs does not support volumeMode Block");
      const readOnly = spec.readOnly || (source.readOnly ?? false);
      const prepared = { hostPath: path, readOnly, ownership: "done" } as const;
      const options = joinMountOptions(volumeOptions(spec, readOnly));
      // Two volumes of a pod may be the same claim.
      return locks.hold(path, async () => {
        await mountOnce(source, { options, target: path }, signal);
        return prepared;
      });
    },

    figures: async (_spec, { hostPath }, signal) => filesystemFigures(deps, hostPath, signal),
  };
}

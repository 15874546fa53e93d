import { mkdir } from "node:fs/promises";

import { writeAtomicVolume } from "../atomic-writer.ts";
import type { Payload } from "../payload.ts";
import type { SetUpContext, VolumePlugin, VolumeSpec } from "../plugin.ts";
import type { PluginDeps } from "../plugins.ts";
import { volumePayload } from "../projection.ts";
import { pluginDirectories } from "../volume-kinds.ts";
import { openVolumeRoot } from "../volume-root.ts";

/** Volumes that are made of API objects and of what the node knows about the pod. */
export type PayloadKind = "configMap" | "secret" | "downwardAPI" | "projected";

async function payloadOf(
  deps: PluginDeps,
  { volume }: VolumeSpec,
  { addresses, pod, signal }: SetUpContext,
): Promise<Payload> {
  const { namespace = "" } = pod.metadata;
  const sources = {
    get: async (of: "ConfigMap" | "Secret", name: string) =>
      deps.objects.get(of, { namespace, name }, signal),
    tokens: deps.tokens,
    trustBundles: deps.trustBundles,
    addresses,
    allocatable: deps.allocatable(),
  };
  return volumePayload(pod, volume, sources, signal);
}

/** A plug-in for one of these kinds. Such volumes are read-only for containers, and swap all their files in one step. */
export function payloadPlugin(kind: PayloadKind, deps: PluginDeps): VolumePlugin {
  // Secrets must not reach a disk.
  const inMemory = kind === "secret" || kind === "projected";
  return {
    directory: pluginDirectories[kind],
    supports: ({ volume, persistent }) => persistent === undefined && volume[kind] !== undefined,
    async setUp(spec, context) {
      const { mounts, path, pod, signal } = context;
      const payload = await payloadOf(deps, spec, context);
      const fresh = (await mkdir(path, { recursive: true, mode: 0o755 })) !== undefined;
      const table = fresh || !inMemory ? undefined : (mounts?.() ?? deps.mounter.table());
      if (inMemory && table?.at(path) === undefined) {
        await deps.step("mountVolume");
        await deps.mounter.mountTmpfs(path, ["mode=1777"], signal);
      }
      const fsGroup = pod.spec?.securityContext?.fsGroup;
      await deps.step("writeVolume");
      const suffix = String(Math.floor(deps.random() * 1e9)).padStart(9, "0");
      const options = { fsGroup, now: deps.clock.now(), inMemory, suffix };
      await writeAtomicVolume(path, payload, options, signal);
      await openVolumeRoot(path, fsGroup, inMemory);
      return { hostPath: path, readOnly: true, ownership: "done" };
    },
  };
}

import { writeAtomicVolume } from "../atomic-writer.ts";
import { makeDirectory } from "../make-directory.ts";
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

async function isInMemory(
  { mounter }: PluginDeps,
  { mounts, path }: SetUpContext,
): Promise<boolean> {
  if (mounter.isInMemory !== undefined) return mounter.isInMemory(path);
  return (mounts?.() ?? mounter.table()).at(path) !== undefined;
}

/** The directory to write to, in memory where it has to be. */
async function makeRoot(deps: PluginDeps, context: SetUpContext, inMemory: boolean): Promise<void> {
  const { path, signal } = context;
  const fresh = (await makeDirectory(path, 0o755)) !== undefined;
  if (!inMemory || (!fresh && (await isInMemory(deps, context)))) return;
  await deps.step("mountVolume");
  await deps.mounter.mountTmpfs(path, ["mode=1777"], signal);
}

/** A plug-in for one of these kinds. Such volumes are read-only for containers, and swap all their files in one step. */
export function payloadPlugin(kind: PayloadKind, deps: PluginDeps): VolumePlugin {
  // Secrets must not reach a disk.
  const inMemory = kind === "secret" || kind === "projected";
  return {
    directory: pluginDirectories[kind],
    supports: ({ volume, persistent }) => persistent === undefined && volume[kind] !== undefined,
    async setUp(spec, context) {
      const { path, pod, signal } = context;
      // Objects and tokens are asked for while mount(8) runs; a mount that was begun is waited for.
      const [content, root] = await Promise.allSettled([
        payloadOf(deps, spec, context),
        makeRoot(deps, context, inMemory),
      ]);
      if (root.status === "rejected") throw root.reason;
      if (content.status === "rejected") throw content.reason;
      const payload = content.value;
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

import { listObjects } from "../../../api/objects.ts";
import type { Resource } from "../../../api/resource.ts";
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS } from "../../../api/resources.ts";
import {
  claimKeysOf,
  finalizers,
  type StoredClaim,
  type StoredVolume,
} from "../persistent-volume-binder/claims.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import { replaceIfCurrent } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";
import { decideProtection, keepsClaim, type ProtectionStep } from "./in-use.ts";

/** Writes the object with or without the finalizer; somebody else's write in between wakes the key again. */
async function writeFinalizer(
  context: ControllerContext,
  about: {
    readonly resource: Resource<unknown>;
    readonly object: StoredClaim | StoredVolume;
    readonly finalizer: string;
    readonly step: ProtectionStep;
  },
  signal: AbortSignal,
): Promise<void> {
  const { resource, object, finalizer, step } = about;
  if (step === "none") return;
  const { metadata } = object;
  const others = (metadata.finalizers ?? []).filter((each) => each !== finalizer);
  const wanted = step === "add" ? [...others, finalizer] : others;
  await replaceIfCurrent(
    context.client,
    { resource, ...metadata },
    { ...object, metadata: { ...metadata, finalizers: wanted } },
    signal,
  );
}

/** Keeps volumes that are bound from vanishing (upstream's pv-protection). */
export function volumeProtection(context: ControllerContext): Controller {
  const name = "persistentvolume-protection";
  const { persistentVolumes } = context.informers;
  const finalizer = finalizers.volume;
  return {
    name,
    run: (signal) =>
      runQueueLoop(
        {
          name,
          context,
          waitFor: [persistentVolumes],
          sync: async (key) => {
            const object = persistentVolumes.get(key);
            if (object === undefined) return;
            const step = decideProtection(
              object,
              finalizer,
              () => object.status?.phase === "Bound",
            );
            const about = { resource: PERSISTENT_VOLUMES, object, finalizer, step };
            await writeFinalizer(context, about, signal);
          },
          subscribe: (queue) => [
            persistentVolumes.subscribe((change) => {
              if (change.kind !== "deleted") queue.add(change.key);
            }),
          ],
        },
        signal,
      ),
  };
}

/** Keeps claims that pods use from vanishing (upstream's pvc-protection). */
export function claimProtection(context: ControllerContext): Controller {
  const name = "persistentvolumeclaim-protection";
  const { client, informers } = context;
  const { persistentVolumeClaims, pods } = informers;
  const finalizer = finalizers.claim;

  async function isUsed(claim: StoredClaim, signal: AbortSignal): Promise<boolean> {
    const { namespace = "" } = claim.metadata;
    // Asked live: a pod that the cache does not show yet may be using it already.
    const live = await listObjects(client, PODS, { namespace, signal });
    return live.items.some((pod) => keepsClaim(pod, claim));
  }

  return {
    name,
    run: async (signal) => {
      const podsOf = indexByNamespace(pods);
      await runQueueLoop(
        {
          name,
          context,
          waitFor: [persistentVolumeClaims, pods],
          sync: async (key) => {
            const object = persistentVolumeClaims.get(key);
            if (object === undefined) return;
            const step = decideProtection(object, finalizer, () =>
              [...podsOf.in(object.metadata.namespace ?? "")].some((pod) =>
                keepsClaim(pod, object),
              ),
            );
            if (step === "remove" && (await isUsed(object, signal))) return;
            const about = { resource: PERSISTENT_VOLUME_CLAIMS, object, finalizer, step };
            await writeFinalizer(context, about, signal);
          },
          subscribe: (queue) => [
            persistentVolumeClaims.subscribe((change) => {
              if (change.kind !== "deleted") queue.add(change.key);
            }),
            pods.subscribe((change) => {
              // Only what ends a use can end a wait. A pod may be another one of the same name by now.
              if (change.kind === "added") return;
              for (const claimKey of claimKeysOf(change.previous)) queue.add(claimKey);
            }),
          ],
        },
        signal,
      );
      podsOf.close();
    },
  };
}

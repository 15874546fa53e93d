import { isAlreadyExists } from "../../../api/errors.ts";
import { objectKey } from "../../../api/object.ts";
import { createObject } from "../../../api/objects.ts";
import { PERSISTENT_VOLUME_CLAIMS, PODS } from "../../../api/resources.ts";
import type { PersistentVolumeClaim, Volume } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { claimNameOf, isOwnedByPod } from "../persistent-volume-binder/claims.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop } from "../shared/controller.ts";
import { controllerReference, isNamespaceTerminating } from "../shared/ownership.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodTerminal } from "../shared/pod-state.ts";

/** The claim that a generic ephemeral volume of a pod stands for; undefined for other volumes. */
export function ephemeralClaim(pod: StoredPod, volume: Volume): PersistentVolumeClaim | undefined {
  const template = volume.ephemeral?.volumeClaimTemplate;
  if (template === undefined) return undefined;
  const { labels, annotations } = template.metadata ?? {};
  return {
    metadata: {
      namespace: pod.metadata.namespace,
      name: claimNameOf(pod, volume) ?? "",
      ...(labels === undefined ? {} : { labels }),
      ...(annotations === undefined ? {} : { annotations }),
      // The garbage collector removes it with the pod.
      ownerReferences: [controllerReference(PODS, pod.metadata)],
    },
    spec: template.spec,
  };
}

/** Makes the claims of generic ephemeral volumes (upstream's ephemeral-volume controller). */
export function ephemeralVolumeController(context: ControllerContext): Controller {
  const name = "ephemeral-volume";
  const { client, recorder, informers } = context;
  const { pods, persistentVolumeClaims } = informers;

  /** @throws an Error whose message is for the pod's event. */
  async function ensureClaim(pod: StoredPod, volume: Volume, signal: AbortSignal): Promise<void> {
    const wanted = ephemeralClaim(pod, volume);
    const claimName = wanted?.metadata?.name;
    if (wanted === undefined || claimName === undefined) return;
    const found = persistentVolumeClaims.get(objectKey(pod.metadata.namespace, claimName));
    if (found !== undefined) {
      if (isOwnedByPod(found, pod)) return;
      // Somebody's own claim, or that of a former pod of this name which is still going: never given to this pod.
      throw new Error(
        `PVC ${found.metadata.namespace}/${claimName} was not created for pod ${pod.metadata.namespace}/${pod.metadata.name} (pod is not owner)`,
      );
    }
    try {
      await createObject(client, PERSISTENT_VOLUME_CLAIMS, wanted, { signal });
    } catch (error) {
      if (isNamespaceTerminating(error)) return;
      // The cache was behind; the next look sees whose it is.
      if (isAlreadyExists(error)) throw error;
      throw new Error(`create PVC ${claimName}: ${errorMessage(error)}`, { cause: error });
    }
  }

  return {
    name,
    run: (signal) =>
      runQueueLoop(
        {
          name,
          context,
          waitFor: [pods, persistentVolumeClaims],
          sync: async (key) => {
            const pod = pods.get(key);
            if (pod === undefined || pod.metadata.deletionTimestamp !== undefined) return;
            if (isPodTerminal(pod)) return;
            for (const volume of pod.spec?.volumes ?? []) {
              try {
                await ensureClaim(pod, volume, signal);
              } catch (error) {
                if (signal.aborted || isAlreadyExists(error)) throw error;
                const message = `ephemeral volume ${volume.name}: ${errorMessage(error)}`;
                recorder.event(eventTarget(PODS, pod), "Warning", "FailedBinding", message);
                throw new Error(`pod ${key}, ${message}`, { cause: error });
              }
            }
          },
          subscribe: (queue) => [
            pods.subscribe((change) => {
              if (change.kind !== "added") return;
              const { spec } = change.object;
              if (spec?.volumes?.some((volume) => volume.ephemeral !== undefined))
                queue.add(change.key);
            }),
            persistentVolumeClaims.subscribe((change) => {
              if (change.kind !== "deleted") return;
              const { namespace, ownerReferences = [] } = change.previous.metadata;
              for (const owner of ownerReferences)
                if (owner.kind === "Pod" && owner.controller === true)
                  queue.add(objectKey(namespace, owner.name));
            }),
          ],
        },
        signal,
      ),
  };
}

import type { Stored } from "../../../api/object.ts";
import { listObjects } from "../../../api/objects.ts";
import {
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  VOLUME_ATTRIBUTES_CLASSES,
} from "../../../api/resources.ts";
import type {
  PersistentVolume,
  PersistentVolumeClaim,
  VolumeAttributesClass,
} from "../../../api/types.gen.ts";
import { replaceIfCurrent } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";

const finalizer = "kubernetes.io/vac-protection";

/** The classes that a claim has, wants, or is being changed to. */
export function classesOfClaim({ spec, status }: PersistentVolumeClaim): readonly string[] {
  return [
    spec?.volumeAttributesClassName,
    status?.currentVolumeAttributesClassName,
    status?.modifyVolumeStatus?.targetVolumeAttributesClassName,
  ].flatMap((name) => (name === undefined || name === "" ? [] : [name]));
}

/** The class of a volume, as a list like {@link classesOfClaim}. */
export function classesOfVolume({ spec }: PersistentVolume): readonly string[] {
  const name = spec?.volumeAttributesClassName ?? "";
  return name === "" ? [] : [name];
}

/** Keeps VolumeAttributesClasses that volumes or claims use from vanishing (KEP-3751). */
export function attributesClassProtection(context: ControllerContext): Controller {
  const name = "volumeattributesclass-protection";
  const { client, informers } = context;
  const { volumeAttributesClasses, persistentVolumeClaims, persistentVolumes } = informers;

  /** Asked live before the finalizer goes: the caches may be a moment old. */
  async function isUsed(className: string, signal: AbortSignal): Promise<boolean> {
    const cached =
      [...persistentVolumeClaims.values()].some((each) =>
        classesOfClaim(each).includes(className),
      ) ||
      [...persistentVolumes.values()].some((each) => classesOfVolume(each).includes(className));
    if (cached) return true;
    const claims = await listObjects(client, PERSISTENT_VOLUME_CLAIMS, { signal });
    const volumes = await listObjects(client, PERSISTENT_VOLUMES, { signal });
    return (
      claims.items.some((each) => classesOfClaim(each).includes(className)) ||
      volumes.items.some((each) => classesOfVolume(each).includes(className))
    );
  }

  async function write(
    object: Stored<VolumeAttributesClass>,
    finalizers: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    const { metadata } = object;
    await replaceIfCurrent(
      client,
      { resource: VOLUME_ATTRIBUTES_CLASSES, name: metadata.name },
      { ...object, metadata: { ...metadata, finalizers } },
      signal,
    );
  }

  return {
    name,
    run: (signal) =>
      runQueueLoop(
        {
          name,
          context,
          waitFor: [volumeAttributesClasses, persistentVolumeClaims, persistentVolumes],
          sync: async (key) => {
            const object = volumeAttributesClasses.get(key);
            if (object === undefined) return;
            const { deletionTimestamp, finalizers = [] } = object.metadata;
            const isProtected = finalizers.includes(finalizer);
            const others = finalizers.filter((each) => each !== finalizer);
            if (deletionTimestamp === undefined) {
              if (!isProtected) await write(object, [...others, finalizer], signal);
            } else if (isProtected && !(await isUsed(key, signal))) {
              await write(object, others, signal);
            }
          },
          subscribe: (queue) => [
            volumeAttributesClasses.subscribe((change) => {
              if (change.kind !== "deleted") queue.add(change.key);
            }),
            // Only what ends a use can end a wait.
            persistentVolumeClaims.subscribe((change) => {
              if (change.kind === "added") return;
              for (const each of classesOfClaim(change.previous)) queue.add(each);
            }),
            persistentVolumes.subscribe((change) => {
              if (change.kind === "added") return;
              for (const each of classesOfVolume(change.previous)) queue.add(each);
            }),
          ],
        },
        signal,
      ),
  };
}

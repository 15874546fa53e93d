import { isAlreadyExists, isNotFound } from "../../../api/errors.ts";
import type { EventType } from "../../../api/event-types.ts";
import { isLocalVolume, localVolumes } from "../../../api/local-volumes.ts";
import { keyOf } from "../../../api/object.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import {
  PERSISTENT_VOLUME_CLAIMS as CLAIMS,
  PERSISTENT_VOLUMES as VOLUMES,
  STORAGE_CLASSES,
} from "../../../api/resources.ts";
import type { StorageClass } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import {
  annotations,
  claimKeyOf,
  classOfClaim,
  defaultClass,
  type StoredClaim,
  type StoredVolume,
} from "../persistent-volume-binder/claims.ts";
import { findObject, replaceIfCurrent, replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop } from "../shared/controller.ts";
import { decideProvisioning, directoryOf } from "./provision.ts";
import { decideCare } from "./reclaim.ts";

/** Name of the class that a cluster starts with. */
export const localClassName = "local";

const claimPrefix = "claim:";
const volumePrefix = "volume:";
const classKey = "class";
/** A claim that cannot be had is tried again after this: what is wrong is mended by people. */
const againMs = 5 * 60_000;

/**
 * Provisions claims with directories of nodes, and deletes those volumes again. Only the objects: the directory is made
 * and removed by the node, which also watches the volumes.
 */
export class LocalVolumesController implements Controller {
  readonly name = "local-volumes";
  readonly #context: ControllerContext;
  /** The cluster's first class is made once per start: whoever removes it meanwhile wants none. */
  #classDone = false;

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { persistentVolumeClaims, persistentVolumes, storageClasses, nodes } =
      this.#context.informers;
    await runQueueLoop(
      {
        name: this.name,
        context: this.#context,
        waitFor: [persistentVolumeClaims, persistentVolumes, storageClasses, nodes],
        sync: (key, queue) => this.#sync(key, queue, signal),
        subscribe: (queue) => this.#subscribe(queue),
      },
      signal,
    );
  }

  #subscribe(queue: KeyedQueue): (() => void)[] {
    const { persistentVolumeClaims, persistentVolumes, storageClasses, nodes } =
      this.#context.informers;
    const wakeWaiting = (): void => {
      for (const claim of persistentVolumeClaims.values())
        if (isOurs(claim) && (claim.spec?.volumeName ?? "") === "")
          queue.add(claimPrefix + keyOf(claim));
    };
    return [
      persistentVolumeClaims.subscribe((change) => {
        if (change.kind !== "deleted" && isOurs(change.object)) queue.add(claimPrefix + change.key);
        const { spec } = change.kind === "deleted" ? change.previous : change.object;
        if ((spec?.volumeName ?? "") !== "") queue.add(volumePrefix + spec?.volumeName);
      }),
      persistentVolumes.subscribe((change) => {
        if (change.kind !== "deleted" && isLocalVolume(change.object))
          queue.add(volumePrefix + change.key);
      }),
      storageClasses.subscribe(wakeWaiting),
      nodes.subscribe((change) => {
        const before = change.kind === "added" ? undefined : directoryOf(change.previous);
        const after = change.kind === "deleted" ? undefined : directoryOf(change.object);
        if (!this.#classDone && after !== undefined) queue.add(classKey);
        if (before !== after) wakeWaiting();
        if (change.kind !== "deleted") return;
        for (const volume of persistentVolumes.values())
          if (isLocalVolume(volume) && volume.metadata.deletionTimestamp !== undefined)
            queue.add(volumePrefix + keyOf(volume));
      }),
    ];
  }

  async #sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const { persistentVolumeClaims, persistentVolumes } = this.#context.informers;
    if (key === classKey) {
      await this.#ensureClass(signal);
    } else if (key.startsWith(claimPrefix)) {
      const claim = persistentVolumeClaims.get(key.slice(claimPrefix.length));
      if (claim !== undefined) await this.#provision(claim, queue, signal);
    } else {
      const volume = persistentVolumes.get(key.slice(volumePrefix.length));
      if (volume !== undefined && isLocalVolume(volume)) await this.#care(volume, signal);
    }
  }

  /** The class `local`, the default one unless the cluster has another, once a node keeps volumes. */
  async #ensureClass(signal: AbortSignal): Promise<void> {
    const { storageClasses, nodes } = this.#context.informers;
    const keepers = [...nodes.values()].filter((node) => directoryOf(node) !== undefined);
    if (this.#classDone || keepers.length === 0) return;
    const enforced = keepers.some(
      ({ metadata }) =>
        metadata.annotations?.[localVolumes.capacityAnnotation] === localVolumes.capacityEnforced,
    );
    const isDefault = defaultClass(storageClasses.values()) === undefined;
    const wanted: StorageClass = {
      metadata: {
        name: localClassName,
        ...(isDefault ? { annotations: { [annotations.defaultClass]: "true" } } : {}),
      },
      provisioner: localVolumes.provisioner,
      volumeBindingMode: "WaitForFirstConsumer",
      reclaimPolicy: "Delete",
      // Where nothing holds a volume to its size, a larger size would promise what is not there.
      ...(enforced ? { allowVolumeExpansion: true } : {}),
    };
    if (storageClasses.get(localClassName) === undefined) {
      try {
        await createObject(this.#context.client, STORAGE_CLASSES, wanted, { signal });
      } catch (error) {
        if (!isAlreadyExists(error)) throw error;
      }
    }
    this.#classDone = true;
  }

  async #provision(claim: StoredClaim, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const { client, informers, logger } = this.#context;
    const step = decideProvisioning(claim, {
      class: (name) => informers.storageClasses.get(name),
      nodes: () => informers.nodes.values(),
      volumeExists: (name) => informers.persistentVolumes.get(name) !== undefined,
    });
    if (step.kind === "none") return;
    if (step.kind === "fail") {
      const className = classOfClaim(claim);
      this.#tell(
        claim,
        "Warning",
        "ProvisioningFailed",
        `failed to provision volume with StorageClass "${className}": ${step.message}`,
      );
      queue.addAfter(claimPrefix + keyOf(claim), againMs);
      if (step.reschedule) await this.#giveNodeUp(claim, signal);
      return;
    }
    const { volume, node, path, notEnforced } = step;
    await this.#noteData(claim, `${node}:${path}`, signal);
    try {
      await createObject(client, VOLUMES, volume, { signal });
    } catch (error) {
      if (isAlreadyExists(error)) return;
      this.#tell(
        claim,
        "Warning",
        "ProvisioningFailed",
        `Error saving provisioned volume ${volume.metadata.name}: ${errorMessage(error)}`,
      );
      throw error;
    }
    logger.log("info", "volume provisioned", {
      claim: keyOf(claim),
      volume: volume.metadata.name,
      node,
      path,
    });
    this.#tell(
      claim,
      "Normal",
      "ProvisioningSucceeded",
      `Successfully provisioned volume ${volume.metadata.name}: its data is in ${path} on node ${node}`,
    );
    if (notEnforced !== undefined)
      this.#tell(
        claim,
        "Warning",
        "CapacityNotEnforced",
        `capacity is not enforced: ${notEnforced}`,
      );
  }

  /** Says on the claim where its data is: events are gone after an hour. */
  async #noteData(claim: StoredClaim, where: string, signal: AbortSignal): Promise<void> {
    const { metadata } = claim;
    const { dataAnnotation } = localVolumes;
    if (metadata.annotations?.[dataAnnotation] === where) return;
    const noted = { ...metadata.annotations, [dataAnnotation]: where };
    await replaceObject(
      this.#context.client,
      { resource: CLAIMS, ...metadata },
      { ...claim, metadata: { ...metadata, annotations: noted } },
      signal,
    );
  }

  /** Without the annotation the scheduler chooses again. */
  async #giveNodeUp(claim: StoredClaim, signal: AbortSignal): Promise<void> {
    const { metadata } = claim;
    const { [annotations.selectedNode]: _node, ...kept } = metadata.annotations ?? {};
    await replaceIfCurrent(
      this.#context.client,
      { resource: CLAIMS, ...metadata },
      { ...claim, metadata: { ...metadata, annotations: kept } },
      signal,
    );
  }

  async #care(volume: StoredVolume, signal: AbortSignal): Promise<void> {
    const { client, informers, logger } = this.#context;
    const ref = volume.spec?.claimRef;
    const claim =
      ref === undefined ? undefined : informers.persistentVolumeClaims.get(claimKeyOf(ref));
    const own = claim?.metadata.uid === ref?.uid ? claim : undefined;
    const step = decideCare(volume, own, informers.nodes.values());
    switch (step.kind) {
      case "none":
        return;
      case "stranded":
        this.#tell(volume, "Warning", "VolumeFailedDelete", step.message);
        return;
      case "expand":
        if (own !== undefined) await this.#expand(volume, own, step.storage, signal);
        return;
      case "delete": {
        if (await this.#isClaimed(volume, signal)) return;
        const { uid, resourceVersion, name } = volume.metadata;
        try {
          await deleteObject(client, VOLUMES, { name }, { uid, resourceVersion, signal });
        } catch (error) {
          // Somebody changed it, the policy perhaps: that change wakes us.
          if (!isNotFound(error)) throw error;
        }
        logger.log("info", "volume is to be deleted", { volume: name });
      }
    }
  }

  /** Asked live, because data is at stake. */
  async #isClaimed(volume: StoredVolume, signal: AbortSignal): Promise<boolean> {
    const { namespace, name, uid } = volume.spec?.claimRef ?? {};
    if (namespace === undefined || name === undefined) return true;
    const target = { resource: CLAIMS, namespace, name };
    const live = await findObject(this.#context.client, target, signal);
    if (live === undefined || live.metadata.uid !== uid) return false;
    const volumeName = live.spec?.volumeName ?? "";
    return volumeName === "" || volumeName === volume.metadata.name;
  }

  /** The number first, then what the claim shows; the node sets its limit when it sees the number. */
  async #expand(
    volume: StoredVolume,
    claim: StoredClaim,
    storage: string | number,
    signal: AbortSignal,
  ): Promise<void> {
    const { client } = this.#context;
    const { name } = volume.metadata;
    await replaceObject(
      client,
      { resource: VOLUMES, name },
      { ...volume, spec: { ...volume.spec, capacity: { ...volume.spec?.capacity, storage } } },
      signal,
    );
    const status = { ...claim.status, capacity: { ...claim.status?.capacity, storage } };
    await replaceObject(
      client,
      { resource: CLAIMS, ...claim.metadata, subresource: "status" },
      { ...claim, status },
      signal,
    );
    this.#tell(claim, "Normal", "VolumeResizeSuccessful", "Resize volume succeeded");
  }

  #tell(
    object: StoredClaim | StoredVolume,
    type: EventType,
    reason: string,
    message: string,
  ): void {
    const resource = object.metadata.namespace === undefined ? VOLUMES : CLAIMS;
    this.#context.recorder.event(eventTarget<unknown>(resource, object), type, reason, message);
  }
}

function isOurs(claim: StoredClaim): boolean {
  return claim.metadata.annotations?.[annotations.provisioner] === localVolumes.provisioner;
}

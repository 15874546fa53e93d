import type { ApiClient } from "../../../api/client.ts";
import type { Change, Informer } from "../../../api/informer-types.ts";
import type { Stored } from "../../../api/object.ts";
import { keyOf } from "../../../api/object.ts";
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from "../../../api/resources.ts";
import type {
  PersistentVolume,
  PersistentVolumeClaim,
  VolumeAttachment,
} from "../../../api/types.gen.ts";
import type { Clock } from "../../../lib/clock.ts";
import { boundVolume } from "../../controllers/persistent-volume-binder/bind.ts";
import {
  annotations,
  classOfVolume,
  type StoredClaim,
  type StoredVolume,
} from "../../controllers/persistent-volume-binder/claims.ts";
import { replaceObject } from "../../controllers/shared/calls.ts";
import type { Informers } from "../../controllers/shared/informers.ts";
import type { StoredPod } from "../../controllers/shared/pod-state.ts";
import type { PodInfo } from "../pod-info.ts";
import type { StoredNode } from "../snapshot.ts";
import type { ClusterEvent } from "../cluster-events.ts";
import { AssumedObjects } from "./assumed-objects.ts";
import type { VolumePlan } from "./find-volumes.ts";
import { isReachable, prepareClaims, volumesOn } from "./find-volumes.ts";
import { isFullyBound, sortClaims } from "./pod-claims.ts";
import { type StorageInformers, subscribeToStorage } from "./storage-events.ts";
import type { StorageView } from "./storage-view.ts";

export interface VolumeBinderOptions {
  readonly client: ApiClient;
  readonly informers: StorageInformers & Pick<Informers, "pods" | "nodes">;
  readonly clock: Clock;
}

/** How long a pod holds its place while its volumes are bound or made (upstream's bindTimeoutSeconds). */
const bindTimeoutMs = 10 * 60_000;
const unassigned: readonly StoredVolume[] = [];

/** Volumes of a pod could not be bound; the pod has to be placed again. */
export class VolumeBindingError extends Error {
  override readonly name = "VolumeBindingError";
}

/** A plan that counts already, and what of it the API was told. */
export interface ReservedVolumes {
  readonly node: string;
  readonly bindings: readonly { readonly claim: StoredClaim; readonly volume: StoredVolume }[];
  readonly provisions: readonly StoredClaim[];
}

/**
 * Carries out what the scheduler decided about volumes: at once in its own view, so that no two pods are given one
 * volume, then in the API, and waits until the controllers have done their part.
 */
export class VolumeBinder {
  readonly view: StorageView;
  readonly #options: VolumeBinderOptions;
  readonly #volumes: AssumedObjects<PersistentVolume>;
  readonly #claims: AssumedObjects<PersistentVolumeClaim>;
  readonly #byClass = new Map<string, Map<string, StoredVolume>>();
  #changed = Promise.withResolvers<void>();

  constructor(options: VolumeBinderOptions) {
    this.#options = options;
    const { informers } = options;
    this.#volumes = new AssumedObjects(informers.persistentVolumes);
    this.#claims = new AssumedObjects(informers.persistentVolumeClaims);
    this.view = {
      claim: (key) => this.#claims.get(key),
      volume: (name) => this.#volumes.get(name),
      volumesOfClass: (name) => this.#volumesOfClass(name),
      storageClass: (name) => informers.storageClasses.get(name),
      csiDriver: (name) => informers.csiDrivers.get(name),
      csiNode: (name) => informers.csiNodes.get(name),
      capacities: () => informers.csiStorageCapacities.values(),
      attachments: (): Iterable<Stored<VolumeAttachment>> => informers.volumeAttachments.values(),
    };
  }

  /** Caches that have to be filled before the first pod is placed. */
  get caches(): readonly Pick<Informer<unknown>, "whenSynced">[] {
    const { informers } = this.#options;
    return [
      informers.persistentVolumes,
      informers.persistentVolumeClaims,
      informers.storageClasses,
      informers.csiDrivers,
      informers.csiNodes,
      informers.csiStorageCapacities,
      informers.volumeAttachments,
    ];
  }

  /** Follows the caches, and passes on what may help pods that wait for a node. Returns what ends that. */
  subscribe(happened: (events: readonly ClusterEvent[]) => void): readonly (() => void)[] {
    return subscribeToStorage(this.#options.informers, {
      volumeChanged: (change) => this.#volumeChanged(change),
      claimChanged: () => this.wake(),
      happened,
    });
  }

  #volumeChanged(change: Change<StoredVolume>): void {
    const before = change.kind === "added" ? undefined : change.previous;
    if (before !== undefined) this.#byClass.get(classOfVolume(before))?.delete(change.key);
    if (change.kind !== "deleted") {
      const name = classOfVolume(change.object);
      const volumes = this.#byClass.get(name) ?? new Map<string, StoredVolume>();
      this.#byClass.set(name, volumes.set(change.key, change.object));
    }
    this.wake();
  }

  /** Something changed that a waiting pod may wait for. */
  wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  /**
   * Works out what the pod's claims need on the node that was chosen, and makes it count from now on; undefined when
   * there is nothing to do.
   *
   * @throws {VolumeBindingError} the node does not fit any more.
   */
  reserve(pod: PodInfo, nodeName: string): ReservedVolumes | undefined {
    if (pod.claims.length === 0) return undefined;
    const node = this.#options.informers.nodes.get(nodeName);
    if (node === undefined) return undefined;
    const found = volumesOn(node, prepareClaims(sortClaims(pod, this.view), this.view), this.view);
    if (found.kind === "plan") return this.#assume(nodeName, found.plan);
    throw new VolumeBindingError(`${nodeName}: ${found.reasons.join(", ")}`);
  }

  #assume(node: string, { bindings, provisions }: VolumePlan): ReservedVolumes | undefined {
    if (bindings.length === 0 && provisions.length === 0) return undefined;
    const reserved: ReservedVolumes = {
      node,
      bindings: bindings.map(({ claim, volume }) => ({
        claim,
        volume: boundVolume(volume, claim),
      })),
      provisions: provisions.map((claim) => withSelectedNode(claim, node)),
    };
    for (const { volume } of reserved.bindings) this.#volumes.assume(volume);
    for (const claim of reserved.provisions) this.#claims.assume(claim);
    return reserved;
  }

  /** Takes back what the API does not know. */
  release({ bindings, provisions }: ReservedVolumes): void {
    for (const { volume } of bindings) this.#volumes.forget(volume);
    for (const claim of provisions) this.#claims.forget(claim);
  }

  /**
   * Tells the API, and waits until every claim is bound.
   *
   * @throws {VolumeBindingError} it was refused, undone, or took ten minutes; or the pod is gone.
   * @throws {ApiError} a write failed; nothing is taken back, the next attempt finds what is there.
   */
  async bind(pod: StoredPod, reserved: ReservedVolumes, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const written = await this.#write(reserved, signal);
    const deadline = clock.monotonic() + bindTimeoutMs;
    for (;;) {
      const changed = this.#changed.promise;
      if (this.#isDone(pod, written)) return;
      const left = deadline - clock.monotonic();
      if (left <= 0) throw new VolumeBindingError("binding volumes: context deadline exceeded");
      const stop = new AbortController();
      const sleep = clock.sleep(left, AbortSignal.any([signal, stop.signal]));
      await Promise.race([changed, sleep]).finally(() => {
        stop.abort();
        sleep.catch(() => undefined);
      });
      signal.throwIfAborted();
    }
  }

  async #write(reserved: ReservedVolumes, signal: AbortSignal): Promise<ReservedVolumes> {
    const { client, informers } = this.#options;
    const bindings: { claim: StoredClaim; volume: StoredVolume }[] = [];
    for (const { claim, volume } of reserved.bindings) {
      const { name } = volume.metadata;
      const target = { resource: PERSISTENT_VOLUMES, name };
      const isThere =
        informers.persistentVolumes.get(name)?.spec?.claimRef?.uid === claim.metadata.uid;
      bindings.push({
        claim,
        volume: isThere ? volume : await replaceObject(client, target, volume, signal),
      });
    }
    const provisions: StoredClaim[] = [];
    for (const claim of reserved.provisions) {
      const target = { resource: PERSISTENT_VOLUME_CLAIMS, ...claim.metadata };
      const stored = informers.persistentVolumeClaims.get(keyOf(claim));
      const isThere = stored !== undefined && selectedNodeOf(stored) === reserved.node;
      provisions.push(isThere ? stored : await replaceObject(client, target, claim, signal));
    }
    return { node: reserved.node, bindings, provisions };
  }

  /** Whether all claims of the plan are bound; throws when they will not be. */
  #isDone(pod: StoredPod, { node, bindings, provisions }: ReservedVolumes): boolean {
    const { informers } = this.#options;
    const current = informers.pods.get(keyOf(pod));
    if (current?.metadata.uid !== pod.metadata.uid)
      throw new VolumeBindingError("binding volumes: pod does not exist any more");
    const target = informers.nodes.get(node);
    if (target === undefined)
      throw new VolumeBindingError(`binding volumes: failed to get node "${node}"`);
    return (
      bindings.every(({ claim, volume }) => this.#isBound(claim, volume, target)) &&
      provisions.every((claim) => this.#isProvisioned(claim, target))
    );
  }

  #isBound(claim: StoredClaim, written: StoredVolume, node: StoredNode): boolean {
    const { persistentVolumes, persistentVolumeClaims } = this.#options.informers;
    const { name } = written.metadata;
    const volume = persistentVolumes.get(name);
    const stored = persistentVolumeClaims.get(keyOf(claim));
    if (volume === undefined) throw notThere(`could not find v1.PersistentVolume "${name}"`);
    if (stored === undefined)
      throw notThere(`could not find v1.PersistentVolumeClaim "${keyOf(claim)}"`);
    // What was written has not come back yet.
    if (isOlder(volume, written)) return false;
    requireReachable(volume, node);
    if ((volume.spec?.claimRef?.uid ?? "") === "")
      throw new VolumeBindingError(`binding volumes: ClaimRef got reset for pv "${name}"`);
    return isFullyBound(stored);
  }

  #isProvisioned(written: StoredClaim, node: StoredNode): boolean {
    const { persistentVolumes, persistentVolumeClaims } = this.#options.informers;
    const claim = persistentVolumeClaims.get(keyOf(written));
    const { name } = written.metadata;
    if (claim === undefined)
      throw notThere(`could not find v1.PersistentVolumeClaim "${keyOf(written)}"`);
    if (isOlder(claim, written)) return false;
    // Who could not make the volume takes the node back.
    if (selectedNodeOf(claim) !== node.metadata.name)
      throw new VolumeBindingError(`binding volumes: provisioning failed for PVC "${name}"`);
    const volumeName = claim.spec?.volumeName ?? "";
    if (volumeName !== "") {
      const volume = persistentVolumes.get(volumeName);
      if (volume === undefined) return false;
      requireReachable(volume, node);
    }
    return isFullyBound(claim);
  }

  #volumesOfClass(name: string): readonly StoredVolume[] {
    const volumes = this.#byClass.get(name);
    if (volumes === undefined) return unassigned;
    return [...volumes.keys()].flatMap((key) => this.#volumes.get(key) ?? []);
  }
}

function notThere(message: string): VolumeBindingError {
  return new VolumeBindingError(`binding volumes: failed to check binding: ${message}`);
}

function requireReachable(volume: StoredVolume, node: StoredNode): void {
  if (isReachable(volume, node)) return;
  throw new VolumeBindingError(
    `binding volumes: pv "${volume.metadata.name}" node affinity doesn't match node "${node.metadata.name}": no matching NodeSelectorTerms`,
  );
}

function selectedNodeOf(claim: StoredClaim): string | undefined {
  return claim.metadata.annotations?.[annotations.selectedNode];
}

function withSelectedNode(claim: StoredClaim, node: string): StoredClaim {
  const { metadata } = claim;
  if (selectedNodeOf(claim) === node) return claim;
  const annotated = { ...metadata.annotations, [annotations.selectedNode]: node };
  return { ...claim, metadata: { ...metadata, annotations: annotated } };
}

/** Resource versions are numbers that grow (KEP-5504). */
function isOlder(
  object: { readonly metadata: { readonly resourceVersion: string } },
  written: { readonly metadata: { readonly resourceVersion: string } },
): boolean {
  return BigInt(object.metadata.resourceVersion) < BigInt(written.metadata.resourceVersion);
}

import type { Stored } from "../../../api/object.ts";
import { keyOf, objectKey } from "../../../api/object.ts";
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES as VOLUMES } from "../../../api/resources.ts";
import type {
  PersistentVolume,
  PersistentVolumeClaim,
  PersistentVolumeClaimStatus,
  Pod,
} from "../../../api/types.gen.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { findObject, replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop, splitKey } from "../shared/controller.ts";
import { isPodTerminal } from "../shared/pod-state.ts";
import { boundClaim, boundStatus, boundVolume, unboundStatus, unboundVolume } from "./bind.ts";
import {
  annotations,
  claimKeyOf,
  claimKeysOf,
  classOfClaim,
  classOfVolume,
  hasAnnotation,
  type StoredClaim,
  type StoredVolume,
} from "./claims.ts";
import { type ClaimView, decideClaim, type Remark } from "./decide-claim.ts";
import { decideReclaim, decideVolume, isReleased, type VolumeStep } from "./decide-volume.ts";
import { OwnWrites } from "./own-writes.ts";

/** An event of a claim that still waits is written anew this often, so that it does not expire while it is true. */
const reminderMs = 15 * 60_000;

const claimPrefix = "claim:";
const volumePrefix = "volume:";
/** Claims of a class that wait: woken once for all the volumes that became free meanwhile. */
const classPrefix = "class:";

export interface BinderOptions {
  /** Provisioners of this control plane: nobody needs to be told to look whether they run. */
  readonly ownProvisioners: ReadonlySet<string>;
}

/**
 * Binds claims to volumes (upstream's persistentvolume-binder): the volume first, by `spec.claimRef`, then the claim, by
 * `spec.volumeName`. Every step can be the last one before a crash; the next look completes it or takes it back.
 */
export class PersistentVolumeBinder implements Controller {
  readonly name = "persistentvolume-binder";
  readonly #context: ControllerContext;
  readonly #ownProvisioners: ReadonlySet<string>;
  readonly #claims: OwnWrites<PersistentVolumeClaim>;
  readonly #volumes: OwnWrites<PersistentVolume>;
  /** What was said last of an object, by uid. */
  readonly #said = new Map<string, { readonly text: string; readonly at: number }>();

  constructor(context: ControllerContext, options: BinderOptions) {
    this.#context = context;
    this.#ownProvisioners = options.ownProvisioners;
    this.#claims = new OwnWrites(context.informers.persistentVolumeClaims);
    this.#volumes = new OwnWrites(context.informers.persistentVolumes);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { informers } = this.#context;
    const { persistentVolumeClaims, persistentVolumes, storageClasses, pods } = informers;
    await runQueueLoop(
      {
        name: this.name,
        context: this.#context,
        waitFor: [persistentVolumeClaims, persistentVolumes, storageClasses, pods],
        // Two steps at a time could give one volume to two claims.
        concurrency: 1,
        sync: (key, queue) => this.#sync(key, queue, signal),
        subscribe: (queue) => this.#subscribe(queue),
      },
      signal,
    );
    this.#claims.close();
    this.#volumes.close();
  }

  #subscribe(queue: KeyedQueue): (() => void)[] {
    const { persistentVolumeClaims, persistentVolumes, storageClasses, pods } =
      this.#context.informers;
    const wakeClaim = (key: string): void => queue.add(claimPrefix + key);
    const wakeUnbound = (which: (claim: StoredClaim) => boolean): void =>
      this.#wakeUnbound(queue, which);
    return [
      persistentVolumeClaims.subscribe((change) => {
        wakeClaim(change.key);
        const claim = change.kind === "deleted" ? change.previous : change.object;
        const volumeName = claim.spec?.volumeName ?? "";
        if (volumeName !== "") queue.add(volumePrefix + volumeName);
        if (change.kind !== "deleted") return;
        this.#said.delete(claim.metadata.uid);
        for (const volume of persistentVolumes.values())
          if (volume.spec?.claimRef?.uid === claim.metadata.uid)
            queue.add(volumePrefix + volume.metadata.name);
      }),
      persistentVolumes.subscribe((change) => {
        queue.add(volumePrefix + change.key);
        const volume = change.kind === "deleted" ? change.previous : change.object;
        if (change.kind === "deleted") this.#said.delete(volume.metadata.uid);
        const ref = volume.spec?.claimRef;
        if (ref !== undefined) wakeClaim(claimKeyOf(ref));
        if (change.kind === "deleted") return;
        // It may be what somebody waits for: by name, or, when nobody has it, by its class.
        wakeUnbound((claim) => claim.spec?.volumeName === volume.metadata.name);
        if (ref === undefined && volume.status?.phase === "Available")
          queue.add(classPrefix + classOfVolume(volume));
      }),
      storageClasses.subscribe(() => wakeUnbound(() => true)),
      pods.subscribe((change) => {
        const pod = change.kind === "deleted" ? change.previous : change.object;
        if ((pod.spec?.nodeName ?? "") !== "") return;
        for (const key of claimKeysOf(pod)) {
          const claim = persistentVolumeClaims.get(key);
          if (claim !== undefined && !hasAnnotation(claim, annotations.bindCompleted))
            wakeClaim(key);
        }
      }),
    ];
  }

  #wakeUnbound(queue: KeyedQueue, which: (claim: StoredClaim) => boolean): void {
    for (const claim of this.#context.informers.persistentVolumeClaims.values())
      if (which(claim) && !hasAnnotation(claim, annotations.bindCompleted))
        queue.add(claimPrefix + keyOf(claim));
  }

  async #sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    if (key.startsWith(claimPrefix)) {
      const claim = this.#claims.get(key.slice(claimPrefix.length));
      if (claim !== undefined) await this.#syncClaim(claim, queue, signal);
      return;
    }
    if (key.startsWith(classPrefix)) {
      const className = key.slice(classPrefix.length);
      this.#wakeUnbound(queue, (claim) => classOfClaim(claim) === className);
      return;
    }
    const volume = this.#volumes.get(key.slice(volumePrefix.length));
    if (volume !== undefined) await this.#syncVolume(volume, queue, signal);
  }

  async #syncClaim(claim: StoredClaim, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const step = decideClaim(claim, this.#view(claim));
    switch (step.kind) {
      case "bind":
        await this.#bind(step.volume, claim, signal);
        return;
      case "assignClass": {
        const spec = { ...claim.spec, storageClassName: step.className };
        await this.#writeClaim({ ...claim, spec }, signal);
        return;
      }
      case "provision":
        await this.#askForVolume(claim, step.provisioner, signal);
        break;
      case "pending":
        if (step.remark !== undefined) this.#say(claim, step.remark);
        await this.#writeClaimStatus(claim, unboundStatus(claim, "Pending"), signal);
        break;
      case "stuck":
        this.#say(claim, step.remark);
        break;
      case "lost": {
        if (await this.#isBehind(claim, signal)) return;
        const changes = claim.status?.phase !== "Lost";
        await this.#writeClaimStatus(claim, unboundStatus(claim, "Lost"), signal);
        if (changes) this.#say(claim, step.remark);
        return;
      }
    }
    queue.addAfter(claimPrefix + keyOf(claim), reminderMs);
  }

  /** Whether the claim's volume does exist and only is not in the cache yet; its coming will wake the claim. */
  async #isBehind(claim: StoredClaim, signal: AbortSignal): Promise<boolean> {
    const name = claim.spec?.volumeName ?? "";
    if (name === "" || this.#volumes.get(name) !== undefined) return false;
    const live = await findObject(this.#context.client, { resource: VOLUMES, name }, signal);
    return live !== undefined;
  }

  #view(claim: StoredClaim): ClaimView {
    const { storageClasses, pods } = this.#context.informers;
    return {
      volume: (name) => this.#volumes.get(name),
      volumes: () => this.#volumes.values(),
      class: (name) => storageClasses.get(name),
      classes: () => storageClasses.values(),
      waitingPods: () => [...waitingPods(pods.values(), keyOf(claim))],
    };
  }

  async #bind(volume: StoredVolume, claim: StoredClaim, signal: AbortSignal): Promise<void> {
    const reserved = boundVolume(volume, claim);
    const written =
      reserved === volume ? volume : await this.#writeVolume(reserved, undefined, signal);
    await this.#setPhase(written, "Bound", signal);
    const wanted = boundClaim(claim, written);
    const tied = wanted === claim ? claim : await this.#writeClaim(wanted, signal);
    await this.#writeClaimStatus(tied, boundStatus(tied, written), signal);
    if (wanted === claim) return;
    this.#context.logger.log("info", "claim bound", {
      claim: keyOf(claim),
      volume: written.metadata.name,
    });
  }

  /** Provisioners look for this annotation (sig-storage-lib-external-provisioner). */
  async #askForVolume(claim: StoredClaim, provisioner: string, signal: AbortSignal): Promise<void> {
    const { metadata } = claim;
    if (metadata.annotations?.[annotations.provisioner] !== provisioner) {
      const asked = {
        ...metadata.annotations,
        [annotations.betaProvisioner]: provisioner,
        [annotations.provisioner]: provisioner,
      };
      await this.#writeClaim({ ...claim, metadata: { ...metadata, annotations: asked } }, signal);
    }
    if (this.#ownProvisioners.has(provisioner)) return;
    this.#say(claim, {
      type: "Normal",
      reason: "ExternalProvisioning",
      message:
        `Waiting for a volume to be created either by the external provisioner '${provisioner}' ` +
        "or manually by the system administrator. If volume creation is delayed, please verify that " +
        "the provisioner is running and correctly registered.",
    });
  }

  async #syncVolume(volume: StoredVolume, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const claim = await this.#claimOf(volume, signal);
    await this.#doVolumeStep(decideVolume(volume, claim), { volume, claim, queue }, signal);
  }

  async #doVolumeStep(
    step: VolumeStep,
    about: {
      readonly volume: StoredVolume;
      readonly claim: StoredClaim | undefined;
      readonly queue: KeyedQueue;
    },
    signal: AbortSignal,
  ): Promise<void> {
    const { volume, claim, queue } = about;
    switch (step.kind) {
      case "phase":
        await this.#setPhase(volume, step.phase, signal);
        return;
      case "wakeClaim":
        queue.add(claimPrefix + step.key);
        return;
      case "mismatch":
        this.#say(volume, step.onVolume);
        if (claim !== undefined) this.#say(claim, step.onClaim);
        return;
      case "unbind": {
        const free = await this.#writeVolume(unboundVolume(volume), undefined, signal);
        await this.#setPhase(free, "Available", signal);
        return;
      }
      case "release":
        await this.#release(volume, signal);
    }
  }

  async #release(volume: StoredVolume, signal: AbortSignal): Promise<void> {
    const released = isReleased(volume) ? volume : await this.#setPhase(volume, "Released", signal);
    const reclaim = decideReclaim(released);
    if (reclaim.kind === "leave" || released.status?.phase === "Failed") return;
    await this.#setPhase(released, "Failed", signal, reclaim.remark.message);
    this.#say(released, reclaim.remark);
  }

  /**
   * The claim that the volume refers to. A cache that is behind must not make a volume look released: its data may be
   * deleted for that.
   */
  async #claimOf(volume: StoredVolume, signal: AbortSignal): Promise<StoredClaim | undefined> {
    const ref = volume.spec?.claimRef;
    if (ref?.name === undefined || ref.namespace === undefined) return undefined;
    const cached = this.#claims.get(objectKey(ref.namespace, ref.name));
    if (cached !== undefined && cached.metadata.uid === ref.uid) return cached;
    if (cached === undefined && isReleased(volume)) return undefined;
    const { namespace, name } = ref;
    const live = await findObject(
      this.#context.client,
      { resource: PERSISTENT_VOLUME_CLAIMS, namespace, name },
      signal,
    );
    return live?.metadata.uid === ref.uid ? live : undefined;
  }

  async #setPhase(
    volume: StoredVolume,
    phase: "Available" | "Bound" | "Released" | "Failed",
    signal: AbortSignal,
    message = "",
  ): Promise<StoredVolume> {
    if (volume.status?.phase === phase) return volume;
    const { message: _old, ...status } = volume.status ?? {};
    const next = { ...status, phase, ...(message === "" ? {} : { message }) };
    return this.#writeVolume({ ...volume, status: next }, "status", signal);
  }

  async #writeVolume(
    volume: StoredVolume,
    subresource: "status" | undefined,
    signal: AbortSignal,
  ): Promise<StoredVolume> {
    const { name } = volume.metadata;
    const target = {
      resource: VOLUMES,
      name,
      ...(subresource === undefined ? {} : { subresource }),
    };
    const written = await replaceObject(this.#context.client, target, volume, signal);
    this.#volumes.remember(written);
    return written;
  }

  async #writeClaim(claim: StoredClaim, signal: AbortSignal): Promise<StoredClaim> {
    const { namespace, name } = claim.metadata;
    const target = { resource: PERSISTENT_VOLUME_CLAIMS, namespace, name };
    const written = await replaceObject(this.#context.client, target, claim, signal);
    this.#claims.remember(written);
    return written;
  }

  async #writeClaimStatus(
    claim: StoredClaim,
    status: PersistentVolumeClaimStatus | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    if (status === undefined) return;
    const { namespace, name } = claim.metadata;
    const target = { resource: PERSISTENT_VOLUME_CLAIMS, namespace, name, subresource: "status" };
    const written = await replaceObject(this.#context.client, target, { ...claim, status }, signal);
    this.#claims.remember(written);
  }

  /** Once per change, and again from time to time. */
  #say(object: StoredClaim | StoredVolume, { type, reason, message }: Remark): void {
    const { uid, namespace } = object.metadata;
    const text = `${reason}: ${message}`;
    const at = this.#context.clock.monotonic();
    const before = this.#said.get(uid);
    if (before?.text === text && at - before.at < reminderMs) return;
    this.#said.set(uid, { text, at });
    const resource = namespace === undefined ? VOLUMES : PERSISTENT_VOLUME_CLAIMS;
    this.#context.recorder.event(eventTarget<unknown>(resource, object), type, reason, message);
  }
}

function* waitingPods(pods: Iterable<Stored<Pod>>, claimKey: string): Iterable<string> {
  const { namespace } = splitKey(claimKey);
  for (const pod of pods) {
    if (pod.metadata.namespace !== namespace || (pod.spec?.nodeName ?? "") !== "") continue;
    if (!isPodTerminal(pod) && claimKeysOf(pod).includes(claimKey)) yield pod.metadata.name;
  }
}

import type { ApiClient } from "../../api/client.ts";
import { getObject } from "../../api/objects.ts";
import { VOLUME_ATTACHMENTS } from "../../api/resources.ts";
import type { Stored } from "../../api/object.ts";
import type { VolumeAttachment } from "../../api/types.gen.ts";
import { type Clock, notNeeded } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { NodeView } from "../types.ts";
import type { VolumesInUse } from "../volumes/in-use.ts";
import { VolumeError } from "../volumes/payload.ts";
import { attachmentName, uniqueVolumeName, type VolumeID } from "./paths.ts";

export interface AttachmentsOptions {
  readonly client: ApiClient;
  readonly nodeName: string;
  readonly node: NodeView;
  readonly inUse: VolumesInUse;
  readonly clock: Clock;
}

/** gRPC's ResourceExhausted, as the attacher reports it: the node has no place for another volume. */
const resourceExhausted = 8;
/** The controllers have this long; then the pod is told what is missing, and it is waited for anew. */
const patienceMs = 123_000;

/** The driver's controller could not attach a volume. */
export class AttachError extends VolumeError {
  /** Because the node has as many as it can take. */
  readonly exhausted: boolean;

  constructor(message: string, exhausted: boolean) {
    super(message);
    this.exhausted = exhausted;
  }
}

/** Whether volumes are attached to this node; they are attached and detached by controllers. */
export class Attachments {
  readonly #options: AttachmentsOptions;

  constructor(options: AttachmentsOptions) {
    this.#options = options;
  }

  /**
   * Waits until the node's status says that the volume is in use and attached: only after the first is it safe from
   * being detached again. Who wants it must be in {@link VolumesInUse} already.
   *
   * @throws {AttachError} when it takes long because it failed; {@link VolumeError} naming what is missing otherwise.
   */
  async wait(volume: VolumeID, signal: AbortSignal): Promise<void> {
    const missing = await this.#wait(uniqueVolumeName(volume), signal);
    if (missing === undefined) return;
    await this.#refusal(volume, signal);
    throw new VolumeError(missing);
  }

  /** A pod is to have a volume without a driver, named as the node's status names it. */
  hold(name: string, podUID: string): void {
    this.#options.inUse.add(name, podUID);
  }

  /**
   * As {@link wait}, for such a volume.
   *
   * @throws {VolumeError} naming what is missing.
   */
  async waitFor(name: string, signal: AbortSignal): Promise<void> {
    const missing = await this.#wait(name, signal);
    if (missing !== undefined) throw new VolumeError(missing);
  }

  /** The pod has such a volume no more. @param gone Nothing of it is left on this node. */
  letGo(name: string, podUID: string, gone: boolean): void {
    this.#options.inUse.release(name, podUID);
    if (gone) this.#options.inUse.drop(name);
  }

  /** Tells of volumes of a former run that are still on this node. */
  keepWhile(onDisk: (name: string) => boolean): void {
    this.#options.inUse.keepWhile(onDisk);
  }

  /** What is still missing after that time; undefined when the volume is attached. */
  async #wait(name: string, signal: AbortSignal): Promise<string | undefined> {
    const { clock, node } = this.#options;
    if (this.#missing(name) === undefined) return undefined;
    const { promise: attached, resolve } = Promise.withResolvers<void>();
    const unsubscribe = node.subscribe(() => {
      if (this.#missing(name) === undefined) resolve();
    });
    const over = new AbortController();
    const stop = AbortSignal.any([signal, over.signal]);
    try {
      await Promise.race([attached, clock.sleep(patienceMs, stop).catch(() => undefined)]);
    } finally {
      over.abort(notNeeded);
      unsubscribe();
    }
    signal.throwIfAborted();
    return this.#missing(name);
  }

  /**
   * What the driver's controller has to tell its node part (`publish_context`).
   *
   * @throws {AttachError} when it could not attach the volume; {@link VolumeError} when it is not attached.
   */
  async context(volume: VolumeID, signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
    const { client, nodeName } = this.#options;
    const { handle } = volume;
    const name = attachmentName(volume, nodeName);
    let attachment: Stored<VolumeAttachment>;
    try {
      attachment = await getObject(client, VOLUME_ATTACHMENTS, { name }, { signal });
    } catch (error) {
      signal.throwIfAborted();
      throw new VolumeError(
        `volume ${handle} has GET error for volume attachment ${name}: ${errorMessage(error)}`,
        { cause: error },
      );
    }
    if (attachment.metadata.deletionTimestamp !== undefined) {
      throw new VolumeError("volume attachment is being deleted");
    }
    const { attached, attachError, attachmentMetadata } = attachment.status ?? { attached: false };
    if (attached) return attachmentMetadata ?? {};
    if (attachError !== undefined) {
      throw new AttachError(attachError.message ?? "", attachError.errorCode === resourceExhausted);
    }
    throw new VolumeError(`volume ${handle} is not attached for volume attachment ${name}`);
  }

  /** @throws {AttachError} saying why the volume is not attached, when its driver's controller has said so. */
  async #refusal(volume: VolumeID, signal: AbortSignal): Promise<void> {
    try {
      await this.context(volume, signal);
    } catch (error) {
      if (error instanceof AttachError || !(error instanceof VolumeError)) throw error;
    }
  }

  #missing(name: string): string | undefined {
    const { volumesAttached = [], volumesInUse = [] } = this.#options.node.node()?.status ?? {};
    if (!volumesInUse.includes(name)) {
      return "Volume has not been added to the list of VolumesInUse in the node's volume status";
    }
    return volumesAttached.some((attached) => attached.name === name)
      ? undefined
      : "Volume not attached according to node status";
  }
}

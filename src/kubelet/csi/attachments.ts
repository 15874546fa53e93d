import type { ApiClient } from "../../api/client.ts";
import { getObject } from "../../api/objects.ts";
import { VOLUME_ATTACHMENTS } from "../../api/resources.ts";
import type { Stored } from "../../api/object.ts";
import type { VolumeAttachment } from "../../api/types.gen.ts";
import { within } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { NodeView } from "../types.ts";
import type { VolumesInUse } from "../volumes/in-use.ts";
import { VolumeError } from "../volumes/payload.ts";
import { attachmentName, uniqueVolumeName, type VolumeID } from "./paths.ts";

export interface AttachmentsOptions {
  readonly client: ApiClient;
  readonly nodeName: string;
  readonly node: NodeView;
  readonly inUse: VolumesInUse;
}

/** gRPC's ResourceExhausted, as the attacher reports it: the node has no place for another volume. */
const resourceExhausted = 8;
/** The controllers have this long; then the pod is told what is missing and it is waited for anew. */
const patienceMs = 600_000;

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
   * @throws {VolumeError} naming what is missing after ten minutes.
   */
  async wait(volume: VolumeID, signal: AbortSignal): Promise<void> {
    const { node } = this.#options;
    const name = uniqueVolumeName(volume);
    if (this.#missing(name) === undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const unsubscribe = node.subscribe(() => {
      if (this.#missing(name) === undefined) resolve();
    });
    try {
      await within(signal, patienceMs, async (limited) => {
        await Promise.race([promise, aborted(limited)]);
      });
    } catch (error) {
      signal.throwIfAborted();
      if (!isAbort(error)) throw error;
      throw new VolumeError(this.#missing(name) ?? "", { cause: error });
    } finally {
      unsubscribe();
    }
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

async function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

import { isAlreadyExists } from "../../../api/errors.ts";
import type { EventType } from "../../../api/event-types.ts";
import type { Stored } from "../../../api/object.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import { NODES, PODS, VOLUME_ATTACHMENTS } from "../../../api/resources.ts";
import type { Pod } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { getObject, patchObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop } from "../shared/controller.ts";
import {
  type AttachPlan,
  type Detachment,
  type Placement,
  planAttachments,
  type StoredNode,
} from "./plan.ts";

/** All attachments are planned together: whether a volume may go to a node depends on the other nodes. */
const wholeKey = "volumes";

/**
 * Attaches CSI volumes to the nodes of the pods that use them, by VolumeAttachments that the drivers' own attachers work
 * on, and detaches them when no pod does and the node has unmounted them (upstream's attach-detach controller).
 */
export class AttachDetachController implements Controller {
  readonly name = "attachdetach";
  readonly #context: ControllerContext;
  /** By name of the attachment, monotonic ms: a restart only makes an unready node wait once more. */
  readonly #unwantedSince = new Map<string, number>();
  /** What was said of an attachment last, to all its pods or, by uid, to one. */
  readonly #said = new Map<string, Map<string, string>>();
  #first = true;

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  async run(signal: AbortSignal): Promise<void> {
    const {
      pods,
      nodes,
      persistentVolumes,
      persistentVolumeClaims,
      volumeAttachments,
      csiDrivers,
    } = this.#context.informers;
    const all = [
      pods,
      nodes,
      persistentVolumes,
      persistentVolumeClaims,
      volumeAttachments,
      csiDrivers,
    ];
    await runQueueLoop(
      {
        name: this.name,
        context: this.#context,
        waitFor: all,
        sync: (_key, queue) => this.#sync(queue, signal),
        subscribe: (queue) => {
          const wake = (): void => queue.add(wholeKey);
          return all.map((informer) => informer.subscribe(wake));
        },
      },
      signal,
    );
  }

  /** Most clusters never have such a volume, and pods change all the time. */
  #isNeeded(): boolean {
    const { nodes, persistentVolumes, volumeAttachments } = this.#context.informers;
    if (volumeAttachments.size > 0) return true;
    for (const { spec } of persistentVolumes.values()) {
      if ((spec?.csi ?? spec?.iscsi ?? spec?.fc) !== undefined) return true;
    }
    // What is left when the last volume has gone.
    for (const { status } of nodes.values()) if (status?.volumesAttached?.length) return true;
    return false;
  }

  #plan(): AttachPlan {
    const { informers, clock } = this.#context;
    const nodes = new Map<string, StoredNode>();
    for (const node of informers.nodes.values()) nodes.set(node.metadata.name, node);
    return planAttachments({
      pods: informers.pods.values(),
      nodes,
      attachments: informers.volumeAttachments.values(),
      claim: (key) => informers.persistentVolumeClaims.get(key),
      volume: (name) => informers.persistentVolumes.get(name),
      driver: (name) => informers.csiDrivers.get(name),
      now: clock.monotonic(),
      unwantedSince: (name) => this.#unwantedSince.get(name),
    });
  }

  async #sync(queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    if (!this.#isNeeded()) return;
    const plan = this.#plan();
    this.#remember(plan);
    // Told first: from then on a kubelet that has not mounted it yet will not begin to.
    for (const { node, names } of plan.report) await this.#report(node, names, signal);
    const failures: unknown[] = [];
    const each = async (work: Promise<void>): Promise<void> => {
      try {
        await work;
      } catch (error) {
        failures.push(error);
      }
    };
    for (const detachment of plan.detach) await each(this.#detach(detachment, signal));
    for (const placement of plan.attach) await each(this.#attach(placement, signal));
    for (const { placement, messages } of plan.refused)
      for (const [pod, message] of messages)
        if (this.#isNews(placement.attachment, message, pod.metadata.uid))
          this.#tell(pod, { type: "Warning", reason: "FailedAttachVolume", message });
    this.#tellOutcomes(plan);
    this.#first = false;
    if (plan.recheckMs !== undefined) queue.addAfter(wholeKey, plan.recheckMs);
    if (failures.length > 0) throw failures[0];
  }

  #remember({ unwanted }: AttachPlan): void {
    const now = this.#context.clock.monotonic();
    const names = new Set(unwanted);
    for (const name of this.#unwantedSince.keys())
      if (!names.has(name)) this.#unwantedSince.delete(name);
    for (const name of names)
      if (!this.#unwantedSince.has(name)) this.#unwantedSince.set(name, now);
  }

  async #report(node: string, names: readonly string[], signal: AbortSignal): Promise<void> {
    await patchObject(
      this.#context.client,
      { resource: NODES, name: node, subresource: "status" },
      { status: { volumesAttached: names.map((name) => ({ name, devicePath: "" })) } },
      signal,
      "application/merge-patch+json",
    );
  }

  async #detach(
    { attachment, uniqueName, forced }: Detachment,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, logger } = this.#context;
    const { nodeName } = attachment.spec;
    if (!forced && uniqueName !== undefined) {
      // Asked live, after the status was written: the kubelet may have begun to mount it in between.
      const { status } = await getObject(client, { resource: NODES, name: nodeName }, signal);
      if ((status?.volumesInUse ?? []).includes(uniqueName)) return;
    }
    const { name, uid } = attachment.metadata;
    await deleteObject(client, VOLUME_ATTACHMENTS, { name }, { uid, signal });
    logger.log("info", "volume is to be detached", {
      volume: attachment.spec.source.persistentVolumeName,
      node: nodeName,
      forced,
    });
  }

  async #attach(placement: Placement, signal: AbortSignal): Promise<void> {
    const { client, logger } = this.#context;
    const { attachment, driver, node, volume } = placement;
    const persistentVolumeName = volume.metadata.name;
    try {
      await createObject(
        client,
        VOLUME_ATTACHMENTS,
        {
          metadata: { name: attachment },
          spec: { attacher: driver, nodeName: node, source: { persistentVolumeName } },
        },
        { signal },
      );
    } catch (error) {
      if (isAlreadyExists(error)) return;
      this.#sayToAll(placement, {
        type: "Warning",
        reason: "FailedAttachVolume",
        message: `AttachVolume.Attach failed for volume "${persistentVolumeName}" : ${errorMessage(error)}`,
      });
      throw error;
    }
    logger.log("info", "volume is to be attached", { volume: persistentVolumeName, node });
  }

  /** What the attacher made of it, once. */
  #tellOutcomes({ wanted, refused }: AttachPlan): void {
    const { volumeAttachments } = this.#context.informers;
    const current = new Set(
      [...wanted, ...refused.map(({ placement }) => placement)].map((each) => each.attachment),
    );
    for (const attachment of this.#said.keys())
      if (!current.has(attachment)) this.#said.delete(attachment);
    for (const placement of wanted) {
      const { status } = volumeAttachments.get(placement.attachment) ?? {};
      const { name } = placement.volume.metadata;
      if (status?.attached === true) {
        const message = `AttachVolume.Attach succeeded for volume "${name}" `;
        const remark = { type: "Normal", reason: "SuccessfulAttachVolume", message } as const;
        // What was attached before we started was told before, too.
        if (this.#first) this.#isNews(placement.attachment, message);
        else this.#sayToAll(placement, remark);
      } else if (status?.attachError !== undefined) {
        this.#sayToAll(placement, {
          type: "Warning",
          reason: "FailedAttachVolume",
          message: `AttachVolume.Attach failed for volume "${name}" : ${status.attachError.message ?? ""}`,
        });
      }
    }
  }

  #sayToAll(placement: Placement, remark: Remark): void {
    if (!this.#isNews(placement.attachment, remark.message)) return;
    for (const pod of placement.pods) this.#tell(pod, remark);
  }

  /** Whether it was not the last that was said; from now on it is. */
  #isNews(attachment: string, message: string, who = "all"): boolean {
    const said = this.#said.get(attachment) ?? new Map<string, string>();
    if (said.get(who) === message) return false;
    this.#said.set(attachment, said.set(who, message));
    return true;
  }

  #tell(pod: Stored<Pod>, { type, reason, message }: Remark): void {
    this.#context.recorder.event(eventTarget(PODS, pod), type, reason, message);
  }
}

interface Remark {
  readonly type: EventType;
  readonly reason: string;
  readonly message: string;
}

import { ApiError, isNotFound } from "../../../api/errors.ts";
import type { Informer } from "../../../api/informer-types.ts";
import type { Stored } from "../../../api/object.ts";
import { controllerOf } from "../../../api/object.ts";
import { PODS } from "../../../api/resources.ts";
import type { ObjectMeta, OwnerReference, Pod } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import type { NamespaceIndex } from "../shared/by-namespace.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import { findObject, replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop, splitKey } from "../shared/controller.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import {
  claimObjects,
  controllerReference,
  isNamespaceTerminating,
  ownerKeys,
} from "../shared/ownership.ts";
import { isPodActive, isTerminating } from "../shared/pod-state.ts";
import type { ScaleAction, ScaleFailure } from "./decide.ts";
import {
  computeReplicaStatus,
  countTerminating,
  nextAvailabilityMs,
  planScale,
  sameReplicaStatus,
  slowStartBatches,
} from "./decide.ts";
import { Expectations } from "./expectations.ts";
import type { ReplicaKind, ReplicaStatus, ReplicaWorkload } from "./workload.ts";

export interface ReplicaControllerOptions<T> {
  readonly name: string;
  readonly kind: ReplicaKind<T>;
  readonly context: ControllerContext;
  readonly workloads: Informer<Stored<T>>;
}

/** Keeps as many pods as a ReplicationController (or a kind like it) asks for. */
export class ReplicaController<T> implements Controller {
  readonly name: string;
  readonly #kind: ReplicaKind<T>;
  readonly #context: ControllerContext;
  readonly #workloads: Informer<Stored<T>>;
  readonly #expectations: Expectations;
  #pods: NamespaceIndex<StoredPod> | undefined;

  constructor(options: ReplicaControllerOptions<T>) {
    this.name = options.name;
    this.#kind = options.kind;
    this.#context = options.context;
    this.#workloads = options.workloads;
    this.#expectations = new Expectations(() => options.context.clock.monotonic());
  }

  async run(signal: AbortSignal): Promise<void> {
    const { pods } = this.#context.informers;
    await runQueueLoop(
      {
        name: this.name,
        context: this.#context,
        waitFor: [this.#workloads, pods],
        sync: async (key, queue) => this.#sync(key, queue, signal),
        subscribe: (queue) => {
          const index = indexByNamespace(pods);
          this.#pods = index;
          return [() => index.close(), ...this.#subscribe(queue)];
        },
      },
      signal,
    );
  }

  #subscribe(queue: KeyedQueue): readonly (() => void)[] {
    return [
      this.#workloads.subscribe((change) => {
        if (change.kind === "deleted") this.#expectations.forget(change.previous.metadata.uid);
        queue.add(change.key);
      }),
      this.#context.informers.pods.subscribe((change) => {
        const pod = change.kind === "deleted" ? change.previous : change.object;
        const owner = controllerOf(pod.metadata);
        if (owner !== undefined) {
          if (change.kind === "added" && !isTerminating(pod))
            this.#expectations.creationObserved(owner.uid);
          if (change.kind === "deleted" || isTerminating(pod))
            this.#expectations.deletionObserved(owner.uid, pod.metadata.uid);
        }
        this.#wakeOwners(pod, queue);
        if (change.kind === "updated") this.#wakeOwners(change.previous, queue);
      }),
    ];
  }

  /** Wakes the pod's owner, or, for a pod without one, every workload that would adopt it. */
  #wakeOwners({ metadata }: StoredPod, queue: KeyedQueue): void {
    const keys = ownerKeys(metadata, {
      kind: this.#kind.resource.kind,
      informer: this.#workloads,
      selects: (workload, labels) => this.#kind.parse(workload).selects(labels),
    });
    for (const key of keys) queue.add(key);
  }

  async #sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const object = this.#workloads.get(key);
    if (object === undefined) return;
    const workload = this.#kind.parse(object);
    const settled = this.#expectations.satisfied(workload.uid);
    const pods = [...(this.#pods?.in(splitKey(key).namespace) ?? [])];
    const active = await claimObjects(
      {
        client: this.#context.client,
        claimant: workload,
        ownerResource: this.#kind.resource,
        resource: PODS,
        objects: pods.filter((pod) => isPodActive(pod)),
      },
      signal,
    );
    const now = this.#context.clock.now();
    let failure: ScaleFailure | undefined;
    if (settled) {
      const action = planScale(workload, active, this.#related(workload, active, pods), now);
      failure = await this.#scale(object, workload, action, signal);
    }
    const terminating = this.#kind.reportsTerminating
      ? countTerminating(workload, pods)
      : undefined;
    const status = computeReplicaStatus(workload, { active, terminating }, failure, now);
    await this.#writeStatus(workload, status, signal);
    if (failure !== undefined) throw new Error(failure.message);
    // Availability comes with time alone, without any event.
    const recheckMs = nextAvailabilityMs(workload, active, now);
    if (recheckMs !== undefined) queue.addAfter(key, recheckMs);
  }

  /** The active pods of all workloads under the same owner: copies of one application count together on a node. */
  #related(
    workload: ReplicaWorkload,
    active: readonly StoredPod[],
    pods: readonly StoredPod[],
  ): readonly StoredPod[] {
    if (workload.ownerUID === undefined) return active;
    const relatives = new Set<string>([workload.uid]);
    for (const { metadata } of this.#workloads.values())
      if (
        metadata.namespace === workload.namespace &&
        controllerOf(metadata)?.uid === workload.ownerUID
      )
        relatives.add(metadata.uid);
    return pods.filter(
      (pod) => isPodActive(pod) && relatives.has(controllerOf(pod.metadata)?.uid ?? ""),
    );
  }

  async #scale(
    object: Stored<T>,
    workload: ReplicaWorkload,
    action: ScaleAction,
    signal: AbortSignal,
  ): Promise<ScaleFailure | undefined> {
    switch (action.kind) {
      case "none":
        return undefined;
      case "create":
        return this.#createPods(object, workload, action.count, signal);
      case "delete":
        return this.#deletePods(object, workload, action.pods, signal);
    }
  }

  async #createPods(
    object: Stored<T>,
    workload: ReplicaWorkload,
    count: number,
    signal: AbortSignal,
  ): Promise<ScaleFailure | undefined> {
    this.#expectations.expectCreations(workload.uid, count);
    let done = 0;
    for (const size of slowStartBatches(count)) {
      const results = await Promise.allSettled(
        Array.from({ length: size }, async () => this.#createPod(object, workload, signal)),
      );
      done += size;
      const failed = results.filter((result) => result.status === "rejected");
      for (const _ of failed) this.#expectations.creationObserved(workload.uid);
      const [first] = failed;
      if (first === undefined) continue;
      // None of the skipped pods will ever be seen.
      for (let skipped = done; skipped < count; skipped += 1)
        this.#expectations.creationObserved(workload.uid);
      if (isNamespaceTerminating(first.reason)) return undefined;
      return { reason: "FailedCreate", message: errorMessage(first.reason) };
    }
    return undefined;
  }

  async #createPod(
    object: Stored<T>,
    workload: ReplicaWorkload,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, recorder } = this.#context;
    const about = eventTarget(this.#kind.resource, object);
    try {
      const pod = await createObject(
        client,
        PODS,
        podFromTemplate(workload, controllerReference(this.#kind.resource, workload)),
        { signal },
      );
      recorder.event(about, "Normal", "SuccessfulCreate", `Created pod: ${pod.metadata.name}`);
    } catch (error) {
      if (!signal.aborted && !isNamespaceTerminating(error))
        recorder.event(about, "Warning", "FailedCreate", `Error creating: ${errorMessage(error)}`);
      throw error;
    }
  }

  async #deletePods(
    object: Stored<T>,
    workload: ReplicaWorkload,
    pods: readonly StoredPod[],
    signal: AbortSignal,
  ): Promise<ScaleFailure | undefined> {
    const { client, recorder } = this.#context;
    const about = eventTarget(this.#kind.resource, object);
    this.#expectations.expectDeletions(
      workload.uid,
      pods.map((pod) => pod.metadata.uid),
    );
    const results = await Promise.allSettled(
      pods.map(async (pod) => {
        const { namespace, name, uid } = pod.metadata;
        try {
          await deleteObject(client, PODS, { namespace, name }, { uid, signal });
          recorder.event(about, "Normal", "SuccessfulDelete", `Deleted pod: ${name}`);
        } catch (error) {
          this.#expectations.deletionObserved(workload.uid, uid);
          // Another pod has the name by now: ours is gone, which is what was wanted.
          if (error instanceof ApiError && error.status === 409) return;
          if (!signal.aborted)
            recorder.event(
              about,
              "Warning",
              "FailedDelete",
              `Error deleting: ${errorMessage(error)}`,
            );
          throw error;
        }
      }),
    );
    const failed = results.find((result) => result.status === "rejected");
    return failed === undefined
      ? undefined
      : { reason: "FailedDelete", message: errorMessage(failed.reason) };
  }

  async #writeStatus(
    workload: ReplicaWorkload,
    status: ReplicaStatus,
    signal: AbortSignal,
  ): Promise<ReplicaStatus> {
    if (sameReplicaStatus(workload.status, status)) return status;
    const target = {
      resource: this.#kind.resource,
      namespace: workload.namespace,
      name: workload.name,
    };
    const live = await findObject(this.#context.client, target, signal);
    if (live === undefined || live.metadata.uid !== workload.uid) return status;
    try {
      await replaceObject(
        this.#context.client,
        { ...target, subresource: "status" },
        // The generation seen is the one that was acted on, not the newest.
        { ...live, status: { ...status } },
        signal,
      );
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    return status;
  }
}

/** The pod to create: the template's metadata and spec, owned by the workload. */
export function podFromTemplate(workload: ReplicaWorkload, owner: OwnerReference): Pod {
  const { metadata, spec } = workload.template;
  const meta: ObjectMeta = {
    generateName: `${workload.name}-`,
    namespace: workload.namespace,
    ownerReferences: [owner],
    ...(metadata?.labels === undefined ? {} : { labels: metadata.labels }),
    ...(metadata?.annotations === undefined ? {} : { annotations: metadata.annotations }),
    ...(metadata?.finalizers === undefined ? {} : { finalizers: metadata.finalizers }),
  };
  return { metadata: meta, ...(spec === undefined ? {} : { spec }) };
}

import { ApiError, isNotFound } from "../../../api/errors.ts";
import type { Informer } from "../../../api/informer-types.ts";
import type { Stored } from "../../../api/object.ts";
import { controllerOf, keyOf, objectKey } from "../../../api/object.ts";
import { apiVersion } from "../../../api/resource.ts";
import { PODS } from "../../../api/resources.ts";
import type { ObjectMeta, OwnerReference, Pod } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import type { NamespaceIndex } from "../shared/by-namespace.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import { findObject, getObject, patchObject, replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop, splitKey } from "../shared/controller.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodActive, isTerminating } from "../shared/pod-state.ts";
import type { ScaleAction, ScaleFailure } from "./decide.ts";
import {
  claimPods,
  computeReplicaStatus,
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

interface Pods {
  readonly index: NamespaceIndex<StoredPod>;
}

/** Keeps as many pods as a ReplicationController (or a kind like it) asks for. */
export class ReplicaController<T> implements Controller {
  readonly name: string;
  readonly #kind: ReplicaKind<T>;
  readonly #context: ControllerContext;
  readonly #workloads: Informer<Stored<T>>;
  readonly #expectations: Expectations;
  #pods: Pods | undefined;

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
          this.#pods = { index };
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
  #wakeOwners(pod: StoredPod, queue: KeyedQueue): void {
    const namespace = pod.metadata.namespace ?? "";
    const owner = controllerOf(pod.metadata);
    if (owner !== undefined) {
      if (owner.kind !== this.#kind.resource.kind) return;
      const key = objectKey(namespace, owner.name);
      if (this.#workloads.get(key)?.metadata.uid === owner.uid) queue.add(key);
      return;
    }
    for (const object of this.#workloads.values()) {
      if (object.metadata.namespace !== namespace) continue;
      if (this.#kind.parse(object).selects(pod.metadata.labels)) queue.add(keyOf(object));
    }
  }

  async #sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const object = this.#workloads.get(key);
    if (object === undefined) return;
    const workload = this.#kind.parse(object);
    const settled = this.#expectations.satisfied(workload.uid);
    const { namespace } = splitKey(key);
    const candidates = [...(this.#pods?.index.in(namespace) ?? [])].filter((pod) =>
      isPodActive(pod),
    );
    const active = await this.#claim(workload, candidates, signal);
    const now = this.#context.clock.now();
    let failure: ScaleFailure | undefined;
    if (settled) {
      const action = planScale(workload, active, active, now);
      failure = await this.#scale(object, workload, action, signal);
    }
    const status = computeReplicaStatus(workload, active, failure, now);
    const written = await this.#writeStatus(workload, status, signal);
    if (failure !== undefined) throw new Error(failure.message);
    // Availability comes with time alone, without any event.
    if (
      workload.minReadySeconds > 0 &&
      written.readyReplicas === workload.replicas &&
      written.availableReplicas !== workload.replicas
    ) {
      queue.addAfter(key, workload.minReadySeconds * 1000);
    }
  }

  async #claim(
    workload: ReplicaWorkload,
    candidates: readonly StoredPod[],
    signal: AbortSignal,
  ): Promise<readonly StoredPod[]> {
    const { client } = this.#context;
    const claims = claimPods(workload, candidates);
    for (const pod of claims.release) {
      await this.#patchOwner(
        pod,
        { $patch: "delete", uid: workload.uid } as unknown as OwnerReference,
        signal,
      );
    }
    if (claims.adopt.length === 0) return claims.owned;
    // Asked live: a cached workload may have been deleted and made anew under the same name.
    const live = await getObject(
      client,
      { resource: this.#kind.resource, namespace: workload.namespace, name: workload.name },
      signal,
    );
    if (live.metadata.uid !== workload.uid || live.metadata.deletionTimestamp !== undefined)
      return claims.owned;
    const adopted: StoredPod[] = [];
    for (const pod of claims.adopt) {
      const patched = await this.#patchOwner(pod, this.#ownerReference(workload), signal);
      if (patched !== undefined) adopted.push(patched);
    }
    return [...claims.owned, ...adopted];
  }

  /** Merges one owner reference into the pod; undefined when the pod is gone or no longer the same. */
  async #patchOwner(
    pod: StoredPod,
    reference: OwnerReference,
    signal: AbortSignal,
  ): Promise<StoredPod | undefined> {
    const { namespace, name, uid } = pod.metadata;
    try {
      return await patchObject(
        this.#context.client,
        { resource: PODS, namespace, name },
        { metadata: { uid, ownerReferences: [reference] } },
        signal,
      );
    } catch (error) {
      // 409 and 422: another pod has the name by now, or another controller was faster.
      if (error instanceof ApiError && [404, 409, 422].includes(error.status)) return undefined;
      throw error;
    }
  }

  #ownerReference(workload: ReplicaWorkload): OwnerReference {
    return {
      apiVersion: apiVersion(this.#kind.resource),
      kind: this.#kind.resource.kind,
      name: workload.name,
      uid: workload.uid,
      controller: true,
      blockOwnerDeletion: true,
    };
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
        podFromTemplate(workload, this.#ownerReference(workload)),
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

/** Creation fails for every pod of a namespace that is going away; nobody needs to be told. */
function isNamespaceTerminating(error: unknown): boolean {
  return (
    error instanceof ApiError &&
    error.status === 403 &&
    error.message.includes("because it is being terminated")
  );
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

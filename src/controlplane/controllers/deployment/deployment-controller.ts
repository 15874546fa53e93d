import { ApiError, isNotFound } from "../../../api/errors.ts";
import type { Stored } from "../../../api/object.ts";
import { controllerOf, keyOf, objectKey } from "../../../api/object.ts";
import { createObject, deleteObject } from "../../../api/objects.ts";
import { DEPLOYMENTS, REPLICA_SETS } from "../../../api/resources.ts";
import { matchesSelector } from "../../../api/selectors.ts";
import type { Deployment, ReplicaSet } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import type { NamespaceIndex } from "../shared/by-namespace.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import { getObject, replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop } from "../shared/controller.ts";
import { claimObjects, isNamespaceTerminating, ownerKeys } from "../shared/ownership.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodTerminal } from "../shared/pod-state.ts";
import { revisionAnnotation } from "./annotations.ts";
import { setCondition } from "./conditions.ts";
import type { DeploymentPlan, ReplicaSetUpdate } from "./plan.ts";
import { planDeployment } from "./plan.ts";
import type { Rollback } from "./rollback.ts";
import { planRollback, wantedRollback } from "./rollback.ts";
import { sameTemplate } from "./template.ts";
import type { DeploymentState, DeploymentView, ReplicaSetView } from "./view.ts";
import { viewDeployment, viewReplicaSet } from "./view.ts";

type StoredDeployment = Stored<Deployment>;
type StoredReplicaSet = Stored<ReplicaSet>;

/** Milliseconds after which a cache that is behind our own write is looked at again, whatever it has shown. */
const staleCacheMs = 1000;

/** Rolls the ReplicaSets of Deployments from template to template. */
export class DeploymentController implements Controller {
  readonly name = "deployment";
  readonly #context: ControllerContext;
  #pods: NamespaceIndex<StoredPod> | undefined;
  #replicaSets: NamespaceIndex<StoredReplicaSet> | undefined;
  /** resourceVersion of our last write, by uid: a cache that is older would have things done twice. */
  readonly #written = new Map<string, string>();

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { deployments, replicaSets, pods } = this.#context.informers;
    await runQueueLoop(
      {
        name: this.name,
        context: this.#context,
        waitFor: [deployments, replicaSets, pods],
        sync: async (key, queue) => this.#sync(key, queue, signal),
        subscribe: (queue) => {
          const podIndex = indexByNamespace(pods);
          const replicaSetIndex = indexByNamespace(replicaSets);
          this.#pods = podIndex;
          this.#replicaSets = replicaSetIndex;
          return [() => podIndex.close(), () => replicaSetIndex.close(), ...this.#subscribe(queue)];
        },
      },
      signal,
    );
  }

  #subscribe(queue: KeyedQueue): readonly (() => void)[] {
    const { deployments, replicaSets, pods } = this.#context.informers;
    return [
      deployments.subscribe((change) => {
        if (change.kind === "deleted") this.#written.delete(change.previous.metadata.uid);
        queue.add(change.key);
      }),
      replicaSets.subscribe((change) => {
        if (change.kind === "deleted") this.#written.delete(change.previous.metadata.uid);
        this.#wakeOwners(change.kind === "deleted" ? change.previous : change.object, queue);
        if (change.kind === "updated") this.#wakeOwners(change.previous, queue);
      }),
      pods.subscribe((change) => {
        if (change.kind === "deleted") this.#wakeRecreate(change.previous, queue);
        else if (change.kind === "updated" && isPodTerminal(change.object))
          this.#wakeRecreate(change.object, queue);
      }),
    ];
  }

  /** Wakes the ReplicaSet's owner, or, without one, every Deployment that would adopt it. */
  #wakeOwners({ metadata }: StoredReplicaSet, queue: KeyedQueue): void {
    const keys = ownerKeys(metadata, {
      kind: DEPLOYMENTS.kind,
      informer: this.#context.informers.deployments,
      selects: ({ spec }, labels) => matchesSelector(spec?.selector, labels),
    });
    for (const key of keys) queue.add(key);
  }

  #ownerOf(replicaSet: StoredReplicaSet): StoredDeployment | undefined {
    const owner = controllerOf(replicaSet.metadata);
    if (owner?.kind !== DEPLOYMENTS.kind) return undefined;
    const key = objectKey(replicaSet.metadata.namespace, owner.name);
    const deployment = this.#context.informers.deployments.get(key);
    return deployment?.metadata.uid === owner.uid ? deployment : undefined;
  }

  /** The last old pod of a Recreate Deployment may be what its new ones wait for. */
  #wakeRecreate(pod: StoredPod, queue: KeyedQueue): void {
    const owner = controllerOf(pod.metadata);
    if (owner?.kind !== REPLICA_SETS.kind) return;
    const key = objectKey(pod.metadata.namespace, owner.name);
    const replicaSet = this.#context.informers.replicaSets.get(key);
    if (replicaSet?.metadata.uid !== owner.uid) return;
    const deployment = this.#ownerOf(replicaSet);
    if (deployment?.spec?.strategy?.type === "Recreate") queue.add(keyOf(deployment));
  }

  async #sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const object = this.#context.informers.deployments.get(key);
    if (object === undefined) return;
    const deployment = viewDeployment(object);
    const selector = object.spec?.selector ?? {};
    if (selectsEverything(deployment)) {
      await this.#refuse(object, deployment, signal);
      return;
    }
    const claimed = await claimObjects(
      {
        client: this.#context.client,
        claimant: { ...deployment, selects: (labels) => matchesSelector(selector, labels) },
        ownerResource: DEPLOYMENTS,
        resource: REPLICA_SETS,
        objects: [...(this.#replicaSets?.in(deployment.namespace) ?? [])],
      },
      signal,
    );
    if ([object, ...claimed].some((each) => this.#isStale(each))) {
      queue.addAfter(key, staleCacheMs);
      return;
    }
    try {
      const recheckMs = await this.#roll(object, claimed, signal);
      if (recheckMs !== undefined) queue.addAfter(key, recheckMs);
    } catch (error) {
      // Whatever is still to be created never will be.
      if (!isNamespaceTerminating(error)) throw error;
    }
  }

  /** Whether the cached object is older than what we wrote to it last. */
  #isStale({ metadata }: { readonly metadata: StoredReplicaSet["metadata"] }): boolean {
    const written = this.#written.get(metadata.uid);
    if (written === undefined) return false;
    if (BigInt(metadata.resourceVersion) < BigInt(written)) return true;
    this.#written.delete(metadata.uid);
    return false;
  }

  #wrote({ metadata }: { readonly metadata: StoredReplicaSet["metadata"] }): void {
    this.#written.set(metadata.uid, metadata.resourceVersion);
  }

  /** @returns Milliseconds until the next look, when time alone may change something. */
  async #roll(
    object: StoredDeployment,
    claimed: readonly StoredReplicaSet[],
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const deployment = viewDeployment(object);
    const replicaSets = claimed.map((each) => viewReplicaSet(each));
    const revision = wantedRollback(deployment);
    if (revision !== undefined && !deployment.deleting && !deployment.paused) {
      await this.#rollBack(object, planRollback(deployment, replicaSets, revision), signal);
      return undefined;
    }
    const plan = planDeployment(deployment, replicaSets, {
      now: this.#context.clock.now(),
      hasPods: (uid) => this.#hasPods(deployment.namespace, uid),
    });
    if (plan.create !== undefined) {
      const existing = await this.#create(object, plan.create, signal);
      // Ours already, only not in the cache yet: it takes part from the beginning.
      if (existing !== undefined) return this.#roll(object, [...claimed, existing], signal);
    }
    for (const update of plan.updates) await this.#update(object, update, signal);
    for (const expired of plan.deletions) await this.#delete(expired, signal);
    if (plan.statusChanged) await this.#writeStatus(object, plan, signal);
    return plan.recheckMs;
  }

  #hasPods(namespace: string, replicaSetUID: string): boolean {
    for (const pod of this.#pods?.in(namespace) ?? [])
      if (controllerOf(pod.metadata)?.uid === replicaSetUID && !isPodTerminal(pod)) return true;
    return false;
  }

  /** @returns the ReplicaSet that was there before, when it is the wanted one. */
  async #create(
    about: StoredDeployment,
    body: ReplicaSet,
    signal: AbortSignal,
  ): Promise<StoredReplicaSet | undefined> {
    const { client, recorder } = this.#context;
    const name = body.metadata?.name ?? "";
    const replicas = body.spec?.replicas ?? 0;
    try {
      await createObject(client, REPLICA_SETS, body, { signal });
    } catch (error) {
      if (signal.aborted || isNamespaceTerminating(error)) throw error;
      if (error instanceof ApiError && error.reason === "AlreadyExists")
        return this.#existing(about, name, error, signal);
      await this.#creationFailed(about, name, error, signal);
      throw error;
    }
    if (replicas > 0)
      recorder.event(
        eventTarget(DEPLOYMENTS, about),
        "Normal",
        "ScalingReplicaSet",
        `Scaled up replica set ${name} from 0 to ${replicas}`,
      );
    return undefined;
  }

  /** Another template under the same hash makes the next try take another hash. */
  async #existing(
    about: StoredDeployment,
    name: string,
    cause: unknown,
    signal: AbortSignal,
  ): Promise<StoredReplicaSet> {
    const { client } = this.#context;
    const { namespace, uid } = about.metadata;
    const found = await getObject(client, { resource: REPLICA_SETS, namespace, name }, signal);
    const deployment = viewDeployment(about);
    const { template } = viewReplicaSet(found);
    if (controllerOf(found.metadata)?.uid === uid && sameTemplate(template, deployment.template))
      return found;
    const { status } = deployment;
    await this.#putStatus(
      about,
      { ...status, collisionCount: (status.collisionCount ?? 0) + 1 },
      undefined,
      signal,
    );
    throw cause;
  }

  async #creationFailed(
    about: StoredDeployment,
    name: string,
    error: unknown,
    signal: AbortSignal,
  ): Promise<void> {
    const { recorder, clock } = this.#context;
    const { status, progressDeadlineSeconds } = viewDeployment(about);
    const reason = "ReplicaSetCreateError";
    const message = `Failed to create new replica set "${name}": ${errorMessage(error)}`;
    recorder.event(eventTarget(DEPLOYMENTS, about), "Warning", reason, message);
    if (progressDeadlineSeconds === undefined) return;
    const conditions = setCondition(
      status.conditions,
      { type: "Progressing", status: "False", reason, message },
      clock.now(),
    );
    if (conditions !== status.conditions)
      await this.#putStatus(about, { ...status, conditions }, undefined, signal);
  }

  async #update(
    about: StoredDeployment,
    update: ReplicaSetUpdate,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, recorder } = this.#context;
    const { view, replicas, minReadySeconds, annotations } = update;
    const { object, name } = view;
    const { namespace } = object.metadata;
    const written = await replaceObject(
      client,
      { resource: REPLICA_SETS, namespace, name },
      {
        ...object,
        metadata: { ...object.metadata, annotations },
        spec: { ...object.spec, replicas, minReadySeconds },
      },
      signal,
    );
    this.#wrote(written);
    if (replicas === view.replicas) return;
    const direction = replicas > view.replicas ? "up" : "down";
    recorder.event(
      eventTarget(DEPLOYMENTS, about),
      "Normal",
      "ScalingReplicaSet",
      `Scaled ${direction} replica set ${name} from ${view.replicas} to ${replicas}`,
    );
  }

  async #delete(expired: ReplicaSetView, signal: AbortSignal): Promise<void> {
    const { uid, name, resourceVersion, namespace } = expired.object.metadata;
    // The version too: somebody may be scaling it up just now.
    const options = { uid, resourceVersion, signal };
    await deleteObject(this.#context.client, REPLICA_SETS, { namespace, name }, options);
  }

  async #writeStatus(
    about: StoredDeployment,
    plan: DeploymentPlan,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#putStatus(about, plan.status, plan.revision, signal);
  }

  async #putStatus(
    about: StoredDeployment,
    status: DeploymentState,
    revision: string | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { metadata } = about;
    const { namespace, name } = metadata;
    const annotations =
      revision === undefined
        ? metadata.annotations
        : { ...metadata.annotations, [revisionAnnotation]: revision };
    try {
      const written = await replaceObject(
        this.#context.client,
        { resource: DEPLOYMENTS, namespace, name, subresource: "status" },
        { ...about, metadata: { ...metadata, annotations }, status },
        signal,
      );
      this.#wrote(written);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  async #rollBack(
    object: StoredDeployment,
    rollback: Rollback,
    signal: AbortSignal,
  ): Promise<void> {
    const { namespace, name } = object.metadata;
    const { template, annotations, event } = rollback;
    const written = await replaceObject(
      this.#context.client,
      { resource: DEPLOYMENTS, namespace, name },
      {
        ...object,
        metadata: { ...object.metadata, annotations },
        spec: { ...object.spec, template },
      },
      signal,
    );
    this.#wrote(written);
    const about = eventTarget(DEPLOYMENTS, object);
    this.#context.recorder.event(about, event.type, event.reason, event.message);
  }

  /** A selector that matches every pod of the namespace is a mistake that validation no longer lets pass. */
  async #refuse(
    object: StoredDeployment,
    deployment: DeploymentView,
    signal: AbortSignal,
  ): Promise<void> {
    this.#context.recorder.event(
      eventTarget(DEPLOYMENTS, object),
      "Warning",
      "SelectingAll",
      "This deployment is selecting all pods. A non-empty selector is required.",
    );
    const { status, generation } = deployment;
    if (status.observedGeneration < generation)
      await this.#putStatus(
        object,
        { ...status, observedGeneration: generation },
        undefined,
        signal,
      );
  }
}

function selectsEverything({ selector }: DeploymentView): boolean {
  return (
    Object.keys(selector.matchLabels ?? {}).length === 0 &&
    (selector.matchExpressions ?? []).length === 0
  );
}

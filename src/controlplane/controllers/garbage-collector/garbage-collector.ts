import { isNotFound } from "../../../api/errors.ts";
import type { Stored } from "../../../api/object.ts";
import { parseStored } from "../../../api/object.ts";
import { deleteObject } from "../../../api/objects.ts";
import type { OwnerReference } from "../../../api/types.gen.ts";
import { createInformer } from "../../../api/informer.ts";
import type { Informer } from "../../../api/informer-types.ts";
import { jitteredBackoffMs } from "../../../lib/backoff.ts";
import { errorMessage, isAbort } from "../../../lib/errors.ts";
import { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { findObject, patchObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runPeriodically } from "../shared/controller.ts";
import type { ServedResource } from "../shared/discovery.ts";
import { discoverResources, groupResource } from "../shared/discovery.ts";
import type { OwnerState, OwnerVerdict } from "./decide.ts";
import { decideCollection } from "./decide.ts";
import type { GraphNode, OwnedMeta } from "./graph.ts";
import { isDeletingDependents, isOrphaning, OwnerGraph } from "./graph.ts";

/** Milliseconds between two looks at which kinds are served. */
const discoveryPeriodMs = 30_000;
/** Milliseconds until the next look while a kind has not been listed completely. */
const unsyncedRetryMs = 100;
const retryLimits = { baseMs: 50, maxMs: 60_000 };

/** Kinds whose objects come and go by the thousand and neither own nor are owned. */
const ignored = new Set(["events", "events.events.k8s.io"]);

interface Monitor {
  readonly resource: ServedResource;
  readonly informer: Informer<OwnedMeta>;
  readonly stop: AbortController;
  readonly done: Promise<void>;
}

function ownedMeta(object: Stored<unknown>): OwnedMeta {
  const { metadata } = object;
  return {
    uid: metadata.uid,
    name: metadata.name,
    namespace: metadata.namespace ?? "",
    owners: metadata.ownerReferences ?? [],
    finalizers: metadata.finalizers ?? [],
    deleting: metadata.deletionTimestamp !== undefined,
  };
}

/**
 * Deletes what nobody owns any more and carries out the deletion policies Foreground and Orphan. It watches every kind
 * that can be deleted, keeping metadata only.
 */
export class GarbageCollector implements Controller {
  readonly name = "garbage-collector";
  readonly #context: ControllerContext;
  readonly #graph = new OwnerGraph();
  readonly #monitors = new Map<string, Monitor>();
  readonly #failures = new Map<string, number>();
  /** Owners that were looked up and are not there. Uids are never used twice. */
  readonly #absent = new Set<string>();
  readonly #warned = new Set<string>();

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger, random } = this.#context;
    const queue: KeyedQueue = new KeyedQueue({
      concurrency: 4,
      clock,
      signal,
      work: async (uid) => {
        await this.#sync(uid, queue, signal);
        this.#failures.delete(uid);
      },
      onError: (uid, error) => {
        if (isAbort(error) && signal.aborted) return;
        const count = (this.#failures.get(uid) ?? 0) + 1;
        this.#failures.set(uid, count);
        logger.log(count < 3 ? "debug" : "warn", "garbage collection failed, will retry", {
          controller: this.name,
          object: this.#describe(uid),
          error: errorMessage(error),
        });
        queue.addAfter(uid, jitteredBackoffMs(count, retryLimits, random));
      },
    });
    await runPeriodically(
      {
        name: this.name,
        context: this.#context,
        periodMs: discoveryPeriodMs,
        step: () => this.#followKinds(queue, signal),
      },
      signal,
    );
    for (const { stop } of this.#monitors.values()) stop.abort();
    await Promise.all([...this.#monitors.values()].map(({ done }) => done));
    await queue.idle();
  }

  #describe(uid: string): string {
    const node = this.#graph.get(uid);
    if (node === undefined) return uid;
    const kind = node.resource?.kind ?? "?";
    return `${kind} ${node.meta.namespace}/${node.meta.name}`;
  }

  /** Starts watching kinds that are new and stops with those that are no longer served. */
  async #followKinds(queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const served = await discoverResources(this.#context.client, signal);
    const wanted = new Map(
      served
        .filter(({ verbs }) => ["list", "watch", "delete"].every((verb) => verbs.has(verb)))
        .map((resource) => [groupResource(resource), resource] as const)
        .filter(([name]) => !ignored.has(name)),
    );
    for (const [name, resource] of wanted)
      if (!this.#monitors.has(name))
        this.#monitors.set(name, this.#monitor(resource, queue, signal));
    for (const [name, monitor] of this.#monitors) {
      if (wanted.has(name)) continue;
      monitor.stop.abort();
      await monitor.done;
      this.#monitors.delete(name);
    }
  }

  #monitor(resource: ServedResource, queue: KeyedQueue, signal: AbortSignal): Monitor {
    const { client, clock, logger, random } = this.#context;
    const stop = new AbortController();
    const informer = createInformer<OwnedMeta>({
      client,
      clock,
      logger,
      random,
      resource,
      project: (object) => ownedMeta(parseStored<unknown>(object)),
    });
    informer.subscribe((change) => {
      if (change.kind === "deleted") this.#removed(change.previous.uid, queue);
      else this.#seen(resource, change.object, queue);
    });
    return { resource, informer, stop, done: informer.run(AbortSignal.any([signal, stop.signal])) };
  }

  #seen(resource: ServedResource, meta: OwnedMeta, queue: KeyedQueue): void {
    this.#absent.delete(meta.uid);
    this.#graph.set(resource, meta);
    if (meta.owners.length > 0 || isDeletingDependents(meta) || isOrphaning(meta))
      queue.add(meta.uid);
    // A dependent that no longer blocks may let its owner go.
    for (const owner of meta.owners) this.#wakeOwner(owner.uid, queue);
    if (isDeletingDependents(meta))
      for (const dependent of this.#graph.dependents(meta.uid)) queue.add(dependent.meta.uid);
  }

  #removed(uid: string, queue: KeyedQueue): void {
    const dependents = this.#graph.dependents(uid);
    const node = this.#graph.delete(uid);
    this.#absent.add(uid);
    for (const dependent of dependents) queue.add(dependent.meta.uid);
    if (dependents.length === 0) this.#absent.delete(uid);
    for (const owner of node?.meta.owners ?? []) this.#wakeOwner(owner.uid, queue);
  }

  #wakeOwner(uid: string, queue: KeyedQueue): void {
    const owner = this.#graph.get(uid);
    if (owner !== undefined && isDeletingDependents(owner.meta)) queue.add(uid);
  }

  async #sync(uid: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const node = this.#graph.get(uid);
    if (node?.resource === undefined) return;
    // Dependents that nobody has listed yet are not dependents that are gone: an owner would be let go before them, or
    // without orphaning them.
    if (![...this.#monitors.values()].every(({ informer }) => informer.synced)) {
      queue.addAfter(uid, unsyncedRetryMs);
      return;
    }
    if (isOrphaning(node.meta)) {
      await this.#orphanDependents(node, signal);
      return;
    }
    if (isDeletingDependents(node.meta)) {
      await this.#finishForeground(node, queue, signal);
      return;
    }
    if (!node.meta.deleting && node.meta.owners.length > 0) await this.#collect(node, signal);
  }

  /** The live object, when it is still the same one. */
  async #live(node: GraphNode, signal: AbortSignal): Promise<Stored<unknown> | undefined> {
    if (node.resource === undefined) return undefined;
    const { namespace, name, uid } = node.meta;
    const target = { resource: node.resource, namespace, name };
    const live = await findObject(this.#context.client, target, signal);
    return live?.metadata.uid === uid ? live : undefined;
  }

  async #collect(node: GraphNode, signal: AbortSignal): Promise<void> {
    const live = await this.#live(node, signal);
    if (live === undefined || node.resource === undefined) return;
    const meta = ownedMeta(live);
    if (meta.deleting) return;
    const verdicts: OwnerVerdict[] = [];
    for (const reference of meta.owners)
      verdicts.push({ reference, state: await this.#ownerState(reference, node, signal) });
    const dependents = this.#graph.dependents(meta.uid).map((dependent) => dependent.meta);
    const decision = decideCollection(meta, verdicts, dependents);
    if (decision.kind === "keep") return;
    if (decision.kind === "drop-references") {
      await this.#patchOwners(node, live, signal, (owners) =>
        owners.filter(({ uid }) => !decision.uids.includes(uid)),
      );
      return;
    }
    if (decision.unblock) {
      await this.#patchOwners(node, live, signal, (owners) =>
        owners.map((owner) => ({ ...owner, blockOwnerDeletion: false })),
      );
    }
    await deleteObject(this.#context.client, node.resource, meta, {
      uid: meta.uid,
      propagationPolicy: decision.policy,
      signal,
    });
    this.#context.logger.log("info", "object collected", {
      controller: this.name,
      object: this.#describe(meta.uid),
      policy: decision.policy,
    });
  }

  async #ownerState(
    reference: OwnerReference,
    dependent: GraphNode,
    signal: AbortSignal,
  ): Promise<OwnerState> {
    const known = this.#graph.get(reference.uid);
    if (known !== undefined) {
      if (!this.#sameIdentity(known, reference, dependent)) return "absent";
      return isDeletingDependents(known.meta) ? "waiting-for-dependents" : "solid";
    }
    if (this.#absent.has(reference.uid)) return "absent";
    const resource = this.#resourceOf(reference);
    // A kind that is not served (yet) may well have such an object: nothing is deleted on a guess.
    if (resource === undefined) return "solid";
    if (resource.namespaced && dependent.meta.namespace === "") {
      this.#warnInvalidOwner(reference, dependent);
      return "solid";
    }
    const target = {
      resource,
      namespace: dependent.meta.namespace,
      name: reference.name,
    };
    const live = await findObject(this.#context.client, target, signal);
    if (live?.metadata.uid !== reference.uid) {
      this.#absent.add(reference.uid);
      return "absent";
    }
    return isDeletingDependents(ownedMeta(live)) ? "waiting-for-dependents" : "solid";
  }

  /** A reference is a claim: the uid must belong to an object of that kind and name in reach. */
  #sameIdentity(known: GraphNode, reference: OwnerReference, dependent: GraphNode): boolean {
    const { meta, resource } = known;
    const group = reference.apiVersion.includes("/") ? reference.apiVersion.split("/")[0] : "";
    if (resource?.kind !== reference.kind || resource.group !== group) return false;
    if (meta.name !== reference.name) return false;
    if (meta.namespace === "" || meta.namespace === dependent.meta.namespace) return true;
    this.#warnInvalidOwner(reference, dependent);
    return false;
  }

  #warnInvalidOwner(reference: OwnerReference, dependent: GraphNode): void {
    const { meta, resource } = dependent;
    const key = `${meta.uid} ${reference.uid}`;
    if (resource === undefined || this.#warned.has(key)) return;
    this.#warned.add(key);
    this.#context.recorder.event(
      {
        kind: resource.kind,
        apiVersion:
          resource.group === "" ? resource.version : `${resource.group}/${resource.version}`,
        namespace: meta.namespace,
        name: meta.name,
        uid: meta.uid,
      },
      "Warning",
      "OwnerRefInvalidNamespace",
      `ownerRef [${reference.apiVersion}/${reference.kind}, namespace: ${meta.namespace}, name: ${reference.name}, uid: ${reference.uid}] does not exist in namespace "${meta.namespace}"`,
    );
  }

  #resourceOf(reference: OwnerReference): ServedResource | undefined {
    const slash = reference.apiVersion.indexOf("/");
    const group = slash < 0 ? "" : reference.apiVersion.slice(0, slash);
    for (const { resource } of this.#monitors.values())
      if (resource.kind === reference.kind && resource.group === group) return resource;
    return undefined;
  }

  /** Deletes the dependents of an owner in foreground deletion, and lets the owner go after them. */
  async #finishForeground(node: GraphNode, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const blocking = this.#graph.blockingDependents(node.meta.uid);
    if (blocking.length === 0) {
      await this.#removeFinalizer(node, "foregroundDeletion", signal);
      return;
    }
    for (const dependent of blocking) if (!dependent.meta.deleting) queue.add(dependent.meta.uid);
  }

  async #orphanDependents(node: GraphNode, signal: AbortSignal): Promise<void> {
    for (const dependent of this.#graph.dependents(node.meta.uid)) {
      const live = await this.#live(dependent, signal);
      if (live === undefined) continue;
      await this.#patchOwners(dependent, live, signal, (owners) =>
        owners.filter(({ uid }) => uid !== node.meta.uid),
      );
    }
    await this.#removeFinalizer(node, "orphan", signal);
  }

  async #patchOwners(
    node: GraphNode,
    live: Stored<unknown>,
    signal: AbortSignal,
    change: (owners: readonly OwnerReference[]) => readonly OwnerReference[],
  ): Promise<void> {
    const { resourceVersion, uid, ownerReferences } = live.metadata;
    const owners = change(ownerReferences ?? []);
    await this.#mergePatch(
      node,
      {
        metadata: { uid, resourceVersion, ownerReferences: owners.length === 0 ? null : owners },
      },
      signal,
    );
  }

  async #removeFinalizer(node: GraphNode, finalizer: string, signal: AbortSignal): Promise<void> {
    const live = await this.#live(node, signal);
    if (live === undefined) return;
    const { resourceVersion, uid } = live.metadata;
    const present = live.metadata.finalizers ?? [];
    if (!present.includes(finalizer)) return;
    const finalizers = present.filter((each) => each !== finalizer);
    await this.#mergePatch(
      node,
      {
        metadata: {
          uid,
          resourceVersion,
          finalizers: finalizers.length === 0 ? null : finalizers,
        },
      },
      signal,
    );
  }

  async #mergePatch(node: GraphNode, patch: unknown, signal: AbortSignal): Promise<void> {
    if (node.resource === undefined) return;
    const { namespace, name } = node.meta;
    try {
      await patchObject(
        this.#context.client,
        { resource: node.resource, namespace, name },
        patch,
        signal,
        "application/merge-patch+json",
      );
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }
}

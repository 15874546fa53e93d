import { isNotFound } from "../../../api/errors.ts";
import type { Change } from "../../../api/informer-types.ts";
import type { Stored } from "../../../api/object.ts";
import { controllerOf, keyOf } from "../../../api/object.ts";
import { DAEMON_SETS, PODS } from "../../../api/resources.ts";
import type {
  ControllerRevision,
  DaemonSet,
  DaemonSetStatus,
  Node,
} from "../../../api/types.gen.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { Expectations } from "../replication/expectations.ts";
import type { NamespaceIndex } from "../shared/by-namespace.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import { replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop, splitKey } from "../shared/controller.ts";
import { claimObjects, isNamespaceTerminating, ownerKeys } from "../shared/ownership.ts";
import type { PodOwner } from "../shared/pod-control.ts";
import { createPod, deletePod, firstFailure, ownedPod, slowStart } from "../shared/pod-control.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isTerminating } from "../shared/pod-state.ts";
import { eligibility } from "./eligibility.ts";
import { FailedPodBackoff } from "./failed-pod-backoff.ts";
import { HistoryKeeper } from "./history-keeper.ts";
import type { EndedPod, Observation, Plan } from "./plan.ts";
import { observe, planNodes, planUpdate } from "./plan.ts";
import { templateFor } from "./pods.ts";
import { computeStatus, nextAvailabilityMs } from "./status.ts";
import { parseDaemonSet } from "./view.ts";

/** Pods created or deleted in one sync at most; the rest follows in the next. */
const burst = 250;

interface Sync {
  readonly key: string;
  readonly object: Stored<DaemonSet>;
  readonly owner: PodOwner;
  readonly observation: Observation;
  readonly queue: KeyedQueue;
  readonly signal: AbortSignal;
}

/** Keeps one pod of each DaemonSet on every node that is meant for it. */
export class DaemonSetController implements Controller {
  readonly name = "daemonset";
  readonly #context: ControllerContext;
  readonly #history: HistoryKeeper;
  readonly #creations: Expectations;
  readonly #deletions: Expectations;
  readonly #backoff = new FailedPodBackoff();
  #pods: NamespaceIndex<StoredPod> | undefined;

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#history = new HistoryKeeper(context);
    this.#creations = new Expectations(() => context.clock.monotonic());
    this.#deletions = new Expectations(() => context.clock.monotonic());
  }

  async run(signal: AbortSignal): Promise<void> {
    const { daemonSets, controllerRevisions, pods, nodes } = this.#context.informers;
    await runQueueLoop(
      {
        name: this.name,
        context: this.#context,
        waitFor: [daemonSets, controllerRevisions, pods, nodes],
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
    const { daemonSets, controllerRevisions, pods, nodes } = this.#context.informers;
    return [
      daemonSets.subscribe((change) => {
        if (change.kind === "deleted") this.#forget(change.previous.metadata.uid);
        queue.add(change.key);
      }),
      pods.subscribe((change) => {
        const pod = change.kind === "deleted" ? change.previous : change.object;
        const owner = controllerOf(pod.metadata);
        if (owner !== undefined) {
          if (change.kind === "added" && !isTerminating(pod))
            this.#creations.creationObserved(owner.uid);
          if (change.kind === "deleted" || isTerminating(pod))
            this.#deletions.deletionObserved(owner.uid, pod.metadata.uid);
        }
        this.#wakeOwners(pod, queue);
        if (change.kind === "updated") this.#wakeOwners(change.previous, queue);
      }),
      controllerRevisions.subscribe((change) => {
        const revision = change.kind === "deleted" ? change.previous : change.object;
        // One that comes with its owner is ours, or was made by hand to be looked at.
        if (change.kind === "added" && controllerOf(revision.metadata) !== undefined) return;
        this.#wakeOwners(revision, queue);
      }),
      nodes.subscribe((change) => this.#wakeForNode(change, queue)),
    ];
  }

  #forget(uid: string): void {
    this.#creations.forget(uid);
    this.#deletions.forget(uid);
    this.#backoff.forget(uid);
  }

  /** Wakes the owner of a pod or revision, or, where there is none, every DaemonSet that would adopt it. */
  #wakeOwners({ metadata }: StoredPod | Stored<ControllerRevision>, queue: KeyedQueue): void {
    const keys = ownerKeys(metadata, {
      kind: DAEMON_SETS.kind,
      informer: this.#context.informers.daemonSets,
      selects: (daemonSet, labels) => parseDaemonSet(daemonSet).selects(labels),
    });
    for (const key of keys) queue.add(key);
  }

  /** A node's heartbeats concern nobody; its coming, going, labels and taints do. */
  #wakeForNode(change: Change<Stored<Node>>, queue: KeyedQueue): void {
    if (change.kind === "updated" && sameForDaemons(change.previous, change.object)) return;
    for (const daemonSet of this.#context.informers.daemonSets.values()) {
      if (change.kind !== "updated") {
        queue.add(keyOf(daemonSet));
        continue;
      }
      const view = parseDaemonSet(daemonSet);
      const [before, after] = [
        eligibility(view, change.previous),
        eligibility(view, change.object),
      ];
      const moved =
        before.shouldRun !== after.shouldRun || before.shouldContinue !== after.shouldContinue;
      if (moved || view.numberMisscheduled > 0) queue.add(keyOf(daemonSet));
    }
  }

  async #sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const { client, informers, clock, recorder } = this.#context;
    const object = informers.daemonSets.get(key);
    if (object === undefined) return;
    const view = parseDaemonSet(object);
    if (view.selectsAll) {
      const message = "This daemon set is selecting all pods. A non-empty selector is required.";
      recorder.event(eventTarget(DAEMON_SETS, object), "Warning", "SelectingAll", message);
      return;
    }
    // Its revisions may be gone already; nothing true can be said of it any more.
    if (view.deleting) return;
    const settled = this.#creations.satisfied(view.uid) && this.#deletions.satisfied(view.uid);
    const pods = await claimObjects(
      {
        client,
        claimant: view,
        ownerResource: DAEMON_SETS,
        resource: PODS,
        objects: this.#pods?.in(splitKey(key).namespace) ?? [],
      },
      signal,
    );
    const { hash, old } = await this.#history.ensureCurrent(object, view, pods, signal);
    const nodes = [...informers.nodes.values()];
    const observation = observe({ view, nodes, hash, now: clock.now() }, pods);
    const owner: PodOwner = { context: this.#context, resource: DAEMON_SETS, object };
    const sync: Sync = { key, object, owner, observation, queue, signal };
    let failure: Error | undefined;
    if (settled) {
      failure = await this.#act(sync);
      if (failure === undefined) await this.#history.prune(view, old, pods, signal);
    }
    await this.#writeStatus(object, computeStatus(observation, object, settled), signal);
    if (failure !== undefined) throw failure;
    const waitMs = nextAvailabilityMs(observation);
    if (waitMs !== undefined) queue.addAfter(key, waitMs);
  }

  /** One pod on each node first; an update goes on only where that is so. */
  async #act(sync: Sync): Promise<Error | undefined> {
    const plan = planNodes(sync.observation);
    const remove = [...plan.remove, ...this.#endedToRemove(sync, plan.ended)];
    if (plan.create.length + remove.length > 0)
      return this.#apply(sync, { create: plan.create, remove });
    return this.#apply(sync, planUpdate(sync.observation));
  }

  /** The ended pods that may be replaced now; for the others the key is woken later. */
  #endedToRemove(sync: Sync, ended: readonly EndedPod[]): readonly StoredPod[] {
    const { view, now } = sync.observation;
    const about = eventTarget(DAEMON_SETS, sync.object);
    const { recorder } = this.#context;
    return ended.flatMap(({ pod, node, phase }) => {
      const name = `${view.namespace}/${pod.metadata.name}`;
      if (phase === "Succeeded") {
        const message = `Found succeeded daemon pod ${name} on node ${node}, will try to delete it`;
        recorder.event(about, "Normal", "SucceededDaemonPod", message);
        return [pod];
      }
      const key = `${view.uid}/${view.observedGeneration}/${node}`;
      const waitMs = this.#backoff.next(key, now);
      if (waitMs > 0) {
        sync.queue.addAfter(sync.key, waitMs);
        return [];
      }
      const message = `Found failed daemon pod ${name} on node ${node}, will try to kill it`;
      recorder.event(about, "Warning", "FailedDaemonPod", message);
      return [pod];
    });
  }

  async #apply(sync: Sync, plan: Pick<Plan, "create" | "remove">): Promise<Error | undefined> {
    const { owner, observation, signal } = sync;
    const { view, hash } = observation;
    const nodes = plan.create.slice(0, burst);
    const remove = plan.remove.slice(0, burst);
    this.#creations.expectCreations(view.uid, nodes.length);
    this.#deletions.expectDeletions(
      view.uid,
      remove.map((pod) => pod.metadata.uid),
    );
    const { failures, skipped } = await slowStart(nodes, async (node) => {
      const pod = ownedPod(owner, templateFor(view, hash, node), `${view.name}-`);
      await createPod(owner, pod, signal);
    });
    // These will never be seen.
    for (let count = failures.length + skipped; count > 0; count -= 1)
      this.#creations.creationObserved(view.uid);
    const results = await Promise.allSettled(
      remove.map(async (pod) => {
        try {
          await deletePod(owner, pod, signal);
        } catch (error) {
          this.#deletions.deletionObserved(view.uid, pod.metadata.uid);
          throw error;
        }
      }),
    );
    return failures.find((error) => !isNamespaceTerminating(error)) ?? firstFailure(results);
  }

  async #writeStatus(
    object: Stored<DaemonSet>,
    status: DaemonSetStatus,
    signal: AbortSignal,
  ): Promise<void> {
    if (sameStatus(object.status, status)) return;
    const { namespace, name } = object.metadata;
    try {
      await replaceObject(
        this.#context.client,
        { resource: DAEMON_SETS, namespace, name, subresource: "status" },
        { ...object, status },
        signal,
      );
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }
}

function sameForDaemons(before: Stored<Node>, after: Stored<Node>): boolean {
  const relevant = ({ metadata, spec }: Stored<Node>): string =>
    JSON.stringify([metadata.labels ?? {}, spec?.taints ?? []]);
  return relevant(before) === relevant(after);
}

const numbers = [
  "currentNumberScheduled",
  "numberMisscheduled",
  "desiredNumberScheduled",
  "numberReady",
  "observedGeneration",
  "updatedNumberScheduled",
  "numberAvailable",
  "numberUnavailable",
] as const;

function sameStatus(current: DaemonSetStatus | undefined, wanted: DaemonSetStatus): boolean {
  return numbers.every((key) => (current?.[key] ?? 0) === (wanted[key] ?? 0));
}

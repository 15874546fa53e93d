import { setImmediate as nextTurn } from "node:timers/promises";

import type { ApiClient } from "../../api/client.ts";
import { ApiError } from "../../api/errors.ts";
import type { EventRecorder } from "../../api/event-types.ts";
import type { Change, Informer } from "../../api/informer-types.ts";
import { keyOf } from "../../api/object.ts";
import { PODS } from "../../api/resources.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { eventTarget } from "../controllers/shared/controller.ts";
import type { Informers } from "../controllers/shared/informers.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";
import { isPodTerminal, isTerminating } from "../controllers/shared/pod-state.ts";
import { bindPod } from "./bind-pod.ts";
import { ClusterCache } from "./cluster-cache.ts";
import type { ClusterEvent } from "./cluster-events.ts";
import { nodeEvents, podEvents } from "./cluster-events.ts";
import { evictVictims } from "./evict.ts";
import { Nominations } from "./nominations.ts";
import type { FitFailure } from "./place-pod.ts";
import { fitMessage, placePod } from "./place-pod.ts";
import type { PodInfo } from "./pod-info.ts";
import { podInfo } from "./pod-info.ts";
import type { DisruptionBudget } from "./preemption.ts";
import { findPreemption } from "./preemption.ts";
import type { Profile } from "./profiles.ts";
import { eventsThatHelp, profiles } from "./profiles.ts";
import type { UnschedulableReport } from "./report.ts";
import { eventMessage, patchStatus, reportUnschedulable } from "./report.ts";
import { SchedulingQueue } from "./scheduling-queue.ts";
import type { Snapshot, StoredNode } from "./snapshot.ts";
import { noStorage } from "./volumes/storage-view.ts";
import type { StorageInformers } from "./volumes/storage-events.ts";
import type { ReservedVolumes } from "./volumes/volume-binder.ts";
import { VolumeBinder } from "./volumes/volume-binder.ts";
import type { WorkloadSources } from "./workload-selectors.ts";
import { WorkloadSelectors } from "./workload-selectors.ts";

export interface SchedulerOptions {
  readonly client: ApiClient;
  readonly informers: Pick<
    Informers,
    "pods" | "nodes" | "namespaces" | "services" | "replicationControllers"
  >;
  /** Caches of volumes and claims. Without them no claim is ever found. */
  readonly storage?: StorageInformers;
  /** Other owners of copies, see {@link WorkloadSources}. */
  readonly owners?: WorkloadSources["owners"];
  /** What PodDisruptionBudgets allow at the moment. */
  readonly budgets?: () => readonly DisruptionBudget[];
  /** Must be filled before the first pod is placed, beside the caches above. */
  readonly waitFor?: readonly Pick<Informer<unknown>, "whenSynced">[];
  /** Events of a profile are reported under its name. */
  readonly recorderFor: (profile: string) => EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Ways to place pods; a pod whose `spec.schedulerName` is none of them is left alone. */
  readonly profiles?: readonly Profile[];
}

interface RunningProfile {
  readonly profile: Profile;
  readonly recorder: EventRecorder;
  /** The node chosen last. */
  previous: string | undefined;
}

/** How long decisions may follow one another before others get a turn, milliseconds. */
const sliceMs = 5;
/** Writes under way; more wait. */
const maxWrites = 16;

/** Gives pods a node through pods/binding. */
export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #profiles: ReadonlyMap<string, RunningProfile>;
  readonly #cache = new ClusterCache();
  readonly #nominations = new Nominations();
  readonly #queue: SchedulingQueue;
  readonly #writes = new Set<Promise<void>>();
  /** Pods that have a place and wait for their volumes. */
  readonly #waits = new Set<Promise<void>>();
  readonly #volumes: VolumeBinder | undefined;
  readonly #selectors: WorkloadSelectors;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#profiles = new Map(
      (options.profiles ?? profiles).map((profile) => [
        profile.name,
        { profile, recorder: options.recorderFor(profile.name), previous: undefined },
      ]),
    );
    this.#queue = new SchedulingQueue(options.clock);
    const { storage, informers } = options;
    if (storage !== undefined)
      this.#volumes = new VolumeBinder({ ...options, informers: { ...storage, ...informers } });
    this.#selectors = new WorkloadSelectors({
      ...options.informers,
      owners: options.owners ?? new Map(),
    });
  }

  /** Schedules until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, informers } = this.#options;
    const { pods, nodes, namespaces, services, replicationControllers } = informers;
    const caches: Pick<Informer<unknown>, "whenSynced">[] = [
      pods,
      nodes,
      namespaces,
      services,
      replicationControllers,
      ...(this.#options.owners?.values() ?? []),
      ...(this.#volumes?.caches ?? []),
      ...(this.#options.waitFor ?? []),
    ];
    try {
      await Promise.all(caches.map((each) => each.whenSynced(signal)));
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    const unsubscribe = this.#subscribe();
    let sliceEnd = clock.monotonic() + sliceMs;
    while (!signal.aborted) {
      const key = await this.#queue.next(signal);
      if (key !== undefined) this.#scheduleOne(key, signal);
      while (this.#writes.size >= maxWrites) await Promise.race(this.#writes);
      if (clock.monotonic() < sliceEnd) continue;
      await nextTurn();
      sliceEnd = clock.monotonic() + sliceMs;
    }
    for (const end of unsubscribe) end();
    await Promise.all([...this.#writes, ...this.#waits]);
  }

  #subscribe(): readonly (() => void)[] {
    const { pods, nodes, namespaces } = this.#options.informers;
    return [
      ...(this.#volumes?.subscribe((events) => this.#queue.happened(events)) ?? []),
      () => this.#selectors.close(),
      nodes.subscribe((change) => this.#guarded(change.key, () => this.#nodeChanged(change))),
      namespaces.subscribe((change) => {
        if (change.kind === "updated") this.#queue.happened(["namespace-labels"]);
      }),
      pods.subscribe((change) =>
        this.#guarded(change.key, () => {
          if (change.kind === "deleted") this.#podDeleted(change.key, change.previous);
          else
            this.#podChanged(
              change.object,
              change.kind === "updated" ? change.previous : undefined,
            );
        }),
      ),
    ];
  }

  /** An object that cannot be read is left out; it must not end the stream that brought it. */
  #guarded(key: string, apply: () => void): void {
    try {
      apply();
    } catch (error) {
      const fields = { key, error: errorMessage(error) };
      this.#options.logger.log("error", "object not understood by the scheduler", fields);
    }
  }

  #nodeChanged(change: Change<StoredNode>): void {
    if (change.kind === "deleted") {
      this.#cache.removeNode(change.key);
      this.#queue.happened(["node-removed"]);
      return;
    }
    this.#cache.setNode(change.object);
    this.#queue.happened(
      change.kind === "added" ? ["node-added"] : nodeEvents(change.object, change.previous),
    );
  }

  #podDeleted(key: string, previous: StoredPod): void {
    this.#queue.remove(key);
    this.#cache.removePod(key);
    this.#volumes?.wake();
    const nominated = this.#nominations.nodeOf(previous) !== undefined;
    this.#nominations.remove(key);
    // Who hoped for a node kept others from it.
    if (nominated || (previous.spec?.nodeName ?? "") !== "") this.#queue.happened(["pod-left"]);
  }

  #podChanged(pod: StoredPod, before: StoredPod | undefined): void {
    const key = keyOf(pod);
    const wasAssumed = this.#cache.isAssumed(pod);
    this.#cache.setPod(pod);
    this.#nominations.observe(pod, before);
    if ((pod.spec?.nodeName ?? "") !== "") {
      this.#queue.remove(key);
      this.#queue.happened(podEvents(pod, before));
      return;
    }
    if (!this.#isWaiting(pod)) {
      this.#queue.remove(key);
      this.#nominations.remove(key);
      return;
    }
    if (wasAssumed) return;
    // Our own status writes come back as updates; only a changed pod deserves another try at once.
    const same =
      before !== undefined &&
      before.metadata.uid === pod.metadata.uid &&
      JSON.stringify(before.metadata.labels) === JSON.stringify(pod.metadata.labels) &&
      JSON.stringify(before.spec) === JSON.stringify(pod.spec);
    if (!same || !this.#queue.has(key)) this.#queue.add(key, pod.spec?.priority ?? 0);
  }

  #isWaiting(pod: StoredPod): boolean {
    return (
      (pod.spec?.nodeName ?? "") === "" &&
      !isTerminating(pod) &&
      !isPodTerminal(pod) &&
      (pod.spec?.schedulingGates ?? []).length === 0 &&
      this.#profileOf(pod) !== undefined
    );
  }

  #profileOf(pod: StoredPod): RunningProfile | undefined {
    return this.#profiles.get(pod.spec?.schedulerName ?? "default-scheduler");
  }

  #snapshot(): Snapshot {
    const { clock, informers } = this.#options;
    for (const key of this.#cache.expire(clock.monotonic())) {
      const pod = informers.pods.get(key);
      if (pod !== undefined && this.#isWaiting(pod)) this.#queue.add(key, pod.spec?.priority ?? 0);
    }
    return {
      nodes: this.#cache.nodes(),
      nominated: this.#nominations.byNode(),
      namespaceLabels: (name) => {
        const namespace = informers.namespaces.get(name);
        return namespace === undefined ? undefined : (namespace.metadata.labels ?? {});
      },
      workloadSelector: (pod) => this.#selectors.selectorOf(pod),
      nodesWithImage: (name) => this.#cache.nodesWithImage(name),
      storage: this.#volumes?.view ?? noStorage,
    };
  }

  #scheduleOne(key: string, signal: AbortSignal): void {
    const { informers, random, logger } = this.#options;
    const pod = informers.pods.get(key);
    const running = pod === undefined ? undefined : this.#profileOf(pod);
    if (pod === undefined || running === undefined || !this.#isWaiting(pod)) {
      this.#queue.remove(key);
      return;
    }
    if (this.#cache.isAssumed(pod)) return;
    try {
      const snapshot = this.#snapshot();
      const info = podInfo(pod);
      const nominated = this.#nominations.nodeOf(pod);
      const turn = { random, previous: running.previous };
      const placement = placePod(info, snapshot, running.profile, turn, nominated);
      if (placement.kind === "node") {
        const { node } = placement;
        const reserved = this.#volumes?.reserve(info, node);
        running.previous = node;
        this.#cache.assume(info, node);
        this.#nominations.remove(key);
        // Binding may wait for the disk; the next pod need not.
        if (reserved === undefined) this.#write(this.#bind(pod, node, running.recorder, signal));
        else this.#await(this.#waits, this.#bindWithVolumes(running, pod, reserved, signal));
      } else if (placement.kind === "no-nodes") {
        this.#nominations.remove(key);
        this.#queue.unschedulable(key, new Set(["node-added"]));
        const message = "no nodes available to schedule pods";
        this.#report(running, pod, { message, nominated: "" }, signal);
      } else this.#makeRoom(running, info, { snapshot, failure: placement.failure }, signal);
    } catch (error) {
      // A pod or a node that cannot be read must not keep the others from being scheduled.
      logger.log("error", "scheduling failed, will retry", {
        pod: key,
        error: errorMessage(error),
      });
      this.#queue.retry(key);
    }
  }

  /** Nothing fits: other pods may have to leave. */
  #makeRoom(
    running: RunningProfile,
    info: PodInfo,
    found: { readonly snapshot: Snapshot; readonly failure: FitFailure },
    signal: AbortSignal,
  ): void {
    const { random, clock, budgets } = this.#options;
    const { pod } = info;
    const key = keyOf(pod);
    const { snapshot, failure } = found;
    const preemption = findPreemption({
      pod: info,
      snapshot,
      failure,
      nominated: this.#nominations.nodeOf(pod),
      budgets: budgets?.() ?? [],
      random,
      now: clock.now(),
    });
    const helpedBy = eventsThatHelp(running.profile, info, failure.plugins);
    const message = fitMessage(failure);
    if (preemption.kind === "node") {
      const { node, victims } = preemption;
      this.#nominations.set(info, node);
      this.#report(running, pod, { message, nominated: node }, signal);
      this.#write(this.#evict(running, info, { node, victims, helpedBy }, signal));
      return;
    }
    if (preemption.renounce) this.#nominations.remove(key);
    this.#queue.unschedulable(key, helpedBy);
    const report = {
      message: `${message} ${preemption.message}`,
      nominated: preemption.renounce ? "" : undefined,
    };
    this.#report(running, pod, report, signal);
  }

  async #evict(
    running: RunningProfile,
    info: PodInfo,
    plan: {
      readonly node: string;
      readonly victims: readonly PodInfo[];
      readonly helpedBy: ReadonlySet<ClusterEvent>;
    },
    signal: AbortSignal,
  ): Promise<void> {
    const { node, victims, helpedBy } = plan;
    const { recorder, profile } = running;
    const key = keyOf(info.pod);
    const { client, logger } = this.#options;
    try {
      // They hoped for the same room; without it they may find another.
      for (const other of this.#nominations.lessImportant(node, info.priority)) {
        this.#nominations.remove(keyOf(other.pod));
        await patchStatus(client, other.pod, { nominatedNodeName: null }, signal);
        if (this.#queue.has(keyOf(other.pod))) this.#queue.add(keyOf(other.pod), other.priority);
      }
      const eviction = { preemptor: info, scheduler: profile.name, node, victims };
      await evictVictims({ ...this.#options, recorder }, eviction, signal);
      this.#queue.unschedulable(key, helpedBy);
    } catch (error) {
      if (isAbort(error) && signal.aborted) return;
      logger.log("warn", "preemption failed, will retry", { pod: key, error: errorMessage(error) });
      this.#queue.retry(key);
    }
  }

  #report(
    running: RunningProfile,
    pod: StoredPod,
    report: UnschedulableReport,
    signal: AbortSignal,
  ): void {
    const target = eventTarget(PODS, pod);
    running.recorder.event(target, "Warning", "FailedScheduling", eventMessage(report.message));
    this.#write(reportUnschedulable(this.#options, pod, report, signal));
  }

  async #bind(
    pod: StoredPod,
    node: string,
    recorder: EventRecorder,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, clock, logger } = this.#options;
    const key = keyOf(pod);
    try {
      await bindPod(client, pod, node, signal);
      this.#cache.bound(pod, clock.monotonic());
      recorder.event(
        eventTarget(PODS, pod),
        "Normal",
        "Scheduled",
        `Successfully assigned ${key} to ${node}`,
      );
    } catch (error) {
      if (isAbort(error) && signal.aborted) return;
      this.#unplace(pod);
      // Gone, or bound by somebody else: its watch event says so.
      if (error instanceof ApiError && [404, 409].includes(error.status)) return;
      logger.log("warn", "binding failed, will retry", { pod: key, error: errorMessage(error) });
      recorder.event(
        eventTarget(PODS, pod),
        "Warning",
        "FailedScheduling",
        eventMessage(`binding rejected: ${errorMessage(error)}`),
      );
    }
  }

  /** The pod did not get the place it was given: it is tried again, and its room is free for others. */
  #unplace(pod: StoredPod): void {
    this.#cache.forget(pod);
    this.#queue.retry(keyOf(pod));
    this.#queue.happened(["pod-left"]);
  }

  /** The pod holds its place until its volumes are bound, and loses it when they cannot be. */
  async #bindWithVolumes(
    running: RunningProfile,
    pod: StoredPod,
    reserved: ReservedVolumes,
    signal: AbortSignal,
  ): Promise<void> {
    const { informers, logger } = this.#options;
    const key = keyOf(pod);
    try {
      await this.#volumes?.bind(pod, reserved, signal);
    } catch (error) {
      if (isAbort(error) && signal.aborted) return;
      this.#volumes?.release(reserved);
      this.#unplace(pod);
      if (informers.pods.get(key)?.metadata.uid !== pod.metadata.uid) return;
      const message = `running PreBind plugin "VolumeBinding": ${errorMessage(error)}`;
      logger.log("warn", "volumes not bound, will retry", { pod: key, error: errorMessage(error) });
      this.#report(running, pod, { message, nominated: "", reason: "SchedulerError" }, signal);
      return;
    }
    await this.#bind(pod, reserved.node, running.recorder, signal);
  }

  #write(write: Promise<void>): void {
    this.#await(this.#writes, write);
  }

  /** Keeps what is under way in sight; it must not reject. */
  #await(among: Set<Promise<void>>, work: Promise<void>): void {
    const known = work.finally(() => among.delete(known));
    among.add(known);
  }
}

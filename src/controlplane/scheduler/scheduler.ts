import type { ApiClient } from "../../api/client.ts";
import { ApiError } from "../../api/errors.ts";
import type { EventRecorder } from "../../api/event-types.ts";
import { keyOf } from "../../api/object.ts";
import { objectPath } from "../../api/resource.ts";
import { NODES, PODS } from "../../api/resources.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { patchObject } from "../controllers/shared/calls.ts";
import { eventTarget } from "../controllers/shared/controller.ts";
import type { Informers } from "../controllers/shared/informers.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";
import {
  formatTime,
  isPodTerminal,
  isTerminating,
  podCondition,
} from "../controllers/shared/pod-state.ts";
import type { Profile } from "./place-pod.ts";
import { defaultProfile, placePod } from "./place-pod.ts";
import { SchedulingQueue } from "./scheduling-queue.ts";
import type { StoredNode } from "./snapshot.ts";
import { ClusterCache } from "./snapshot.ts";

export interface SchedulerOptions {
  readonly client: ApiClient;
  readonly informers: Pick<Informers, "pods" | "nodes" | "namespaces">;
  readonly recorder: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Profiles by `spec.schedulerName`; pods that name another one are left alone. */
  readonly profiles?: ReadonlyMap<string, Profile>;
}

/** What of a node matters to pods that wait; heartbeats do not. */
function schedulingFacts(node: StoredNode): string {
  return JSON.stringify([
    node.metadata.labels,
    node.spec?.taints,
    node.spec?.unschedulable,
    node.status?.allocatable,
  ]);
}

/** Gives pods a node through pods/binding. */
export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #profiles: ReadonlyMap<string, Profile>;
  readonly #cache = new ClusterCache();
  readonly #queue: SchedulingQueue;
  readonly #bindings = new Set<Promise<void>>();

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#profiles = options.profiles ?? new Map([["default-scheduler", defaultProfile]]);
    this.#queue = new SchedulingQueue(options.clock);
  }

  /** Schedules until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { pods, nodes, namespaces } = this.#options.informers;
    try {
      await Promise.all([pods, nodes, namespaces].map((each) => each.whenSynced(signal)));
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    const unsubscribe = this.#subscribe();
    while (!signal.aborted) {
      const key = await this.#queue.next(signal);
      if (key !== undefined) await this.#scheduleOne(key, signal);
    }
    for (const end of unsubscribe) end();
    await Promise.all(this.#bindings);
  }

  #subscribe(): readonly (() => void)[] {
    const { pods, nodes } = this.#options.informers;
    return [
      nodes.subscribe((change) => {
        if (change.kind === "deleted") {
          this.#cache.removeNode(change.key);
          return;
        }
        this.#cache.setNode(change.object);
        if (
          change.kind === "added" ||
          schedulingFacts(change.object) !== schedulingFacts(change.previous)
        ) {
          this.#queue.clusterChanged();
        }
      }),
      pods.subscribe((change) => {
        if (change.kind === "deleted") {
          this.#queue.remove(change.key);
          this.#cache.removePod(change.key);
          if ((change.previous.spec?.nodeName ?? "") !== "") this.#queue.clusterChanged();
          return;
        }
        const before = change.kind === "updated" ? change.previous : undefined;
        this.#podChanged(change.object, before);
      }),
    ];
  }

  #podChanged(pod: StoredPod, before: StoredPod | undefined): void {
    const key = keyOf(pod);
    this.#cache.setPod(pod);
    if (!this.#isWaiting(pod)) {
      this.#queue.remove(key);
      const wasBound = (before?.spec?.nodeName ?? "") !== "";
      // A pod arrived (affinity), stopped (room) or was relabelled (affinity).
      if (
        !wasBound ||
        (before !== undefined && isPodTerminal(pod) !== isPodTerminal(before)) ||
        JSON.stringify(pod.metadata.labels) !== JSON.stringify(before?.metadata.labels)
      ) {
        this.#queue.clusterChanged();
      }
      return;
    }
    if (this.#cache.isAssumed(pod)) return;
    // Our own status writes come back as updates; only a changed pod deserves another try at once.
    const same =
      before !== undefined &&
      before.metadata.uid === pod.metadata.uid &&
      before.metadata.generation === pod.metadata.generation &&
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
      this.#profiles.has(pod.spec?.schedulerName ?? "default-scheduler")
    );
  }

  async #scheduleOne(key: string, signal: AbortSignal): Promise<void> {
    const { informers, random } = this.#options;
    const pod = informers.pods.get(key);
    const profile = this.#profiles.get(pod?.spec?.schedulerName ?? "default-scheduler");
    if (pod === undefined || profile === undefined || !this.#isWaiting(pod)) {
      this.#queue.remove(key);
      return;
    }
    const snapshot = this.#cache.snapshot(
      (name) => informers.namespaces.get(name)?.metadata.labels ?? {},
    );
    const placement = placePod(pod, snapshot, profile, random);
    if (placement.kind === "unschedulable") {
      this.#queue.unschedulable(key);
      await this.#reportUnschedulable(pod, placement.message, signal);
      return;
    }
    this.#cache.assume(pod, placement.node);
    // Binding may wait for the disk; the next pod need not.
    const binding = this.#bind(pod, placement.node, signal).finally(() => {
      this.#bindings.delete(binding);
    });
    this.#bindings.add(binding);
  }

  async #bind(pod: StoredPod, node: string, signal: AbortSignal): Promise<void> {
    const { client, recorder, logger } = this.#options;
    const { namespace, name, uid } = pod.metadata;
    const key = keyOf(pod);
    try {
      await client.request({
        method: "POST",
        path: objectPath(PODS, { namespace, name }, "binding"),
        body: {
          apiVersion: "v1",
          kind: "Binding",
          metadata: { namespace, name, uid },
          target: { apiVersion: "v1", kind: NODES.kind, name: node },
        },
        signal,
      });
      recorder.event(
        eventTarget(PODS, pod),
        "Normal",
        "Scheduled",
        `Successfully assigned ${key} to ${node}`,
      );
    } catch (error) {
      this.#cache.forget(pod);
      if (isAbort(error) && signal.aborted) return;
      // Gone, or bound by somebody else: its watch event says so.
      if (error instanceof ApiError && [404, 409].includes(error.status)) {
        this.#queue.retry(key);
        return;
      }
      logger.log("warn", "binding failed, will retry", { pod: key, error: errorMessage(error) });
      this.#queue.retry(key);
      recorder.event(
        eventTarget(PODS, pod),
        "Warning",
        "FailedScheduling",
        `binding rejected: ${errorMessage(error)}`,
      );
    }
  }

  async #reportUnschedulable(pod: StoredPod, message: string, signal: AbortSignal): Promise<void> {
    const { client, clock, logger, recorder } = this.#options;
    recorder.event(eventTarget(PODS, pod), "Warning", "FailedScheduling", message);
    const current = podCondition(pod, "PodScheduled");
    if (
      current?.status === "False" &&
      current.reason === "Unschedulable" &&
      current.message === message
    ) {
      return;
    }
    const { namespace, name, uid, generation } = pod.metadata;
    const condition = {
      type: "PodScheduled",
      status: "False",
      reason: "Unschedulable",
      message,
      lastTransitionTime:
        current?.status === "False" ? current.lastTransitionTime : formatTime(clock.now()),
      ...(generation === undefined ? {} : { observedGeneration: generation }),
    };
    try {
      await patchObject(
        client,
        { resource: PODS, namespace, name, subresource: "status" },
        { metadata: { uid }, status: { conditions: [condition] } },
        signal,
      );
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && [404, 409].includes(error.status)) return;
      logger.log("warn", "pod condition not written", {
        pod: keyOf(pod),
        error: errorMessage(error),
      });
    }
  }
}

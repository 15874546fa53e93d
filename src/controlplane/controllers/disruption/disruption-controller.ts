import { isDeepStrictEqual } from "node:util";

import { ApiError } from "../../../api/errors.ts";
import { PODS, POD_DISRUPTION_BUDGETS } from "../../../api/resources.ts";
import { matchesSelector } from "../../../api/selectors.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { indexByNamespace } from "../shared/by-namespace.ts";
import type { NamespaceIndex } from "../shared/by-namespace.ts";
import { patchObject, replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop, splitKey } from "../shared/controller.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { formatTime } from "../shared/pod-state.ts";
import type { OwnerScale, StoredBudget } from "./decide.ts";
import {
  budgetStatus,
  expectation,
  failedStatus,
  pendingDisruptions,
  staleDisruptionMs,
} from "./decide.ts";

/** Keys of pods whose DisruptionTarget may have to be taken back; budgets have plain keys. */
const podPrefix = "pod:";

/** Kinds that own pods but have no scale subresource. */
const unscalable: Readonly<Record<string, string>> = {
  "apps/v1/DaemonSet": "daemonsets.apps",
  "batch/v1/Job": "jobs.batch",
};

/** Keeps the status of PodDisruptionBudgets, and takes back DisruptionTarget conditions that nobody followed up. */
export function disruptionController(context: ControllerContext): Controller {
  return new DisruptionController(context);
}

class DisruptionController implements Controller {
  readonly name = "disruption";
  readonly #context: ControllerContext;
  readonly #pods: NamespaceIndex<StoredPod>;
  readonly #budgets: NamespaceIndex<StoredBudget>;

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#pods = indexByNamespace(context.informers.pods);
    this.#budgets = indexByNamespace(context.informers.podDisruptionBudgets);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { informers } = this.#context;
    const { pods, podDisruptionBudgets: budgets } = informers;
    const { replicationControllers, replicaSets, deployments } = informers;
    await runQueueLoop(
      {
        name: this.name,
        context: this.#context,
        waitFor: [pods, budgets, replicationControllers, replicaSets, deployments],
        sync: async (key, queue, stop) =>
          key.startsWith(podPrefix)
            ? this.#clearStale(key.slice(podPrefix.length), queue, stop)
            : this.#syncBudget(key, queue, stop),
        subscribe: (queue) => this.#subscribe(queue),
      },
      signal,
    );
    this.#pods.close();
    this.#budgets.close();
  }

  #subscribe(queue: KeyedQueue): readonly (() => void)[] {
    const { pods, podDisruptionBudgets, replicationControllers, replicaSets, deployments } =
      this.#context.informers;
    const wakeNamespace = (change: { readonly key: string }): void => {
      for (const each of this.#budgets.in(splitKey(change.key).namespace)) queue.add(keyOf(each));
    };
    return [
      podDisruptionBudgets.subscribe((change) => queue.add(change.key)),
      pods.subscribe((change) => {
        for (const pod of [
          ...(change.kind === "deleted" ? [] : [change.object]),
          ...(change.kind === "added" ? [] : [change.previous]),
        ])
          for (const budget of this.#budgets.in(pod.metadata.namespace ?? ""))
            if (selects(budget, pod)) queue.add(keyOf(budget));
        if (
          change.kind !== "deleted" &&
          staleDisruptionMs(change.object, this.#context.clock.now()) !== undefined
        )
          queue.add(podPrefix + change.key);
      }),
      // Their number of copies is what percentages are of.
      replicationControllers.subscribe(wakeNamespace),
      replicaSets.subscribe(wakeNamespace),
      deployments.subscribe(wakeNamespace),
    ];
  }

  async #syncBudget(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const { informers, clock, recorder } = this.#context;
    const budget = informers.podDisruptionBudgets.get(key);
    if (budget === undefined) return;
    const { namespace = "" } = budget.metadata;
    const pods = [...this.#pods.in(namespace)].filter((pod) => selects(budget, pod));
    const target = eventTarget(POD_DISRUPTION_BUDGETS, budget);
    if (pods.length === 0) recorder.event(target, "Normal", "NoPods", "No matching pods found");
    const now = clock.now();
    const expected = expectation(budget, pods, (pod) => this.#scaleOf(pod));
    if (typeof expected === "string") {
      const message = `Failed to calculate the number of expected pods: ${expected}`;
      recorder.event(target, "Warning", "CalculateExpectedPodCountFailed", message);
      await this.#write(budget, failedStatus(budget, expected, now), signal);
      return;
    }
    if (expected.unmanaged)
      recorder.event(
        target,
        "Warning",
        "UnmanagedPods",
        'Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set ".spec.minAvailable" field of the PDB to an integer value.',
      );
    const { overdue, recheckMs } = pendingDisruptions(budget, pods, now);
    for (const pod of overdue)
      recorder.event(
        eventTarget(PODS, pod),
        "Warning",
        "NotDeleted",
        `Pod was expected by PDB ${key} to be deleted but it wasn't`,
      );
    await this.#write(budget, budgetStatus(budget, pods, expected, now), signal);
    if (recheckMs !== undefined) queue.addAfter(key, recheckMs + 1000);
  }

  async #write(
    budget: StoredBudget,
    status: NonNullable<StoredBudget["status"]>,
    signal: AbortSignal,
  ): Promise<void> {
    // Compared as the API keeps them: without members that are undefined.
    if (isDeepStrictEqual(plain(budget.status), plain(status))) return;
    const { namespace, name } = budget.metadata;
    const target = { resource: POD_DISRUPTION_BUDGETS, namespace, name, subresource: "status" };
    // The resourceVersion is a lock: an eviction in between takes from the budget.
    await replaceObject(this.#context.client, target, { ...budget, status }, signal);
  }

  #scaleOf(pod: StoredPod): OwnerScale {
    const { namespace = "", name, ownerReferences = [] } = pod.metadata;
    const owner = ownerReferences.find(({ controller }) => controller === true);
    if (owner === undefined) return { kind: "unmanaged" };
    const { replicationControllers, replicaSets, deployments } = this.#context.informers;
    const kind = `${owner.apiVersion}/${owner.kind}`;
    const without = unscalable[kind];
    if (without !== undefined)
      return { kind: "unknown", message: `${without} does not implement the scale subresource` };
    const key = `${namespace}/${owner.name}`;
    const direct =
      kind === "v1/ReplicationController"
        ? replicationControllers.get(key)
        : kind === "apps/v1/ReplicaSet"
          ? replicaSets.get(key)
          : undefined;
    const unknown = { kind: "unknown" as const, message: `found no controllers for pod "${name}"` };
    if (direct === undefined || direct.metadata.uid !== owner.uid) return unknown;
    const above = direct.metadata.ownerReferences?.find(({ controller }) => controller === true);
    const top =
      above?.kind === "Deployment" ? deployments.get(`${namespace}/${above.name}`) : direct;
    if (top === undefined || (above?.kind === "Deployment" && top.metadata.uid !== above.uid))
      return unknown;
    return { kind: "scale", uid: top.metadata.uid, replicas: top.spec?.replicas ?? 1 };
  }

  async #clearStale(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const { client, informers, clock } = this.#context;
    const pod = informers.pods.get(key);
    if (pod === undefined) return;
    const left = staleDisruptionMs(pod, clock.now());
    if (left === undefined) return;
    if (left > 0) {
      queue.addAfter(podPrefix + key, left);
      return;
    }
    const { namespace, name, uid } = pod.metadata;
    const condition = {
      type: "DisruptionTarget",
      status: "False",
      reason: null,
      message: null,
      lastProbeTime: null,
      lastTransitionTime: formatTime(clock.now()),
    };
    try {
      await patchObject(
        client,
        { resource: PODS, namespace, name, subresource: "status" },
        { metadata: { uid }, status: { conditions: [condition] } },
        signal,
      );
    } catch (error) {
      if (error instanceof ApiError && [404, 409].includes(error.status)) return;
      throw error;
    }
  }
}

function keyOf({ metadata }: StoredBudget): string {
  return `${metadata.namespace ?? ""}/${metadata.name}`;
}

/** policy/v1: no selector selects nothing, an empty one every pod of the namespace. */
function selects(budget: StoredBudget, pod: StoredPod): boolean {
  return matchesSelector(budget.spec?.selector, pod.metadata.labels);
}

function plain(value: unknown): unknown {
  return value === undefined ? undefined : (JSON.parse(JSON.stringify(value)) as unknown);
}

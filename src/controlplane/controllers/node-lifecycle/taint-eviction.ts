import { ApiError } from "../../../api/errors.ts";
import { keyOf } from "../../../api/object.ts";
import { PODS } from "../../../api/resources.ts";
import { tolerates } from "../../../api/tolerations.ts";
import type { Taint, Toleration } from "../../../api/types.gen.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import { deleteObject } from "../../../api/objects.ts";
import { patchObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { eventTarget, runQueueLoop } from "../shared/controller.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { formatTime, isTerminating, podCondition, timeMs } from "../shared/pod-state.ts";
import type { StoredNode } from "./health.ts";

/** When a pod has to leave its node for the sake of NoExecute taints: wall clock ms, or never. */
export type EvictionTime =
  | { readonly kind: "never" }
  | { readonly kind: "at"; readonly time: number };

/**
 * The pod leaves at once when one taint is not tolerated, else when the shortest `tolerationSeconds` has passed. It is
 * counted from the taint's `timeAdded` (or the pod's arrival, if later), so that a restart neither prolongs nor
 * shortens it.
 */
export function evictionTime(
  taints: readonly Taint[],
  tolerations: readonly Toleration[],
  pod: { readonly arrivedAt: number },
): EvictionTime {
  let earliest = Infinity;
  for (const taint of taints) {
    if (taint.effect !== "NoExecute") continue;
    const matching = tolerations.filter((toleration) => tolerates(toleration, taint));
    if (matching.length === 0) return { kind: "at", time: 0 };
    const seconds = matching.flatMap(({ tolerationSeconds }) => tolerationSeconds ?? []);
    if (seconds.length === 0) continue;
    const from = Math.max(timeMs(taint.timeAdded) ?? 0, pod.arrivedAt);
    earliest = Math.min(earliest, from + Math.max(0, Math.min(...seconds)) * 1000);
  }
  return earliest === Infinity ? { kind: "never" } : { kind: "at", time: earliest };
}

function arrivedAt(pod: StoredPod): number {
  const scheduled = timeMs(podCondition(pod, "PodScheduled")?.lastTransitionTime);
  return scheduled ?? timeMs(pod.metadata.creationTimestamp) ?? 0;
}

function noExecuteTaints(node: StoredNode | undefined): readonly Taint[] {
  return (node?.spec?.taints ?? []).filter(({ effect }) => effect === "NoExecute");
}

/** Deletes pods that do not tolerate their node's NoExecute taints. */
export function taintEvictionController(context: ControllerContext): Controller {
  const { informers, client, clock, recorder } = context;
  const waiting = new Set<string>();
  /** Pods by node, so that a taint wakes only the pods it concerns. */
  const byNode = new Map<string, Set<string>>();

  async function sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const pod = informers.pods.get(key);
    const nodeName = pod?.spec?.nodeName ?? "";
    if (pod === undefined || nodeName === "" || isTerminating(pod)) {
      waiting.delete(key);
      queue.forget(key);
      return;
    }
    const taints = noExecuteTaints(informers.nodes.get(nodeName));
    const when = evictionTime(taints, pod.spec?.tolerations ?? [], { arrivedAt: arrivedAt(pod) });
    if (when.kind === "never") {
      queue.forget(key);
      if (waiting.delete(key))
        recorder.event(
          eventTarget(PODS, pod),
          "Normal",
          "TaintManagerEviction",
          `Cancelling deletion of Pod ${key}`,
        );
      return;
    }
    const inMs = when.time - clock.now();
    if (inMs > 0) {
      waiting.add(key);
      queue.addAfter(key, inMs);
      return;
    }
    waiting.delete(key);
    await evict(pod, signal);
  }

  async function evict(pod: StoredPod, signal: AbortSignal): Promise<void> {
    const { namespace, name, uid } = pod.metadata;
    const target = { resource: PODS, namespace, name };
    recorder.event(
      eventTarget(PODS, pod),
      "Normal",
      "TaintManagerEviction",
      `Marking for deletion Pod ${keyOf(pod)}`,
    );
    try {
      const condition = {
        type: "DisruptionTarget",
        status: "True",
        reason: "DeletionByTaintManager",
        message: "Taint manager: deleting due to NoExecute taint",
        lastTransitionTime: formatTime(clock.now()),
      };
      await patchObject(
        client,
        { ...target, subresource: "status" },
        { metadata: { uid }, status: { conditions: [condition] } },
        signal,
      );
      await deleteObject(client, PODS, target, { uid, signal });
    } catch (error) {
      // Gone, or another pod of that name: either way this one has left.
      if (error instanceof ApiError && [404, 409].includes(error.status)) return;
      throw error;
    }
  }

  function track(pod: StoredPod, present: boolean): void {
    const nodeName = pod.spec?.nodeName ?? "";
    if (nodeName === "") return;
    const keys = byNode.get(nodeName) ?? new Set<string>();
    if (present) keys.add(keyOf(pod));
    else keys.delete(keyOf(pod));
    if (keys.size === 0) byNode.delete(nodeName);
    else byNode.set(nodeName, keys);
  }

  return {
    name: "taint-eviction",
    run: (signal) =>
      runQueueLoop(
        {
          name: "taint-eviction",
          context,
          waitFor: [informers.pods, informers.nodes],
          sync: (key, queue) => sync(key, queue, signal),
          subscribe: (queue) => [
            informers.pods.subscribe((change) => {
              if (change.kind !== "added") track(change.previous, false);
              if (change.kind !== "deleted") track(change.object, true);
              const pod = change.kind === "deleted" ? change.previous : change.object;
              const tainted = noExecuteTaints(informers.nodes.get(pod.spec?.nodeName ?? ""));
              if (tainted.length > 0 || waiting.has(change.key)) queue.add(change.key);
            }),
            informers.nodes.subscribe((change) => {
              const now = change.kind === "deleted" ? [] : noExecuteTaints(change.object);
              const before = change.kind === "added" ? [] : noExecuteTaints(change.previous);
              if (JSON.stringify(now) === JSON.stringify(before)) return;
              for (const key of byNode.get(change.key) ?? []) queue.add(key);
            }),
          ],
        },
        signal,
      ),
  };
}

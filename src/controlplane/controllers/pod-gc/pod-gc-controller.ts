import { ApiError } from "../../../api/errors.ts";
import { keyOf } from "../../../api/object.ts";
import { NODES, PODS } from "../../../api/resources.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { deleteObject } from "../../../api/objects.ts";
import { findObject, patchObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runPeriodically } from "../shared/controller.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { formatTime, isPodTerminal, isTerminating, timeMs } from "../shared/pod-state.ts";

/** Terminated pods that are kept for people to read (--terminated-pod-gc-threshold). */
export const terminatedPodThreshold = 12_500;
const periodMs = 20_000;
/** How long a node must be missing before its pods count as orphans: it may be re-registering. */
const quarantineMs = 40_000;

export type GarbagePod =
  | { readonly kind: "orphaned"; readonly pod: StoredPod; readonly node: string }
  | { readonly kind: "unscheduled"; readonly pod: StoredPod }
  | { readonly kind: "terminated"; readonly pod: StoredPod };

function createdAt(pod: StoredPod): number {
  return timeMs(pod.metadata.creationTimestamp) ?? 0;
}

/** The pods that nobody else will ever remove. */
export function findGarbagePods(
  pods: readonly StoredPod[],
  nodeExists: (name: string) => boolean,
  threshold: number,
): readonly GarbagePod[] {
  const garbage: GarbagePod[] = [];
  for (const pod of pods) {
    const node = pod.spec?.nodeName ?? "";
    if (node !== "" && !nodeExists(node)) garbage.push({ kind: "orphaned", pod, node });
    // Without a node there is no kubelet to finish the deletion.
    else if (node === "" && isTerminating(pod)) garbage.push({ kind: "unscheduled", pod });
  }
  const terminated = pods.filter((pod) => isPodTerminal(pod) && !isTerminating(pod));
  const surplus = terminated.length - threshold;
  if (threshold <= 0 || surplus <= 0) return garbage;
  const oldest = terminated
    .toSorted((a, b) => createdAt(a) - createdAt(b) || (a.metadata.name < b.metadata.name ? -1 : 1))
    .slice(0, surplus);
  return [...garbage, ...oldest.map((pod) => ({ kind: "terminated" as const, pod }))];
}

/** Removes pods of nodes that no longer exist, and the oldest terminated pods beyond the threshold. */
export function podGCController(context: ControllerContext): Controller {
  const { informers, client, clock, logger } = context;
  /** Missing nodes and since when, monotonic ms. */
  const missing = new Map<string, number>();

  async function nodeIsGone(name: string, signal: AbortSignal): Promise<boolean> {
    const since = missing.get(name) ?? clock.monotonic();
    missing.set(name, since);
    if (clock.monotonic() - since < quarantineMs) return false;
    return (await findObject(client, { resource: NODES, name }, signal)) === undefined;
  }

  async function remove(garbage: GarbagePod, signal: AbortSignal): Promise<void> {
    const { pod } = garbage;
    const { namespace, name, uid } = pod.metadata;
    const target = { resource: PODS, namespace, name };
    if (!isPodTerminal(pod)) {
      const condition = {
        type: "DisruptionTarget",
        status: "True",
        reason: "DeletionByPodGC",
        message: "PodGC: node no longer exists",
        lastTransitionTime: formatTime(clock.now()),
      };
      const conditions = garbage.kind === "orphaned" ? { conditions: [condition] } : {};
      await patchObject(
        client,
        { ...target, subresource: "status" },
        { metadata: { uid }, status: { phase: "Failed", ...conditions } },
        signal,
      );
    }
    await deleteObject(client, PODS, target, { uid, gracePeriodSeconds: 0, signal });
  }

  async function step(signal: AbortSignal): Promise<void> {
    for (const name of missing.keys())
      if (informers.nodes.get(name) !== undefined) missing.delete(name);
    const found = findGarbagePods(
      [...informers.pods.values()],
      (name) => informers.nodes.get(name) !== undefined,
      terminatedPodThreshold,
    );
    const wanted = new Set(found.flatMap((each) => (each.kind === "orphaned" ? each.node : [])));
    for (const name of missing.keys()) if (!wanted.has(name)) missing.delete(name);
    const gone = new Map<string, boolean>();
    for (const name of wanted) gone.set(name, await nodeIsGone(name, signal));
    for (const garbage of found) {
      if (garbage.kind === "orphaned" && gone.get(garbage.node) !== true) continue;
      try {
        await remove(garbage, signal);
        logger.log("info", "pod removed", { pod: keyOf(garbage.pod), why: garbage.kind });
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && [404, 409].includes(error.status)) continue;
        logger.log("warn", "pod not removed, will retry", {
          pod: keyOf(garbage.pod),
          error: errorMessage(error),
        });
      }
    }
  }

  return {
    name: "pod-garbage-collector",
    run: async (signal) => {
      try {
        await Promise.all([informers.pods.whenSynced(signal), informers.nodes.whenSynced(signal)]);
        await runPeriodically({ name: "pod-garbage-collector", context, periodMs, step }, signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
  };
}

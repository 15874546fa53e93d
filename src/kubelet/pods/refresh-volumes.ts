import type { Volume } from "../../api/types.gen.ts";
import { isTerminalPhase } from "../spec/containers.ts";
import { referenceKey, volumeReferences } from "../objects/referenced-objects.ts";
import type { AssignedPod } from "../types.ts";
import { podTarget } from "./event-target.ts";
import type { PodDeps } from "./pod-deps.ts";
import type { PodEntry } from "./pod-entry.ts";

/**
 * Whether nothing is to be done for a pod but to write objects that have changed: the last look found it well, and the
 * next one is not due. A hundred pods that share an object then cost no hundred looks at the engine.
 *
 * @param now Monotonic milliseconds.
 */
export function wantsOnlyVolumes(entry: PodEntry, now: number): boolean {
  const { changed, failures, lookAt, lookWanted, pod, volumesStale, waiting } = entry;
  if (changed.size === 0 || lookWanted || volumesStale || now >= lookAt) return false;
  if (pod === undefined || entry.removed || !entry.admitted || entry.ending) return false;
  if (entry.verdict !== undefined || pod.metadata.deletionTimestamp !== undefined) return false;
  return failures === 0 && waiting.size === 0 && !isTerminalPhase(pod.status?.phase);
}

function shows(volume: Volume, pod: AssignedPod, changed: PodEntry["changed"]): boolean {
  const { namespace = "" } = pod.metadata;
  return volumeReferences(volume).some(
    ({ kind, name }) => name !== undefined && changed.has(referenceKey({ kind, namespace, name })),
  );
}

/**
 * Makes the volumes current that show objects which have changed. Call when {@link wantsOnlyVolumes}.
 *
 * @returns False when that could not be done: the pod has to be looked at.
 * @throws The signal's reason.
 */
export async function refreshVolumes(
  deps: PodDeps,
  entry: PodEntry,
  signal: AbortSignal,
): Promise<boolean> {
  const { pod } = entry;
  if (pod === undefined) return false;
  const changed = new Map(entry.changed);
  // What changes from here on is for the next time.
  entry.changed.clear();
  const wanted = (volume: Volume): boolean => shows(volume, pod, changed);
  // Variables that show an object keep the value that their container was started with.
  if (!(pod.spec?.volumes ?? []).some(wanted)) return true;
  try {
    // Files show no addresses.
    const addresses = { podIPs: [], hostIPs: deps.node.hostIPs() };
    const result = await deps.volumes.setUp(pod, addresses, signal, wanted);
    for (const { message, reason } of result.problems) {
      deps.events.event(podTarget(pod), "Warning", reason, message);
    }
    if (!result.current) entry.volumesStale = true;
    return result.current;
  } catch (error) {
    entry.volumesStale = true;
    throw error;
  }
}

import type { StoredPod } from "../shared/pod-state.ts";
import { isPodReady, readySinceMs, timeMs } from "../shared/pod-state.ts";

/** A pod that may be removed, with the number of active pods of the same application on its node. */
export interface RankedPod {
  readonly pod: StoredPod;
  readonly rank: number;
}

const phaseOrder: Readonly<Record<string, number>> = { Pending: 0, Unknown: 1, Running: 2 };

function phaseRank(pod: StoredPod): number {
  return phaseOrder[pod.status?.phase ?? ""] ?? 0;
}

/** `controller.kubernetes.io/pod-deletion-cost`; an unreadable value counts as 0. */
function deletionCost(pod: StoredPod): number {
  const text = pod.metadata.annotations?.["controller.kubernetes.io/pod-deletion-cost"] ?? "0";
  // The same spellings as the API's validation: no leading plus, no leading zeros.
  return /^(0|-?[1-9]\d*)$/.test(text) ? Number(text) : 0;
}

function highest(counts: readonly number[]): number {
  return Math.max(0, ...counts);
}

/** Highest restart counts of [regular, restartable init] containers. */
function restarts(pod: StoredPod): readonly [number, number] {
  const sidecars = new Set(
    (pod.spec?.initContainers ?? [])
      .filter((container) => container.restartPolicy === "Always")
      .map((container) => container.name),
  );
  return [
    highest((pod.status?.containerStatuses ?? []).map((status) => status.restartCount)),
    highest(
      (pod.status?.initContainerStatuses ?? [])
        .filter((status) => sidecars.has(status.name))
        .map((status) => status.restartCount),
    ),
  ];
}

/** KEP-2185: ages are compared by order of magnitude, so that ties spread by UID. */
function magnitude(since: number, now: number): number {
  const nanoseconds = (now - since) * 1e6;
  return nanoseconds > 0 ? Math.trunc(Math.log2(nanoseconds)) : -1;
}

/** Younger first; absent times first. Undefined when both are the same instant. */
function compareAge(
  left: { readonly uid: string; readonly since: number | undefined },
  right: { readonly uid: string; readonly since: number | undefined },
  now: number,
): number {
  if (left.since === right.since) return 0;
  if (left.since === undefined) return -1;
  if (right.since === undefined) return 1;
  const difference = magnitude(left.since, now) - magnitude(right.since, now);
  if (difference !== 0) return difference;
  return left.uid < right.uid ? -1 : 1;
}

function assignedRank(pod: StoredPod): number {
  return (pod.spec?.nodeName ?? "") === "" ? 0 : 1;
}

function age(
  pod: StoredPod,
  since: number | undefined,
): { readonly uid: string; readonly since: number | undefined } {
  return { uid: pod.metadata.uid, since };
}

/** Order of removal: what goes first sorts first. */
export function compareForRemoval(left: RankedPod, right: RankedPod, now: number): number {
  const [a, b] = [left.pod, right.pod];
  const [readyA, readyB] = [isPodReady(a), isPodReady(b)];
  const [restartsA, restartsB] = [restarts(a), restarts(b)];
  const steps: readonly (() => number)[] = [
    () => assignedRank(a) - assignedRank(b),
    () => phaseRank(a) - phaseRank(b),
    () => Number(readyA) - Number(readyB),
    () => deletionCost(a) - deletionCost(b),
    () => right.rank - left.rank,
    () =>
      readyA && readyB ? compareAge(age(a, readySinceMs(a)), age(b, readySinceMs(b)), now) : 0,
    () => restartsB[0] - restartsA[0],
    () => restartsB[1] - restartsA[1],
    () =>
      compareAge(
        age(a, timeMs(a.metadata.creationTimestamp)),
        age(b, timeMs(b.metadata.creationTimestamp)),
        now,
      ),
  ];
  for (const step of steps) {
    const order = step();
    if (order !== 0) return order;
  }
  return 0;
}

/** The `count` pods to remove from `pods`; `related` are the active pods of all owners of the same application. */
export function podsToRemove(
  pods: readonly StoredPod[],
  related: readonly StoredPod[],
  count: number,
  now: number,
): readonly StoredPod[] {
  if (count >= pods.length) return pods;
  const perNode = new Map<string, number>();
  for (const pod of related) {
    const node = pod.spec?.nodeName;
    if (node !== undefined && node !== "") perNode.set(node, (perNode.get(node) ?? 0) + 1);
  }
  return pods
    .map((pod) => ({ pod, rank: perNode.get(pod.spec?.nodeName ?? "") ?? 0 }))
    .toSorted((left, right) => compareForRemoval(left, right, now))
    .slice(0, count)
    .map(({ pod }) => pod);
}

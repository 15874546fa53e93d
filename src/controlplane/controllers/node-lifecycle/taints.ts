import type { Taint } from "../../../api/types.gen.ts";
import { formatTime } from "../shared/pod-state.ts";
import type { ReadyState, StoredNode } from "./health.ts";

const notReady = "node.kubernetes.io/not-ready";
const unreachable = "node.kubernetes.io/unreachable";
const unschedulable = "node.kubernetes.io/unschedulable";

/** Taint keys by condition type and status (KEP-382, TaintNodesByCondition). */
const conditionTaints: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  Ready: { False: notReady, Unknown: unreachable },
  MemoryPressure: { True: "node.kubernetes.io/memory-pressure" },
  DiskPressure: { True: "node.kubernetes.io/disk-pressure" },
  PIDPressure: { True: "node.kubernetes.io/pid-pressure" },
  NetworkUnavailable: { True: "node.kubernetes.io/network-unavailable" },
};

const managedNoSchedule = new Set([
  unschedulable,
  ...Object.values(conditionTaints).flatMap((byStatus) => Object.values(byStatus)),
]);

/** What the node's eviction taint should be: one of the two, none, or left as it is. */
export type NoExecuteWish = "not-ready" | "unreachable" | "none" | "keep";

/** The NoExecute taint that a Ready status calls for. */
export function noExecuteWish(ready: ReadyState): NoExecuteWish {
  if (ready === "True") return "none";
  return ready === "False" ? "not-ready" : "unreachable";
}

function same(left: Taint, right: { readonly key: string; readonly effect: string }): boolean {
  return left.key === right.key && left.effect === right.effect;
}

/** The node's complete new taint list, or undefined when it is right. Foreign taints stay, in their order. */
export function planTaints(
  node: StoredNode,
  wish: NoExecuteWish,
  now: number,
): readonly Taint[] | undefined {
  const current = node.spec?.taints ?? [];
  const wanted: Taint[] = noScheduleKeys(node).map((key) => ({ key, effect: "NoSchedule" }));
  if (wish === "not-ready") wanted.push({ key: notReady, effect: "NoExecute" });
  if (wish === "unreachable") wanted.push({ key: unreachable, effect: "NoExecute" });
  const managed = (taint: Taint): boolean =>
    (taint.effect === "NoSchedule" && managedNoSchedule.has(taint.key)) ||
    (wish !== "keep" &&
      taint.effect === "NoExecute" &&
      (taint.key === notReady || taint.key === unreachable));
  const kept = current.filter(
    (taint) => !managed(taint) || wanted.some((each) => same(taint, each)),
  );
  const added = wanted.filter((taint) => !current.some((each) => same(each, taint)));
  if (added.length === 0 && kept.length === current.length) return undefined;
  return [...kept, ...added.map((taint) => ({ ...taint, timeAdded: formatTime(now) }))];
}

function noScheduleKeys(node: StoredNode): readonly string[] {
  const keys = (node.status?.conditions ?? []).flatMap(
    ({ type, status }) => conditionTaints[type]?.[status] ?? [],
  );
  return node.spec?.unschedulable === true ? [...keys, unschedulable] : keys;
}

import type { Stored } from "../../../api/object.ts";
import type { Lease, Node, NodeCondition } from "../../../api/types.gen.ts";
import { formatTime, timeMs } from "../shared/pod-state.ts";

export type StoredNode = Stored<Node>;

/** Silence after which a node counts as lost, milliseconds (--node-monitor-grace-period). */
export const monitorGraceMs = 50_000;
/** The same for a node that has never posted a status (--node-startup-grace-period). */
export const startupGraceMs = 60_000;

/** The last sign of life, as the controller saw it. */
export interface Heartbeat {
  /** Ready condition and lease renewal as posted; any difference is a sign of life. */
  readonly sign: string;
  /** Monotonic milliseconds at which `sign` was first seen: the node's own clock is not trusted. */
  readonly seenAt: number;
}

export type ReadyState = "True" | "False" | "Unknown";

export interface Assessment {
  readonly heartbeat: Heartbeat;
  /** All conditions, when some must be written as Unknown. */
  readonly conditions: readonly NodeCondition[] | undefined;
  /** The Ready status after such a write. */
  readonly ready: ReadyState;
  readonly wasReady: ReadyState;
}

const watchedConditions = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] as const;

/** The node's Ready status as posted; `Unknown` when there is none. */
export function readyState(node: StoredNode): ReadyState {
  const status = node.status?.conditions?.find(({ type }) => type === "Ready")?.status;
  return status === "True" || status === "False" ? status : "Unknown";
}

/** Whether the node is alive, judged by what changed since `previous`. */
export function assessNode(
  node: StoredNode,
  lease: Stored<Lease> | undefined,
  previous: Heartbeat | undefined,
  time: { readonly now: number; readonly monotonic: number },
): Assessment {
  const posted = node.status?.conditions ?? [];
  const ready = posted.find(({ type }) => type === "Ready");
  const sign = JSON.stringify([ready ?? null, lease?.spec?.renewTime ?? null]);
  const wasReady = readyState(node);
  const heartbeat = previous?.sign === sign ? previous : { sign, seenAt: firstSeen() };

  function firstSeen(): number {
    if (ready !== undefined || lease !== undefined) return time.monotonic;
    const age = time.now - (timeMs(node.metadata.creationTimestamp) ?? time.now);
    return time.monotonic - Math.max(age, 0);
  }

  const grace = ready === undefined ? startupGraceMs : monitorGraceMs;
  if (time.monotonic - heartbeat.seenAt <= grace)
    return { heartbeat, conditions: undefined, ready: wasReady, wasReady };

  const conditions = unknownConditions(node, posted, time.now);
  return { heartbeat, conditions, ready: "Unknown", wasReady };
}

function unknownConditions(
  node: StoredNode,
  posted: readonly NodeCondition[],
  now: number,
): readonly NodeCondition[] | undefined {
  const at = formatTime(now);
  let changed = false;
  const others = posted.map((condition) => {
    const watched = watchedConditions.some((type) => type === condition.type);
    if (!watched || condition.status === "Unknown") return condition;
    changed = true;
    return {
      ...condition,
      status: "Unknown",
      reason: "NodeStatusUnknown",
      message: "Kubelet stopped posting node status.",
      lastTransitionTime: at,
    };
  });
  const missing = watchedConditions.filter((type) => !posted.some((each) => each.type === type));
  if (!changed && missing.length === 0) return undefined;
  return [
    ...others,
    ...missing.map((type) => ({
      type,
      status: "Unknown",
      reason: "NodeStatusNeverUpdated",
      message: "Kubelet never posted node status.",
      lastHeartbeatTime: node.metadata.creationTimestamp,
      lastTransitionTime: at,
    })),
  ];
}

export type ZoneState = "normal" | "partial" | "full";

/**
 * How much of a zone is lost: one lost node is the node's fault, most of a zone is probably the network's, and then
 * evicting everything would only make it worse.
 */
export function zoneState(states: readonly ReadyState[]): ZoneState {
  const ready = states.filter((state) => state === "True").length;
  const lost = states.length - ready;
  if (ready === 0 && lost > 0) return "full";
  return lost > 2 && lost / states.length >= 0.55 ? "partial" : "normal";
}

/** Milliseconds between two evicted nodes of a zone; undefined = none at all. */
export function evictionIntervalMs(state: ZoneState, clusterSize: number): number | undefined {
  if (state !== "partial") return 10_000;
  return clusterSize > 50 ? 100_000 : undefined;
}

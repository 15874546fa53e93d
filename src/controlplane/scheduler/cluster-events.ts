import type { StoredPod } from "../controllers/shared/pod-state.ts";
import { isPodTerminal } from "../controllers/shared/pod-state.ts";
import { podRequests } from "../../api/pod-requests.ts";
import type { StoredNode } from "./snapshot.ts";

/** What happens in a cluster that may give room to a pod that waits. */
export type ClusterEvent =
  | "node-added"
  | "node-removed"
  | "node-labels"
  | "node-taints"
  | "node-allocatable"
  /** A pod was given a node. */
  | "pod-assigned"
  | "pod-labels"
  /** A pod with a node is asked to go; it still holds its room. */
  | "pod-terminating"
  /** A pod with a node went away or ended. */
  | "pod-left"
  /** A pod with a node asks for less than it did. */
  | "pod-shrunk"
  | "namespace-labels"
  /** One claim, by its key, was made or changed. */
  | `claim:${string}`
  | "volume-changed"
  | "storage-class-changed"
  | "csi-node-changed"
  | "csi-driver-changed"
  | "csi-capacity-changed"
  /** A volume was detached from a node. */
  | "attachment-left";

function differ(left: unknown, right: unknown): boolean {
  return left !== right && JSON.stringify(left) !== JSON.stringify(right);
}

/** What of a node's change matters to pods that wait; heartbeats do not. */
export function nodeEvents(node: StoredNode, before: StoredNode): readonly ClusterEvent[] {
  const events: ClusterEvent[] = [];
  if (differ(node.metadata.labels, before.metadata.labels)) events.push("node-labels");
  if (
    differ(node.spec?.taints, before.spec?.taints) ||
    node.spec?.unschedulable !== before.spec?.unschedulable
  )
    events.push("node-taints");
  if (differ(node.status?.allocatable, before.status?.allocatable)) events.push("node-allocatable");
  return events;
}

/** What of the change of a pod with a node matters to pods that wait. */
export function podEvents(pod: StoredPod, before: StoredPod | undefined): readonly ClusterEvent[] {
  const wasThere = before !== undefined && (before.spec?.nodeName ?? "") !== "";
  if (!wasThere) return isPodTerminal(pod) ? [] : ["pod-assigned"];
  if (isPodTerminal(pod)) return isPodTerminal(before) ? [] : ["pod-left"];
  const events: ClusterEvent[] = [];
  if (differ(pod.metadata.labels, before.metadata.labels)) events.push("pod-labels");
  if (pod.metadata.deletionTimestamp !== before.metadata.deletionTimestamp)
    events.push("pod-terminating");
  if (differ(pod.spec, before.spec)) {
    const now = podRequests(pod);
    if ([...podRequests(before)].some(([name, value]) => (now.get(name) ?? 0) < value))
      events.push("pod-shrunk");
  }
  return events;
}

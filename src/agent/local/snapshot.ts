import type { Stored } from "../../api/object.ts";
import { addAmounts, amounts, podRequests } from "../../api/pod-requests.ts";
import type { Node, NodeStatus, Pod, PodStatus } from "../../api/types.gen.ts";
import { isTerminalPhase } from "../../kubelet/spec/containers.ts";
import { isSidecar } from "../../kubelet/spec/containers.ts";
import type { AssignedPod, ImagePull } from "../../kubelet/types.ts";
import { podCell } from "./pod-cell.ts";
import { isReady, podWhy } from "./pod-why.ts";
import { eventSummary, type RecentEvent } from "./recent-events.ts";
import type {
  AgentSummary,
  NodeSnapshot,
  NodeSummary,
  PodSummary,
  PullSummary,
  ServicesSummary,
} from "./types.ts";
import type { PodUsage, Usage } from "./usage-meter.ts";

/** What is known of the node at one moment. */
export interface NodeFacts {
  readonly name: string;
  /** As the server last told; undefined before it is registered. */
  readonly node: Stored<Node> | undefined;
  readonly runtime: string;
  /** What keeps the node from being Ready, as this machine knows it; the server may not have heard. */
  readonly troubles: readonly string[];
  readonly apiServer: NodeSummary["apiServer"];
}

/** A pod, and how it is as this node knows it. */
export interface KnownPod {
  readonly pod: AssignedPod;
  readonly status: PodStatus;
}

export interface SnapshotInput {
  /** Milliseconds since the epoch. */
  readonly now: number;
  readonly agent: AgentSummary;
  readonly node: NodeFacts;
  readonly pods: readonly KnownPod[];
  /** Pods without a node; undefined where nobody may know. */
  readonly unscheduled: readonly Pod[] | undefined;
  readonly pulls: readonly ImagePull[];
  readonly services: ServicesSummary;
  readonly usage: Usage;
  /** The newest last. */
  readonly events: readonly RecentEvent[];
}

function readyWords(
  conditions: NonNullable<NodeStatus["conditions"]>,
  { apiServer, node, troubles }: NodeFacts,
): Pick<NodeSummary, "ready" | "reason" | "message"> {
  if (troubles.length > 0)
    return { ready: false, reason: "KubeletNotReady", message: troubles.join("; ") };
  if (node === undefined) {
    const message = apiServer.reachable
      ? "the node is not registered yet"
      : "the node is not registered: the API server does not answer";
    return { ready: false, reason: "NodeNotRegistered", message };
  }
  const {
    message = "",
    reason = "",
    status,
  } = conditions.find(({ type }) => type === "Ready") ?? {
    status: "False",
    reason: "NodeStatusNeverUpdated",
    message: "no status has been written yet",
  };
  return { ready: status === "True", reason, message };
}

function nodeSummary(facts: NodeFacts, pods: readonly KnownPod[]): NodeSummary {
  const { apiServer, name, node, runtime } = facts;
  const { addresses = [], allocatable, conditions = [] } = node?.status ?? {};
  const room = amounts(allocatable);
  const requested = new Map<string, number>();
  for (const { pod, status } of pods)
    if (!isTerminalPhase(status.phase)) addAmounts(requested, podRequests(pod));
  return {
    name,
    ...readyWords(conditions, facts),
    conditions: conditions.map(
      ({ lastTransitionTime, message = "", reason = "", status, type }) => ({
        type,
        status,
        reason,
        message,
        since: lastTransitionTime,
      }),
    ),
    addresses: addresses.map(({ address, type }) => ({ type, address })),
    runtime,
    apiServer,
    allocatable: {
      cpu: (room.get("cpu") ?? 0) / 1000,
      memory: room.get("memory") ?? 0,
      pods: room.get("pods") ?? 0,
    },
    requested: {
      cpu: (requested.get("cpu") ?? 0) / 1000,
      memory: requested.get("memory") ?? 0,
    },
  };
}

/** What podSummary needs besides the pod. */
interface Around {
  readonly usage: PodUsage | undefined;
  readonly events: readonly RecentEvent[];
  readonly pulling: readonly Pick<ImagePull, "image" | "queued">[];
}

function podSummary(pod: Pod, status: PodStatus, around: Around): PodSummary {
  const { creationTimestamp = "", name = "", namespace = "", uid = "" } = pod.metadata ?? {};
  const { readyContainers, restarts, status: word } = podCell(pod, status);
  const sidecars = (pod.spec?.initContainers ?? []).filter(isSidecar);
  return {
    uid,
    namespace,
    name,
    phase: status.phase ?? "Pending",
    ready: isReady(pod, status),
    status: word === "" ? "Pending" : word,
    why: podWhy({ pod, status, ...around }),
    readyContainers,
    containers: (pod.spec?.containers.length ?? 0) + sidecars.length,
    restarts,
    created: creationTimestamp,
    ip: status.podIP ?? "",
    cpu: around.usage?.cpu,
    memory: around.usage?.memory,
  };
}

function pullSummary({ image, pods, progress, queued, startedAt }: ImagePull): PullSummary {
  return {
    image,
    started: new Date(startedAt).toISOString(),
    totalBytes: progress?.totalBytes,
    doneBytes: progress?.doneBytes ?? 0,
    ...(progress?.unpacking === true ? { unpacking: true } : {}),
    ...(queued ? { queued } : {}),
    pods: pods.toSorted(),
  };
}

function byName(a: PodSummary, b: PodSummary): number {
  if (a.namespace !== b.namespace) return a.namespace < b.namespace ? -1 : 1;
  return a.name < b.name ? -1 : 1;
}

/** By the uid of the pod that they are about. */
function ofPods(events: readonly RecentEvent[]): ReadonlyMap<string, readonly RecentEvent[]> {
  const found = new Map<string, RecentEvent[]>();
  for (const event of events) {
    if (event.kind !== "Pod") continue;
    const known = found.get(event.uid);
    if (known === undefined) found.set(event.uid, [event]);
    else known.push(event);
  }
  return found;
}

/** Everything that the agent tells on its own socket. Pure. */
export function nodeSnapshot(input: SnapshotInput): NodeSnapshot {
  const { agent, events, node, pods, pulls, services, unscheduled, usage } = input;
  const told = ofPods(events);
  const summaries = pods.map(({ pod, status }) => {
    const { name, namespace = "", uid } = pod.metadata;
    const waiting = pulls.filter((pull) => pull.pods.includes(`${namespace}/${name}`));
    return podSummary(pod, status, {
      usage: usage.pods.get(uid),
      events: told.get(uid) ?? [],
      pulling: waiting,
    });
  });
  const nowhere = { usage: undefined, events: [], pulling: [] };
  return {
    schema: 1,
    time: new Date(input.now).toISOString(),
    agent,
    node: nodeSummary(node, pods),
    pods: summaries.toSorted(byName),
    ...(unscheduled === undefined
      ? {}
      : {
          unscheduled: unscheduled
            .map((pod) => podSummary(pod, pod.status ?? {}, nowhere))
            .toSorted(byName),
        }),
    pulls: pulls.map(pullSummary),
    services,
    usage: usage.node,
    events: events.map(eventSummary),
  };
}

import type { Stored } from "../../api/object.ts";
import { amounts } from "../../api/pod-requests.ts";
import type { Amounts } from "../../api/pod-requests.ts";
import type { Node } from "../../api/types.gen.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";
import type { LabelMatcher, Labels } from "./label-matcher.ts";
import type { PodInfo, ScoringRequest } from "./pod-info.ts";
import type { StorageView } from "./volumes/storage-view.ts";

export type StoredNode = Stored<Node>;

/** A node with the pods on it, those included whose binding is still under way. */
export interface NodeInfo {
  readonly name: string;
  readonly node: StoredNode;
  readonly pods: readonly PodInfo[];
  readonly allocatable: Amounts;
  readonly requested: Amounts;
  /** As `requested`, with an assumed amount for containers that ask for nothing. */
  readonly scoring: ScoringRequest;
  /** Bytes by image name. */
  readonly images: ReadonlyMap<string, number>;
}

/** What one scheduling decision looks at. Does not change while it is made. */
export interface Snapshot {
  readonly nodes: readonly NodeInfo[];
  /** Pods that wait for room on a node, by its name: their preemption made or makes it. */
  readonly nominated: ReadonlyMap<string, readonly PodInfo[]>;
  /** Labels of a namespace; undefined when it does not exist. */
  readonly namespaceLabels: (name: string) => Labels;
  /**
   * Which pods of its namespace are copies of the same thing: the selectors of the Services that select the pod and of
   * the ReplicationController, ReplicaSet or StatefulSet that owns it, together. Undefined when there are none.
   */
  readonly workloadSelector: (pod: StoredPod) => LabelMatcher | undefined;
  /** On how many nodes an image is. */
  readonly nodesWithImage: (name: string) => number;
  readonly storage: StorageView;
}

/** A NodeInfo without pods. */
export function emptyNode(node: StoredNode): NodeInfo {
  const images = new Map<string, number>();
  for (const image of node.status?.images ?? [])
    for (const name of image.names ?? []) images.set(name, image.sizeBytes ?? 0);
  return {
    name: node.metadata.name,
    node,
    pods: [],
    allocatable: amounts(node.status?.allocatable),
    requested: new Map(),
    scoring: { cpu: 0, memory: 0 },
    images,
  };
}

function totals(
  info: NodeInfo,
  pods: readonly PodInfo[],
  sign: 1 | -1,
): Pick<NodeInfo, "requested" | "scoring"> {
  const requested = new Map(info.requested);
  let { cpu, memory } = info.scoring;
  for (const pod of pods) {
    for (const [name, value] of pod.requests)
      requested.set(name, (requested.get(name) ?? 0) + sign * value);
    cpu += sign * pod.scoring.cpu;
    memory += sign * pod.scoring.memory;
  }
  return { requested, scoring: { cpu, memory } };
}

/** The node as if `pods` were on it too. */
export function withPods(info: NodeInfo, pods: readonly PodInfo[]): NodeInfo {
  return { ...info, pods: [...info.pods, ...pods], ...totals(info, pods, 1) };
}

/** The node as if `gone` had left it. */
export function withoutPods(info: NodeInfo, gone: ReadonlySet<PodInfo>): NodeInfo {
  const pods = info.pods.filter((each) => !gone.has(each));
  return { ...info, pods, ...totals(info, [...gone], -1) };
}

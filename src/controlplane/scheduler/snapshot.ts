import type { Stored } from "../../api/object.ts";
import { keyOf } from "../../api/object.ts";
import type { Node } from "../../api/types.gen.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";
import { isPodTerminal } from "../controllers/shared/pod-state.ts";
import type { Amounts } from "../../api/pod-requests.ts";
import { addAmounts, amounts, podRequests } from "../../api/pod-requests.ts";

export type StoredNode = Stored<Node>;

/** A node with the pods on it, those included whose binding is still under way. */
export interface NodeInfo {
  readonly node: StoredNode;
  readonly pods: readonly StoredPod[];
  readonly allocatable: Amounts;
  readonly requested: Amounts;
}

/** What one scheduling decision looks at. Never changes. */
export interface Snapshot {
  readonly nodes: readonly NodeInfo[];
  /** Labels of a namespace; undefined when it does not exist. */
  namespaceLabels(name: string): Readonly<Record<string, string>> | undefined;
}

/** A NodeInfo from its parts. */
export function nodeInfo(node: StoredNode, pods: readonly StoredPod[]): NodeInfo {
  const requested = new Map<string, number>();
  for (const pod of pods) addAmounts(requested, podRequests(pod));
  return { node, pods, allocatable: amounts(node.status?.allocatable), requested };
}

/**
 * Nodes and the pods on them, kept up to date by the informers and, ahead of them, by the scheduler's own decisions
 * ("assumed" pods): the next pod must not be given the same room.
 */
export class ClusterCache {
  readonly #nodes = new Map<string, StoredNode>();
  readonly #podsByNode = new Map<string, Map<string, StoredPod>>();
  readonly #nodeOfPod = new Map<string, string>();
  readonly #assumed = new Map<string, string>();
  /** Sums are worked out again only for nodes whose pods changed. */
  readonly #infos = new Map<string, NodeInfo>();

  setNode(node: StoredNode): void {
    this.#nodes.set(node.metadata.name, node);
    this.#infos.delete(node.metadata.name);
  }

  removeNode(name: string): void {
    this.#nodes.delete(name);
    this.#infos.delete(name);
  }

  /** A pod as the API has it. */
  setPod(pod: StoredPod): void {
    const key = keyOf(pod);
    const node = pod.spec?.nodeName ?? "";
    const assumed = this.#assumed.get(key);
    if (node === "" && assumed === pod.metadata.uid) return;
    this.#assumed.delete(key);
    this.#drop(key);
    if (node !== "" && !isPodTerminal(pod)) this.#place(key, pod, node);
  }

  removePod(key: string): void {
    this.#assumed.delete(key);
    this.#drop(key);
  }

  /** Counts the pod on `node` before the API shows it there. */
  assume(pod: StoredPod, node: string): void {
    const key = keyOf(pod);
    this.#assumed.set(key, pod.metadata.uid);
    this.#drop(key);
    this.#place(key, pod, node);
  }

  /** The binding failed. */
  forget(pod: StoredPod): void {
    const key = keyOf(pod);
    if (this.#assumed.get(key) !== pod.metadata.uid) return;
    this.#assumed.delete(key);
    this.#drop(key);
  }

  isAssumed(pod: StoredPod): boolean {
    return this.#assumed.get(keyOf(pod)) === pod.metadata.uid;
  }

  snapshot(namespaceLabels: Snapshot["namespaceLabels"]): Snapshot {
    const nodes = [...this.#nodes].map(([name, node]) => {
      const known = this.#infos.get(name);
      if (known !== undefined) return known;
      const info = nodeInfo(node, [...(this.#podsByNode.get(name)?.values() ?? [])]);
      this.#infos.set(name, info);
      return info;
    });
    return { nodes, namespaceLabels };
  }

  #place(key: string, pod: StoredPod, node: string): void {
    const pods = this.#podsByNode.get(node) ?? new Map<string, StoredPod>();
    pods.set(key, pod);
    this.#podsByNode.set(node, pods);
    this.#nodeOfPod.set(key, node);
    this.#infos.delete(node);
  }

  #drop(key: string): void {
    const node = this.#nodeOfPod.get(key);
    if (node === undefined) return;
    this.#nodeOfPod.delete(key);
    const pods = this.#podsByNode.get(node);
    pods?.delete(key);
    if (pods?.size === 0) this.#podsByNode.delete(node);
    this.#infos.delete(node);
  }
}

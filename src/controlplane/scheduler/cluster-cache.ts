import { keyOf } from "../../api/object.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";
import { isPodTerminal } from "../controllers/shared/pod-state.ts";
import type { PodInfo } from "./pod-info.ts";
import { podInfo } from "./pod-info.ts";
import type { NodeInfo, StoredNode } from "./snapshot.ts";
import { emptyNode, withPods } from "./snapshot.ts";

/** How long a bound pod counts on its node although the API does not show it there. */
const assumedMs = 15 * 60_000;

interface Assumed {
  readonly uid: string;
  /** Monotonic ms; undefined while the binding is under way. */
  boundAt: number | undefined;
}

/**
 * Nodes and the pods on them, kept up to date by the informers and, ahead of them, by the scheduler's own decisions
 * ("assumed" pods): the next pod must not be given the same room.
 */
export class ClusterCache {
  readonly #nodes = new Map<string, NodeInfo>();
  readonly #podsByNode = new Map<string, Map<string, PodInfo>>();
  readonly #nodeOfPod = new Map<string, string>();
  readonly #assumed = new Map<string, Assumed>();
  /** Sums are worked out again only for nodes whose pods changed. */
  readonly #infos = new Map<string, NodeInfo>();
  #imageNodes: Map<string, number> | undefined;

  setNode(node: StoredNode): void {
    const { name } = node.metadata;
    this.#nodes.set(name, emptyNode(node));
    this.#infos.delete(name);
    this.#imageNodes = undefined;
  }

  removeNode(name: string): void {
    this.#nodes.delete(name);
    this.#infos.delete(name);
    this.#imageNodes = undefined;
  }

  /** A pod as the API has it. */
  setPod(pod: StoredPod): void {
    const key = keyOf(pod);
    const node = pod.spec?.nodeName ?? "";
    if (node === "" && this.isAssumed(pod)) return;
    this.#assumed.delete(key);
    this.#drop(key);
    if (node !== "" && !isPodTerminal(pod)) this.#place(key, podInfo(pod), node);
  }

  removePod(key: string): void {
    this.#assumed.delete(key);
    this.#drop(key);
  }

  /** Counts the pod on `node` before the API shows it there. */
  assume(pod: PodInfo, node: string): void {
    const key = keyOf(pod.pod);
    this.#assumed.set(key, { uid: pod.uid, boundAt: undefined });
    this.#drop(key);
    this.#place(key, pod, node);
  }

  /** The binding succeeded at `now` (monotonic ms): the API has to show it within a quarter of an hour. */
  bound(pod: StoredPod, now: number): void {
    const assumed = this.#assumed.get(keyOf(pod));
    if (assumed?.uid === pod.metadata.uid) assumed.boundAt = now;
  }

  /** The binding failed. */
  forget(pod: StoredPod): void {
    if (this.isAssumed(pod)) this.removePod(keyOf(pod));
  }

  isAssumed(pod: StoredPod): boolean {
    return this.#assumed.get(keyOf(pod))?.uid === pod.metadata.uid;
  }

  /** Takes away bound pods that never appeared; returns their keys. */
  expire(now: number): readonly string[] {
    const expired = [...this.#assumed]
      .filter(([, { boundAt }]) => boundAt !== undefined && now - boundAt >= assumedMs)
      .map(([key]) => key);
    for (const key of expired) this.removePod(key);
    return expired;
  }

  nodes(): readonly NodeInfo[] {
    return [...this.#nodes].map(([name, empty]) => {
      const known = this.#infos.get(name);
      if (known !== undefined) return known;
      const info = withPods(empty, [...(this.#podsByNode.get(name)?.values() ?? [])]);
      this.#infos.set(name, info);
      return info;
    });
  }

  nodesWithImage(image: string): number {
    if (this.#imageNodes === undefined) {
      this.#imageNodes = new Map();
      for (const { images } of this.#nodes.values())
        for (const name of images.keys())
          this.#imageNodes.set(name, (this.#imageNodes.get(name) ?? 0) + 1);
    }
    return this.#imageNodes.get(image) ?? 0;
  }

  #place(key: string, pod: PodInfo, node: string): void {
    const pods = this.#podsByNode.get(node) ?? new Map<string, PodInfo>();
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

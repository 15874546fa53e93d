import { keyOf } from "../../api/object.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";
import type { PodInfo } from "./pod-info.ts";
import { podInfo } from "./pod-info.ts";

interface Nomination {
  readonly node: string;
  readonly pod: PodInfo;
}

/** Which waiting pods made room on which node, ahead of what `status.nominatedNodeName` shows. */
export class Nominations {
  readonly #byPod = new Map<string, Nomination>();

  /** A pod as the API has it. */
  observe(pod: StoredPod, before: StoredPod | undefined): void {
    const key = keyOf(pod);
    const known = this.#byPod.get(key);
    if (known !== undefined && known.pod.uid !== pod.metadata.uid) this.#byPod.delete(key);
    const shown = pod.status?.nominatedNodeName ?? "";
    const shownBefore = before?.status?.nominatedNodeName ?? "";
    if ((pod.spec?.nodeName ?? "") !== "") this.#byPod.delete(key);
    // An update that does not show our own nomination yet must not undo it.
    else if (shown !== "" && (known === undefined || shown !== shownBefore))
      this.set(podInfo(pod), shown);
    else if (shown === "" && shownBefore !== "") this.#byPod.delete(key);
  }

  set(pod: PodInfo, node: string): void {
    this.#byPod.set(keyOf(pod.pod), { node, pod });
  }

  remove(key: string): void {
    this.#byPod.delete(key);
  }

  nodeOf(pod: StoredPod): string | undefined {
    const known = this.#byPod.get(keyOf(pod));
    return known?.pod.uid === pod.metadata.uid ? known.node : undefined;
  }

  /** Less important pods that hope for `node`. */
  lessImportant(node: string, priority: number): readonly PodInfo[] {
    return [...this.#byPod.values()]
      .filter((each) => each.node === node && each.pod.priority < priority)
      .map(({ pod }) => pod);
  }

  byNode(): ReadonlyMap<string, readonly PodInfo[]> {
    const nodes = new Map<string, PodInfo[]>();
    for (const { node, pod } of this.#byPod.values()) {
      const pods = nodes.get(node);
      if (pods === undefined) nodes.set(node, [pod]);
      else pods.push(pod);
    }
    return nodes;
  }
}

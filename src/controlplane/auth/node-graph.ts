import { isRecord } from "../../lib/guard.ts";
import type { JsonObject, ObjectReader } from "../types.ts";
import { podReferences, type ReferenceKey } from "./node-references.ts";

/** A change of the store, as far as authorization looks at it. */
export interface ObservedChange {
  readonly resource: string;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: Readonly<JsonObject>;
  readonly previous: Readonly<JsonObject> | undefined;
}

/** Objects, and the announcement of their changes. */
export interface ObservedObjects {
  readonly objects: ObjectReader;
  subscribe(listener: (change: ObservedChange) => void): () => void;
}

function nodeOf(pod: Readonly<JsonObject>): string {
  const spec = pod["spec"];
  const name = isRecord(spec) ? spec["nodeName"] : undefined;
  return typeof name === "string" ? name : "";
}

/** Which node may read which object because one of its pods names it. Kept current from the store's changes. */
export class NodeGraph {
  /** node -> reference -> number of pods that hold it. */
  readonly #references = new Map<string, Map<ReferenceKey, number>>();

  constructor(source: ObservedObjects) {
    for (const pod of source.objects.list("pods")) this.#count(pod, 1);
    source.subscribe(({ resource, type, object, previous }) => {
      if (resource !== "pods") return;
      if (previous !== undefined) this.#count(previous, -1);
      if (type !== "DELETED") this.#count(object, 1);
    });
  }

  /** Whether a pod bound to `node` names the object. */
  allows(node: string, key: ReferenceKey): boolean {
    return this.#references.get(node)?.has(key) ?? false;
  }

  #count(pod: Readonly<JsonObject>, step: 1 | -1): void {
    const node = nodeOf(pod);
    if (node === "") return;
    const references = this.#references.get(node) ?? new Map<ReferenceKey, number>();
    for (const key of podReferences(pod)) {
      const count = (references.get(key) ?? 0) + step;
      if (count > 0) references.set(key, count);
      else references.delete(key);
    }
    if (references.size > 0) this.#references.set(node, references);
    else this.#references.delete(node);
  }
}

import { isRecord } from "../../lib/guard.ts";
import type { JsonObject, ObjectReader } from "../types.ts";
import {
  podReferences,
  referenceKey,
  volumeReferences,
  type ReferenceKey,
  type ReferenceKind,
  type VolumeReferences,
} from "./node-references.ts";

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

const volumesResource = "persistentvolumes";
const attachmentsResource = "volumeattachments.storage.k8s.io";

function nodeOf(object: Readonly<JsonObject>): string {
  const spec = object["spec"];
  const name = isRecord(spec) ? spec["nodeName"] : undefined;
  return typeof name === "string" ? name : "";
}

function nameOf(object: Readonly<JsonObject>): string {
  const metadata = object["metadata"];
  const name = isRecord(metadata) ? metadata["name"] : undefined;
  return typeof name === "string" ? name : "";
}

/**
 * Which node may read which object because one of its pods names it, or the volume of one. Kept current from the store's
 * changes.
 */
export class NodeGraph {
  /** node -> reference -> number of pods that hold it. */
  readonly #references = new Map<string, Map<ReferenceKey, number>>();
  /** PersistentVolume -> what it leads to. */
  readonly #volumes = new Map<string, VolumeReferences>();
  /** Secret -> the PersistentVolumes that name it. */
  readonly #secretUsers = new Map<ReferenceKey, Set<string>>();
  /** VolumeAttachment -> its node. */
  readonly #attachments = new Map<string, string>();

  constructor(source: ObservedObjects) {
    for (const pod of source.objects.list("pods")) this.#count(pod, 1);
    for (const volume of source.objects.list(volumesResource)) this.#setVolume(volume);
    for (const attachment of source.objects.list(attachmentsResource))
      this.#attachments.set(nameOf(attachment), nodeOf(attachment));
    source.subscribe((change) => this.#observe(change));
  }

  /** Whether a pod bound to `node` names the object, by itself or by its volume. */
  allows(
    node: string,
    object: { readonly kind: ReferenceKind; readonly namespace: string; readonly name: string },
  ): boolean {
    const { kind, namespace, name } = object;
    if (kind === "volumeattachments") return this.#attachments.get(name) === node;
    if (kind === "persistentvolumes") return this.#usesVolume(node, name);
    const key = referenceKey(kind, namespace, name);
    if (this.#references.get(node)?.has(key) === true) return true;
    const volumes = this.#secretUsers.get(key) ?? [];
    return [...volumes].some((volume) => this.#usesVolume(node, volume));
  }

  #usesVolume(node: string, name: string): boolean {
    const claim = this.#volumes.get(name)?.claim;
    return claim !== undefined && this.#references.get(node)?.has(claim) === true;
  }

  #observe({ resource, type, object, previous }: ObservedChange): void {
    if (resource === "pods") {
      if (previous !== undefined) this.#count(previous, -1);
      if (type !== "DELETED") this.#count(object, 1);
    } else if (resource === volumesResource) {
      this.#forgetVolume(nameOf(object));
      if (type !== "DELETED") this.#setVolume(object);
    } else if (resource === attachmentsResource) {
      if (type === "DELETED") this.#attachments.delete(nameOf(object));
      else this.#attachments.set(nameOf(object), nodeOf(object));
    }
  }

  #setVolume(volume: Readonly<JsonObject>): void {
    const references = volumeReferences(volume);
    if (references === undefined) return;
    const name = nameOf(volume);
    this.#volumes.set(name, references);
    for (const secret of references.secrets) {
      const users = this.#secretUsers.get(secret) ?? new Set();
      this.#secretUsers.set(secret, users.add(name));
    }
  }

  #forgetVolume(name: string): void {
    for (const secret of this.#volumes.get(name)?.secrets ?? []) {
      const users = this.#secretUsers.get(secret);
      users?.delete(name);
      if (users?.size === 0) this.#secretUsers.delete(secret);
    }
    this.#volumes.delete(name);
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

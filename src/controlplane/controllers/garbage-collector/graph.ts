import type { OwnerReference } from "../../../api/types.gen.ts";
import type { ServedResource } from "../shared/discovery.ts";

/** What the collector keeps of an object. */
export interface OwnedMeta {
  readonly uid: string;
  readonly name: string;
  /** Empty for cluster-scoped objects. */
  readonly namespace: string;
  readonly owners: readonly OwnerReference[];
  readonly finalizers: readonly string[];
  readonly deleting: boolean;
}

export interface GraphNode {
  readonly meta: OwnedMeta;
  /** Undefined when only references speak of it: nobody has seen the object ("virtual"). */
  readonly resource: ServedResource | undefined;
}

/** Being deleted in the foreground: its blocking dependents go first. */
export function isDeletingDependents(meta: OwnedMeta): boolean {
  return meta.deleting && meta.finalizers.includes("foregroundDeletion");
}

/** Being deleted without its dependents: they lose the reference first. */
export function isOrphaning(meta: OwnedMeta): boolean {
  return meta.deleting && meta.finalizers.includes("orphan");
}

/** Who owns whom, by uid. Fed by informers; knows objects of all kinds. */
export class OwnerGraph {
  readonly #nodes = new Map<string, GraphNode>();
  readonly #dependents = new Map<string, Set<string>>();

  get(uid: string): GraphNode | undefined {
    return this.#nodes.get(uid);
  }

  /** The known dependents of `uid`. */
  dependents(uid: string): readonly GraphNode[] {
    return [...(this.#dependents.get(uid) ?? [])].flatMap((each) => this.#nodes.get(each) ?? []);
  }

  /** Dependents that keep an owner in foreground deletion. */
  blockingDependents(uid: string): readonly GraphNode[] {
    return this.dependents(uid).filter(({ meta }) =>
      meta.owners.some((owner) => owner.uid === uid && owner.blockOwnerDeletion === true),
    );
  }

  /** Adds or replaces an object. */
  set(resource: ServedResource, meta: OwnedMeta): void {
    const before = this.#nodes.get(meta.uid);
    for (const { uid } of before?.meta.owners ?? []) this.#unlink(uid, meta.uid);
    this.#nodes.set(meta.uid, { meta, resource });
    for (const { uid } of meta.owners) {
      const dependents = this.#dependents.get(uid) ?? new Set<string>();
      dependents.add(meta.uid);
      this.#dependents.set(uid, dependents);
    }
  }

  /** Forgets an object; its dependents stay and still name it as owner. */
  delete(uid: string): GraphNode | undefined {
    const node = this.#nodes.get(uid);
    if (node === undefined) return undefined;
    this.#nodes.delete(uid);
    for (const owner of node.meta.owners) this.#unlink(owner.uid, uid);
    return node;
  }

  get size(): number {
    return this.#nodes.size;
  }

  #unlink(owner: string, dependent: string): void {
    const dependents = this.#dependents.get(owner);
    dependents?.delete(dependent);
    if (dependents?.size === 0) this.#dependents.delete(owner);
  }
}

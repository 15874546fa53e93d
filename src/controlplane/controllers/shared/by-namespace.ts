import type { Informer } from "../../../api/informer-types.ts";
import type { StoredMeta } from "../../../api/object.ts";

/** The objects of one namespace, kept beside an informer so that no controller walks the whole cluster. */
export interface NamespaceIndex<T> {
  in(namespace: string): Iterable<T>;
  /** Ends the subscription. */
  close(): void;
}

/** An index by namespace that follows `informer`. */
export function indexByNamespace<T extends { readonly metadata: StoredMeta }>(
  informer: Informer<T>,
): NamespaceIndex<T> {
  const index = new Map<string, Map<string, T>>();
  const close = informer.subscribe((change) => {
    const object = change.kind === "deleted" ? change.previous : change.object;
    const namespace = object.metadata.namespace ?? "";
    if (change.kind === "deleted") {
      const members = index.get(namespace);
      members?.delete(change.key);
      if (members?.size === 0) index.delete(namespace);
      return;
    }
    const members = index.get(namespace) ?? new Map<string, T>();
    members.set(change.key, change.object);
    index.set(namespace, members);
  });
  return { in: (namespace) => index.get(namespace)?.values() ?? [], close };
}

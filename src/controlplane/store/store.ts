import type { JsonObject, ObjectReader } from "../types.ts";

/** One change of one object. All objects are deeply frozen. */
export interface StoreChange {
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  /** `plural.group`. */
  readonly resource: string;
  /** Empty for cluster-scoped objects. */
  readonly namespace: string;
  readonly name: string;
  readonly revision: number;
  /** The new state; for DELETED the last state, with the deletion's resourceVersion. */
  readonly object: Readonly<JsonObject>;
  readonly previous: Readonly<JsonObject> | undefined;
}

/** What {@link Store.put} and {@link Store.delete} expect to find: a revision, or that nothing is there. */
export type Expected = number | "absent";

/**
 * All objects, in memory and on disk. Synchronous: when a call returns, the change is on disk (durable kinds), in
 * memory and with the subscribers.
 */
export interface Store extends ObjectReader {
  /** The newest revision given out; never goes back, not even over a crash. */
  readonly currentRevision: number;
  /**
   * Stores `object` under a new revision, which it writes into `metadata.resourceVersion`. The store owns and freezes
   * the object from then on.
   *
   * @throws {RevisionConflictError} when what is stored is not what `expected` says.
   */
  put(
    key: { readonly resource: string; readonly namespace: string; readonly name: string },
    object: JsonObject,
    expected: Expected,
  ): Readonly<JsonObject>;
  /** Removes an object; returns its last state. Throws like {@link Store.put}. */
  delete(
    key: { readonly resource: string; readonly namespace: string; readonly name: string },
    expected: number,
  ): Readonly<JsonObject>;
  /** Objects of one resource, ordered by namespace and name. */
  list(resource: string, namespace?: string): Iterable<Readonly<JsonObject>>;
  /**
   * Changes after `revision` that are still kept, oldest first.
   *
   * @returns undefined when some of them are no longer kept (410 for a client).
   */
  changesSince(revision: number): readonly StoreChange[] | undefined;
  /** Calls `listener` synchronously after each change. It must not throw. Returns the function that ends it. */
  subscribe(listener: (change: StoreChange) => void): () => void;
  /** Objects of `resource` last written before `time` (milliseconds since the epoch). */
  writtenBefore(
    resource: string,
    time: number,
  ): readonly { readonly namespace: string; readonly name: string }[];
  /** Closes the files; a clean end keeps revisions without a gap. */
  close(): void;
}

/** The object changed, vanished or appeared since the caller looked. */
export class RevisionConflictError extends Error {
  override readonly name = "RevisionConflictError";
}

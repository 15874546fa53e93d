/** What happened to one object of an informer's collection. `previous` is the projection that was held before. */
export type Change<T> =
  | { readonly kind: "added"; readonly key: string; readonly object: T }
  | { readonly kind: "updated"; readonly key: string; readonly object: T; readonly previous: T }
  | { readonly kind: "deleted"; readonly key: string; readonly previous: T };

/**
 * A cache of one collection that follows the server. Reads are synchronous and may be a moment old. After a restart of
 * the stream (410, torn connection) subscribers see only real differences, never a replay.
 */
export interface Informer<T> {
  /** Lists and watches until `signal` aborts. Never rejects for a server's sake: it retries with back-off. */
  run(signal: AbortSignal): Promise<void>;
  /** True once the first complete list is in the cache; stays true. */
  readonly synced: boolean;
  /** Resolves at the first {@link Informer.synced}; rejects when `signal` aborts. */
  whenSynced(signal: AbortSignal): Promise<void>;
  /** `key` is `namespace/name` or `name`. */
  get(key: string): T | undefined;
  values(): IterableIterator<T>;
  readonly size: number;
  /**
   * Calls `listener` for each later change, and at once with `added` for what the cache already holds. The listener
   * must not throw and must not wait. Returns the function that ends the subscription.
   */
  subscribe(listener: (change: Change<T>) => void): () => void;
}

import type { Change } from "./informer-types.ts";
import type { ObjectState } from "./watch-event.ts";

/** A projection and the state of the object it was made from. */
export interface CacheEntry<T> {
  readonly state: ObjectState;
  readonly object: T;
}

/** What is kept of one: no object for the state, there are tens of thousands. */
interface Held<T> {
  readonly uid: string;
  readonly resourceVersion: string;
  readonly object: T;
}

/** Called when a listener breaks its promise not to throw. */
export type ListenerFailed = (error: unknown) => void;

/** Projections by key, and whoever wants to hear of changes. All methods are synchronous. */
export class ObjectCache<T> {
  readonly #entries = new Map<string, Held<T>>();
  readonly #listeners = new Set<(change: Change<T>) => void>();
  readonly #listenerFailed: ListenerFailed;

  constructor(listenerFailed: ListenerFailed) {
    this.#listenerFailed = listenerFailed;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): T | undefined {
    return this.#entries.get(key)?.object;
  }

  /** @yields every projection, in no particular order. */
  *values(): Generator<T, void, undefined> {
    for (const { object } of this.#entries.values()) yield object;
  }

  /**
   * Takes in one object. The same state again is no change; another uid is another object of that name.
   *
   * @returns whether anything changed.
   */
  upsert(entry: CacheEntry<T>): boolean {
    const { object } = entry;
    const { key, uid, resourceVersion } = entry.state;
    const held = this.#entries.get(key);
    if (held?.uid === uid) {
      if (held.resourceVersion === resourceVersion) return false;
      this.#entries.set(key, { uid, resourceVersion, object });
      this.#emit({ kind: "updated", key, object, previous: held.object });
      return true;
    }
    if (held !== undefined) this.remove({ key, uid: held.uid });
    this.#entries.set(key, { uid, resourceVersion, object });
    this.#emit({ kind: "added", key, object });
    return true;
  }

  /** Forgets an object, unless another one has taken its name. */
  remove({ key, uid }: Pick<ObjectState, "key" | "uid">): void {
    const held = this.#entries.get(key);
    if (held === undefined || held.uid !== uid) return;
    this.#entries.delete(key);
    this.#emit({ kind: "deleted", key, previous: held.object });
  }

  /**
   * Makes the cache equal to a complete list; listeners hear of the differences only.
   *
   * @returns the number of objects that differed.
   */
  replace(entries: ReadonlyMap<string, CacheEntry<T>>): number {
    let changes = 0;
    for (const [key, { uid }] of this.#entries) {
      if (entries.has(key)) continue;
      this.remove({ key, uid });
      changes += 1;
    }
    for (const entry of entries.values()) if (this.upsert(entry)) changes += 1;
    return changes;
  }

  /** See {@link Informer.subscribe}. */
  subscribe(listener: (change: Change<T>) => void): () => void {
    for (const [key, { object }] of this.#entries) {
      this.#call(listener, { kind: "added", key, object });
    }
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #emit(change: Change<T>): void {
    // Who subscribes from inside a listener has just been told of this change.
    const listeners = [...this.#listeners];
    for (const listener of listeners) this.#call(listener, change);
  }

  #call(listener: (change: Change<T>) => void, change: Change<T>): void {
    try {
      listener(change);
    } catch (error) {
      // One broken listener must not keep the change from the others, nor tear the watch.
      this.#listenerFailed(error);
    }
  }
}

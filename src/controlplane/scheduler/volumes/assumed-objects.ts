import type { Informer } from "../../../api/informer-types.ts";
import type { Stored } from "../../../api/object.ts";
import { keyOf } from "../../../api/object.ts";

interface Assumed<T> {
  readonly object: Stored<T>;
  /** The version that the cache had then. */
  readonly over: string;
}

/**
 * Objects of a cache, with changes laid over them that are decided and not yet in the API. An object that changes in the
 * cache is as the cache has it: its own change has arrived, or somebody else's has overtaken it.
 */
export class AssumedObjects<T> {
  readonly #cache: Pick<Informer<Stored<T>>, "get">;
  readonly #assumed = new Map<string, Assumed<T>>();

  constructor(cache: Pick<Informer<Stored<T>>, "get">) {
    this.#cache = cache;
  }

  get(key: string): Stored<T> | undefined {
    const stored = this.#cache.get(key);
    const assumed = this.#assumed.get(key);
    if (assumed === undefined) return stored;
    if (stored?.metadata.resourceVersion === assumed.over) return assumed.object;
    this.#assumed.delete(key);
    return stored;
  }

  assume(object: Stored<T>): void {
    const key = keyOf(object);
    const stored = this.#cache.get(key);
    if (stored === undefined) return;
    this.#assumed.set(key, { object, over: stored.metadata.resourceVersion });
  }

  /** Takes back this very assumption; a later one stays. */
  forget(object: Stored<T>): void {
    const key = keyOf(object);
    if (this.#assumed.get(key)?.object === object) this.#assumed.delete(key);
  }
}

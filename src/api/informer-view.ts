import type { Change, Informer } from "./informer-types.ts";

/**
 * A part of another informer's collection: of each object what `select` makes of it, nothing where that is undefined.
 * `select` must give the same result for the same object, and cost little: nothing is kept. Whoever owns the source runs
 * it; `run` of the view only waits.
 */
export function informerView<T, U>(
  source: Informer<T>,
  select: (object: T) => U | undefined,
): Informer<U> {
  return new View(source, select);
}

class View<T, U> implements Informer<U> {
  readonly #source: Informer<T>;
  readonly #select: (object: T) => U | undefined;

  constructor(source: Informer<T>, select: (object: T) => U | undefined) {
    this.#source = source;
    this.#select = select;
  }

  get synced(): boolean {
    return this.#source.synced;
  }

  get size(): number {
    let size = 0;
    for (const _object of this.values()) size += 1;
    return size;
  }

  whenSynced(signal: AbortSignal): Promise<void> {
    return this.#source.whenSynced(signal);
  }

  run(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }

  get(key: string): U | undefined {
    const object = this.#source.get(key);
    return object === undefined ? undefined : this.#select(object);
  }

  *values(): Generator<U, void, undefined> {
    for (const object of this.#source.values()) {
      const selected = this.#select(object);
      if (selected !== undefined) yield selected;
    }
  }

  subscribe(listener: (change: Change<U>) => void): () => void {
    return this.#source.subscribe((change) => {
      const { key } = change;
      const object = change.kind === "deleted" ? undefined : this.#select(change.object);
      const previous = change.kind === "added" ? undefined : this.#select(change.previous);
      if (object !== undefined && previous !== undefined) {
        listener({ kind: "updated", key, object, previous });
      } else if (object !== undefined) {
        listener({ kind: "added", key, object });
      } else if (previous !== undefined) {
        listener({ kind: "deleted", key, previous });
      }
    });
  }
}

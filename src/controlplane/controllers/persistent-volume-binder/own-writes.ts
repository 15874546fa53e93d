import type { Informer } from "../../../api/informer-types.ts";
import type { Stored } from "../../../api/object.ts";
import { keyOf } from "../../../api/object.ts";

/**
 * An informer with what was just written laid over it, so that a step does not start from before the last one. A
 * binding is four writes; seen one by one, each would look like half of one that went wrong.
 */
export class OwnWrites<T> {
  readonly #informer: Pick<Informer<Stored<T>>, "get" | "values">;
  readonly #written = new Map<string, Stored<T>>();
  readonly #unsubscribe: () => void;

  constructor(informer: Pick<Informer<Stored<T>>, "get" | "values" | "subscribe">) {
    this.#informer = informer;
    this.#unsubscribe = informer.subscribe((change) => {
      const written = this.#written.get(change.key);
      if (written === undefined) return;
      if (change.kind === "deleted" || !isNewer(written, change.object))
        this.#written.delete(change.key);
    });
  }

  get(key: string): Stored<T> | undefined {
    return this.#written.get(key) ?? this.#informer.get(key);
  }

  *values(): Iterable<Stored<T>> {
    for (const object of this.#informer.values()) yield this.#written.get(keyOf(object)) ?? object;
  }

  /** Takes the answer to a write. */
  remember(object: Stored<T>): void {
    const key = keyOf(object);
    const known = this.#informer.get(key);
    // Gone or newer by now: the informer has overtaken us.
    if (known !== undefined && isNewer(object, known)) this.#written.set(key, object);
  }

  close(): void {
    this.#unsubscribe();
  }
}

/** Resource versions of one collection are ordered numbers (KEP-5504). */
function isNewer(a: Stored<unknown>, b: Stored<unknown>): boolean {
  return Number(a.metadata.resourceVersion) > Number(b.metadata.resourceVersion);
}

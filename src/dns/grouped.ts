/**
 * Values by a key that most have to themselves: such a one is kept as it is, because a Map of its own around each of ten
 * thousand costs two megabytes. Values must not be Maps.
 */
export class Grouped<T extends string | { readonly key: string }> {
  readonly #groups = new Map<string, T | Map<string, T>>();

  /** In the place of the one with the same identity. */
  add(key: string, value: T): void {
    const group = this.#groups.get(key);
    if (group instanceof Map) group.set(identity(value), value);
    else if (group === undefined || identity(group) === identity(value)) {
      this.#groups.set(key, value);
    } else {
      const both = [group, value].map((each): [string, T] => [identity(each), each]);
      this.#groups.set(key, new Map(both));
    }
  }

  /** @param id Of the value: a text is its own, an object has its `key`. */
  remove(key: string, id: string): void {
    const group = this.#groups.get(key);
    if (group === undefined) return;
    if (group instanceof Map) {
      group.delete(id);
      if (group.size === 0) this.#groups.delete(key);
    } else if (identity(group) === id) this.#groups.delete(key);
  }

  /** In the order in which they came. */
  get(key: string): readonly T[] {
    const group = this.#groups.get(key);
    if (group === undefined) return [];
    return group instanceof Map ? [...group.values()] : [group];
  }
}

function identity(value: string | { readonly key: string }): string {
  return typeof value === "string" ? value : value.key;
}

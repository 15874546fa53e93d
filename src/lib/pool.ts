/** Values kept at most; beyond that all are forgotten, which costs memory once and no correctness. */
const mostValues = 10_000;

/**
 * Gives equal values the same memory: for what thousands of objects say alike, as the names of nodes and ports. Whatever
 * it gives out must not be changed.
 */
export class Pool<T> {
  readonly #values = new Map<string, T>();

  /** The first value that was equal to this one; plain data only. */
  alike(value: T): T {
    const id = typeof value === "string" ? value : JSON.stringify(value);
    const known = this.#values.get(id);
    if (known !== undefined) return known;
    if (this.#values.size >= mostValues) this.#values.clear();
    this.#values.set(id, value);
    return value;
  }
}

const texts = new Pool<string>();

/** One text for all that are equal. */
export function pooledText(text: string): string {
  return texts.alike(text);
}

const noItems: readonly never[] = [];

/**
 * What `parse` makes of the items of a list, without those that it makes nothing of. Takes no more memory than it needs:
 * arrays that grow keep room for more, and all empty ones are the same.
 */
export function parsedList<T>(
  value: unknown,
  parse: (item: unknown, index: number) => T | undefined,
): readonly T[] {
  if (!Array.isArray(value) || value.length === 0) return noItems;
  const found: T[] = [];
  for (const [index, item] of value.entries()) {
    const parsed = parse(item, index);
    if (parsed !== undefined) found.push(parsed);
  }
  // A copy is as long as it must be.
  return found.length === 0 ? noItems : found.slice();
}

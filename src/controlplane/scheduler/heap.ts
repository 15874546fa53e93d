/** A binary heap: the item that comes before all others is at hand. */
export class Heap<T> {
  readonly #items: T[] = [];
  readonly #before: (a: T, b: T) => boolean;

  /** @param before Whether `a` must come out before `b`. */
  constructor(before: (a: T, b: T) => boolean) {
    this.#before = before;
  }

  get size(): number {
    return this.#items.length;
  }

  peek(): T | undefined {
    return this.#items[0];
  }

  push(item: T): void {
    this.#items.push(item);
    let index = this.#items.length - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!this.#swapUnlessOrdered(parent, index)) return;
      index = parent;
    }
  }

  pop(): T | undefined {
    const first = this.#items[0];
    const last = this.#items.pop();
    if (last === undefined || this.#items.length === 0) return first;
    this.#items[0] = last;
    let index = 0;
    for (;;) {
      const left = 2 * index + 1;
      const child = this.#comesFirst(left + 1, left) ? left + 1 : left;
      if (!this.#swapUnlessOrdered(index, child)) return first;
      index = child;
    }
  }

  /** Throws away all items for which `keep` says no. */
  retain(keep: (item: T) => boolean): void {
    const kept = this.#items.filter((item) => keep(item));
    this.#items.length = 0;
    for (const item of kept) this.push(item);
  }

  #comesFirst(index: number, other: number): boolean {
    const a = this.#items[index];
    const b = this.#items[other];
    return a !== undefined && b !== undefined && this.#before(a, b);
  }

  /** True when parent and child had to change places. */
  #swapUnlessOrdered(parent: number, child: number): boolean {
    const a = this.#items[parent];
    const b = this.#items[child];
    if (a === undefined || b === undefined || !this.#before(b, a)) return false;
    this.#items[parent] = b;
    this.#items[child] = a;
    return true;
  }
}

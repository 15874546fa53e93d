import type { StoreChange } from "./store.ts";

/** The last `size` changes, for watches that resume and lists of an earlier revision. */
export class History {
  readonly #size: number;
  #changes: StoreChange[] = [];
  /** Revision after which everything is still here. */
  #from: number;

  constructor(size: number, from: number) {
    this.#size = size;
    this.#from = from;
  }

  push(change: StoreChange): void {
    this.#changes.push(change);
    // Dropping half at a time makes the cost of a push constant on average.
    if (this.#changes.length > 2 * this.#size) {
      const cut = this.#changes.length - this.#size;
      this.#from = this.#changes[cut - 1]?.revision ?? this.#from;
      this.#changes = this.#changes.slice(cut);
    }
  }

  since(revision: number): readonly StoreChange[] | undefined {
    if (revision < this.#from) return undefined;
    let low = 0;
    let high = this.#changes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#changes[middle]?.revision ?? 0) <= revision) low = middle + 1;
      else high = middle;
    }
    return this.#changes.slice(low);
  }
}

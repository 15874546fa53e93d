/** Milliseconds after which an unmet expectation is given up: the watch must have lost something. */
const expiryMs = 5 * 60 * 1000;

interface Expectation {
  creations: number;
  readonly deletions: Set<string>;
  readonly setAt: number;
}

/**
 * What one workload still expects its pod cache to show. Scaling waits until it is met: a cache that has not yet seen
 * the last creation would have the same pod created twice.
 */
export class Expectations {
  readonly #byOwner = new Map<string, Expectation>();
  readonly #monotonic: () => number;

  /** @param monotonic Milliseconds of a clock that never steps. */
  constructor(monotonic: () => number) {
    this.#monotonic = monotonic;
  }

  expectCreations(owner: string, count: number): void {
    this.#byOwner.set(owner, {
      creations: count,
      deletions: new Set(),
      setAt: this.#monotonic(),
    });
  }

  expectDeletions(owner: string, uids: readonly string[]): void {
    this.#byOwner.set(owner, {
      creations: 0,
      deletions: new Set(uids),
      setAt: this.#monotonic(),
    });
  }

  /** The cache shows one more pod of `owner`, or a creation failed and none will come. */
  creationObserved(owner: string): void {
    const expectation = this.#byOwner.get(owner);
    if (expectation !== undefined) expectation.creations -= 1;
  }

  /** The pod is gone or going, or its deletion failed. */
  deletionObserved(owner: string, uid: string): void {
    this.#byOwner.get(owner)?.deletions.delete(uid);
  }

  satisfied(owner: string): boolean {
    const expectation = this.#byOwner.get(owner);
    if (expectation === undefined) return true;
    if (expectation.creations <= 0 && expectation.deletions.size === 0) return true;
    return this.#monotonic() - expectation.setAt > expiryMs;
  }

  /** The workload is gone. */
  forget(owner: string): void {
    this.#byOwner.delete(owner);
  }
}

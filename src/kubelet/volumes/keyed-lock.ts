/** Lets one piece of work at a time through for each key. What waits is let through in order. */
export class KeyedLock {
  readonly #last = new Map<string, Promise<void>>();

  /** Does `work` when all that was begun before under the same key has ended. */
  async hold<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last.set(key, promise);
    try {
      await before;
      return await work();
    } finally {
      resolve();
      if (this.#last.get(key) === promise) this.#last.delete(key);
    }
  }
}

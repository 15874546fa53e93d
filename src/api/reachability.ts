/** Told when the server answers again. `lostAt`: monotonic milliseconds of the first call that got no answer. */
export type ReturnListener = (lostAt: number) => void;

/**
 * Whether one API server answers, as all clients of it find out together: the first that gets through tells the others,
 * which would otherwise wait out their back-off, or hang on connections that died meanwhile.
 */
export class Reachability {
  readonly #listeners = new Set<ReturnListener>();
  #lostAt: number | undefined;

  /** Whether the last that is known is that it does not answer. */
  get isLost(): boolean {
    return this.#lostAt !== undefined;
  }

  /**
   * Calls in a row got no answer.
   *
   * @param since Monotonic milliseconds of the first of them.
   * @returns Whether nobody knew yet.
   */
  noteLoss(since: number): boolean {
    if (this.#lostAt !== undefined) return false;
    this.#lostAt = since;
    return true;
  }

  /** A call got an answer, whichever. */
  noteAnswer(): void {
    const lostAt = this.#lostAt;
    if (lostAt === undefined) return;
    this.#lostAt = undefined;
    for (const listener of this.#listeners) listener(lostAt);
  }

  /** @param listener Must not throw. @returns Ends the subscription. */
  subscribe(listener: ReturnListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** Counts what is under way, so that an end can wait for it. */
export class UnderWay {
  #count = 0;
  readonly #waiting: (() => void)[] = [];

  /** One more; what it returns says that it is through. */
  begin(): () => void {
    this.#count += 1;
    let through = false;
    return () => {
      if (through) return;
      through = true;
      this.#count -= 1;
      if (this.#count > 0) return;
      for (const resolve of this.#waiting.splice(0)) resolve();
    };
  }

  /** Resolves when all are through, or when `signal` aborts. */
  async settled(signal: AbortSignal): Promise<void> {
    if (this.#count === 0 || signal.aborted) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }
}

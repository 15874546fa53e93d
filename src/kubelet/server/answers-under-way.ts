/** Counts what is being answered, so that an end can wait for it. */
export class AnswersUnderWay {
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

  /** Resolves when all are through. */
  async settled(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}

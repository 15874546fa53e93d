import type { Clock } from "../../lib/clock.ts";
import { isAbort } from "../../lib/errors.ts";

/** A wait that others can cut short. A wake-up that comes before the wait ends it at once. */
export class Wake {
  #woken = false;
  #waiting: AbortController | undefined;

  wake(): void {
    this.#woken = true;
    this.#waiting?.abort();
  }

  /** Resolves after `ms`, at {@link wake}, or when `signal` aborts. */
  async wait(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
    this.#waiting = new AbortController();
    try {
      if (!this.#woken) {
        await clock.sleep(ms, AbortSignal.any([signal, this.#waiting.signal]));
      }
    } catch (error) {
      if (!isAbort(error)) throw error;
    } finally {
      this.#waiting = undefined;
      this.#woken = false;
    }
  }
}

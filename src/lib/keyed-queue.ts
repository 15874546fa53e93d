import { type Clock, notNeeded } from "./clock.ts";
import { isAbort } from "./errors.ts";

export interface KeyedQueueOptions {
  /** Does one key's work to the end. May reject; the key is then handed to `onError`. */
  readonly work: (key: string, signal: AbortSignal) => Promise<void>;
  /** Called with what `work` threw; usually logs and re-adds with a delay. Never throws. */
  readonly onError: (key: string, error: unknown) => void;
  readonly concurrency: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Runs jobs one at a time per key; a key added while its job runs makes it run once more after. */
export class KeyedQueue {
  readonly #dirty = new Set<string>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #delayed = new Map<string, { readonly due: number; readonly cancel: AbortController }>();
  readonly #options: KeyedQueueOptions;

  constructor(options: KeyedQueueOptions) {
    this.#options = options;
  }

  /** Wakes `key` now; a pending delayed wake-up of it is dropped, because the work will look at everything. */
  add(key: string): void {
    if (this.#options.signal.aborted) return;
    this.#delayed.get(key)?.cancel.abort(notNeeded);
    this.#delayed.delete(key);
    this.#dirty.add(key);
    this.#pump();
  }

  /** Wakes `key` in `ms`, unless it is already due earlier. */
  addAfter(key: string, ms: number): void {
    const { clock, signal } = this.#options;
    if (signal.aborted || this.#dirty.has(key)) return;
    const due = clock.monotonic() + ms;
    const pending = this.#delayed.get(key);
    if (pending !== undefined && pending.due <= due) return;
    pending?.cancel.abort(notNeeded);
    const cancel = new AbortController();
    this.#delayed.set(key, { due, cancel });
    void this.#wakeAfter(key, ms, AbortSignal.any([signal, cancel.signal]));
  }

  /** Forgets a delayed wake-up of `key`. Running work is not touched. */
  forget(key: string): void {
    this.#delayed.get(key)?.cancel.abort(notNeeded);
    this.#delayed.delete(key);
  }

  /** Resolves when nothing is queued or running. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.values());
  }

  async #wakeAfter(key: string, ms: number, signal: AbortSignal): Promise<void> {
    try {
      await this.#options.clock.sleep(ms, signal);
      this.add(key);
    } catch (error) {
      if (!isAbort(error)) this.#options.onError(key, error);
    }
  }

  #pump(): void {
    const { concurrency, signal } = this.#options;
    for (const key of this.#dirty) {
      if (signal.aborted || this.#running.size >= concurrency) return;
      if (this.#running.has(key)) continue;
      this.#dirty.delete(key);
      this.#running.set(key, this.#run(key));
    }
  }

  async #run(key: string): Promise<void> {
    const { work, onError, signal } = this.#options;
    try {
      await work(key, signal);
    } catch (error) {
      if (!signal.aborted) onError(key, error);
    } finally {
      this.#running.delete(key);
      this.#pump();
    }
  }
}

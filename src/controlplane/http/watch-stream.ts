import type { JsonObject } from "../types.ts";

export interface WatchEvent {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  readonly object: Readonly<JsonObject>;
}

/** Events that may wait for a slow reader before its watch is closed. */
const MAX_WAITING = 2000;

/**
 * The events of one watch, in order. A reader that falls too far behind loses the stream, never single events: it
 * resumes from its last resourceVersion.
 */
export class WatchStream implements AsyncIterable<WatchEvent> {
  /** What the reader starts with; bounded by the collection, not by the queue. */
  #initial: readonly WatchEvent[];
  #queue: WatchEvent[] = [];
  #wake: (() => void) | undefined;
  #ended = false;
  readonly #onEnd: () => void;

  /** `onEnd` is called once, when the stream ends for whatever reason. */
  constructor(initial: readonly WatchEvent[], onEnd: () => void) {
    this.#initial = initial;
    this.#onEnd = onEnd;
  }

  get ended(): boolean {
    return this.#ended;
  }

  push(event: WatchEvent): void {
    if (this.#ended) return;
    if (this.#queue.length >= MAX_WAITING) {
      this.end();
      return;
    }
    this.#queue.push(event);
    this.#wake?.();
  }

  /** Ends the stream; what is queued is still delivered. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd();
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchEvent, void, undefined> {
    try {
      const initial = this.#initial;
      this.#initial = [];
      yield* initial;
      for (;;) {
        const batch = this.#queue;
        this.#queue = [];
        yield* batch;
        if (this.#queue.length > 0) continue;
        if (this.#ended) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    } finally {
      this.end();
    }
  }
}

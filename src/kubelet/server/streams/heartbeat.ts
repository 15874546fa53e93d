import type { Clock } from "../../../lib/clock.ts";

/**
 * Clients leave after a minute without an answer. A relay between us and one that has gone notices so only by writing,
 * twice: the shorter, the sooner its process is ended.
 */
const periodMs = 1000;

export interface HeartbeatOptions {
  readonly clock: Clock;
  /** Says something to the peer that needs no answer. */
  readonly beat: () => void;
  /** The connection is over. */
  readonly gone: AbortSignal;
}

/**
 * Shows the peer that we are there, and us that it is, while we do not read from it: its questions are behind data that
 * somebody slow has not taken yet, and so would be the end of its connection.
 */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #stopped: AbortController | undefined;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = new AbortController();
    void this.#run(AbortSignal.any([this.#options.gone, this.#stopped.signal]));
  }

  stop(): void {
    this.#stopped?.abort();
    this.#stopped = undefined;
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#options.clock.sleep(periodMs, signal).catch(() => undefined);
      if (!signal.aborted) this.#options.beat();
    }
  }
}

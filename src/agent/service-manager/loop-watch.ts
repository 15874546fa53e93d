import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";

export interface LoopWatchOptions {
  /** Silence after which the service manager ends us, milliseconds. */
  readonly watchdogMs: number;
  readonly feed: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** To be called by a loop each time it comes round. */
export type Turn = () => void;

interface WatchedLoop {
  readonly name: string;
  readonly limitMs: number;
  /** Monotonic time of its last turn; undefined before the first. */
  turnedAt: number | undefined;
  complained: boolean;
}

/**
 * Whether the agent is alive, which is: each of its loops comes round in time. The loops themselves feed the watchdog; a
 * timer would go on doing that for an agent whose loops have all stopped. Only before a loop has begun, because it waits
 * for the API server perhaps, somebody else has to ({@link keepWaiting}).
 */
export class LoopWatch {
  readonly #options: LoopWatchOptions;
  readonly #loops: WatchedLoop[] = [];
  #fedAt = -Infinity;

  constructor(options: LoopWatchOptions) {
    this.#options = options;
  }

  /** @param limitMs How long a turn may take, whatever the machine does meanwhile. */
  loop(name: string, limitMs: number): Turn {
    const loop: WatchedLoop = { name, limitMs, turnedAt: undefined, complained: false };
    this.#loops.push(loop);
    return () => {
      loop.turnedAt = this.#options.clock.monotonic();
      loop.complained = false;
      this.#feed();
    };
  }

  /** Feeds while a loop has not begun; call it every {@link waitMs}. */
  keepWaiting(): void {
    if (this.#loops.some(({ turnedAt }) => turnedAt === undefined)) this.#feed();
  }

  get waitMs(): number {
    return this.#options.watchdogMs / 4;
  }

  #feed(): void {
    const { clock, feed } = this.#options;
    const now = clock.monotonic();
    if (this.#tellLate(now) || now - this.#fedAt < this.waitMs / 2) return;
    this.#fedAt = now;
    feed();
  }

  #tellLate(now: number): boolean {
    const late = this.#loops.filter(
      ({ limitMs, turnedAt }) => turnedAt !== undefined && now - turnedAt > limitMs,
    );
    for (const loop of late) {
      if (loop.complained) continue;
      loop.complained = true;
      this.#options.logger.log("error", "a loop of the agent hangs; the watchdog will end it", {
        loop: loop.name,
        limitMs: loop.limitMs,
      });
    }
    return late.length > 0;
  }
}

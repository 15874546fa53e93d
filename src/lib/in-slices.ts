import { setImmediate as nextTurn } from "node:timers/promises";

import type { Clock } from "./clock.ts";

/** How long work goes on before others get a turn: heartbeats and probes run on the same loop. */
const sliceMs = 8;

/** Tells long work when to let the event loop turn. */
export class Breather {
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #perLook: number;
  #since: number;
  #looks = 0;

  /** @param perLook After how many pieces the clock is asked: that costs as much as a small one does. */
  constructor(clock: Pick<Clock, "monotonic">, perLook = 8) {
    this.#clock = clock;
    this.#perLook = perLook;
    this.#since = clock.monotonic();
  }

  /** Asked after each piece of work. */
  due(): boolean {
    this.#looks += 1;
    return this.#looks % this.#perLook === 0 && this.#clock.monotonic() - this.#since >= sliceMs;
  }

  async rest(): Promise<void> {
    await nextTurn();
    this.#since = this.#clock.monotonic();
  }
}

/** Does `work` for each item, in order, and lets the event loop turn every few milliseconds. */
export async function inSlices<T>(
  items: Iterable<T>,
  clock: Pick<Clock, "monotonic">,
  work: (item: T) => void,
): Promise<void> {
  const breather = new Breather(clock);
  for (const item of items) {
    work(item);
    if (breather.due()) await breather.rest();
  }
}

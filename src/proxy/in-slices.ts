import { setImmediate as nextTurn } from "node:timers/promises";

import type { Clock } from "../lib/clock.ts";

/** How long work goes on before others get a turn: heartbeats and probes run on the same loop. */
const sliceMs = 8;
/** Asking the time costs as much as small work does. */
const perLook = 8;

/** Does `work` for each item, in order, and lets the event loop turn every few milliseconds. */
export async function inSlices<T>(
  items: Iterable<T>,
  clock: Pick<Clock, "monotonic">,
  work: (item: T) => void,
): Promise<void> {
  let since = clock.monotonic();
  let done = 0;
  for (const item of items) {
    work(item);
    done += 1;
    if (done % perLook !== 0 || clock.monotonic() - since < sliceMs) continue;
    await nextTurn();
    since = clock.monotonic();
  }
}

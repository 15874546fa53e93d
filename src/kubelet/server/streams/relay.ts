import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { finished } from "node:stream/promises";

/**
 * Carries bytes both ways until both sides have ended, each half on its own. When one side breaks, so does the other: a
 * peer must not take a torn stream for a complete one.
 *
 * @throws What broke it; both sides are destroyed then.
 */
export async function relay(client: Duplex, target: Duplex): Promise<void> {
  const ends = [finished(client), finished(target)];
  client.pipe(target);
  target.pipe(client);
  try {
    await Promise.all(ends);
  } catch (error) {
    client.destroy();
    breakOff(target);
    throw error;
  }
}

/** By a reset where there is one: a mere end would look like a complete answer. */
function breakOff(target: Duplex): void {
  if (target instanceof Socket && !target.writableFinished) target.resetAndDestroy();
  else target.destroy();
}

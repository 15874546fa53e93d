import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

/** A part of the agent that runs until it is told to stop. */
export interface Runner {
  readonly name: string;
  run(signal: AbortSignal): Promise<void>;
}

/**
 * Runs all parts until `signal` aborts. A part that ends early or fails takes the others down with it: an agent of which
 * half is gone would lie about the node, and the service manager starts a whole one again.
 *
 * @throws what the first failing part threw, after all the others have ended.
 */
export async function superviseAll(
  runners: readonly Runner[],
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const stop = new AbortController();
  const inner = AbortSignal.any([signal, stop.signal]);
  const failures: unknown[] = [];
  await Promise.all(
    runners.map(async (runner) => {
      try {
        await runner.run(inner);
        if (!inner.aborted) throw new Error(`${runner.name} ended although nobody asked it to`);
      } catch (error) {
        if (inner.aborted && isAbort(error)) return;
        // The first failure is thrown; whoever started us says it.
        if (failures.length > 0) {
          logger.log("error", "part failed", { part: runner.name, error: errorMessage(error) });
        }
        failures.push(error);
        stop.abort(new DOMException("another part failed", "AbortError"));
      }
    }),
  );
  if (failures.length > 0) throw failures[0];
}

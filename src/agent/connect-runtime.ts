import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ContainerRuntime, RuntimeInfo } from "../runtime/types.ts";

interface Waiting {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Told what the start waits for. */
  readonly service?: { waiting(text: string): void };
}

/** Connects to the engine, waiting for it as long as it takes: an engine that restarts must not end the agent. */
export async function connectRuntime(
  runtime: ContainerRuntime,
  { clock, logger, service }: Waiting,
  signal: AbortSignal,
): Promise<RuntimeInfo> {
  for (let waited = 0; ; waited += 1) {
    try {
      return await runtime.connect(signal);
    } catch (error) {
      signal.throwIfAborted();
      service?.waiting(`the container engine: ${errorMessage(error)}`);
      if (waited % 30 === 0) {
        logger.log("warn", "waiting for the container engine", { error: errorMessage(error) });
      }
      await clock.sleep(1000, signal);
    }
  }
}

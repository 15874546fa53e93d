import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { deleteFlows, listUDPFlows, type StaleFlows, type UDPFlow } from "./conntrack.ts";
import type { ProxyMetrics } from "./metrics.ts";
import { Wake } from "./wake.ts";

/** Says of a UDP flow which flows like it must go; undefined when it is right, or none of ours. */
export type FlowJudge = (flow: UDPFlow) => StaleFlows | undefined;

export interface ConntrackReconcilerOptions {
  readonly judges: ReadonlyMap<IPFamily, FlowJudge>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: ProxyMetrics;
}

/** Different deletions gathered in one pass: bounds the memory; what is left is found by the next pass. */
const deletionsPerPass = 500;
const mostPasses = 40;

/**
 * Compares conntrack's UDP flows with the endpoints there are, after changes that nobody watched: those while the agent
 * was down, and those while our table was not there. Off the path of synchronisations, because a pass over a large
 * table takes seconds (kubernetes#129982).
 */
export class ConntrackReconciler {
  readonly #options: ConntrackReconcilerOptions;
  readonly #wake = new Wake();
  readonly #due = new Set<IPFamily>();

  constructor(options: ConntrackReconcilerOptions) {
    this.#options = options;
  }

  /** Asks for a pass; returns at once. */
  request(family: IPFamily): void {
    this.#due.add(family);
    this.#wake.set();
  }

  /** Makes the passes that are asked for until `signal` aborts. A failed pass is reported and not repeated. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#wake.wait(signal);
      for (const family of this.#due) {
        this.#due.delete(family);
        const judge = this.#options.judges.get(family);
        if (judge !== undefined) await this.#reconcile(family, judge, signal);
      }
    }
  }

  async #reconcile(family: IPFamily, judge: FlowJudge, signal: AbortSignal): Promise<void> {
    const { clock, logger, metrics } = this.#options;
    const startedAt = clock.monotonic();
    let deleted = 0;
    try {
      for (let pass = 0; pass < mostPasses; pass += 1) {
        const stale = await findStaleFlows(family, judge, signal);
        deleted += (await deleteFlows([...stale.values()], signal)) ?? 0;
        if (stale.size < deletionsPerPass) break;
      }
    } catch (error) {
      if (isAbort(error)) throw error;
      logger.log("warn", "UDP flows could not be compared with the endpoints", {
        ipFamily: family,
        error: errorMessage(error),
      });
      return;
    }
    const durationMs = Math.round(clock.monotonic() - startedAt);
    metrics.conntrackReconciled(family, durationMs / 1000, deleted);
    if (deleted === 0) return;
    logger.log("info", "UDP flows to endpoints that are gone were deleted", {
      ipFamily: family,
      flows: deleted,
      durationMs,
    });
  }
}

async function findStaleFlows(
  family: IPFamily,
  judge: FlowJudge,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, StaleFlows>> {
  const found = new Map<string, StaleFlows>();
  await listUDPFlows(
    family,
    (flow) => {
      if (found.size >= deletionsPerPass) return;
      const stale = judge(flow);
      if (stale !== undefined) found.set(`${stale.vip} ${stale.port} ${stale.from}`, stale);
    },
    signal,
  );
  return found;
}

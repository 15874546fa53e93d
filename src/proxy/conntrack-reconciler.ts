import type { EventRecorder } from "../api/event-types.ts";
import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage, isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { FlowEnds } from "../netfilter/conntrack.ts";
import {
  deleteFlows,
  type FlowTable,
  type FlowTarget,
  listFlows,
  type StaleFlows,
  type TouchedFrontend,
} from "./conntrack.ts";
import type { ProxyMetrics } from "./metrics.ts";
import { nodeWarning } from "./node-event.ts";
import { Wake } from "./wake.ts";

/** What is known of one family's flows. */
export interface FlowJudge {
  /** Says of a UDP flow which flows like it must go; undefined when it is right, or none of ours. */
  readonly judge: (
    flow: FlowEnds,
    wasFrontend: (target: FlowTarget) => boolean,
    wasNodePortIP: (ip: string) => boolean,
  ) => StaleFlows | undefined;
  /** Addresses that node ports answer on. */
  readonly nodePortIPs: () => readonly string[];
}

export interface ConntrackReconcilerOptions {
  readonly judges: ReadonlyMap<IPFamily, FlowJudge>;
  readonly nodeName: string;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: ProxyMetrics;
  /** Default: that of this machine. */
  readonly table?: FlowTable;
  /** Done before all flows are looked at. Must not reject but with `AbortError`. */
  readonly first?: (family: IPFamily, signal: AbortSignal) => Promise<unknown>;
}

/** What is to be looked at in one family. */
interface Work {
  /** Every flow. */
  all: boolean;
  /** Flows to these, by `ip port`. */
  readonly touched: Map<string, TouchedFrontend>;
  /** Addresses that node ports answer on no longer. */
  readonly left: Set<string>;
}

function noWork(): Work {
  return { all: false, touched: new Map(), left: new Set() };
}

/** Families do not wait for each other. */
interface Lane {
  readonly family: IPFamily;
  readonly judge: FlowJudge;
  readonly wake: Wake;
  work: Work;
  /** Addresses on which node ports answered at the last comparison. */
  answered: readonly string[];
}

/** To delete more kinds of flows than this takes longer than to list all and see which there are. */
const mostBlindDeletions = 16;
/** Different deletions gathered in one pass: bounds the memory; what is left is found by the next pass. */
const deletionsPerPass = 500;
const mostPasses = 40;
/** Between two rounds: as long as the last one took, within these. */
const gapMs = { least: 20, most: 5000 };

export const missingTool =
  "conntrack is not installed, so UDP clients that keep sending from one port may keep sending to endpoints that are gone: run `apt-get install conntrack`";

/**
 * Deletes conntrack's UDP flows that go where no endpoint is any more: to frontends that a change touched, and all of
 * them after changes that nobody watched (while the agent was down, or our rules were not there). Each flow is judged by
 * the plan of the moment. Off the path of synchronisations, because a pass over a large table takes seconds
 * (kubernetes#129982).
 */
export class ConntrackReconciler {
  readonly #options: ConntrackReconcilerOptions;
  readonly #table: FlowTable;
  readonly #lanes: ReadonlyMap<IPFamily, Lane>;
  #toldMissing = false;

  constructor(options: ConntrackReconcilerOptions) {
    this.#options = options;
    this.#table = options.table ?? { list: listFlows, delete: deleteFlows };
    this.#lanes = new Map(
      [...options.judges].map(([family, judge]) => [
        family,
        { family, judge, wake: new Wake(), work: noWork(), answered: [] },
      ]),
    );
  }

  /** Asks for a look at all flows; returns at once. */
  request(family: IPFamily): void {
    const lane = this.#lanes.get(family);
    if (lane === undefined) return;
    lane.work.all = true;
    lane.wake.set();
  }

  /**
   * To be called when rules are in the kernel: asks for a look at flows to node ports at addresses on which these answered
   * at the last call and do no longer; returns at once.
   */
  compareAddresses(family: IPFamily): void {
    const lane = this.#lanes.get(family);
    if (lane === undefined) return;
    const now = lane.judge.nodePortIPs();
    // Link-local ones go with each pod.
    const left = lane.answered.filter((ip) => !now.includes(ip) && !ip.startsWith("fe80:"));
    lane.answered = now;
    if (left.length === 0) return;
    for (const ip of left) lane.work.left.add(ip);
    this.request(family);
  }

  /** Asks for a look at flows to these; returns at once. To be called when the change is in the kernel. */
  touched(family: IPFamily, targets: readonly TouchedFrontend[]): void {
    const lane = this.#lanes.get(family);
    if (lane === undefined || targets.length === 0) return;
    const { touched } = lane.work;
    for (const target of targets) {
      const name = `${target.ip} ${target.port}`;
      const known = touched.get(name);
      const lost = known === undefined ? target.lost : [...known.lost, ...target.lost];
      touched.set(name, { ...target, lost, fresh: target.fresh || known?.fresh === true });
    }
    lane.wake.set();
  }

  /** Does what is asked for until `signal` aborts. A failed pass is reported and not repeated. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([...this.#lanes.values()].map((lane) => this.#runLane(lane, signal)));
  }

  async #runLane(lane: Lane, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!signal.aborted) {
      await lane.wake.wait(signal);
      const startedAt = clock.monotonic();
      const { family, judge, work } = lane;
      lane.work = noWork();
      if (work.all) await this.#options.first?.(family, signal);
      await this.#reconcile(family, work, judge, signal);
      const tookMs = clock.monotonic() - startedAt;
      await clock.sleep(Math.min(Math.max(tookMs, gapMs.least), gapMs.most), signal);
    }
  }

  async #reconcile(
    family: IPFamily,
    work: Work,
    judge: FlowJudge,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, logger, metrics } = this.#options;
    const startedAt = clock.monotonic();
    let deleted = 0;
    try {
      for (let pass = 0; pass < mostPasses; pass += 1) {
        const blind = pass === 0 && !work.all ? guessStale(work.touched, judge) : undefined;
        const stale = blind ?? (await this.#findStale(family, work, judge, signal));
        const count =
          stale === undefined || stale.size === 0
            ? stale?.size
            : await this.#table.delete([...stale.values()], signal);
        if (stale === undefined || count === undefined) {
          this.#reportMissing();
          return;
        }
        deleted += count;
        if (blind !== undefined || stale.size < deletionsPerPass) break;
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

  /** @returns Undefined without the tool. */
  async #findStale(
    family: IPFamily,
    { left, touched }: Work,
    { judge }: FlowJudge,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, StaleFlows> | undefined> {
    const found = new Map<string, StaleFlows>();
    const was = ({ ip, port }: FlowTarget): boolean => touched.has(`${ip} ${port}`);
    const onFlow = (flow: FlowEnds): void => {
      if (found.size >= deletionsPerPass) return;
      const stale = judge(flow, was, (ip) => left.has(ip));
      if (stale !== undefined) found.set(nameOf(stale), stale);
    };
    return (await this.#table.list({ family }, onFlow, signal)) ? found : undefined;
  }

  #reportMissing(): void {
    if (this.#toldMissing) return;
    this.#toldMissing = true;
    const { nodeName: name, logger, events } = this.#options;
    logger.log("warn", "UDP flows cannot be deleted", { remedy: missingTool });
    nodeWarning(events, name, "ConntrackMissing", missingTool);
  }
}

function nameOf({ vip, port, from }: StaleFlows): string {
  return `${vip} ${port} ${from?.ip} ${from?.port}`;
}

/** Kinds of flows that there may be and must not; undefined when there are too many of them. */
function guessStale(
  touched: ReadonlyMap<string, TouchedFrontend>,
  { judge, nodePortIPs }: FlowJudge,
): ReadonlyMap<string, StaleFlows> | undefined {
  const found = new Map<string, StaleFlows>();
  const was = ({ ip, port }: FlowTarget): boolean => touched.has(`${ip} ${port}`);
  for (const { ip, port, lost, fresh } of touched.values()) {
    for (const destination of ip === "" ? nodePortIPs() : [ip]) {
      for (const from of fresh ? [{ ip: destination, port }, ...lost] : lost) {
        const flow = { destination, port, from: from.ip, fromPort: from.port };
        const stale = judge(flow, was, () => false);
        if (stale !== undefined) found.set(nameOf(stale), stale);
        if (found.size > mostBlindDeletions) return undefined;
      }
    }
  }
  return found;
}

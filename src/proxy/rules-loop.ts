import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage, isAbort, SetupError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Deletion } from "../netfilter/monitor.ts";
import type { ApplyResult, RuleBackend, RulesContext } from "./backend.ts";
import type { FamilyRules } from "./family-rules.ts";
import { inSlices } from "../lib/in-slices.ts";
import type { ProxyMetrics } from "./metrics.ts";
import type { RulesHealth } from "./rules-health.ts";
import type { FeedListener, ServiceFeed } from "./service-feed.ts";
import { TriggerTimes } from "./trigger-times.ts";
import type { NodeView } from "./types.ts";
import { orAbort, Wake } from "./wake.ts";

/** What rules depend on besides Services, as of now. */
export interface RulesFacts {
  readonly node: NodeView;
  readonly context: Pick<RulesContext, "local" | "nodePortIPs" | "localhostNodePorts">;
  /** Networks of ClusterIPs, any family. */
  readonly serviceCIDRs: readonly string[];
  /** Node ports of health checks. */
  readonly healthPorts: readonly number[];
}

export interface RulesLoopOptions {
  readonly rules: FamilyRules;
  /** The one that `rules` writes through. */
  readonly backend: RuleBackend;
  readonly feed: Pick<ServiceFeed, "service" | "keys" | "index">;
  /** Asked before each synchronisation. */
  readonly facts: () => RulesFacts;
  readonly health: RulesHealth;
  readonly metrics: ProxyMetrics;
  /** Time between two looks whether the rules are still there, where the backend does not hear of deletions. */
  readonly syncPeriodMs: number;
  /** Least time between the end of one synchronisation and the start of the next. */
  readonly minSyncPeriodMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  /** Everything that was seen is planned now. */
  readonly onPlanned: () => void;
  /** This machine cannot do this family at all, and may do without it. Default: {@link RulesLoop.run} throws. */
  readonly onImpossible?: (error: SetupError) => void;
  /** Rules are in the kernel. */
  readonly onApplied: (applied: { readonly result: ApplyResult; readonly first: boolean }) => void;
}

/** Before the second, third, ... attempt; the last one for ever. */
const retryMs = [100, 500, 2000, 4000, 8000, 16_000, 30_000] as const;
/** A change after a failure is tried no sooner: it may be what mends it. */
const eagerRetryMs = 1000;
/** Between the end of one synchronisation and the start of the next: twice its duration, within these. */
const gapMs = { least: 10, most: 1000 };
const garbageDelayMs = 1000;

/** Milliseconds before the next attempt after so many failures, of which a tenth is random. */
export function retryDelayMs(failures: number, random: () => number): number {
  const full = retryMs[Math.min(failures, retryMs.length) - 1] ?? retryMs[0];
  return full * (0.9 + 0.1 * random());
}

/**
 * Keeps the rules of one family right. The first change after idle is applied at once, later ones together behind the
 * running synchronisation. Each family has a loop of its own: what one cannot do does not hold up the other.
 */
export class RulesLoop implements FeedListener {
  readonly family: IPFamily;
  readonly #options: RulesLoopOptions;
  readonly #logger: Logger;
  readonly #wake = new Wake();
  readonly #triggers = new TriggerTimes();
  readonly #firstSuccess = Promise.withResolvers<void>();
  #dirty = new Set<string>();
  #dirtySince: number | undefined;
  #node = "";
  /** There is something to do besides looking whether the rules are there. */
  #needed = false;
  #lookDue = false;
  #failures = 0;
  #succeeded = false;
  #impossible = false;

  constructor(options: RulesLoopOptions) {
    this.#options = options;
    this.family = options.rules.family;
    this.#logger = options.logger.child({ ipFamily: this.family });
  }

  get hasUnplanned(): boolean {
    return this.#dirty.size > 0;
  }

  changed(serviceKey: string): void {
    if (this.#impossible) return;
    if (this.#dirty.size === 0) {
      const { clock, health, metrics } = this.#options;
      this.#dirtySince = clock.now();
      metrics.queued(this.#dirtySince, [this.family]);
      health.queued(this.family);
    }
    this.#dirty.add(serviceKey);
    this.wake();
  }

  triggered(family: IPFamily, serviceKey: string, at: number): void {
    // What changed before we started says nothing about our speed.
    if (family !== this.family || at <= this.#options.health.startedAt) return;
    this.#triggers.note(family, serviceKey, at);
  }

  untriggered(family: IPFamily, serviceKey: string): void {
    if (family === this.family) this.#triggers.forget(family, serviceKey);
  }

  /** Asks for a synchronisation: facts changed. */
  wake(): void {
    this.#needed = true;
    this.#wake.set();
  }

  /** Reads the kernel back at once when a deletion there was not ours. */
  onDeletion(deletion: Deletion | "unwatched"): void {
    const { rules, metrics } = this.#options;
    if (deletion !== "unwatched") {
      if (!rules.concerns(deletion)) return;
      if (deletion.kind === "table") metrics.tableLost(this.family);
    }
    rules.distrust();
    this.wake();
  }

  /** Resolves when the kernel had all rules for the first time, or never will. Rejects when `signal` aborts. */
  whenApplied(signal: AbortSignal): Promise<void> {
    return orAbort(this.#firstSuccess.promise, signal);
  }

  /**
   * Applies changes until `signal` aborts. To be called when all Services and endpoints are known.
   *
   * @throws {SetupError} when this machine cannot do it at all, and nobody takes that ({@link RulesLoopOptions.onImpossible}).
   */
  async run(signal: AbortSignal): Promise<void> {
    this.wake();
    const stop = new AbortController();
    const looks = this.#askForLooks(AbortSignal.any([signal, stop.signal]));
    try {
      while (!signal.aborted) {
        await this.#wake.wait(signal);
        await this.#turn(signal);
      }
    } catch (error) {
      const { onImpossible } = this.#options;
      if (!(error instanceof SetupError) || onImpossible === undefined) throw error;
      this.#giveUp();
      onImpossible(error);
    } finally {
      stop.abort();
      await looks;
    }
  }

  #giveUp(): void {
    this.#impossible = true;
    this.#dirty = new Set();
    this.#options.health.without(this.family);
    this.#firstSuccess.resolve();
  }

  async #askForLooks(signal: AbortSignal): Promise<void> {
    const { backend, clock, syncPeriodMs } = this.#options;
    if (backend.check === undefined) return;
    try {
      while (!signal.aborted) {
        await clock.sleep(syncPeriodMs, signal);
        this.#lookDue = true;
        this.#wake.set();
      }
    } catch (error) {
      if (!isAbort(error)) throw error;
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const { clock, minSyncPeriodMs, random, rules } = this.#options;
    if (this.#lookDue) await this.#look(signal);
    if (!this.#needed) return;
    this.#needed = false;
    const startedAt = clock.monotonic();
    await this.#plan();
    if (!(await this.#apply(signal))) {
      this.#failures += 1;
      this.#needed = true;
      const delayMs = retryDelayMs(this.#failures, random);
      void this.#wakeLater(delayMs, signal);
      await clock.sleep(Math.min(delayMs, eagerRetryMs), signal);
      return;
    }
    this.#failures = 0;
    if (rules.hasGarbage) void this.#wakeLater(garbageDelayMs, signal);
    const gap = Math.min(Math.max(2 * (clock.monotonic() - startedAt), gapMs.least), gapMs.most);
    await clock.sleep(Math.max(gap, minSyncPeriodMs), signal);
  }

  async #look(signal: AbortSignal): Promise<void> {
    this.#lookDue = false;
    const { backend, rules } = this.#options;
    if ((await backend.check?.(signal)) !== false) return;
    rules.distrust();
    this.#needed = true;
  }

  async #wakeLater(ms: number, signal: AbortSignal): Promise<void> {
    try {
      await this.#options.clock.sleep(ms, signal);
      this.wake();
    } catch (error) {
      if (!isAbort(error)) throw error;
    }
  }

  /** A large burst is planned in slices: others live on this event loop too. What comes meanwhile is for the next turn. */
  async #plan(): Promise<void> {
    const { backend, clock, facts, feed, onPlanned, rules } = this.#options;
    const { context, healthPorts, node, serviceCIDRs } = facts();
    this.#replanIfMoved(node);
    rules.setServiceCIDRs(serviceCIDRs);
    const wanted = { ...rules.context, ...context };
    if (JSON.stringify(wanted) !== JSON.stringify(rules.context)) rules.setContext(wanted);
    backend.setHealthPorts(healthPorts);
    const dirty = this.#dirty;
    this.#dirty = new Set();
    this.#dirtySince = undefined;
    this.#triggers.planned();
    await inSlices(dirty, clock, (key) => {
      rules.update(key, feed.service(key), feed.index, node);
    });
    onPlanned();
  }

  /** Zone and addresses of the node, and whether sources are kept, are in all plans. */
  #replanIfMoved({ zone, ips, keepsSource = false }: NodeView): void {
    const text = `${zone} ${ips.join()} ${keepsSource}`;
    if (text === this.#node) return;
    this.#node = text;
    for (const key of this.#options.feed.keys()) this.#dirty.add(key);
  }

  async #apply(signal: AbortSignal): Promise<boolean> {
    const { clock, health, metrics, rules } = this.#options;
    health.started(this.family);
    const startedAt = clock.monotonic();
    try {
      const result = await rules.sync(signal);
      const durationMs = clock.monotonic() - startedAt;
      this.#record(result, durationMs);
      return true;
    } catch (error) {
      // What the machine lacks at the start it lacks for ever; later it is an accident that may pass.
      if (isAbort(error) && signal.aborted) throw error;
      if (error instanceof SetupError && !this.#succeeded) throw error;
      this.#logger.log("error", "service rules could not be applied; will retry", {
        error: errorMessage(error),
      });
      metrics.syncFailed(this.family, rules.mode, this.#succeeded);
      return false;
    }
  }

  #record(result: ApplyResult, durationMs: number): void {
    const { clock, health, metrics, onApplied } = this.#options;
    const { changes, bytes, drift, cleanupFailed } = result;
    const first = !this.#succeeded;
    this.#succeeded = true;
    health.succeeded(this.family, this.#dirtySince);
    const now = clock.now();
    const counted = result.rules === undefined ? {} : { rules: result.rules };
    metrics.synced(
      {
        family: this.family,
        seconds: durationMs / 1000,
        full: drift !== undefined,
        bytes,
        changes,
        ...counted,
      },
      now,
    );
    if (cleanupFailed) metrics.cleanupFailed(this.family);
    for (const at of this.#triggers.applied(this.family)) {
      metrics.programmed((now - at) / 1000, this.family);
    }
    if (changes > 0) {
      this.#logger.log("debug", "service rules applied", {
        changes,
        transactions: result.transactions,
        durationMs: Math.round(durationMs),
      });
    }
    // What differs at the start is what happened while nobody looked; later it is the work of others.
    if (drift === true && !first) {
      metrics.driftRepaired(this.family);
      this.#logger.log("warn", "service rules were changed by another program and are put back", {
        changes,
      });
    }
    onApplied({ result, first });
    if (first) this.#firstSuccess.resolve();
  }
}

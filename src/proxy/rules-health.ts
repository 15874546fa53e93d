import type { IPFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import type { HealthState } from "./health.ts";
import type { NodeCondition } from "./node-condition.ts";

/** Which families have changes that are not in the kernel yet, and since when. */
export class RulesHealth implements HealthState {
  readonly startedAt: number;
  families: readonly IPFamily[];
  readonly lastSuccess = new Map<IPFamily, number>();
  readonly pendingSince = new Map<IPFamily, number>();
  readonly staleMs: number;
  readonly node: () => NodeCondition | undefined;
  readonly #clock: Clock;

  constructor(options: {
    readonly families: readonly IPFamily[];
    readonly syncPeriodMs: number;
    readonly node: () => NodeCondition | undefined;
    readonly clock: Clock;
  }) {
    this.families = options.families;
    this.node = options.node;
    this.#clock = options.clock;
    this.staleMs = 2 * options.syncPeriodMs;
    this.startedAt = options.clock.now();
  }

  /** This machine cannot do the family: nothing of it is waited for, nor told. */
  without(family: IPFamily): void {
    this.families = this.families.filter((other) => other !== family);
    this.pendingSince.delete(family);
  }

  /** A change was seen. Before the first success rules are not late, only busy. */
  queued(family: IPFamily): void {
    if (this.lastSuccess.has(family)) this.started(family);
  }

  /** Rules are about to be applied. */
  started(family: IPFamily): void {
    if (!this.pendingSince.has(family)) this.pendingSince.set(family, this.#clock.now());
  }

  /** @param queuedSince When the oldest change came that is not in the kernel even now. */
  succeeded(family: IPFamily, queuedSince: number | undefined): void {
    this.lastSuccess.set(family, this.#clock.now());
    if (queuedSince === undefined) this.pendingSince.delete(family);
    else this.pendingSince.set(family, queuedSince);
  }
}

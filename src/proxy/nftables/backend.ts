import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { Deletion } from "../../netfilter/monitor.ts";
import type { NftTable } from "../../netfilter/transaction.ts";
import type { ApplyResult, RuleBackend, RulesContext } from "../backend.ts";
import type { PlannedPort } from "../plan.ts";
import { TableApplier } from "./apply.ts";
import { DesiredTable } from "./desired-table.ts";
import { serviceLayout } from "./layout.ts";
import { renderServiceRules } from "./render.ts";

/** Service rules of one family in an nftables table of their own. */
export class NftBackend implements RuleBackend {
  readonly mode = "nftables";
  readonly #table: NftTable;
  readonly #desired: DesiredTable;
  readonly #applier: TableApplier;

  constructor(options: {
    readonly context: RulesContext;
    readonly tableName: string;
    readonly logger: Logger;
    readonly clock: Clock;
  }) {
    const { context, tableName, logger, clock } = options;
    this.#table = { family: context.family === "IPv4" ? "ip" : "ip6", name: tableName };
    this.#desired = new DesiredTable(serviceLayout(context));
    this.#applier = new TableApplier({ table: this.#table, desired: this.#desired, logger, clock });
  }

  setContext(context: RulesContext): void {
    this.#desired.setLayout(serviceLayout(context));
  }

  set(key: string, plan: PlannedPort | undefined): void {
    this.#desired.set(key, plan);
  }

  /** A table cannot let in what another one drops. */
  setHealthPorts(): void {}

  conflicts(key: string): readonly (readonly [string, string])[] {
    return this.#desired.conflicts(key);
  }

  isClusterIP(ip: string): boolean {
    return this.#desired.hasClusterIP(ip);
  }

  sync(signal: AbortSignal): Promise<ApplyResult> {
    return this.#applier.sync(signal);
  }

  distrust(): void {
    this.#applier.distrust();
  }

  concerns(deletion: Deletion): boolean {
    const { family, name } = this.#table;
    return (
      deletion.family === family && deletion.table === name && this.#applier.isSuspicious(deletion)
    );
  }

  get hasGarbage(): boolean {
    return this.#applier.hasGarbage;
  }

  render(): string {
    return renderServiceRules(this.#table, this.#desired);
  }

  snapshot(): Map<string, string> {
    return this.#desired.snapshot();
  }
}

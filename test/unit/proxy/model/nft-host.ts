import type { Clock } from "../../../../src/lib/clock.ts";
import { type NftTable, renderTransaction } from "../../../../src/netfilter/transaction.ts";
import type { ApplyResult, RuleBackend, RulesContext } from "../../../../src/proxy/backend.ts";
import { DesiredTable } from "../../../../src/proxy/nftables/desired-table.ts";
import { serviceLayout } from "../../../../src/proxy/nftables/layout.ts";
import { renderServiceRules } from "../../../../src/proxy/nftables/render.ts";
import type { PlannedPort } from "../../../../src/proxy/plan.ts";
import type { NftTraceTable } from "../../../../src/proxy/trace/nft-table.ts";
import { NftTraceRuleset } from "../../../../src/proxy/trace/nft-text.ts";

const empty: ApplyResult = {
  changes: 0,
  transactions: 0,
  bytes: 0,
  drift: undefined,
  cleanupFailed: false,
};

/** Service rules in an nftables table whose kernel is the simulator: it refuses what the kernel would refuse. */
export class SimulatedNft implements RuleBackend {
  readonly mode = "nftables";
  readonly hasGarbage = false;
  readonly rules = new NftTraceRuleset();
  readonly #table: NftTable;
  readonly #desired: DesiredTable;
  /** Stands still. */
  readonly #clock: Pick<Clock, "monotonic"> = { monotonic: () => 0 };

  constructor(context: RulesContext, tableName: string) {
    this.#table = { family: context.family === "IPv4" ? "ip" : "ip6", name: tableName };
    this.#desired = new DesiredTable(serviceLayout(context));
    this.rules.addTable(this.#table.family, tableName);
  }

  set(key: string, plan: PlannedPort | undefined): void {
    this.#desired.set(key, plan);
  }

  async sync(): Promise<ApplyResult> {
    // What nobody has wanted since the last time goes first, as the proxy does it a second later.
    this.rules.run(renderTransaction(this.#table, this.#desired.ledger.takeUnused(0)));
    for await (const changes of this.#desired.transactions(this.#clock)) {
      this.rules.run(renderTransaction(this.#table, changes.ops()));
    }
    this.#desired.committed();
    this.#desired.ledger.noteUnused(0);
    return empty;
  }

  setContext(context: RulesContext): void {
    this.#desired.setLayout(serviceLayout(context));
  }

  setHealthPorts(): void {}
  distrust(): void {}

  concerns(): boolean {
    return false;
  }

  conflicts(key: string): readonly (readonly [string, string])[] {
    return this.#desired.conflicts(key);
  }

  isClusterIP(ip: string): boolean {
    return this.#desired.hasClusterIP(ip);
  }

  render(): string {
    return renderServiceRules(this.#table, this.#desired);
  }

  snapshot(): Map<string, string> {
    return this.#desired.snapshot();
  }

  comparable(): Map<string, string> {
    return comparableTable(this.rules.table(this.#table.family, this.#table.name));
  }
}

/** Chains that name all endpoints of one port, in the order of their slots. */
const isOwnOfPort = /^(a[cl]|w[cl])-/;

function wordsOf(text: string): readonly string[] {
  return text.split(/[\s,]+/).filter((word) => !/^\d*$/.test(word));
}

/** What is in a table, whichever slots endpoints have, and whatever a listing makes of the words of its rules. */
export function comparableTable(table: NftTraceTable): Map<string, string> {
  const out = new Map<string, string>();
  for (const { name: chain, place, rules } of table.chains.values()) {
    const own = isOwnOfPort.test(chain)
      ? rules.flatMap(({ text }) => wordsOf(text)).toSorted()
      : rules.map(({ tag }) => tag);
    out.set(`chain ${chain}`, JSON.stringify([place, own]));
  }
  for (const { name: container, elements } of table.containers.values()) {
    const slots = new Map<string, string[]>();
    for (const [key, value] of elements) {
      const place = container.startsWith("ep-") ? key.replace(/ \. \d+$/, "") : key;
      slots.set(place, [...(slots.get(place) ?? []), value]);
    }
    for (const [place, values] of slots)
      out.set(`element ${container} ${place}`, values.toSorted().join());
  }
  return out;
}

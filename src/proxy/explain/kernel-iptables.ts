import { execResult } from "../../lib/exec.ts";
import { SetupError } from "../../lib/errors.ts";
import { IptablesError, probeIptables } from "../../netfilter/iptables.ts";
import { canonicalRule } from "../iptables/listing.ts";
import { dispatchChains, portChains, portDispatch } from "../iptables/layout.ts";
import { ruleText } from "../iptables/rules.ts";
import type { Frontend, PlannedPort } from "../plan.ts";
import type { CarriedRule, KernelView, RuleDrift, WantedRules } from "./kernel.ts";

/** A rule as `iptables-save -c` prints it. */
export interface CountedRule {
  /** What stands behind `-A CHAIN`. */
  readonly text: string;
  readonly packets: number;
}

/** Rules by table and chain, `nat KUBE-SERVICES`. */
export type CountedTables = ReadonlyMap<string, readonly CountedRule[]>;

/** Reads what `iptables-save -c` prints of one table. */
export function parseCountedSave(table: string, text: string): Map<string, CountedRule[]> {
  const chains = new Map<string, CountedRule[]>();
  for (const line of text.split("\n")) {
    if (line.startsWith(":")) chains.set(`${table} ${line.slice(1, line.indexOf(" "))}`, []);
    const [, packets, chain, rule = ""] = /^\[(\d+):\d+\] -A (\S+) ?(.*)$/.exec(line) ?? [];
    if (packets === undefined || chain === undefined) continue;
    const counted = { text: rule.trimEnd(), packets: Number(packets) };
    chains.set(`${table} ${chain}`, [...(chains.get(`${table} ${chain}`) ?? []), counted]);
  }
  return chains;
}

/**
 * What iptables has of a Service, compared with what the proxy would write for it.
 *
 * @throws {IptablesError}, {@link SetupError} no iptables, or not root.
 */
export async function iptablesView(wanted: WantedRules, signal: AbortSignal): Promise<KernelView> {
  const program = await probeIptables(signal);
  if (program === undefined) {
    throw new SetupError("iptables is not installed: run `apt-get install iptables`");
  }
  const name = `${wanted.context.family === "IPv4" ? "iptables" : "ip6tables"}${program.suffix}`;
  const tables = new Map<string, readonly CountedRule[]>();
  for (const table of ["nat", "filter"]) {
    const result = await execResult([`${name}-save`, "-c", "-t", table], { signal });
    if (/Permission denied|must be root/i.test(result.stderr)) {
      throw new SetupError(`${name} may not read packet rules: run remora as root`);
    }
    if (result.exitCode !== 0) throw new IptablesError(`${name}-save`, result);
    for (const [chain, rules] of parseCountedSave(table, result.stdout)) tables.set(chain, rules);
  }
  return { program: name, ...compareIptables(tables, wanted) };
}

/** Compares whole tables with what some plans need. Pure. */
export function compareIptables(
  tables: CountedTables,
  { context, plans, claims }: WantedRules,
): Pick<KernelView, "carried" | "drift"> {
  const carried: CarriedRule[] = [];
  const drift: RuleDrift[] = [];
  for (const plan of plans) {
    const { frontends } = claims.effective(plan);
    const lost = plan.frontends.filter((frontend) => !frontends.includes(frontend));
    portDispatch(plan, context, lost).forEach((rules, index) => {
      const chain = dispatchChains[index];
      if (chain === undefined) return;
      const where = `${chain.table} ${chain.name}`;
      const found = tables.get(where) ?? [];
      const texts = rules.map(ruleText);
      const wanted = new Set(texts.map(canonicalRule));
      for (const text of texts) {
        const same = found.find((rule) => canonicalRule(rule.text) === canonicalRule(text));
        if (same === undefined) drift.push({ where, key: "", wanted: text, found: undefined });
        else carried.push({ where, rule: same.text, packets: same.packets });
      }
      for (const rule of found) {
        if (wanted.has(canonicalRule(rule.text)) || !isFor(plan, lost, rule.text)) continue;
        carried.push({ where, rule: rule.text, packets: rule.packets });
        drift.push({ where, key: "", wanted: undefined, found: rule.text });
      }
    });
    for (const { table, name, rules } of portChains(plan, context, true).toReversed()) {
      const where = `${table} ${name}`;
      const found = tables.get(where);
      const wanted = rules.map(ruleText);
      for (const { text, packets } of found ?? []) carried.push({ where, rule: text, packets });
      const same = (found ?? []).map(({ text }) => canonicalRule(text)).join("\n");
      if (found !== undefined && same === wanted.map(canonicalRule).join("\n")) continue;
      drift.push({
        where,
        key: "",
        wanted: wanted.join("; "),
        found: found?.map(({ text }) => text).join("; "),
      });
    }
  }
  return { carried, drift };
}

/** Whether a rule is for an address that the plan has. */
function isFor(
  { frontends, protocol }: PlannedPort,
  lost: readonly Frontend[],
  text: string,
): boolean {
  const words = ` ${canonicalRule(text)} `;
  return frontends.some(
    (frontend) =>
      !lost.includes(frontend) &&
      words.includes(` -p ${protocol} `) &&
      words.includes(` --dport ${frontend.port} `) &&
      (frontend.ip === "" ? !/ -d [^-]/.test(words) : words.includes(` -d ${frontend.ip} `)),
  );
}

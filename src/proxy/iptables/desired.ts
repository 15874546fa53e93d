import type { RulesContext } from "../backend.ts";
import type { Frontend, PlannedPort } from "../plan.ts";
import type { Changes, Edit } from "./changes.ts";
import { FrontendClaims } from "./claims.ts";
import { fixedChains, type HostFacts, nodePortRules } from "./fixed.ts";
import { dispatchChains, portChains, portDispatch } from "./layout.ts";
import { type Chain, type Rule, ruleText, sameRules, type Table } from "./rules.ts";

/** A port as it is in the kernel. Its rules are made anew from this when they must be known. */
interface Committed {
  readonly plan: PlannedPort;
  readonly lost: readonly Frontend[];
  /** Number of its rules in each of the dispatch chains. */
  readonly counts: readonly number[];
}

/** A dispatch chain with more changes than this is written anew. */
const mostEdits = 64;

/** What the rules of one family should be, and what of it the kernel was told. */
export class DesiredRules {
  #context: RulesContext;
  #facts: HostFacts = {
    tcpBeLiberal: false,
    openedLocalnet: false,
    healthPorts: [],
  };
  readonly #largeThreshold: number;
  readonly #plans = new Map<string, PlannedPort>();
  readonly #claims = new FrontendClaims((key) => this.#plans.get(key)?.rank ?? "");
  readonly #clusterIPs = new Map<string, number>();
  /** Ports whose rules may differ from what the kernel was told. */
  readonly #dirty = new Set<string>();
  #endpoints = 0;
  /** Keys in the order of their rules; undefined when it must be made anew. */
  #order: string[] | undefined;
  readonly #committed = new Map<string, Committed>();
  /** Rules in a port's own chains, noted when they are made: to make all of them again would cost as much as a start. */
  readonly #chainRules = new Map<string, number>();
  /** Nearly all ports have the same few. */
  readonly #counts = new Map<string, readonly number[]>();
  #committedContext: RulesContext;
  #committedFacts: HostFacts | undefined;

  /** @param largeThreshold With more endpoints than this their rules have no comments. */
  constructor(context: RulesContext, largeThreshold: number) {
    this.#context = context;
    this.#committedContext = context;
    this.#largeThreshold = largeThreshold;
  }

  get context(): RulesContext {
    return this.#context;
  }

  setContext(context: RulesContext): void {
    const same = portBasis(context) === portBasis(this.#context);
    this.#context = context;
    if (!same) for (const key of this.#plans.keys()) this.#dirty.add(key);
  }

  setFacts(facts: Partial<HostFacts>): void {
    this.#facts = { ...this.#facts, ...facts };
  }

  set(key: string, plan: PlannedPort | undefined): void {
    const before = this.#plans.get(key);
    if (plan === undefined) {
      this.#plans.delete(key);
      this.#chainRules.delete(key);
    } else this.#plans.set(key, plan);
    if (before?.rank !== plan?.rank) this.#reorder(key, before, plan);
    this.#endpoints += (plan?.serving.length ?? 0) - (before?.serving.length ?? 0);
    this.#countClusterIP(before, -1);
    this.#countClusterIP(plan, 1);
    for (const other of this.#claims.replace(before, plan)) this.#dirty.add(other);
    this.#dirty.add(key);
  }

  #countClusterIP(plan: PlannedPort | undefined, by: number): void {
    if (plan === undefined) return;
    const count = (this.#clusterIPs.get(plan.clusterIP) ?? 0) + by;
    if (count === 0) this.#clusterIPs.delete(plan.clusterIP);
    else this.#clusterIPs.set(plan.clusterIP, count);
  }

  isClusterIP(ip: string): boolean {
    return this.#clusterIPs.has(ip);
  }

  conflicts(key: string): readonly (readonly [string, string])[] {
    const plan = this.#plans.get(key);
    return plan === undefined ? [] : this.#claims.conflicts(plan);
  }

  /** Whether endpoints' rules say whose they are. */
  get #comments(): boolean {
    return this.#endpoints <= this.#largeThreshold;
  }

  #reorder(key: string, before: PlannedPort | undefined, plan: PlannedPort | undefined): void {
    if (this.#order === undefined) return;
    if (before !== undefined) this.#order.splice(this.#find(key, before.rank), 1);
    if (plan !== undefined) this.#order.splice(this.#find(key, plan.rank), 0, key);
  }

  /** Where a port stands among the others, or should. */
  #find(key: string, rank: string): number {
    const order = this.#order ?? [];
    let low = 0;
    for (let high = order.length; low < high;) {
      const middle = (low + high) >>> 1;
      const other = order[middle] ?? "";
      // The port itself may have another rank by now.
      const otherRank = other === key ? rank : (this.#plans.get(other)?.rank ?? "");
      if (compareRanks({ key: other, rank: otherRank }, { key, rank }) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Newest first: a new Service's rule goes to the top, where iptables need not look for its place. */
  #ordered(): readonly string[] {
    this.#order ??= [...this.#plans]
      .map(([key, { rank }]) => ({ key, rank }))
      .toSorted(compareRanks)
      .map(({ key }) => key);
    return this.#order;
  }

  #dispatchOf(plan: PlannedPort): readonly (readonly Rule[])[] {
    return portDispatch(plan, this.#context, this.#claims.lost(plan));
  }

  /**
   * Chains of the ports.
   *
   * @yields One group for each port.
   */
  *portGroups(): Generator<readonly Chain[]> {
    const comments = this.#comments;
    for (const key of this.#ordered()) {
      const plan = this.#plans.get(key);
      if (plan === undefined) continue;
      const chains = portChains(plan, this.#context, comments);
      this.#noteRules(key, chains);
      yield chains;
    }
  }

  /**
   * Chains that do not belong to one port alone; those that every port has rules in are the last.
   *
   * @yields Places where the work may rest.
   */
  *sharedSteps(): Generator<undefined, readonly Chain[]> {
    const all = dispatchChains.map((): Rule[] => []);
    for (const key of this.#ordered()) {
      const plan = this.#plans.get(key);
      if (plan === undefined) continue;
      this.#dispatchOf(plan).forEach((rules, index) => all[index]?.push(...rules));
      yield;
    }
    all[0]?.push(...nodePortRules(this.#context));
    const dispatch = dispatchChains.map((chain, index) => ({ ...chain, rules: all[index] ?? [] }));
    return [...this.fixedChains(), ...dispatch];
  }

  #sharedChains(): readonly Chain[] {
    const steps = this.sharedSteps();
    for (;;) {
      const { done, value } = steps.next();
      if (done === true) return value;
    }
  }

  fixedChains(): readonly Chain[] {
    return fixedChains(this.#context, this.#facts);
  }

  /**
   * What has changed since the kernel was told.
   *
   * @yields Places where the work may rest.
   */
  *changesSteps(): Generator<undefined, Changes> {
    const fixed = this.#changedFixed();
    const chains: (readonly Chain[])[] = [fixed.changed];
    const dead = [...fixed.dead];
    const comments = this.#comments;
    const deletions = dispatchChains.map((): Rule[] => []);
    const inserted = new Map<string, readonly (readonly Rule[])[]>();
    for (const key of this.#dirty) {
      const was = this.#committed.get(key);
      const plan = this.#plans.get(key);
      const before =
        was === undefined ? [] : portChains(was.plan, this.#committedContext, comments);
      const after = plan === undefined ? [] : portChains(plan, this.#context, comments);
      if (plan !== undefined) this.#noteRules(key, after);
      const { changed, gone } = compareChains(before, after);
      if (changed.length > 0) chains.push(changed);
      for (const name of gone) dead.push({ table: "nat", name });
      const from =
        was === undefined ? none : portDispatch(was.plan, this.#committedContext, was.lost);
      const to = plan === undefined ? none : this.#dispatchOf(plan);
      const moved = was !== undefined && plan !== undefined && was.plan.rank !== plan.rank;
      const insert = dispatchChains.map((_, index): readonly Rule[] => {
        if (!moved && sameText(from[index] ?? [], to[index] ?? [])) return [];
        deletions[index]?.push(...(from[index] ?? []));
        return to[index] ?? [];
      });
      if (insert.some(({ length }) => length > 0)) inserted.set(key, insert);
      yield;
    }
    const { edits, rewritten } = this.#edits(deletions, inserted);
    if (rewritten.length > 0) chains.push(rewritten);
    return {
      chains: chains.filter(({ length }) => length > 0),
      edits,
      dead,
      jumps: [],
    };
  }

  #changedFixed(): {
    readonly changed: readonly Chain[];
    readonly dead: readonly { readonly table: Table; readonly name: string }[];
  } {
    const facts = this.#committedFacts;
    const before = facts === undefined ? [] : fixedChains(this.#committedContext, facts);
    const after = this.fixedChains();
    const twin = (of: readonly Chain[], { table, name }: Chain): Chain | undefined =>
      of.find((one) => one.table === table && one.name === name);
    return {
      changed: after.filter((chain) => {
        const was = twin(before, chain);
        return was === undefined || !sameRules(was.rules, chain.rules);
      }),
      dead: before.filter((chain) => twin(after, chain) === undefined),
    };
  }

  #edits(
    deletions: readonly (readonly Rule[])[],
    inserted: ReadonlyMap<string, readonly (readonly Rule[])[]>,
  ): { readonly edits: Changes["edits"]; readonly rewritten: readonly Chain[] } {
    const insertions = this.#insertions(inserted);
    const rewritten = new Set<number>();
    const edits = dispatchChains.flatMap(({ table, name }, index) => {
      const steps: Edit[] = [
        ...(deletions[index] ?? []).map((rule): Edit => ({ edit: "delete", rule })),
        ...(insertions[index] ?? []),
      ];
      const last = index === 0 && !sameText(this.#committedLast(), nodePortRules(this.#context));
      if (last || steps.length > mostEdits) rewritten.add(index);
      return steps.length === 0 || rewritten.has(index) ? [] : [{ table, chain: name, steps }];
    });
    if (rewritten.size === 0) return { edits, rewritten: [] };
    const shared = this.#sharedChains().slice(-dispatchChains.length);
    return { edits, rewritten: shared.filter((_, index) => rewritten.has(index)) };
  }

  #committedLast(): readonly Rule[] {
    return this.#committedFacts === undefined ? [] : nodePortRules(this.#committedContext);
  }

  /** Where new rules go: from the top down, so that each finds all that stands above it in place. */
  #insertions(inserted: ReadonlyMap<string, readonly (readonly Rule[])[]>): readonly Edit[][] {
    const steps = dispatchChains.map((): Edit[] => []);
    if (inserted.size === 0) return steps;
    const next = dispatchChains.map(() => 1);
    let left = inserted.size;
    for (const key of this.#ordered()) {
      if (left === 0) break;
      const rules = inserted.get(key);
      if (rules !== undefined) left -= 1;
      const counts = this.#countsOf(key);
      for (let index = 0; index < next.length; index += 1) {
        let at = next[index] ?? 1;
        for (const rule of rules?.[index] ?? []) {
          steps[index]?.push({ edit: "insert", at, rule });
          at += 1;
        }
        next[index] = (next[index] ?? 1) + (counts[index] ?? 0);
      }
    }
    return steps;
  }

  #countsOf(key: string): readonly number[] {
    const plan = this.#plans.get(key);
    if (plan !== undefined && this.#dirty.has(key)) {
      return this.#dispatchOf(plan).map(({ length }) => length);
    }
    return this.#committed.get(key)?.counts ?? [];
  }

  /**
   * The kernel has it all.
   *
   * @yields Places where the work may rest.
   */
  *committedSteps(): Generator<undefined, undefined> {
    for (const key of this.#dirty) {
      const plan = this.#plans.get(key);
      if (plan === undefined) {
        this.#committed.delete(key);
        continue;
      }
      const counts = this.#intern(this.#dispatchOf(plan).map(({ length }) => length));
      this.#committed.set(key, { plan, lost: this.#claims.lost(plan), counts });
      yield;
    }
    this.#dirty.clear();
    this.#committedContext = this.#context;
    this.#committedFacts = this.#facts;
  }

  #intern(counts: readonly number[]): readonly number[] {
    const key = counts.join();
    const known = this.#counts.get(key);
    if (known === undefined) this.#counts.set(key, counts);
    return known ?? counts;
  }

  /** Rules by table, of all chains, when the kernel has them all. */
  countRules(): ReadonlyMap<Table, number> {
    const totals = { filter: 0, nat: nodePortRules(this.#context).length, mangle: 0 };
    for (const count of this.#chainRules.values()) totals.nat += count;
    for (const { counts } of this.#committed.values()) {
      dispatchChains.forEach(({ table }, index) => (totals[table] += counts[index] ?? 0));
    }
    for (const { table, rules } of this.fixedChains()) totals[table] += rules.length;
    return new Map([
      ["filter", totals.filter],
      ["nat", totals.nat],
    ]);
  }

  #noteRules(key: string, chains: readonly Chain[]): void {
    this.#chainRules.set(
      key,
      chains.reduce((sum, { rules }) => sum + rules.length, 0),
    );
  }

  /** Rules by chain, without what is for people only. */
  snapshot(): Map<string, string> {
    const found = new Map<string, string>();
    const take = ({ table, name, rules }: Chain): void => {
      found.set(`${table} ${name}`, rules.map(({ text }) => text).join("\n"));
    };
    for (const group of this.portGroups()) group.forEach(take);
    this.#sharedChains().forEach(take);
    return found;
  }
}

/** What the rules of ports depend on besides plans. */
function portBasis({ local, masqueradeAll }: RulesContext): string {
  return JSON.stringify([local, masqueradeAll]);
}

const none: readonly (readonly Rule[])[] = [];

interface Ranked {
  readonly key: string;
  readonly rank: string;
}

function compareRanks(a: Ranked, b: Ranked): number {
  if (a.rank !== b.rank) return a.rank > b.rank ? -1 : 1;
  if (a.key === b.key) return 0;
  return a.key < b.key ? -1 : 1;
}

function sameText(a: readonly Rule[], b: readonly Rule[]): boolean {
  return (
    a.length === b.length &&
    a.every((rule, index) => {
      const other = b[index];
      return other !== undefined && ruleText(rule) === ruleText(other);
    })
  );
}

function compareChains(
  before: readonly Chain[],
  after: readonly Chain[],
): { readonly changed: readonly Chain[]; readonly gone: readonly string[] } {
  const known = new Map(before.map((chain) => [chain.name, chain.rules]));
  const wanted = new Set(after.map(({ name }) => name));
  return {
    changed: after.filter(({ name, rules }) => {
      const had = known.get(name);
      return had === undefined || !sameRules(had, rules);
    }),
    gone: before.flatMap(({ name }) => (wanted.has(name) ? [] : [name])),
  };
}

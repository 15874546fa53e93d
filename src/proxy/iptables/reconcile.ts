import type { Changes } from "./changes.ts";
import type { DesiredRules } from "./desired.ts";
import { type Jump, jumps, tables } from "./fixed.ts";
import { dispatchChains, notPodsChain } from "./layout.ts";
import { canonicalRule, commentOf, type Listing, targetOf } from "./listing.ts";
import { isPortChain } from "./names.ts";
import { type Chain, ruleText, type Table } from "./rules.ts";

/**
 * What distinguishes the kernel from what is wanted, by a listing of all three tables.
 *
 * @yields Places where the work may rest.
 */
export function* reconcileSteps(
  desired: DesiredRules,
  listing: Listing,
): Generator<undefined, Changes> {
  const isDispatch = ({ table, name }: Chain): boolean =>
    dispatchChains.some((one) => one.table === table && one.name === name);
  // Rules of these are deleted one by one, which takes their comments too.
  const differs = (chain: Chain): boolean => !isThere(chain, listing, isDispatch(chain));
  const wanted = new Set<string>();
  const groups: (readonly Chain[])[] = [];
  for (const group of desired.portGroups()) {
    for (const { name } of group) wanted.add(name);
    const changed = group.filter(differs);
    if (changed.length > 0) groups.push(changed);
    yield;
  }
  const shared = yield* desired.sharedSteps();
  for (const { table, name } of shared) if (table === "nat") wanted.add(name);
  const changed = shared
    .filter(differs)
    .map((chain) => (listing.get(chain.table)?.has(chain.name) ? chain : asFresh(chain)));
  const stale = [...(listing.get("nat")?.keys() ?? [])].filter(
    (name) => (isPortChain(name) || name === notPodsChain) && !wanted.has(name),
  );
  return {
    // First what ports lead to, last what leads to them.
    chains: [
      changed.filter((chain) => !isDispatch(chain)),
      ...groups,
      changed.filter(isDispatch),
    ].filter(({ length }) => length > 0),
    edits: [],
    dead: stale.map((name) => ({ table: "nat", name })),
    jumps: tables.flatMap((table) => jumpChanges(table, listing)),
  };
}

function asFresh(chain: Chain): Chain {
  return { ...chain, fresh: true };
}

/** {@link reconcileSteps} without a rest. */
export function reconcile(desired: DesiredRules, listing: Listing): Changes {
  const steps = reconcileSteps(desired, listing);
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

/** The names of a listing's chains alone: what to do when comparing has not helped. */
export function withoutRules(listing: Listing): Listing {
  const system = new Set(jumps.map(({ from }) => from));
  return new Map(
    [...listing].map(([table, chains]) => [
      table,
      new Map(
        [...chains].map(([name, rules]) => [name, system.has(name) ? rules : ["-j UNKNOWN"]]),
      ),
    ]),
  );
}

function isThere({ table, name, rules }: Chain, listing: Listing, comments: boolean): boolean {
  const found = listing.get(table)?.get(name);
  return (
    found?.length === rules.length &&
    rules.every((rule, index) => {
      const there = found[index] ?? "";
      const same = canonicalRule(ruleText(rule)) === canonicalRule(there);
      return same && (!comments || commentOf(there) === rule.comment);
    })
  );
}

/**
 * Lines that bring the ways to our chains in order: those of one chain of the system all together, because each goes on
 * top of it.
 */
export function jumpChanges(table: Table, listing: Listing): Changes["jumps"] {
  const wanted = jumps.filter((jump) => jump.table === table);
  const sources = [...new Set(wanted.map(({ from }) => from))];
  return sources.flatMap((from) => {
    const own = wanted.filter((jump) => jump.from === from);
    const rules = listing.get(table)?.get(from) ?? [];
    if (jumpsAreThere(own, rules)) return [];
    const targets = new Set(own.map(({ to }) => to));
    return [
      ...rules
        .filter((rule) => targets.has(targetOf(rule)))
        .map((rule) => ({ table, line: `-D ${from} ${rule}` })),
      ...own.map(({ text }) => ({ table, line: `-I ${from} ${text}` })),
    ];
  });
}

/** Whether each of the ways out of one chain is there, and no other. Docker's ports, in table nat, come behind ours. */
export function jumpsAreThere(own: readonly Jump[], rules: readonly string[]): boolean {
  const targets = new Set(own.map(({ to }) => to));
  // A second one, as two programs make that look at the same time, does no harm.
  const found = new Set(rules.filter((rule) => targets.has(targetOf(rule))).map(canonicalRule));
  const all = own.every(({ text }) => found.has(canonicalRule(text)));
  if (!all || found.size !== own.length) return false;
  const docker = rules.findIndex((rule) => targetOf(rule) === "DOCKER");
  const ours = rules.findIndex((rule) => targets.has(targetOf(rule)));
  return own[0]?.table !== "nat" || docker < 0 || ours < docker;
}

import type { Clock } from "../../lib/clock.ts";
import type { TableListing } from "../../netfilter/read-back.ts";
import { chainSignature, type Claims } from "../diff.ts";
import { Breather } from "../../lib/in-slices.ts";
import { ruleTag } from "../rule-tag.ts";

export interface Expectation {
  /** What was committed and is still wanted: must be there. */
  readonly committed: Iterable<Claims>;
  /** What may be there or not, because a transaction of ours may have failed half-way: as it was, and as it shall be. */
  readonly changing: Iterable<Claims>;
  /** Objects that wait for their deletion. */
  readonly waiting: ReadonlySet<string>;
}

function* idsOf({ chains, containers, elements }: Claims): Generator<[string, string]> {
  for (const { name, hook, rules } of chains) {
    yield [`chain ${name}`, chainSignature(hook, rules.map(ruleTag))];
  }
  for (const { name, kind } of containers) yield [`container ${name}`, kind];
  for (const { container, key, value } of elements) yield [`${container} ${key}`, value];
}

function* listed(
  { chains, containers }: TableListing,
  waiting: ReadonlySet<string>,
): Generator<[string, string]> {
  for (const [name, { hook, tags }] of chains) {
    if (!waiting.has(`chain ${name}`)) yield [`chain ${name}`, chainSignature(hook, tags)];
  }
  for (const [name, { kind, elements }] of containers) {
    if (waiting.has(`container ${name}`)) continue;
    yield [`container ${name}`, kind];
    // Affinity records come and go by themselves.
    if (name.startsWith("aff-")) continue;
    for (const [key, value] of elements) yield [`${name} ${key}`, value];
  }
}

/** Whether others have changed the table: it has or lacks something that our own work does not explain. */
export async function hasDrifted(
  listing: TableListing,
  { committed, changing, waiting }: Expectation,
  clock: Pick<Clock, "monotonic">,
): Promise<boolean> {
  const breather = new Breather(clock);
  const free = new Set<string>();
  for (const claims of changing) for (const [id] of idsOf(claims)) free.add(id);
  const expected = new Map<string, string>();
  for (const claims of committed) {
    for (const [id, value] of idsOf(claims)) expected.set(id, value);
    if (breather.due()) await breather.rest();
  }
  for (const [id, value] of listed(listing, waiting)) {
    if (expected.get(id) !== value && !free.has(id)) return true;
    expected.delete(id);
    if (breather.due()) await breather.rest();
  }
  for (const id of expected.keys()) if (!free.has(id)) return true;
  return false;
}

import { listTable } from "../../netfilter/nft.ts";
import type { ListedChain, TableListing } from "../../netfilter/read-back.ts";
import type { NftTable } from "../../netfilter/transaction.ts";
import { type ChainClaim, chainSignature, type ElementClaim } from "../diff.ts";
import { fixedClaims, portClaims } from "../nftables/layout.ts";
import type { PlannedPort } from "../plan.ts";
import { ruleTag } from "../rule-tag.ts";
import type { CarriedRule, KernelView, RuleDrift, WantedRules } from "./kernel.ts";

/**
 * What a table in the kernel has of a Service, compared with what the proxy would write for it.
 *
 * @throws {NftError} the table cannot be listed; {@link SetupError} no nft, or not root.
 */
export async function nftablesView(
  wanted: WantedRules & { readonly table: string },
  signal: AbortSignal,
): Promise<KernelView> {
  const { context, table } = wanted;
  const at: NftTable = { family: context.family === "IPv4" ? "ip" : "ip6", name: table };
  const listing = await listTable(at, signal);
  const program = `nft ${at.family} ${at.name}`;
  if (listing === undefined) {
    const drift = [{ where: "table", key: "", wanted: program, found: undefined }];
    return { program, carried: [], drift };
  }
  return { program, ...compareNftables(listing, wanted) };
}

/** Compares a whole table with what some plans need. Pure. */
export function compareNftables(
  listing: TableListing,
  { context, plans, claims }: WantedRules,
): Pick<KernelView, "carried" | "drift"> {
  const carried: CarriedRule[] = [];
  const drift: RuleDrift[] = [];
  const compareChain = (chain: ChainClaim): boolean => {
    const where = `chain ${chain.name}`;
    const found = listing.chains.get(chain.name);
    if (found !== undefined && sameChain(chain, found)) return true;
    const wanted = chain.rules.join("; ");
    drift.push({ where, key: "", wanted, found: found === undefined ? undefined : "other rules" });
    return false;
  };
  const own = plans.map((plan) => claims.effective(plan));
  const wanted = own.map((plan) => portClaims(plan, context));
  const elements = unique(wanted.flatMap((claim) => claim.elements));
  for (const { container, key, value, found } of compared(listing, own, elements)) {
    const where = `map ${container}`;
    if (found !== undefined) carried.push({ where, rule: inWords(key, found) });
    if (found !== value) drift.push({ where, key, wanted: value, found });
  }
  for (const chain of fixedClaims(context).chains) compareChain(chain);
  const protocols = new Set(own.map(({ protocol }) => protocol));
  for (const chain of new Map(
    wanted.flatMap(({ chains }) => chains.map((one) => [one.name, one])),
  ).values()) {
    // Old nft prints some of these wrongly, so they are shown as they were written; comments prove that they are those.
    if (!compareChain(chain)) continue;
    // A draw that is repeated is told once.
    for (const rule of new Set(chain.rules.filter((text) => concerns(text, protocols)))) {
      carried.push({ where: `chain ${chain.name}`, rule });
    }
  }
  return { carried, drift };
}

function inWords(key: string, value: string): string {
  return value === "" ? key : `${key} : ${value}`;
}

/** Chains that ports of all protocols share have a rule for each. */
function concerns(rule: string, protocols: ReadonlySet<string>): boolean {
  const protocol = /^meta l4proto (tcp|udp|sctp) /.exec(rule)?.[1];
  return protocol === undefined || protocols.has(protocol);
}

/** Endpoints keep their slots while others come and go, so a rule that lists them may list them in any order. */
function sameChain(chain: ChainClaim, found: ListedChain): boolean {
  const tags = chain.rules.map(ruleTag);
  if (chainSignature(found.hook, found.tags) === chainSignature(chain.hook, tags)) return true;
  if (tags.length !== found.tags.length) return false;
  const ordered = tags.filter((_, at) => !/ vmap \{/.test(chain.rules[at] ?? ""));
  return ordered.length < tags.length && ordered.every((tag) => found.tags.includes(tag));
}

type Element = Pick<ElementClaim, "container" | "key" | "value">;

function unique(elements: readonly ElementClaim[]): readonly ElementClaim[] {
  return [...new Map(elements.map((one) => [`${one.container} ${one.key}`, one])).values()];
}

/** What each key should be and is. `value` undefined: nobody wants it. */
type Compared = Pick<Element, "container" | "key"> & {
  readonly value: string | undefined;
  readonly found: string | undefined;
};

function compared(
  listing: TableListing,
  plans: readonly PlannedPort[],
  elements: readonly Element[],
): readonly Compared[] {
  const known = new Set(elements.map(({ container, key }) => `${container} ${key}`));
  const at = ({ container, key }: Element): string | undefined =>
    listing.containers.get(container)?.elements.get(key);
  const lists = new Map<string, { readonly wanted: Set<string>; readonly found: Set<string> }>();
  for (const one of elements.filter(({ container }) => isSlotMap(container))) {
    const list = lists.get(listOf(one)) ?? { wanted: new Set(), found: new Set() };
    lists.set(listOf(one), list);
    list.wanted.add(one.value);
    list.found.add(at(one) ?? "");
  }
  return [
    ...elements.map((one) => {
      const { container, key, value } = one;
      const found = at(one);
      const list = lists.get(listOf(one));
      // Which slot is whose does not matter: all of them are chosen alike.
      const same = list !== undefined && list.wanted.symmetricDifference(list.found).size === 0;
      return { container, key, value: same ? found : value, found };
    }),
    ...strays(listing, plans).flatMap(({ container, key, value }) =>
      known.has(`${container} ${key}`) ? [] : [{ container, key, value: undefined, found: value }],
    ),
  ];
}

function isSlotMap(container: string): boolean {
  return container.startsWith("ep-");
}

/** What the slots of one list have in common. */
function listOf({ container, key }: Element): string {
  return `${container} ${key.slice(0, key.lastIndexOf(" . "))}`;
}

/** All elements for the plans' addresses. */
function strays(listing: TableListing, plans: readonly PlannedPort[]): readonly Element[] {
  return plans.flatMap(({ frontends, protocol }) =>
    frontends.flatMap(({ ip, port }) => {
      const address = ip === "" ? "" : `${ip} . `;
      const dispatch = `${address}${protocol} . ${port}`;
      const slots = `${address}${port}`;
      return [...listing.containers].flatMap(([container, { elements: found }]): Element[] => {
        if (!isSlotMap(container)) {
          const value = found.get(dispatch);
          return value === undefined ? [] : [{ container, key: dispatch, value }];
        }
        if (!container.endsWith(`-${protocol}`)) return [];
        const elements: Element[] = [];
        for (let slot = 0; ; slot += 1) {
          const key = `${slots} . ${slot}`;
          const value = found.get(key);
          if (value === undefined) return elements;
          elements.push({ container, key, value });
        }
      });
    }),
  );
}

import { listTable } from "../../netfilter/nft.ts";
import type { TableListing } from "../../netfilter/read-back.ts";
import type { NftTable } from "../../netfilter/transaction.ts";
import type { RulesContext } from "../backend.ts";
import { type ChainClaim, chainSignature, type Claims } from "../diff.ts";
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
  { context, plans, rivals }: WantedRules,
): Pick<KernelView, "carried" | "drift"> {
  const carried: CarriedRule[] = [];
  const drift: RuleDrift[] = [];
  const compareChain = (chain: ChainClaim): boolean => {
    const found = listing.chains.get(chain.name);
    const where = `chain ${chain.name}`;
    const text = chain.rules.join("; ");
    if (found === undefined) {
      drift.push({ where, key: "", wanted: text, found: undefined });
      return false;
    }
    const signature = chainSignature(chain.hook, chain.rules.map(ruleTag));
    const same = chainSignature(found.hook, found.tags) === signature;
    if (!same) drift.push({ where, key: "", wanted: text, found: "other rules" });
    return same;
  };
  for (const chain of fixedClaims(context).chains) compareChain(chain);
  const { chains, elements } = merged(context, plans, rivals);
  for (const { container, key, value } of elements) {
    const found = listing.containers.get(container)?.elements.get(key);
    const where = `map ${container}`;
    if (found !== undefined) carried.push({ where, rule: element(key, found) });
    if (found !== value) drift.push({ where, key, wanted: value, found });
  }
  for (const chain of chains) {
    // Old nft prints some of these wrongly, so they are shown as they were written; their comments prove that they are those.
    if (!compareChain(chain)) continue;
    for (const rule of chain.rules) carried.push({ where: `chain ${chain.name}`, rule });
  }
  for (const { container, key, value } of strays(listing, plans, elements)) {
    carried.push({ where: `map ${container}`, rule: element(key, value) });
    drift.push({ where: `map ${container}`, key, wanted: undefined, found: value });
  }
  return { carried, drift };
}

function element(key: string, value: string): string {
  return value === "" ? key : `${key} : ${value}`;
}

/** What the plans want, without what an older Service has; that one's claims are for comparison. */
function merged(
  context: RulesContext,
  plans: readonly PlannedPort[],
  rivals: readonly PlannedPort[],
): Pick<Claims, "chains" | "elements"> {
  const chains = new Map<string, ChainClaim>();
  const elements = new Map<string, Claims["elements"][number]>();
  const ours = new Set(plans.flatMap((plan) => idsOf(portClaims(plan, context))));
  for (const plan of [...plans, ...rivals].toSorted((a, b) => (a.rank < b.rank ? -1 : 1))) {
    const claims = portClaims(plan, context);
    if (plans.includes(plan)) for (const chain of claims.chains) chains.set(chain.name, chain);
    for (const one of claims.elements) {
      const id = `${one.container} ${one.key}`;
      if (ours.has(id) && !elements.has(id)) elements.set(id, one);
    }
  }
  return { chains: [...chains.values()], elements: [...elements.values()] };
}

function idsOf({ elements }: Claims): readonly string[] {
  return elements.map(({ container, key }) => `${container} ${key}`);
}

interface Stray {
  readonly container: string;
  readonly key: string;
  readonly value: string;
}

/** Elements for the plans' addresses that nobody wants. */
function strays(
  listing: TableListing,
  plans: readonly PlannedPort[],
  wanted: readonly { readonly container: string; readonly key: string }[],
): readonly Stray[] {
  const known = new Set(wanted.map(({ container, key }) => `${container} ${key}`));
  const tuples = new Set(plans.flatMap(frontendKeys));
  return [...listing.containers].flatMap(([container, { elements }]) =>
    [...elements].flatMap(([key, value]): Stray[] =>
      known.has(`${container} ${key}`) || !belongs(key, tuples) ? [] : [{ container, key, value }],
    ),
  );
}

/** How keys of maps name the frontends of a port. */
function frontendKeys({ frontends, protocol }: PlannedPort): readonly string[] {
  return frontends.map(({ ip, port }) =>
    ip === "" ? `${protocol} . ${port}` : `${ip} . ${protocol} . ${port}`,
  );
}

/** Whether a key is a frontend, or a frontend with the number of an endpoint behind it. */
function belongs(key: string, tuples: ReadonlySet<string>): boolean {
  return tuples.has(key) || tuples.has(key.split(" . ").slice(0, -1).join(" . "));
}

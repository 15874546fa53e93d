import type { Clock } from "../../lib/clock.ts";
import type { TableListing } from "../../netfilter/read-back.ts";
import { chainSignature, type Claims, hookSignature, noClaims } from "../diff.ts";
import type { Expectation } from "./drift.ts";
import { FrontendIndex } from "../frontend-index.ts";
import { Breather } from "../../lib/in-slices.ts";
import { backendID, placeBackends } from "../placement.ts";
import type { PlannedPort } from "../plan.ts";
import { ruleTag } from "../rule-tag.ts";
import type { Backend } from "../types.ts";
import { Ledger } from "./ledger.ts";
import { TableChanges } from "./table-changes.ts";

/** How plans become what stands in a table. Pure. */
export interface TableLayout {
  /** What is there whatever Services there are. */
  readonly fixed: Claims;
  claims(plan: PlannedPort): Claims;
  /** Where the endpoints of a list stand: key of slot `slot`; undefined when they stand in no map. */
  slots(
    plan: PlannedPort,
    list: "cluster" | "local",
  ): { readonly container: string; key(slot: number): string } | undefined;
}

/** Elements of one transaction when there are many: keeps the kernel's lock under about 100 ms. */
const elementsPerTransaction = 10_000;

/**
 * The table as it should be: a function of the planned ports. Nothing of it is kept but the plans themselves, and how
 * many of them share a chain or an element. What has to change in the kernel is found from the plans that changed, each
 * as it was and as it is now, so it costs what these plans are, however large the table is.
 */
export class DesiredTable {
  readonly #ports = new Map<string, PlannedPort>();
  readonly #index = new FrontendIndex();
  readonly #ledger = new Ledger();
  #layout: TableLayout;
  /** The layout that the kernel's table was made by; undefined = the kernel has nothing of ours that we know of. */
  #committedLayout: TableLayout | undefined;
  /** Ports that were touched since, as they are in the kernel. */
  #touched = new Map<string, PlannedPort | undefined>();
  /** Places that a port has left since. */
  #left = new Set<string>();
  /** An address went from one port to another: its elements must go and come in one transaction. */
  #handedOver = false;

  constructor(layout: TableLayout) {
    this.#layout = layout;
  }

  /** Another layout; plans that look different in it must be set again. */
  setLayout(layout: TableLayout): void {
    this.#layout = layout;
  }

  /** Puts `plan` in the place of the one before; undefined = the port is gone. */
  set(key: string, plan: PlannedPort | undefined): void {
    const before = this.#ports.get(key);
    const now = plan === undefined ? undefined : placed(plan, this.#touched.get(key) ?? before);
    if (this.#committedLayout !== undefined) {
      const rivals = [before, now].flatMap((one) =>
        one === undefined ? [] : this.#index.rivals(one),
      );
      this.#touch(key, before);
      for (const rival of rivals) this.#touch(rival.key, rival);
      if (!this.#handedOver) this.#noteMoves(before, now, rivals.length > 0);
    }
    if (before !== undefined) this.#index.remove(before);
    if (now === undefined) {
      this.#ports.delete(key);
      return;
    }
    this.#index.add(now);
    this.#ports.set(key, now);
  }

  #touch(key: string, plan: PlannedPort | undefined): void {
    if (this.#touched.has(key)) return;
    this.#touched.set(key, plan === undefined ? undefined : this.#index.effective(plan));
  }

  #noteMoves(
    before: PlannedPort | undefined,
    now: PlannedPort | undefined,
    contested: boolean,
  ): void {
    const place = ({ ip, port }: PlannedPort["frontends"][number]): string => `${ip} ${port}`;
    const kept = new Set(now?.frontends.map(place));
    this.#handedOver = contested || [...kept].some((at) => this.#left.has(at));
    for (const frontend of before?.frontends ?? []) {
      if (!kept.has(place(frontend))) this.#left.add(place(frontend));
    }
  }

  /** Ports that want an address which another one has: `[loser, winner]`. */
  conflicts(key: string): readonly (readonly [string, string])[] {
    const plan = this.#ports.get(key);
    if (plan === undefined || this.#index.rivals(plan).length === 0) return [];
    return plan.frontends.flatMap((frontend) => {
      const [winner, ...losers] = this.#index.claimants(plan.protocol, frontend);
      return losers.map((loser) => [loser.key, winner?.key ?? ""] as const);
    });
  }

  hasClusterIP(ip: string): boolean {
    return this.#index.hasClusterIP(ip);
  }

  /** Whether the kernel has such a chain because somebody wants it. */
  wantsChain(name: string): boolean {
    return this.#ledger.wantsChain(name);
  }

  wantsContainer(name: string): boolean {
    return this.#ledger.wantsContainer(name);
  }

  /**
   * What has to change, one transaction after the other; usually there is one, or none. In each, all that belongs to one
   * port is together, so a packet never meets half of a Service. The table must not change meanwhile, and all of it
   * must reach the kernel before {@link committed} is called; otherwise the kernel must be read back.
   *
   * @param listing What the kernel really has, which is used up; undefined = what was committed. Empty = nothing.
   * @yields what one transaction does.
   */
  async *transactions(
    clock: Pick<Clock, "monotonic">,
    listing?: TableListing,
  ): AsyncGenerator<TableChanges, void, undefined> {
    const breather = new Breather(clock);
    if (listing !== undefined) this.#ledger.clear();
    const before = listing === undefined ? this.#committedLayout : undefined;
    const keys = [...(before === undefined ? this.#ports : this.#touched).keys()];
    let from = 0;
    do {
      const changes = new TableChanges();
      const upTo = this.#batchEnd(keys, from);
      const batch = keys.slice(from, upTo);
      // All that goes first, so that what comes again at once is seen to stay.
      for (const key of before === undefined ? [] : batch) {
        const plan = this.#touched.get(key);
        if (plan !== undefined) this.#ledger.release(before?.claims(plan) ?? noClaims, changes);
        if (breather.due()) await breather.rest();
      }
      if (from === 0) this.#changeFixed(before?.fixed, changes, listing);
      for (const key of batch) {
        this.#ledger.claim(this.#claimsOf(key, listing), changes, listing);
        if (breather.due()) await breather.rest();
      }
      from = upTo;
      if (listing !== undefined && from >= keys.length)
        this.#ledger.dropUnclaimed(listing, changes);
      yield changes;
    } while (from < keys.length);
  }

  #changeFixed(
    before: Claims | undefined,
    changes: TableChanges,
    listing: TableListing | undefined,
  ): void {
    const now = this.#layout.fixed;
    if (before === now) return;
    if (before !== undefined) this.#ledger.release(before, changes);
    this.#ledger.claim(now, changes, listing);
  }

  /** Where the transaction ends that begins with `keys[from]`. */
  #batchEnd(keys: readonly string[], from: number): number {
    if (this.#handedOver) return keys.length;
    let elements = 0;
    for (let at = from; at < keys.length; at += 1) {
      elements +=
        weight(this.#ports.get(keys[at] ?? "")) + weight(this.#touched.get(keys[at] ?? ""));
      if (elements > elementsPerTransaction && at > from) return at;
    }
    return keys.length;
  }

  #claimsOf(key: string, listing: TableListing | undefined): Claims {
    let plan = this.#ports.get(key);
    if (plan === undefined) return noClaims;
    if (listing !== undefined && listing.containers.size > 0) {
      const here = this.#placedAs(listing, plan);
      if (here !== plan) {
        this.#index.remove(plan);
        this.#index.add(here);
        this.#ports.set(key, here);
        plan = here;
      }
    }
    return this.#layout.claims(this.#index.effective(plan));
  }

  /** The plan with its endpoints where the kernel has them. */
  #placedAs(listing: TableListing, plan: PlannedPort): PlannedPort {
    const order = (list: "cluster" | "local"): readonly Backend[] => {
      const backends = plan[list];
      const slots = backends.length < 2 ? undefined : this.#layout.slots(plan, list);
      const there = listing.containers.get(slots?.container ?? "")?.elements;
      if (slots === undefined || there === undefined) return backends;
      return placeBackends(
        backends.map((_, slot) => there.get(slots.key(slot))),
        backends,
      );
    };
    return withOrder(plan, order("cluster"), order("local"));
  }

  /** The kernel has taken everything. */
  committed(): void {
    this.#committedLayout = this.#layout;
    if (this.#touched.size > 0) this.#touched = new Map();
    if (this.#left.size > 0) this.#left = new Set();
    this.#handedOver = false;
  }

  /** Whether base chains hook in where they should. */
  hooksFit({ chains }: TableListing): boolean {
    return this.#layout.fixed.chains.every(({ name, hook }) => {
      const listed = chains.get(name);
      return listed === undefined || hookSignature(listed.hook) === hookSignature(hook);
    });
  }

  get ledger(): Ledger {
    return this.#ledger;
  }

  /** What a read-back should find; undefined while nothing was committed. */
  expectation(): Expectation | undefined {
    const layout = this.#committedLayout;
    if (layout === undefined) return undefined;
    return {
      committed: this.#committedClaims(layout),
      changing: this.#changingClaims(layout),
      waiting: this.#ledger.unused(),
    };
  }

  *#committedClaims(layout: TableLayout): Generator<Claims, void, undefined> {
    if (layout.fixed === this.#layout.fixed) yield layout.fixed;
    for (const [key, plan] of this.#ports) {
      if (!this.#touched.has(key)) yield layout.claims(this.#index.effective(plan));
    }
  }

  *#changingClaims(layout: TableLayout): Generator<Claims, void, undefined> {
    if (layout.fixed !== this.#layout.fixed) {
      yield layout.fixed;
      yield this.#layout.fixed;
    }
    for (const [key, was] of this.#touched) {
      if (was !== undefined) yield layout.claims(was);
      const plan = this.#ports.get(key);
      if (plan !== undefined) yield this.#layout.claims(this.#index.effective(plan));
    }
  }

  /** Ids and values of the whole table, whichever slots endpoints have: histories that end alike give the same. */
  snapshot(): Map<string, string> {
    const out = new Map<string, string>();
    const note = ({ chains, containers, elements }: Claims): void => {
      for (const { name, hook, rules } of chains) {
        out.set(`c|${name}`, chainSignature(hook, rules.map(ruleTag)));
      }
      for (const { name, kind } of containers) out.set(`s|${name}`, kind);
      for (const { container, key, value } of elements) out.set(`e|${container}|${key}`, value);
    };
    note(this.#layout.fixed);
    for (const plan of this.#ports.values()) {
      const { cluster, local } = plan;
      const sorted = withOrder(plan, inOrder(cluster), inOrder(local));
      note(this.#layout.claims({ ...sorted, frontends: this.#index.effective(plan).frontends }));
    }
    return out;
  }

  /** The whole table from nothing, in one. */
  all(): TableChanges {
    const changes = new TableChanges();
    const ledger = new Ledger();
    ledger.claim(this.#layout.fixed, changes, undefined);
    for (const key of [...this.#ports.keys()].toSorted()) {
      const plan = this.#ports.get(key);
      if (plan !== undefined)
        ledger.claim(this.#layout.claims(this.#index.effective(plan)), changes, undefined);
    }
    return changes;
  }
}

function inOrder(backends: readonly Backend[]): readonly Backend[] {
  return backends.toSorted((a, b) => (backendID(a) < backendID(b) ? -1 : 1));
}

function weight(plan: PlannedPort | undefined): number {
  if (plan === undefined) return 0;
  const { frontends, cluster, local, hairpin } = plan;
  return frontends.length * (cluster.length + local.length + 1) + hairpin.length + 1;
}

function withOrder(
  plan: PlannedPort,
  cluster: readonly Backend[],
  local: readonly Backend[],
): PlannedPort {
  return cluster === plan.cluster && local === plan.local ? plan : { ...plan, cluster, local };
}

/** `plan` with as many of its endpoints as possible in the slots that they had. */
function placed(plan: PlannedPort, before: PlannedPort | undefined): PlannedPort {
  if (before === undefined) return plan;
  return withOrder(
    plan,
    placeBackends(before.cluster.map(backendID), plan.cluster),
    placeBackends(before.local.map(backendID), plan.local),
  );
}

import type { TableListing } from "../../netfilter/read-back.ts";
import type { NftContainer, NftOp } from "../../netfilter/transaction.ts";
import { type ChainClaim, chainSignature, type Claims, type ElementClaim } from "../diff.ts";
import { ruleTag } from "../rule-tag.ts";
import type { TableChanges } from "./table-changes.ts";

interface HeldChain {
  chain: ChainClaim;
  count: number;
}

interface HeldContainer {
  container: NftContainer;
  count: number;
}

/** Names chains and containers apart: neither may have a space. */
export type ObjectName = `chain ${string}` | `container ${string}`;

/**
 * What the kernel's table holds because of claims, as far as several owners share it, and how many do. What is one
 * owner's alone is not kept here: it follows from the owner's plan.
 */
export class Ledger {
  readonly #chains = new Map<string, HeldChain>();
  readonly #containers = new Map<string, HeldContainer>();
  readonly #elements = new Map<string, Map<string, number>>();
  /** Chains and containers that nobody wants, and since when (monotonic). They stay intact: they may be wanted again. */
  readonly #unused = new Map<ObjectName, number>();

  clear(): void {
    this.#chains.clear();
    this.#containers.clear();
    this.#elements.clear();
    this.#unused.clear();
  }

  wantsChain(name: string): boolean {
    return (this.#chains.get(name)?.count ?? 0) > 0;
  }

  wantsContainer(name: string): boolean {
    return (this.#containers.get(name)?.count ?? 0) > 0;
  }

  /** Takes claims back that are in the kernel. */
  release({ chains, containers, elements }: Claims, changes: TableChanges): void {
    for (const { name } of chains) {
      const held = this.#chains.get(name);
      if (held !== undefined) held.count -= 1;
      if (held?.count === 0) this.#unused.set(`chain ${name}`, Infinity);
    }
    for (const { name } of containers) {
      const held = this.#containers.get(name);
      if (held !== undefined) held.count -= 1;
      if (held?.count === 0) this.#unused.set(`container ${name}`, Infinity);
    }
    for (const { container, key, value, shared } of elements) {
      if (!shared) {
        changes.remove(container, key, value);
        continue;
      }
      const counts = this.#elements.get(container);
      const count = (counts?.get(key) ?? 1) - 1;
      if (count > 0) {
        counts?.set(key, count);
      } else {
        counts?.delete(key);
        changes.remove(container, key, value);
      }
    }
  }

  /** Adds claims, and to `changes` what the kernel does not have of them. `listing`: what it really has. */
  claim(claims: Claims, changes: TableChanges, listing: TableListing | undefined): void {
    for (const container of claims.containers) this.#claimContainer(container, changes, listing);
    for (const chain of claims.chains) this.#claimChain(chain, changes, listing);
    for (const element of claims.elements) {
      if (element.shared && !this.#isFirst(element)) continue;
      const listed = listing?.containers.get(element.container)?.elements;
      const there = listed?.get(element.key);
      listed?.delete(element.key);
      if (there === element.value) continue;
      if (there !== undefined) changes.remove(element.container, element.key, there);
      changes.add(element.container, element);
    }
  }

  #isFirst({ container, key }: ElementClaim): boolean {
    let counts = this.#elements.get(container);
    if (counts === undefined) {
      counts = new Map();
      this.#elements.set(container, counts);
    }
    const count = counts.get(key) ?? 0;
    counts.set(key, count + 1);
    return count === 0;
  }

  #claimContainer(
    container: NftContainer,
    changes: TableChanges,
    listing: TableListing | undefined,
  ): void {
    const { name } = container;
    const held = this.#containers.get(name);
    if (held === undefined) {
      this.#containers.set(name, { container, count: 1 });
      if (listing?.containers.get(name)?.kind !== container.kind)
        changes.containers.push(container);
      return;
    }
    held.count += 1;
    const unusedSince = this.#unused.get(`container ${name}`);
    this.#unused.delete(`container ${name}`);
    // A set that remembers clients must not remember those of its former life. One that is only planned anew has none.
    if (unusedSince !== undefined && unusedSince !== Infinity && container.kind === "set")
      changes.emptied.push(name);
  }

  #claimChain(chain: ChainClaim, changes: TableChanges, listing: TableListing | undefined): void {
    const held = this.#chains.get(chain.name);
    if (held === undefined) {
      this.#chains.set(chain.name, { chain, count: 1 });
      const listed = listing?.chains.get(chain.name);
      if (listed === undefined) {
        changes.newChains.push(chain);
      } else if (
        chainSignature(listed.hook, listed.tags) !==
        chainSignature(chain.hook, chain.rules.map(ruleTag))
      ) {
        changes.rewrittenChains.push(chain);
      }
      return;
    }
    held.count += 1;
    this.#unused.delete(`chain ${chain.name}`);
    if (sameRules(held.chain.rules, chain.rules)) return;
    held.chain = chain;
    changes.rewrittenChains.push(chain);
  }

  /** Elements, chains and containers of the kernel that no claim has asked for, after all have been made. */
  dropUnclaimed(listing: TableListing, changes: TableChanges): void {
    for (const [name, { kind, elements }] of listing.containers) {
      if (!this.#containers.has(name)) {
        this.#containers.set(name, { container: { kind, name, spec: "" }, count: 0 });
        this.#unused.set(`container ${name}`, Infinity);
      }
      // Affinity records are the kernel's own: nobody wants them one by one, and they expire at any moment.
      if (name.startsWith("aff-")) continue;
      // Also of a map that goes as a whole later: verdicts keep chains from being deleted.
      for (const [key, value] of elements) changes.remove(name, key, value);
    }
    for (const name of listing.chains.keys()) {
      if (this.#chains.has(name)) continue;
      this.#chains.set(name, { chain: { name, rules: [] }, count: 0 });
      this.#unused.set(`chain ${name}`, Infinity);
    }
  }

  /** Says which objects this synchronisation stopped using, and that they are unused from now on. */
  noteUnused(now: number): readonly ObjectName[] {
    const fresh: ObjectName[] = [];
    for (const [name, since] of this.#unused) {
      if (since !== Infinity) continue;
      fresh.push(name);
      this.#unused.set(name, now);
    }
    return fresh;
  }

  get hasUnused(): boolean {
    return this.#unused.size > 0;
  }

  /** Everything that waits for its deletion. */
  unused(): ReadonlySet<string> {
    return new Set(this.#unused.keys());
  }

  /** Operations that delete what has been unused since `before`, in a transaction of their own. */
  takeUnused(before: number): readonly NftOp[] {
    const chains: string[] = [];
    const containers: NftOp[] = [];
    for (const [object, since] of this.#unused) {
      if (since > before) continue;
      const name = object.slice(object.indexOf(" ") + 1);
      this.#unused.delete(object);
      if (object.startsWith("chain ")) {
        chains.push(name);
        this.#chains.delete(name);
      } else {
        const kind = this.#containers.get(name)?.container.kind ?? "set";
        containers.push({ op: "delete-container", kind, name });
        this.#containers.delete(name);
        this.#elements.delete(name);
      }
    }
    return [
      // Chains go to each other, and rules name sets.
      ...chains.map((chain): NftOp => ({ op: "flush-chain", chain })),
      ...chains.map((chain): NftOp => ({ op: "delete-chain", chain })),
      ...containers,
    ];
  }
}

function sameRules(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((rule, at) => rule === b[at]);
}

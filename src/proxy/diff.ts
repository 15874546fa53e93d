import type { NftContainer, NftElement, NftHook, NftOp } from "../netfilter/transaction.ts";
import { ruleTag } from "./rule-tag.ts";

/** A chain that somebody wants. Same name, same content: whoever claims it. */
export interface ChainClaim {
  readonly name: string;
  readonly hook?: NftHook;
  readonly rules: readonly string[];
}

/** An element of one of our containers. `shared` elements are wanted by several owners with the same value. */
export interface ElementClaim extends NftElement {
  readonly container: string;
  readonly shared: boolean;
}

/** What one owner (a Service port, or the fixed part) wants in the table. */
export interface Claims {
  readonly chains: readonly ChainClaim[];
  readonly containers: readonly NftContainer[];
  readonly elements: readonly ElementClaim[];
}

interface Holder {
  readonly owner: string;
  readonly rank: string;
  readonly value: string;
}

interface Held {
  value: string;
  count: number;
}

const separator = "|";

/** What differs from the kernel: what it holds (undefined = nothing) and what it should hold. */
export interface Difference {
  readonly kind: "chain" | "container" | "element";
  /** Chain or container. */
  readonly name: string;
  /** Key of an element, else empty. */
  readonly key: string;
  readonly committed: string | undefined;
  readonly desired: string | undefined;
}

function chainID(name: string): string {
  return `c${separator}${name}`;
}

function containerID(name: string): string {
  return `s${separator}${name}`;
}

function elementID(container: string, key: string): string {
  return `e${separator}${container}${separator}${key}`;
}

function splitID(id: string): Pick<Difference, "kind" | "name" | "key"> {
  const [kind, name = "", key = ""] = id.split(separator);
  if (kind === "e") return { kind: "element", name, key };
  return { kind: kind === "c" ? "chain" : "container", name, key: "" };
}

/** The comparable form of a chain: its hook and the tags of its rules. */
export function chainSignature(hook: NftHook | undefined, tags: readonly string[]): string {
  const place = hook === undefined ? "" : `${hook.type} ${hook.hook} ${hook.priority}`;
  return `${place};${tags.join(",")}`;
}

/**
 * The table as it should be, as a sum of claims, together with what of it the kernel does not have yet. Changing one
 * owner's claims costs what these claims are, however large the table is.
 */
export class DesiredTable {
  readonly #byOwner = new Map<string, { readonly rank: string; readonly claims: Claims }>();
  readonly #exclusive = new Map<string, Holder[]>();
  readonly #shared = new Map<string, Held>();
  readonly #chains = new Map<string, ChainClaim>();
  readonly #containers = new Map<string, NftContainer>();
  /** Value in the kernel of everything that was touched since. */
  readonly #touched = new Map<string, string | undefined>();

  /** Puts `claims` in the place of what `owner` claimed before; undefined = nothing any more. */
  replace(owner: string, rank: string, claims: Claims | undefined): void {
    const previous = this.#byOwner.get(owner);
    if (previous !== undefined) this.#release(owner, previous.claims);
    if (claims === undefined) {
      this.#byOwner.delete(owner);
      return;
    }
    this.#byOwner.set(owner, { rank, claims });
    this.#claim(owner, rank, claims);
  }

  owners(): IterableIterator<string> {
    return this.#byOwner.keys();
  }

  /** Owners that want an exclusive element which another owner has: `[loser, winner]`. */
  conflicts(owner: string): readonly (readonly [string, string])[] {
    const claims = this.#byOwner.get(owner)?.claims;
    const found: (readonly [string, string])[] = [];
    for (const { container, key, shared } of claims?.elements ?? []) {
      const holders = shared ? undefined : this.#exclusive.get(elementID(container, key));
      const winner = holders?.[0]?.owner;
      if (holders === undefined || winner === undefined || holders.length < 2) continue;
      for (const holder of holders.slice(1)) found.push([holder.owner, winner]);
    }
    return found;
  }

  #claim(owner: string, rank: string, claims: Claims): void {
    for (const container of claims.containers) {
      this.#containers.set(container.name, container);
      this.#addShared(containerID(container.name), container.kind);
    }
    for (const chain of claims.chains) {
      this.#chains.set(chain.name, chain);
      this.#addShared(chainID(chain.name), chainSignature(chain.hook, chain.rules.map(ruleTag)));
    }
    for (const { container, key, value, shared } of claims.elements) {
      const id = elementID(container, key);
      if (shared) {
        this.#addShared(id, value);
        continue;
      }
      this.#touch(id);
      const holders = this.#exclusive.get(id) ?? [];
      holders.push({ owner, rank, value });
      if (holders.length > 1) holders.sort((a, b) => (a.rank < b.rank ? -1 : 1));
      this.#exclusive.set(id, holders);
    }
  }

  #addShared(id: string, value: string): void {
    const held = this.#shared.get(id);
    if (held !== undefined && held.value === value) {
      held.count += 1;
      return;
    }
    this.#touch(id);
    this.#shared.set(id, { value, count: (held?.count ?? 0) + 1 });
  }

  #release(owner: string, claims: Claims): void {
    for (const { name } of claims.containers) this.#dropShared(containerID(name));
    for (const { name } of claims.chains) this.#dropShared(chainID(name));
    for (const { container, key, shared } of claims.elements) {
      const id = elementID(container, key);
      if (shared) {
        this.#dropShared(id);
        continue;
      }
      this.#touch(id);
      const rest = (this.#exclusive.get(id) ?? []).filter((holder) => holder.owner !== owner);
      if (rest.length > 0) this.#exclusive.set(id, rest);
      else this.#exclusive.delete(id);
    }
  }

  #dropShared(id: string): void {
    const held = this.#shared.get(id);
    if (held === undefined) return;
    if (held.count > 1) {
      held.count -= 1;
      return;
    }
    this.#touch(id);
    this.#shared.delete(id);
  }

  /** The value that an element should have; undefined when it should not be there. */
  element(container: string, key: string): string | undefined {
    return this.#value(elementID(container, key));
  }

  #value(id: string): string | undefined {
    return this.#shared.get(id)?.value ?? this.#exclusive.get(id)?.[0]?.value;
  }

  #touch(id: string): void {
    // Untouched means: the kernel has what is desired.
    if (!this.#touched.has(id)) this.#touched.set(id, this.#value(id));
  }

  /** Says what the kernel really holds; everything that differs from it counts as changed. */
  adopt(kernel: ReadonlyMap<string, string>): void {
    this.#touched.clear();
    for (const [id, value] of kernel) if (this.#value(id) !== value) this.#touched.set(id, value);
    for (const id of this.#shared.keys()) if (!kernel.has(id)) this.#touched.set(id, undefined);
    for (const id of this.#exclusive.keys()) if (!kernel.has(id)) this.#touched.set(id, undefined);
  }

  /** What has to change in the kernel, in a stable order. */
  differences(): Difference[] {
    const out: Difference[] = [];
    for (const [id, committed] of this.#touched) {
      const desired = this.#value(id);
      if (desired !== committed) out.push({ ...splitID(id), committed, desired });
    }
    return out;
  }

  /** Everything, as differences from an empty table. */
  all(): Difference[] {
    return [...this.snapshot()]
      .map(([id, desired]) => ({ ...splitID(id), committed: undefined, desired }))
      .toSorted((a, b) => (`${a.name} ${a.key}` < `${b.name} ${b.key}` ? -1 : 1));
  }

  /** The kernel has taken everything. */
  committed(): void {
    this.#touched.clear();
    this.#forgetUnused();
  }

  #forgetUnused(): void {
    for (const name of this.#chains.keys())
      if (!this.#shared.has(chainID(name))) this.#chains.delete(name);
    for (const name of this.#containers.keys())
      if (!this.#shared.has(containerID(name))) this.#containers.delete(name);
  }

  chain(name: string): ChainClaim | undefined {
    return this.#shared.has(chainID(name)) ? this.#chains.get(name) : undefined;
  }

  container(name: string): NftContainer | undefined {
    return this.#shared.has(containerID(name)) ? this.#containers.get(name) : undefined;
  }

  /** The whole table, id to value: for comparisons in tests and the debug listing. */
  snapshot(): Map<string, string> {
    const out = new Map<string, string>();
    for (const [id, { value }] of this.#shared) out.set(id, value);
    for (const [id, holders] of this.#exclusive) out.set(id, holders[0]?.value ?? "");
    return out;
  }
}

/** Ids and values as {@link DesiredTable.adopt} takes them, from a listing of the kernel's table. */
export function kernelValues(listing: {
  readonly chains: ReadonlyMap<
    string,
    { readonly hook: NftHook | undefined; readonly tags: readonly string[] }
  >;
  readonly containers: ReadonlyMap<
    string,
    { readonly kind: string; readonly elements: ReadonlyMap<string, string> }
  >;
}): Map<string, string> {
  const out = new Map<string, string>();
  for (const [name, { hook, tags }] of listing.chains)
    out.set(chainID(name), chainSignature(hook, tags));
  for (const [name, { kind, elements }] of listing.containers) {
    out.set(containerID(name), kind);
    // Affinity records are the kernel's own; nobody desires them one by one.
    if (name.startsWith("aff-")) continue;
    for (const [key, value] of elements) out.set(elementID(name, key), value);
  }
  return out;
}

/** Steps of one synchronisation. `before` may be split over transactions in its order; `final` is one. */
export interface TablePlan {
  readonly structure: readonly NftOp[];
  /** New elements that no packet reaches before `final`. */
  readonly staged: readonly NftOp[];
  readonly final: readonly NftOp[];
  /** Objects to delete in a later transaction: kernels before 6.2 count references until the first one is over. */
  readonly garbage: readonly NftOp[];
}

/** Orders differences into operations the kernel accepts. */
export function planOps(differences: readonly Difference[], table: DesiredTable): TablePlan {
  const structure: NftOp[] = [];
  const rules: NftOp[] = [];
  const retired: NftOp[] = [];
  const garbage: NftOp[] = [];
  const additions = new Map<string, NftElement[]>();
  const fresh = new Map<string, NftElement[]>();
  const deletions = new Map<string, string[]>();
  for (const { kind, name, key, committed, desired } of differences) {
    if (kind === "container") {
      const container = table.container(name);
      if (container !== undefined) structure.push({ op: "add-container", container });
      else
        garbage.push({ op: "delete-container", kind: committed === "map" ? "map" : "set", name });
    } else if (kind === "chain") {
      const chain = table.chain(name);
      if (chain === undefined) {
        retired.push({ op: "flush-chain", chain: name });
        garbage.push({ op: "delete-chain", chain: name });
      } else {
        structure.push({
          op: "add-chain",
          chain: name,
          ...(chain.hook === undefined ? {} : { hook: chain.hook }),
        });
        rules.push(...rulesOf(chain, committed));
      }
    } else {
      if (committed !== undefined) push(deletions, name, key);
      if (desired !== undefined) {
        const early = committed === undefined && name.startsWith("ep-");
        push(early ? fresh : additions, name, { key, value: desired });
      }
    }
  }
  // Chains are deleted before the sets that their rules named.
  garbage.sort((a, b) => Number(a.op === "delete-container") - Number(b.op === "delete-container"));
  return {
    // Containers first: rules name them.
    structure: [
      ...structure.filter(({ op }) => op === "add-container"),
      ...structure.filter(({ op }) => op !== "add-container"),
      ...rules,
    ],
    staged: elementOps(fresh),
    final: [
      ...[...deletions].map(([container, keys]): NftOp => ({
        op: "delete-elements",
        container,
        keys,
      })),
      ...elementOps(additions),
      ...retired,
    ],
    garbage,
  };
}

function rulesOf(chain: ChainClaim, committed: string | undefined): NftOp[] {
  const add = chain.rules.map((text): NftOp => ({
    op: "add-rule",
    chain: chain.name,
    rule: { text, tag: ruleTag(text) },
  }));
  // A new chain may also be one that waits for its deletion: it was flushed then.
  return committed === undefined ? add : [{ op: "flush-chain", chain: chain.name }, ...add];
}

function elementOps(byContainer: ReadonlyMap<string, readonly NftElement[]>): NftOp[] {
  return [...byContainer].map(([container, elements]) => ({
    op: "add-elements",
    container,
    elements,
  }));
}

function push<T>(lists: Map<string, T[]>, name: string, item: T): void {
  const list = lists.get(name);
  if (list === undefined) lists.set(name, [item]);
  else list.push(item);
}

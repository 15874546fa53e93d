import { applyNft, listTable } from "../netfilter/nft.ts";
import type { TableListing } from "../netfilter/read-back.ts";
import {
  type NftHook,
  type NftOp,
  type NftTable,
  renderTransaction,
} from "../netfilter/transaction.ts";

function place(hook: NftHook | undefined): string {
  return hook === undefined ? "" : `${hook.type} ${hook.hook} ${hook.priority}`;
}

function describe(listing: TableListing): string {
  const chains = [...listing.chains].map(
    ([name, { hook, tags }]) => `chain ${name} ${place(hook)} ${tags.join(" ")}`,
  );
  const containers = [...listing.containers].map(([name, { kind, elements }]) => {
    const pairs = [...elements].map(([key, value]) => `${key} : ${value}`);
    return `${kind} ${name} ${pairs.toSorted().join(", ")}`;
  });
  return [...chains, ...containers].toSorted().join("\n");
}

/** What a table that was built by `ops` looks like in a listing. Pure. */
export function expectedListing(ops: readonly NftOp[]): TableListing {
  const listing: TableListing = { chains: new Map(), containers: new Map() };
  for (const op of ops) {
    if (op.op === "add-chain") {
      listing.chains.set(op.chain, { hook: op.hook, tags: [] });
    } else if (op.op === "add-rule") {
      listing.chains.get(op.chain)?.tags.push(op.rule.tag);
    } else if (op.op === "add-container") {
      const { kind, name } = op.container;
      listing.containers.set(name, { kind, elements: new Map() });
    } else if (op.op === "add-elements") {
      const elements = listing.containers.get(op.container)?.elements;
      for (const { key, value } of op.elements) elements?.set(key, value);
    }
  }
  return listing;
}

/** Whether the kernel's table is what `ops` would build. Rules are known by their tags. */
export function tableMatches(listing: TableListing | undefined, ops: readonly NftOp[]): boolean {
  return listing !== undefined && describe(listing) === describe(expectedListing(ops));
}

/** One table of ours that is made as a whole and looked after. */
export class NodeTable {
  readonly #table: NftTable;
  /** What was sent last, and how nft lists it when that is not as expected. */
  #odd: { readonly text: string; readonly listed: string } | undefined;

  constructor(table: NftTable) {
    this.#table = table;
  }

  /**
   * Looks whether the table is what `ops` would build, and lets them replace it, in one transaction, only when it is
   * not.
   *
   * @returns Whether it was replaced.
   * @throws as `applyNft`.
   */
  async ensure(ops: readonly NftOp[], signal: AbortSignal): Promise<boolean> {
    const text = renderTransaction(this.#table, ops);
    const listing = await listTable(this.#table, signal);
    if (tableMatches(listing, ops)) return false;
    const odd = this.#odd;
    if (listing !== undefined && odd?.text === text && odd.listed === describe(listing)) {
      return false;
    }
    await applyNft(text, signal);
    // An nft that lists something in another way must not make us replace the table for ever.
    const result = await listTable(this.#table, signal);
    this.#odd =
      result === undefined || tableMatches(result, ops)
        ? undefined
        : { text, listed: describe(result) };
    return true;
  }
}

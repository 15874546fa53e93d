import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { NftError } from "../../netfilter/errors.ts";
import type { Deletion } from "../../netfilter/monitor.ts";
import { applyNft, listTable } from "../../netfilter/nft.ts";
import type { TableListing } from "../../netfilter/read-back.ts";
import { type NftOp, type NftTable, renderTransaction } from "../../netfilter/transaction.ts";
import type { ApplyResult } from "../backend.ts";
import type { DesiredTable } from "./desired-table.ts";
import { hasDrifted } from "./drift.ts";
import { layoutChain } from "./layout.ts";

/** How long events of an own transaction may take to come back from the kernel. */
const echoMs = 2000;
/** Stands for the table among the names of chains. */
const wholeTable = "";

/** Maps and sets among the names of chains, none of which has a space. */
function containerEcho(name: string): string {
  return `container ${name}`;
}

/** The kernel's tables, by a program. */
export interface NftProgram {
  readonly apply: typeof applyNft;
  readonly list: typeof listTable;
}

type Collected = "nothing" | "done" | "failed";

/**
 * How long an object stays that nobody uses: it is often wanted again at once, and kernels before 6.2 count references
 * of deleted elements until their transaction is over.
 */
const unusedMs = 900;

/**
 * Brings one table in the kernel to its desired state. Knows what it has committed and sends differences only; reads the
 * kernel back at the start, when told that the table may have been changed, and after a failure.
 */
export class TableApplier {
  readonly #table: NftTable;
  readonly #desired: DesiredTable;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #nft: NftProgram;
  /** Chains that own transactions emptied or deleted, and when: their events are no news. */
  readonly #ownDeletions = new Map<string, number>();
  #known = false;
  /** The kernel has a table of another version, which is replaced as a whole. */
  #foreign = false;
  #failures = 0;

  constructor(options: {
    readonly table: NftTable;
    readonly desired: DesiredTable;
    readonly logger: Logger;
    readonly clock: Clock;
    /** Default: that of this machine. */
    readonly nft?: NftProgram;
  }) {
    this.#table = options.table;
    this.#desired = options.desired;
    this.#logger = options.logger;
    this.#clock = options.clock;
    this.#nft = options.nft ?? { apply: applyNft, list: listTable };
  }

  /** The kernel's table may not be what was committed: the next synchronisation reads it back. */
  distrust(): void {
    this.#known = false;
  }

  /**
   * Whether a deletion in our table may be the work of others: of a chain, a rule or a map that should be there and that
   * we did not just rewrite. Wrong at worst in the careful direction, which costs a read-back.
   */
  isSuspicious({ kind, name }: Deletion): boolean {
    switch (kind) {
      case "element":
        // Our own changes are mostly these, and telling them apart would cost more than they are worth.
        return false;
      case "container":
        return this.#desired.wantsContainer(name) && !this.#isEcho(containerEcho(name));
      case "table":
        return !this.#isEcho(wholeTable);
      case "chain":
      case "rule":
        return this.#desired.wantsChain(name) && !this.#isEcho(name);
      default:
        return true;
    }
  }

  #isEcho(name: string): boolean {
    const at = this.#ownDeletions.get(name);
    return at !== undefined && this.#clock.monotonic() - at <= echoMs;
  }

  #remember(ops: readonly NftOp[]): void {
    const now = this.#clock.monotonic();
    for (const [name, at] of this.#ownDeletions) {
      if (now - at > echoMs) this.#ownDeletions.delete(name);
    }
    for (const op of ops) {
      if (op.op === "flush-chain" || op.op === "delete-chain")
        this.#ownDeletions.set(op.chain, now);
      if (op.op === "delete-container") this.#ownDeletions.set(containerEcho(op.name), now);
      if (op.op === "drop-table") this.#ownDeletions.set(wholeTable, now);
    }
  }

  /** True while objects wait for their deletion in a later transaction. */
  get hasGarbage(): boolean {
    return this.#desired.ledger.hasUnused;
  }

  /**
   * One synchronisation. The desired table must not change until it ends.
   *
   * @throws {NftError}, {SetupError}, `AbortError`; the next call then reads back first.
   */
  async sync(signal: AbortSignal): Promise<ApplyResult> {
    try {
      const result = await this.#sync(signal);
      this.#failures = 0;
      return result;
    } catch (error) {
      this.#known = false;
      if (!isAbort(error)) this.#failures += 1;
      throw error;
    }
  }

  async #sync(signal: AbortSignal): Promise<ApplyResult> {
    let listing: TableListing | undefined;
    let drift: boolean | undefined;
    let collected: Collected = "nothing";
    const trusted = this.#known;
    // From here on: who deletes something while this goes on makes it doubtful again.
    this.#known = true;
    if (trusted) {
      collected = await this.#collect(signal);
      if (collected === "failed") listing = await this.#readBack(signal);
    } else {
      listing = await this.#readBack(signal);
      const expectation = this.#desired.expectation();
      drift = expectation !== undefined && (await hasDrifted(listing, expectation, this.#clock));
    }
    const sent = await this.#send(listing, signal);
    this.#desired.committed();
    this.#desired.ledger.noteUnused(this.#clock.monotonic());
    return {
      ...sent,
      transactions: sent.transactions + (collected === "nothing" ? 0 : 1),
      drift,
      cleanupFailed: collected === "failed",
    };
  }

  /** Sends what differs; while the kernel takes one transaction, the next one is written. */
  async #send(
    listing: TableListing | undefined,
    signal: AbortSignal,
  ): Promise<Pick<ApplyResult, "changes" | "transactions" | "bytes">> {
    const sent = { changes: 0, transactions: 0, bytes: 0 };
    let applying: Promise<void> = Promise.resolve();
    try {
      for await (const changes of this.#desired.transactions(this.#clock, listing)) {
        const prelude: NftOp[] = this.#foreign ? [{ op: "drop-table" }] : [];
        const ops = changes.ops();
        // Harmless where there is a table, and cheap.
        if (listing !== undefined && sent.transactions === 0 && ops.length > 0) {
          prelude.push({ op: "add-table" });
        }
        const text = renderTransaction(this.#table, [...prelude, ...ops]);
        sent.changes += changes.differences;
        if (text === "") continue;
        await applying;
        this.#foreign = false;
        this.#remember([...prelude, ...ops]);
        sent.transactions += 1;
        sent.bytes += text.length;
        applying = this.#nft.apply(text, signal);
        // Awaited below, or by the next turn; until then a failure must not count as one that nobody looks at.
        applying.catch(() => undefined);
      }
    } finally {
      // Also when the next one could not be written: nobody may start anew while nft is still at work.
      await applying;
    }
    return sent;
  }

  /** What the kernel has of the table: nothing when it is another version's, which is then replaced as a whole. */
  async #readBack(signal: AbortSignal): Promise<TableListing> {
    const listing = await this.#list(signal);
    // What fails twice after a read-back is something that a difference cannot mend.
    const ours =
      listing?.chains.has(layoutChain) === true &&
      this.#failures < 2 &&
      // The hook of a base chain cannot be changed in place.
      this.#desired.hooksFit(listing);
    this.#foreign = listing !== undefined && !ours;
    return listing !== undefined && ours ? listing : { chains: new Map(), containers: new Map() };
  }

  async #list(signal: AbortSignal): Promise<TableListing | undefined> {
    try {
      return await this.#nft.list(this.#table, signal);
    } catch (error) {
      if (isAbort(error) || error instanceof SetupError || this.#failures < 2) throw error;
      // Others may have put into our table what no listing can be read with: then only another table helps.
      this.#logger.log("warn", "the table of service rules cannot be read and is replaced", {
        table: this.#table.name,
        error: errorMessage(error),
      });
      return { chains: new Map(), containers: new Map() };
    }
  }

  /** Deletes what has been unused for a while. Failure costs a read-back. */
  async #collect(signal: AbortSignal): Promise<Collected> {
    const dead = this.#desired.ledger.takeUnused(this.#clock.monotonic() - unusedMs);
    if (dead.length === 0) return "nothing";
    this.#remember(dead);
    try {
      await this.#nft.apply(renderTransaction(this.#table, dead), signal);
    } catch (error) {
      if (!(error instanceof NftError)) throw error;
      this.#logger.log("debug", "unused chains could not be deleted yet", {
        table: this.#table.name,
        error: errorMessage(error),
      });
      return "failed";
    }
    return "done";
  }
}

import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { NftError } from "../../netfilter/errors.ts";
import { applyNft, listTable } from "../../netfilter/nft.ts";
import { type NftOp, type NftTable, renderTransaction } from "../../netfilter/transaction.ts";
import { type DesiredTable, kernelValues, planOps } from "../diff.ts";
import { layoutChain } from "./layout.ts";
import { renderPlan } from "./render.ts";

/** What one synchronisation did. */
export interface ApplyResult {
  /** Things that differed; 0 = the kernel was right. */
  readonly changes: number;
  readonly transactions: number;
}

/**
 * Brings one table in the kernel to its desired state. Knows what it has committed and sends differences only; reads the
 * kernel back at the start, when told that the table may have been changed, and after a failure.
 */
export class TableApplier {
  readonly #table: NftTable;
  readonly #desired: DesiredTable;
  readonly #logger: Logger;
  #known = false;
  /** The kernel has a table of another version, which is replaced as a whole. */
  #foreign = false;
  #garbage: readonly NftOp[] = [];
  #failures = 0;

  constructor(options: {
    readonly table: NftTable;
    readonly desired: DesiredTable;
    readonly logger: Logger;
  }) {
    this.#table = options.table;
    this.#desired = options.desired;
    this.#logger = options.logger;
  }

  /** The kernel's table may not be what was committed: the next synchronisation reads it back. */
  distrust(): void {
    this.#known = false;
  }

  /** True while objects wait for their deletion in a later transaction. */
  get hasGarbage(): boolean {
    return this.#garbage.length > 0;
  }

  /**
   * One synchronisation. The desired table must not change until it ends.
   *
   * @throws {NftError}, {SetupError}, `AbortError`; the next call then reads back first.
   */
  async sync(signal: AbortSignal): Promise<ApplyResult> {
    if (!this.#known) await this.#readBack(signal);
    const collected = await this.#collect(signal);
    const differences = this.#desired.differences();
    const plan = planOps(differences, this.#desired);
    const prelude: NftOp[] = this.#foreign ? [{ op: "drop-table" }] : [];
    if (plan.structure.length > 0 || prelude.length > 0) prelude.push({ op: "add-table" });
    const texts = renderPlan(this.#table, plan, prelude);
    try {
      for (const text of texts) await applyNft(text, signal);
    } catch (error) {
      this.#known = false;
      if (!isAbort(error)) this.#failures += 1;
      throw error;
    }
    this.#foreign = false;
    this.#failures = 0;
    this.#desired.committed();
    this.#garbage = plan.garbage;
    return { changes: differences.length, transactions: texts.length + collected };
  }

  async #readBack(signal: AbortSignal): Promise<void> {
    const listing = await listTable(this.#table, signal);
    // What fails twice after a read-back is something that a difference cannot mend.
    const ours = listing?.chains.has(layoutChain) === true && this.#failures < 2;
    this.#foreign = listing !== undefined && !ours;
    this.#garbage = [];
    this.#desired.adopt(listing !== undefined && ours ? kernelValues(listing) : new Map());
    if (this.#hookDiffers()) {
      // The hook of a base chain cannot be changed in place.
      this.#foreign = true;
      this.#desired.adopt(new Map());
    }
    this.#known = true;
  }

  #hookDiffers(): boolean {
    return this.#desired
      .differences()
      .some(
        ({ kind, committed, desired }) =>
          kind === "chain" &&
          committed !== undefined &&
          committed.split(";")[0] !== (desired ?? ";").split(";")[0],
      );
  }

  /**
   * Deletes what an earlier synchronisation stopped using, also what is wanted again by now: a map must be born in the
   * transaction of the rule that reads it. Failure costs a read-back.
   */
  async #collect(signal: AbortSignal): Promise<number> {
    const dead = this.#garbage;
    this.#garbage = [];
    if (dead.length === 0) return 0;
    try {
      await applyNft(renderTransaction(this.#table, dead), signal);
    } catch (error) {
      if (!(error instanceof NftError)) throw error;
      this.#logger.log("debug", "unused chains could not be deleted yet", {
        table: this.#table.name,
        error: errorMessage(error),
      });
      await this.#readBack(signal);
    }
    return 1;
  }
}

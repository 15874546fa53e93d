import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { NftError } from "../../netfilter/errors.ts";
import type { Deletion } from "../../netfilter/monitor.ts";
import { applyNft, listTable } from "../../netfilter/nft.ts";
import { type NftOp, type NftTable, renderTransaction } from "../../netfilter/transaction.ts";
import type { ApplyResult } from "../backend.ts";
import { type DesiredTable, kernelValues, planOps } from "../diff.ts";
import { layoutChain } from "./layout.ts";
import { renderPlan } from "./render.ts";

/** How long events of an own transaction may take to come back from the kernel. */
const echoMs = 2000;
/** Stands for the table among the names of chains. */
const wholeTable = "";

/** Maps and sets among the names of chains, none of which has a space. */
function containerEcho(name: string): string {
  return `container ${name}`;
}

/** What an operation of the clean-up deletes, as a difference would name it. */
function deletedName(op: NftOp): string | undefined {
  if (op.op === "delete-chain") return `chain ${op.chain}`;
  return op.op === "delete-container" ? `container ${op.name}` : undefined;
}

/**
 * Brings one table in the kernel to its desired state. Knows what it has committed and sends differences only; reads the
 * kernel back at the start, when told that the table may have been changed, and after a failure.
 */
export class TableApplier {
  readonly #table: NftTable;
  readonly #desired: DesiredTable;
  readonly #logger: Logger;
  readonly #clock: Clock;
  /** Chains that own transactions emptied or deleted, and when: their events are no news. */
  readonly #ownDeletions = new Map<string, number>();
  #known = false;
  /** The kernel has a table of another version, which is replaced as a whole. */
  #foreign = false;
  #garbage: readonly NftOp[] = [];
  #failures = 0;

  constructor(options: {
    readonly table: NftTable;
    readonly desired: DesiredTable;
    readonly logger: Logger;
    readonly clock: Clock;
  }) {
    this.#table = options.table;
    this.#desired = options.desired;
    this.#logger = options.logger;
    this.#clock = options.clock;
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
        return this.#desired.container(name) !== undefined && !this.#isEcho(containerEcho(name));
      case "table":
        return !this.#isEcho(wholeTable);
      case "chain":
      case "rule":
        return this.#desired.chain(name) !== undefined && !this.#isEcho(name);
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
    return this.#garbage.length > 0;
  }

  /**
   * One synchronisation. The desired table must not change until it ends.
   *
   * @throws {NftError}, {SetupError}, `AbortError`; the next call then reads back first.
   */
  async sync(signal: AbortSignal): Promise<ApplyResult> {
    const pendingBefore = this.#desired.differences().length;
    const readBack = !this.#known;
    // What waits for its deletion is still in the kernel, and nobody else's work.
    const waiting = new Set(this.#garbage.map(deletedName));
    if (readBack) await this.#readBack(signal);
    const drift = readBack ? this.#unexplained(waiting) > pendingBefore : undefined;
    const collected = await this.#collect(signal);
    const differences = this.#desired.differences();
    const plan = planOps(differences, this.#desired);
    const prelude: NftOp[] = this.#foreign ? [{ op: "drop-table" }] : [];
    if (plan.structure.length > 0 || prelude.length > 0) prelude.push({ op: "add-table" });
    const texts = renderPlan(this.#table, plan, prelude);
    this.#remember([...prelude, ...plan.structure, ...plan.final]);
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
    return {
      changes: differences.length,
      transactions: texts.length + (collected === "nothing" ? 0 : 1),
      bytes: texts.reduce((sum, text) => sum + text.length, 0),
      drift,
      cleanupFailed: collected === "failed",
    };
  }

  #unexplained(waiting: ReadonlySet<string | undefined>): number {
    return this.#desired.differences().filter(({ desired, kind, name }) => {
      const object = kind === "element" ? `container ${name}` : `${kind} ${name}`;
      return desired !== undefined || !waiting.has(object);
    }).length;
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
  async #collect(signal: AbortSignal): Promise<"nothing" | "done" | "failed"> {
    const dead = this.#garbage;
    this.#garbage = [];
    if (dead.length === 0) return "nothing";
    this.#remember(dead);
    try {
      await applyNft(renderTransaction(this.#table, dead), signal);
    } catch (error) {
      if (!(error instanceof NftError)) throw error;
      this.#logger.log("debug", "unused chains could not be deleted yet", {
        table: this.#table.name,
        error: errorMessage(error),
      });
      await this.#readBack(signal);
      return "failed";
    }
    return "done";
  }
}

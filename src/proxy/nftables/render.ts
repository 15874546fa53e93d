import { type NftOp, type NftTable, renderTransaction } from "../../netfilter/transaction.ts";
import { type DesiredTable, planOps, type TablePlan } from "../diff.ts";

/** Elements of one transaction of a cold start: keeps the kernel's lock under about 100 ms. */
const elementsPerTransaction = 15_000;

/** The whole of one family's Service rules as nft text, for people and for bug reports. */
export function renderServiceRules(table: NftTable, desired: DesiredTable): string {
  return renderPlan(table, planOps(desired.all(), desired), []).join("\n");
}

/**
 * The transactions that carry out a plan, in order. Small plans are one transaction. A large one is split so that
 * endpoints are there before the last transaction sends packets to them.
 *
 * @param prelude Operations that belong to the first transaction.
 */
export function renderPlan(
  table: NftTable,
  plan: TablePlan,
  prelude: readonly NftOp[],
): readonly string[] {
  const first = [...prelude, ...plan.structure];
  const staged = countElements(plan.staged);
  if (staged + countElements(plan.final) <= elementsPerTransaction) {
    return nonEmpty([renderTransaction(table, [...first, ...plan.staged, ...plan.final])]);
  }
  return nonEmpty([
    renderTransaction(table, first),
    ...splitAdditions(plan.staged).map((op) => renderTransaction(table, [op])),
    renderTransaction(table, plan.final),
  ]);
}

function nonEmpty(texts: readonly string[]): readonly string[] {
  return texts.filter((text) => text !== "");
}

function countElements(ops: readonly NftOp[]): number {
  return ops.reduce((sum, op) => {
    if (op.op === "add-elements") return sum + op.elements.length;
    return op.op === "delete-elements" ? sum + op.keys.length : sum;
  }, 0);
}

function splitAdditions(ops: readonly NftOp[]): readonly NftOp[] {
  return ops.flatMap((op): readonly NftOp[] => {
    if (op.op !== "add-elements") return [op];
    const parts: NftOp[] = [];
    for (let start = 0; start < op.elements.length; start += elementsPerTransaction) {
      parts.push({ ...op, elements: op.elements.slice(start, start + elementsPerTransaction) });
    }
    return parts;
  });
}

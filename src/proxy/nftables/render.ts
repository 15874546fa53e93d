import { type NftTable, renderTransaction } from "../../netfilter/transaction.ts";
import type { DesiredTable } from "./desired-table.ts";

/** The whole of one family's Service rules as nft text, which `nft -f` takes, for people and for bug reports. */
export function renderServiceRules(table: NftTable, desired: DesiredTable): string {
  return renderTransaction(table, [{ op: "add-table" }, ...desired.all().ops()]);
}

import { applyNft } from "../netfilter/nft.ts";
import { renderTransaction } from "../netfilter/transaction.ts";
import { defaultTableName } from "./make-family-rules.ts";

/** Removes all Service rules. Flows that exist go on until their conntrack entries end. */
export async function cleanUpProxy(
  signal: AbortSignal,
  tableName: string = defaultTableName,
): Promise<void> {
  for (const family of ["ip", "ip6"] as const) {
    await applyNft(renderTransaction({ family, name: tableName }, [{ op: "drop-table" }]), signal);
  }
}

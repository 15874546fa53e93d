import { SetupError } from "../lib/errors.ts";
import type { Iptables } from "./iptables.ts";
import { applyNft, listTable } from "./nft.ts";
import { renderTransaction } from "./transaction.ts";

/**
 * iptables for nftables makes a table, and chains that hook into the kernel, when they are first spoken of, and never
 * takes them away. A table in which nobody has anything is as good as none, and is made again for whoever wants it;
 * so are chains without a rule or a policy. Beside the rules of others they go only where `ours` went just now.
 *
 * @throws as {@link Iptables.save} and {@link applyNft}.
 */
export async function dropEmptyChains(
  iptables: Iptables,
  table: string,
  ours: boolean,
  signal: AbortSignal,
): Promise<void> {
  const { family, program } = iptables;
  if (program.variant !== "nf_tables") return;
  const at = { family: family === "IPv4" ? "ip" : "ip6", name: table } as const;
  const saved = await iptables.save(table, signal);
  const open = new Set([...saved.matchAll(/^:([A-Z]+) ACCEPT /gm)].map(([, chain]) => chain));
  // Without any line it is none of iptables' tables.
  if (open.size === 0) return;
  try {
    const listing = await listTable(at, signal);
    if (listing === undefined) return;
    const chains = [...listing.chains];
    const empty = chains.flatMap(([name, { tags }]) =>
      tags.length === 0 && open.has(name) ? [name] : [],
    );
    const nothing = empty.length === chains.length && listing.containers.size === 0;
    if (!nothing && !ours) return;
    const ops = nothing
      ? [{ op: "drop-table" as const }]
      : empty.map((chain) => ({ op: "delete-chain" as const, chain }));
    await applyNft(renderTransaction(at, ops), signal);
  } catch (error) {
    // Without the program nft they stay, as they do after any use of iptables.
    if (!(error instanceof SetupError)) throw error;
  }
}

import type { IPFamily } from "../../lib/cidr.ts";
import { isAbort } from "../../lib/errors.ts";
import type { IptablesProgram } from "../../netfilter/iptables.ts";
import { applyNft } from "../../netfilter/nft.ts";
import type { ProxyMode } from "../backend.ts";
import { cleanUpIptables } from "../iptables/cleanup.ts";
import { findIpvs, removeIpvs } from "./ipvs.ts";
import { runIfThere } from "./tool.ts";

/** kube-proxy's table in mode nftables. */
const kubeProxyTable = "kube-proxy";

/** The rules that are in use, which stay. */
export interface InUse {
  readonly mode: ProxyMode;
  readonly families: readonly IPFamily[];
  /** Our table, of mode nftables. */
  readonly tableName: string;
  /** The kind of iptables that writes the rules, of mode iptables. */
  readonly variant?: IptablesProgram["variant"] | undefined;
}

/** Tables of nftables that are no longer used, as `ip name`, among all there are (`nft list tables`). */
export function unusedTables(
  listing: string,
  tableName: string,
  inUse: Pick<InUse, "mode" | "families"> | undefined,
): readonly string[] {
  const kept = new Set(
    inUse?.mode === "nftables"
      ? inUse.families.map((family) => `${family === "IPv4" ? "ip" : "ip6"} ${tableName}`)
      : [],
  );
  const ours = [kubeProxyTable, tableName].flatMap((name) => [`ip ${name}`, `ip6 ${name}`]);
  const there = new Set(listing.split("\n").map((line) => line.replace(/^table /, "").trim()));
  return ours.filter((table) => there.has(table) && !kept.has(table));
}

async function removeTables(
  inUse: Pick<InUse, "mode" | "families" | "tableName"> | { readonly tableName: string },
  signal: AbortSignal,
): Promise<readonly string[]> {
  // No nft, or a kernel without nf_tables: no tables.
  const listed = await runIfThere(["nft", "list", "tables"], { signal });
  if (listed === undefined || listed.exitCode !== 0) return [];
  const { tableName } = inUse;
  const tables = unusedTables(listed.stdout, tableName, "mode" in inUse ? inUse : undefined);
  // To add what is there is nothing, and makes the deletion of what went meanwhile no error.
  const text = tables.map((table) => `add table ${table}\ndelete table ${table}\n`).join("");
  await applyNft(text, signal);
  return tables.map((table) => `nftables table ${table}`);
}

/** What a removal did. */
export interface Removal {
  /** What was there, for people. */
  readonly removed: readonly string[];
  /** Sentences about what could not be removed. */
  readonly failures: readonly string[];
}

/**
 * Removes every Service rule that is not in use: of kube-proxy in whichever mode it ran, of ours in the other mode, and
 * of ours in a family that is not served any more. Connections that exist stay where they are: what matters to them
 * stands in conntrack. Nothing there is success.
 *
 * @param inUse Rules that must be in the kernel already.
 * @throws {NftError}, {IptablesError}, `AbortError`.
 */
export async function removeLeftOvers(inUse: InUse, signal: AbortSignal): Promise<Removal> {
  const removed = [...(await removeTables(inUse, signal))];
  const chains = await cleanUpIptables(signal, {
    keepKubelet: true,
    spare: ({ variant }, family) =>
      inUse.mode === "iptables" && variant === inUse.variant && inUse.families.includes(family),
  });
  if (chains) removed.push("iptables chains KUBE-*");
  return withIpvs(removed, signal);
}

/**
 * Removes all Service rules, ours and kube-proxy's, of every mode: for `remora down`.
 *
 * @throws as {@link removeLeftOvers}.
 */
export async function removeAllRules(tableName: string, signal: AbortSignal): Promise<Removal> {
  const removed = [...(await removeTables({ tableName }, signal))];
  if (await cleanUpIptables(signal)) removed.push("iptables chains KUBE-*");
  return withIpvs(removed, signal);
}

async function withIpvs(removed: readonly string[], signal: AbortSignal): Promise<Removal> {
  const found = await findIpvs(signal);
  const { addresses, servers, sets } = found;
  const failures = await removeIpvs(found, signal).catch((error: unknown) => {
    if (isAbort(error)) throw error;
    return [String(error)];
  });
  return {
    removed: [
      ...removed,
      ...(servers.length === 0 ? [] : [`${servers.length} IPVS virtual servers`]),
      ...(sets.length === 0 ? [] : [`${sets.length} ipsets KUBE-*`]),
      ...(addresses === undefined ? [] : ["device kube-ipvs0"]),
    ],
    failures,
  };
}

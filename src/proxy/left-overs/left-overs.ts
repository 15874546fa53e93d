import type { IPFamily } from "../../lib/cidr.ts";
import {
  installedIptables,
  Iptables,
  type IptablesVariant,
  mayHaveRules,
} from "../../netfilter/iptables.ts";
import { applyNft } from "../../netfilter/nft.ts";
import type { ProxyMode } from "../backend.ts";
import { cleanUpIptables, removalText } from "../iptables/cleanup.ts";
import { tables } from "../iptables/fixed.ts";
import { parseSave } from "../iptables/listing.ts";
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
  /** The kind of iptables that has the rules of a family, in mode iptables. */
  readonly variants: ReadonlyMap<IPFamily, IptablesVariant>;
}

/** Tables of nftables, as `ip name`, that a proxy made and nobody uses any more. */
export function unusedTables({
  mode,
  families,
  tableName,
}: Pick<InUse, "mode" | "families" | "tableName">): readonly string[] {
  const kept = new Set(
    mode === "nftables"
      ? families.map((family) => `${family === "IPv4" ? "ip" : "ip6"} ${tableName}`)
      : [],
  );
  return [kubeProxyTable, tableName]
    .flatMap((name) => [`ip ${name}`, `ip6 ${name}`])
    .filter((table) => !kept.has(table));
}

/** @returns Those that were there. */
async function removeTables(
  unwanted: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  // No nft, or a kernel without nf_tables: no tables.
  const listed = await runIfThere(["nft", "list", "tables"], { signal });
  if (listed === undefined || listed.exitCode !== 0) return [];
  const there = new Set(
    listed.stdout.split("\n").map((line) => line.replace(/^table /, "").trim()),
  );
  const tables = unwanted.filter((table) => there.has(table));
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
  const removed = [...(await removeTables(unusedTables(inUse), signal))];
  const chains = await cleanUpIptables(signal, {
    keepKubelet: true,
    spare: ({ variant }, family) => inUse.variants.get(family) === variant,
  });
  if (chains) removed.push("iptables chains KUBE-*");
  return withIpvs(removed, signal);
}

/**
 * Removes all Service rules of ours, of both modes. Nothing there is success.
 *
 * @param chains Also those in iptables, whose chains have kube-proxy's names.
 * @throws {NftError}, {IptablesError}, `AbortError`.
 */
export async function removeOwnRules(
  tableName: string,
  chains: boolean,
  signal: AbortSignal,
): Promise<void> {
  await removeTables([`ip ${tableName}`, `ip6 ${tableName}`], signal);
  if (chains) await cleanUpIptables(signal);
}

/** Chains with kube-proxy's names and a kubelet's in iptables of both kinds: one line for each table that has any. */
export async function ownChains(signal: AbortSignal): Promise<readonly string[]> {
  const found: string[] = [];
  for (const program of await installedIptables(signal)) {
    for (const family of ["IPv4", "IPv6"] as const) {
      if (!(await mayHaveRules(program, family))) continue;
      for (const table of tables) {
        const saved = await new Iptables(family, program).save(table, signal).catch(() => "");
        if (removalText(table, parseSave(saved), false) === "") continue;
        found.push(`${family} iptables (${program.variant}) table ${table}: chains KUBE-*`);
      }
    }
  }
  return found;
}

async function withIpvs(removed: readonly string[], signal: AbortSignal): Promise<Removal> {
  const found = await findIpvs(signal);
  const { addresses, servers, sets } = found;
  const failures = await removeIpvs(found, signal);
  if (failures.length > 0) return { removed, failures };
  return {
    removed: [
      ...removed,
      ...(servers.length === 0 ? [] : [`${servers.length} IPVS virtual servers`]),
      ...(sets.length === 0 ? [] : [`${sets.length} ipsets KUBE-*`]),
      ...(addresses === undefined ? [] : ["device kube-ipvs0"]),
    ],
    failures: [],
  };
}

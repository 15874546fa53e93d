import { writeFile } from "node:fs/promises";

import type { IPFamily } from "../../lib/cidr.ts";
import { SetupError } from "../../lib/errors.ts";
import { dropEmptyChains } from "../../netfilter/empty-chains.ts";
import {
  installedIptables,
  Iptables,
  type IptablesProgram,
  mayHaveRules,
} from "../../netfilter/iptables.ts";
import { firewallChain, hintChain, kubeletCanary } from "../../netfilter/kubelet-hints.ts";
import { canaryChain, openedLocalnet, tables } from "./fixed.ts";
import { notPodsChain } from "./layout.ts";
import { parseSave, targetOf } from "./listing.ts";
import { isPortChain } from "./names.ts";
import type { Table } from "./rules.ts";

const proxyChains = new Set([
  "KUBE-SERVICES",
  "KUBE-EXTERNAL-SERVICES",
  "KUBE-NODEPORTS",
  "KUBE-POSTROUTING",
  "KUBE-MARK-MASQ",
  "KUBE-FORWARD",
  "KUBE-PROXY-FIREWALL",
  notPodsChain,
  canaryChain,
  // Of older proxies, and of mode ipvs.
  "KUBE-MARK-DROP",
  "KUBE-NODE-PORT",
  "KUBE-LOAD-BALANCER",
  "KUBE-SOURCE-RANGES-FIREWALL",
  "KUBE-IPVS-FILTER",
  "KUBE-IPVS-OUT-FILTER",
]);

const kubeletChains = new Set([firewallChain, hintChain, kubeletCanary]);

/**
 * The text that removes the proxy's chains from one table, and every way to them: ours, kube-proxy's and those of its
 * mode ipvs, which have the same names. Empty when there are none. Chains of others stay, also such as begin with KUBE-.
 */
export function removalText(
  table: Table,
  chains: ReturnType<typeof parseSave>,
  keepKubelet: boolean,
): string {
  const isOurs = (name: string): boolean =>
    proxyChains.has(name) ||
    (table === "nat" && isPortChain(name)) ||
    (!keepKubelet && kubeletChains.has(name));
  const own = [...chains.keys()].filter(isOurs);
  if (own.length === 0) return "";
  const ways = [...chains].flatMap(([from, rules]) =>
    isOurs(from)
      ? []
      : rules.filter((rule) => isOurs(targetOf(rule))).map((rule) => `-D ${from} ${rule}`),
  );
  return [
    `*${table}`,
    ...own.map((name) => `:${name} - [0:0]`),
    ...ways,
    ...own.map((name) => `-X ${name}`),
    "COMMIT",
    "",
  ].join("\n");
}

/**
 * Removes Service rules of iptables, in both families and of both kinds of iptables. Nothing of them there is success.
 * Flows that exist go on until their conntrack entries end.
 *
 * @param options.keepKubelet Leaves the chains that a kubelet makes, which an agent that goes on needs.
 * @param options.spare Says whose rules stay, because they are in use; default: nobody's.
 * @returns Whether there was anything.
 * @throws {IptablesError}, `AbortError`.
 */
export async function cleanUpIptables(
  signal: AbortSignal,
  options: {
    readonly keepKubelet?: boolean;
    readonly spare?: (program: IptablesProgram, family: IPFamily) => boolean;
  } = {},
): Promise<boolean> {
  const { keepKubelet = false, spare } = options;
  let found = false;
  for (const program of await installedIptables(signal)) {
    for (const family of ["IPv4", "IPv6"] as const) {
      if (spare?.(program, family) === true || !(await mayHaveRules(program, family))) continue;
      const iptables = new Iptables(family, program);
      found = (await cleanUpFamily(iptables, keepKubelet, signal)) || found;
    }
  }
  return found;
}

async function cleanUpFamily(
  iptables: Iptables,
  keepKubelet: boolean,
  signal: AbortSignal,
): Promise<boolean> {
  let found = false;
  for (const table of tables) {
    let saved: string;
    try {
      saved = await iptables.save(table, signal);
    } catch (error) {
      // A kernel without this table has none of our rules either.
      if (error instanceof SetupError) continue;
      throw error;
    }
    if (table === "mangle" && saved.includes(openedLocalnet.comment)) {
      // Before the rule goes that makes it harmless.
      await writeFile("/proc/sys/net/ipv4/conf/all/route_localnet", "0");
    }
    const text = removalText(table, parseSave(saved), keepKubelet);
    const ours = text !== "";
    if (ours) {
      found = true;
      await iptables.restore(text, signal);
    }
    if (!keepKubelet) await dropEmptyChains(iptables, table, ours, signal);
  }
  return found;
}

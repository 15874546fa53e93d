import { type Cidr, parseCidr } from "../../../lib/cidr.ts";
import { isRecord, optionalNumber, optionalString } from "../../../lib/guard.ts";
import { defineCheck, type Finding, judged, skipped, unknown } from "../check.ts";
import type { Machine } from "../machine.ts";
import { cidrsOf, families, listIptables } from "../network-look.ts";
import { overlaps } from "./pod-network.ts";

/** A rule of somebody else that gives packets another destination before the Service proxy sees them. */
interface EarlyRule {
  readonly where: string;
  readonly rule: string;
  /** The command that removes it; undefined where nft's handles are needed. */
  readonly undo?: string;
}

const nodePorts = [30_000, 32_767] as const;

function mentions(rule: string, pattern: RegExp): string | undefined {
  return pattern.exec(rule)?.[1];
}

function cidrOf(text: string): Cidr | undefined {
  try {
    return parseCidr(text.includes("/") ? text : `${text}/${text.includes(":") ? 128 : 32}`);
  } catch {
    return undefined;
  }
}

/**
 * Whether a rule, as iptables or nft writes it, takes packets to Services: to their addresses, to node ports, or to a port
 * of whatever address. Pure.
 */
export function takesServices(
  rule: string,
  bridge: string,
  serviceCIDRs: readonly Cidr[],
): boolean {
  const port = Number(mentions(rule, /\bdport (\d+)/) ?? Number.NaN);
  if (port >= nodePorts[0] && port <= nodePorts[1]) return true;
  const device = mentions(rule, /(?:(?<!! )-i|\biifname) "?([\w.-]+)/);
  if (device !== undefined && device !== bridge) return false;
  const to = mentions(rule, /(?:(?<!! )-d|\bdaddr) ([\da-f.:]+(?:\/\d+)?)/);
  const network = to === undefined ? undefined : cidrOf(to);
  return network === undefined || serviceCIDRs.some((cidr) => overlaps(cidr, network));
}

/** Rules of one listing of iptables before the jump of the proxy. Pure. */
export function earlyRules(listing: string): readonly string[] {
  const start = listing.indexOf("*nat");
  if (start < 0) return [];
  const lines = listing.slice(start, listing.indexOf("\nCOMMIT", start)).split("\n");
  return ["PREROUTING", "OUTPUT"].flatMap((chain) => {
    const own = lines.filter((line) => line.startsWith(`-A ${chain} `));
    const jump = own.findIndex((line) => line.endsWith(" -j KUBE-SERVICES"));
    return own.slice(0, Math.max(jump, 0)).filter((line) => / -j (?:DNAT|REDIRECT)\b/.test(line));
  });
}

interface NatChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook: string;
  readonly prio: number;
}

/** Base chains of type nat in what `nft -j list chains` prints. Pure. */
export function natChains(value: unknown): readonly NatChain[] {
  const items: unknown = isRecord(value) ? value["nftables"] : undefined;
  return (Array.isArray(items) ? items : []).flatMap((item: unknown): NatChain[] => {
    const chain = isRecord(item) && isRecord(item["chain"]) ? item["chain"] : {};
    const prio = optionalNumber(chain["prio"]);
    if (chain["type"] !== "nat" || prio === undefined) return [];
    const word = (name: string): string => optionalString(chain[name]) ?? "";
    const hook = word("hook");
    return [{ family: word("family"), table: word("table"), name: word("name"), hook, prio }];
  });
}

async function earlyChains(
  machine: Machine,
  table: string,
  signal: AbortSignal,
): Promise<readonly EarlyRule[]> {
  const listed = await machine.run(["nft", "-j", "list", "chains"], { signal });
  if (listed?.exitCode !== 0 || listed.stdout === "") return [];
  const all = natChains(JSON.parse(listed.stdout));
  const found: EarlyRule[] = [];
  for (const chain of all) {
    const { family, hook, name, prio } = chain;
    const own = all.find((one) => one.table === table && one.hook === hook);
    const foreign = !chain.table.startsWith("remora-") && chain.table !== "kube-proxy";
    if (own === undefined || !foreign || prio >= own.prio) continue;
    const argv = ["nft", "list", "chain", family, chain.table, name] as const;
    const text = (await machine.run(argv, { signal }))?.stdout ?? "";
    const where = `nft table ${family} ${chain.table}, chain ${name}`;
    for (const line of text.split("\n")) {
      if (/\b(?:dnat|redirect)\b/.test(line)) found.push({ where, rule: line.trim() });
    }
  }
  return found;
}

interface TranslationFacts {
  readonly early: readonly EarlyRule[];
  readonly bridge: string;
  readonly serviceCIDRs: readonly Cidr[];
}

async function collect(
  machine: Machine,
  signal: AbortSignal,
): Promise<TranslationFacts | "no agent" | "not root"> {
  const { bridge, facts, pid, serviceCIDRs } = machine.site;
  if (pid === undefined || facts === undefined) return "no agent";
  if (!machine.isRoot) return "not root";
  const listings = facts.mode === "iptables" ? await listIptables(machine, signal) : [];
  return {
    bridge,
    serviceCIDRs: families.flatMap((family) => cidrsOf(serviceCIDRs, family)),
    early:
      facts.mode === "nftables"
        ? await earlyChains(machine, facts.table, signal)
        : listings.flatMap(({ family, listing, program }) =>
            earlyRules(listing).map((rule) => ({
              where: `${family} iptables (${program.variant}), table nat`,
              rule,
              undo: `${family === "IPv4" ? "iptables" : "ip6tables"}${program.suffix} -t nat ${rule.replace(/^-A/, "-D")}`,
            })),
          ),
  };
}

export const translations = defineCheck({
  id: "translations",
  title: "Translations of others",
  group: "network",
  looks: "rules of others that give packets to Services another destination before the agent's do",
  reference: "docs/service-proxy.md",
  problems: {
    "services-shadowed": {
      level: "warning",
      means: "A rule of somebody else comes before the agent's and takes packets to Services.",
      cause:
        "The first rule that gives a connection another destination counts: a port forwarding, a transparent proxy or a VPN took this one.",
      remedy:
        "nft -a list chain FAMILY TABLE CHAIN # then delete the rule, or give it the addresses that it is for",
    },
  },
  collect,
  judge: (facts) => {
    if (facts === "no agent") return skipped("no agent runs that writes rules of Services");
    if (facts === "not root") return unknown("packet rules may only be read by root: use sudo");
    const { bridge, early, serviceCIDRs } = facts;
    const taking = early.filter(({ rule }) => takesServices(rule, bridge, serviceCIDRs));
    return judged(
      "the agent's come first",
      taking.map(({ rule, undo, where }): Finding<"services-shadowed"> => ({
        problem: "services-shadowed",
        text: `${where}: ${rule}`,
        ...(undo === undefined ? {} : { remedy: undo }),
      })),
    );
  },
});

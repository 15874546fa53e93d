import { type Cidr, canonicalIP, ipFamily, type IPFamily, parseCidr } from "../../lib/cidr.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import { installedIptables, type IptablesProgram, mayHaveRules } from "../../netfilter/iptables.ts";
import { findUplink, type Link, listLinks } from "../../network/links.ts";
import { routeProtocol } from "../../network/route-plan.ts";
import type { Machine } from "./machine.ts";

export const families: readonly IPFamily[] = ["IPv4", "IPv6"];

/** The filter rules of one kind of iptables in one family. */
export interface IptablesListing {
  readonly family: IPFamily;
  readonly program: IptablesProgram;
  /** As `iptables-save` prints all tables. */
  readonly listing: string;
}

/** What all kinds of iptables on this machine have. Makes no tables where there are none. */
export async function listIptables(
  machine: Machine,
  signal: AbortSignal,
): Promise<readonly IptablesListing[]> {
  const found: IptablesListing[] = [];
  for (const program of await installedIptables(signal)) {
    for (const family of families) {
      if (!(await mayHaveRules(program, family))) continue;
      const name = `${family === "IPv4" ? "iptables" : "ip6tables"}${program.suffix}-save`;
      const result = await machine.run([name], { signal });
      if (result?.exitCode === 0) found.push({ family, program, listing: result.stdout });
    }
  }
  return found;
}

/** A route of the main table, or an address of an interface as the network that it stands for. */
export interface TakenNetwork {
  readonly network: Cidr;
  readonly device: string;
  /** It lies behind another machine. */
  readonly isRouted: boolean;
}

export interface NetworkLook {
  readonly links: readonly Link[];
  readonly bridge: Link | undefined;
  readonly uplink: Link | undefined;
  /** Of the bridge's addresses. */
  readonly podCIDRs: readonly Cidr[];
  readonly taken: readonly TakenNetwork[];
  /** CNI plug-ins give pods their network. */
  readonly plugIns: boolean;
}

/** The network of an address with its prefix. */
function networkOf(ip: string, prefix: number): Cidr | undefined {
  try {
    return parseCidr(`${ip}/${prefix}`);
  } catch {
    return undefined;
  }
}

function parseTaken(value: unknown, family: IPFamily): readonly TakenNetwork[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((item: unknown): TakenNetwork[] => {
    if (!isRecord(item)) return [];
    const to = optionalString(item["dst"]) ?? "default";
    if (to === "default" || String(item["protocol"]) === String(routeProtocol)) return [];
    const full = family === "IPv4" ? 32 : 128;
    const [ip = "", prefix = String(full)] = to.split("/");
    const network = networkOf(ip, Number(prefix));
    const device = optionalString(item["dev"]) ?? optionalString(item["type"]) ?? "";
    const isRouted = item["gateway"] !== undefined || item["via"] !== undefined;
    return network === undefined ? [] : [{ network, device, isRouted }];
  });
}

async function takenNetworks(
  machine: Machine,
  signal: AbortSignal,
): Promise<readonly TakenNetwork[]> {
  const found: TakenNetwork[] = [];
  for (const family of families) {
    const flag = family === "IPv4" ? "-4" : "-6";
    const argv = ["ip", flag, "-j", "route", "show", "table", "main"] as const;
    const result = await machine.run(argv, { signal });
    if (result?.exitCode !== 0 || result.stdout.trim() === "") continue;
    found.push(...parseTaken(JSON.parse(result.stdout), family));
  }
  return found;
}

/** Interfaces, routes and networks of this machine, as far as pods have to do with them. */
export async function lookAtNetwork(machine: Machine, signal: AbortSignal): Promise<NetworkLook> {
  const { bridge: name, rootDir } = machine.site;
  const links = await listLinks(signal);
  const bridge = links.find((link) => link.name === name);
  const podCIDRs = (bridge?.addresses ?? [])
    .filter(({ ip }) => !ip.startsWith("fe80:"))
    .flatMap(({ ip, prefix }) => networkOf(ip, prefix) ?? []);
  return {
    links,
    bridge,
    uplink: await findUplink(links),
    podCIDRs,
    taken: await takenNetworks(machine, signal),
    plugIns: (await machine.names(`${rootDir}/network/cni/results`)).length > 0,
  };
}

/** Networks of a family among texts. */
export function cidrsOf(texts: readonly string[], family: IPFamily): readonly Cidr[] {
  return texts.flatMap((text) => {
    try {
      const cidr = parseCidr(text);
      return cidr.family === family ? [cidr] : [];
    } catch {
      return [];
    }
  });
}

/** Addresses of a family among texts. */
export function addressesOf(texts: readonly string[], family: IPFamily): readonly string[] {
  return texts.filter((text) => ipFamily(text) === family).map((text) => canonicalIP(text));
}

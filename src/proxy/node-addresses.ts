import { networkInterfaces } from "node:os";

import type { ProxySettings } from "../config/types.ts";
import { canonicalIP, cidrContains, type IPFamily, ipFamily, parseCidr } from "../lib/cidr.ts";
import type { ProxyMode } from "./backend.ts";

/** Whether an address is one that node ports answer on; the rules say the same in nftables' words. */
export function nodePortAddresses(nodeIPs: readonly string[]): (ip: string) => boolean {
  return (ip) =>
    nodeIPs.length > 0
      ? nodeIPs.includes(ip)
      : Object.values(networkInterfaces()).some((infos) =>
          infos?.some(({ address, internal }) => address === ip && !internal),
        );
}

/** Families this node has addresses or pods of. */
export function familiesOf(
  nodeIPs: readonly string[],
  clusterCIDRs: readonly string[],
): readonly IPFamily[] {
  const found = new Set<IPFamily>(clusterCIDRs.map((cidr) => parseCidr(cidr).family));
  for (const ip of nodeIPs) {
    const family = ipFamily(ip);
    if (family !== undefined) found.add(family);
  }
  return found.size === 0 ? ["IPv4"] : [...found].toSorted();
}

const wildcards: ReadonlySet<string> = new Set(["0.0.0.0", "::"]);
const loopbacks: Readonly<Record<IPFamily, ReturnType<typeof parseCidr>>> = {
  IPv4: parseCidr("127.0.0.0/8"),
  IPv6: parseCidr("::1/128"),
};

function isLoopback(ip: string): boolean {
  return cidrContains(loopbacks.IPv4, ip) || cidrContains(loopbacks.IPv6, ip);
}

/**
 * The addresses that this node is known by: those of its Node object, but `bindAddress` for its own family
 * (KubeProxyConfiguration `bindAddress`, which no socket is bound to).
 */
export function ownAddresses(
  { bindAddress }: Pick<ProxySettings, "bindAddress">,
  nodeIPs: readonly string[],
): readonly string[] {
  const family = ipFamily(bindAddress);
  if (family === undefined) return nodeIPs;
  const own = canonicalIP(bindAddress);
  if (wildcards.has(own)) return nodeIPs;
  return [own, ...nodeIPs.filter((ip) => ipFamily(ip) !== family)];
}

/**
 * The networks whose addresses node ports of a family answer on; undefined = all of them, which is also what a family
 * gets that has no network of its own.
 */
function nodePortNetworks(
  { nodePortAddresses: said }: Pick<ProxySettings, "nodePortAddresses">,
  mode: ProxyMode,
  family: IPFamily,
  nodeIPs: readonly string[],
): readonly string[] | undefined {
  // Upstream's defaults of the two modes.
  const wanted = said.length === 0 && mode === "nftables" ? ["primary"] : said;
  const own =
    wanted[0] === "primary"
      ? nodeIPs
          .filter((ip) => !isLoopback(ip))
          .map((ip) => `${ip}/${ipFamily(ip) === "IPv4" ? 32 : 128}`)
      : wanted;
  const networks = own.filter((text) => parseCidr(text).family === family);
  const all = networks.length === 0 || networks.some((text) => parseCidr(text).prefix === 0);
  return all ? undefined : networks;
}

type NodePortSettings = Pick<ProxySettings, "nodePortAddresses" | "localhostNodePorts">;

/** Whether node ports answer on 127.0.0.0/8: in iptables mode only, where `nodePortAddresses` does not leave it out. */
export function answersOnLocalhost(
  settings: NodePortSettings,
  mode: ProxyMode,
  family: IPFamily,
  nodeIPs: readonly string[],
): boolean {
  if (!settings.localhostNodePorts || mode !== "iptables" || family !== "IPv4") return false;
  const networks = nodePortNetworks(settings, mode, family, nodeIPs);
  return (
    networks === undefined ||
    networks.some((text) => isLoopback(text.split("/")[0] ?? "") || holdsLoopback(text))
  );
}

function holdsLoopback(network: string): boolean {
  return cidrContains(parseCidr(network), "127.0.0.0");
}

/**
 * The addresses that node ports of a family answer on (`nodePortAddresses`), sorted; undefined = all of this machine.
 * Empty when no interface has an address in the networks that were named: then they answer nowhere.
 *
 * @param nodeIPs What {@link ownAddresses} says.
 * @param interfaceIPs All addresses of all interfaces.
 */
export function nodePortIPs(
  settings: NodePortSettings,
  mode: ProxyMode,
  family: IPFamily,
  nodeIPs: readonly string[],
  interfaceIPs: readonly string[],
): readonly string[] | undefined {
  const networks = nodePortNetworks(settings, mode, family, nodeIPs)?.map((text) =>
    parseCidr(text),
  );
  if (networks === undefined) return undefined;
  const localhost = answersOnLocalhost(settings, mode, family, nodeIPs);
  const found = interfaceIPs.filter(
    (ip) => networks.some((network) => cidrContains(network, ip)) && (localhost || !isLoopback(ip)),
  );
  return [...new Set(found.map((ip) => canonicalIP(ip)))].toSorted();
}

/** What somebody who set `nodePortAddresses` might not expect of it, in sentences; said once at the start. */
export function nodePortRemarks(
  settings: NodePortSettings,
  mode: ProxyMode,
  families: readonly IPFamily[],
  nodeIPs: readonly string[],
): readonly string[] {
  const said = settings.nodePortAddresses;
  const open = families.filter(
    (family) => nodePortNetworks(settings, mode, family, nodeIPs) === undefined,
  );
  const cidrs = said.filter((text) => text !== "primary");
  const out: string[] = [];
  if (said.length === 0 && mode === "iptables") {
    out.push(
      "nodePortAddresses is not set: node ports answer on all addresses of this machine; consider nodePortAddresses: [primary]",
    );
  } else if (!cidrs.some((text) => parseCidr(text).prefix === 0)) {
    for (const family of open) {
      out.push(
        cidrs.length === 0
          ? `nodePortAddresses is primary, but the node's ${family} address is not known: node ports answer on all ${family} addresses of this machine`
          : `nodePortAddresses names no ${family} network: node ports answer on all ${family} addresses of this machine`,
      );
    }
  }
  const v4 = cidrs.filter((text) => isLoopback(text.split("/")[0] ?? ""));
  for (const text of v4) {
    const { family } = parseCidr(text);
    if (!families.includes(family) || answersOnLocalhost(settings, mode, family, nodeIPs)) continue;
    out.push(
      mode === "iptables" && family === "IPv4"
        ? `nodePortAddresses includes ${text}, but iptables.localhostNodePorts is false: node ports do not answer on localhost`
        : `nodePortAddresses includes ${text}, but node ports on localhost are supported in iptables mode and IPv4 only`,
    );
  }
  return out;
}

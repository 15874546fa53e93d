import { networkInterfaces } from "node:os";

import { type IPFamily, ipFamily, parseCidr } from "../lib/cidr.ts";

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

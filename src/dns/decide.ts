import type { DnsService } from "./types.ts";

/** The label's value of a Service whose address the nodes themselves answer. */
export const nodeDnsProxyName = "remora-node-dns";

export type DnsMode = "auto" | "local" | "off";

export interface DnsDecision {
  /** Addresses to answer on. */
  readonly serve: readonly string[];
  /** Addresses that should be answered on and are not, because other name servers do it. */
  readonly refusals: readonly { readonly address: string; readonly service: string }[];
  /** Keys of the Services that have the addresses: what else changes decides nothing. */
  readonly owners: readonly string[];
}

/**
 * Which of the cluster's name server addresses this node answers on. An address that a Service gives to pods of its own
 * is never taken: `auto` wants the label on its Service, `local` that nobody is behind it.
 */
export function decideDns(
  mode: DnsMode,
  addresses: readonly string[],
  services: Iterable<DnsService>,
  hasEndpoints: (service: string) => boolean,
): DnsDecision {
  if (mode === "off" || addresses.length === 0) return { serve: [], refusals: [], owners: [] };
  const owners = new Map<string, DnsService>();
  for (const service of services) {
    for (const ip of service.clusterIPs) if (addresses.includes(ip)) owners.set(ip, service);
  }
  const refusals: { address: string; service: string }[] = [];
  const serve = addresses.filter((address) => {
    const owner = owners.get(address);
    if (owner?.proxyName === nodeDnsProxyName) return true;
    if (mode === "auto") return false;
    if (owner === undefined || !hasEndpoints(owner.key)) return true;
    refusals.push({ address, service: owner.key });
    return false;
  });
  return { serve, refusals, owners: [...owners.values()].map(({ key }) => key) };
}

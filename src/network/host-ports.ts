import { canonicalIP, type IPFamily, ipFamily } from "../lib/cidr.ts";
import type { Lease } from "./leases.ts";
import type { HostPort } from "./types.ts";

/** One port of the node that leads to a pod, in one family. */
export interface HostPortMapping {
  /** The address of the node that it is bound to; empty for all of them. */
  readonly address: string;
  readonly protocol: HostPort["protocol"];
  readonly hostPort: number;
  readonly podIP: string;
  readonly containerPort: number;
}

/** The address a host port is bound to, empty for any, or undefined when it does not concern this family. */
export function boundAddress(hostIP: string, family: IPFamily): string | undefined {
  if (hostIP === "") return "";
  if (ipFamily(hostIP) !== family) return undefined;
  const ip = canonicalIP(hostIP);
  return ip === "0.0.0.0" || ip === "::" ? "" : ip;
}

/** What one lease's host ports are in one family; nothing when the pod has no address of it. */
export function leaseMappings(family: IPFamily, lease: Lease): readonly HostPortMapping[] {
  const podIP = lease.ips.find((candidate) => ipFamily(candidate) === family);
  if (podIP === undefined) return [];
  return lease.hostPorts.flatMap(({ protocol, hostIP, hostPort, containerPort }) => {
    const address = boundAddress(hostIP, family);
    return address === undefined ? [] : [{ address, protocol, hostPort, podIP, containerPort }];
  });
}

function placeOf({ address, protocol, hostPort }: HostPortMapping): string {
  return `${address} ${protocol} ${hostPort}`;
}

/**
 * The host ports of a node in one family: each place once, those of one address before those of all. Of two leases that
 * claim a place the later has it: pods are admitted only when nobody else has their ports, so the earlier one's pod is on
 * its way out.
 *
 * @param leases The oldest first.
 */
export function planHostPorts(
  family: IPFamily,
  leases: Iterable<Lease>,
): readonly HostPortMapping[] {
  const places = new Map<string, HostPortMapping>();
  for (const lease of leases) {
    for (const mapping of leaseMappings(family, lease)) places.set(placeOf(mapping), mapping);
  }
  return [...places.values()].toSorted(
    (a, b) =>
      Number(a.address === "") - Number(b.address === "") ||
      a.address.localeCompare(b.address, "en") ||
      a.hostPort - b.hostPort ||
      a.protocol.localeCompare(b.protocol, "en"),
  );
}

/** Pods that have host ports: they may ask themselves through the node. */
export function podsOf(mappings: readonly HostPortMapping[]): readonly string[] {
  return [...new Set(mappings.map(({ podIP }) => podIP))].toSorted();
}

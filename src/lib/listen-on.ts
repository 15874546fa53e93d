import { isIPv6 } from "node:net";

/** Whether the address stands for all of them, however it is written. */
export function isWildcard(address: string): boolean {
  return address === "0.0.0.0" || (isIPv6(address) && /^[0:]+$/.test(address));
}

/**
 * How many may wait in a socket that somebody else keeps open while nobody accepts. To listen on it sets that anew: Node's
 * usual 511 would take away what its unit gave it.
 */
export const heldBacklog = 4096;

/**
 * What to give `listen` for a port on an address. As in Go, "0.0.0.0" means all addresses of both families: without a host
 * Node takes [::], or 0.0.0.0 where there is no IPv6. Addresses that come later count.
 */
export function listenOn(address: string, port: number): { port: number; host?: string } {
  return isWildcard(address) ? { port } : { port, host: address };
}

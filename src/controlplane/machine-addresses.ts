import { canonicalIP, cidrContains, type IPFamily, ipFamily, parseCidr } from "../lib/cidr.ts";

/** The addresses of the machine that a control plane runs on. They change: DHCP, other networks, VPNs. */
export interface MachineAddresses {
  /** Of its Node, primary first. */
  readonly nodeIPs: readonly string[];
  /** Those by which other machines may reach it now. */
  readonly present: readonly string[];
  /** Those of its bridges, which it and its own pods reach while it is in no network. */
  readonly local: readonly string[];
}

/** Addresses that mean something else to everybody who is told of them. */
const unreachable = ["127.0.0.0/8", "::1/128", "0.0.0.0/32", "::/128"].map((cidr) =>
  parseCidr(cidr),
);

function isReachable(address: string): boolean {
  return (
    ipFamily(address) !== undefined && !unreachable.some((cidr) => cidrContains(cidr, address))
  );
}

/**
 * Where pods reach the API server: behind a ClusterIP of `family`, so an address of that family. The node's own one while
 * it is there, else one that is, else one of a bridge: a laptop in a train has pods too. Pure.
 */
export function endpointAddress(
  { local, nodeIPs, present }: MachineAddresses,
  family: IPFamily,
): string | undefined {
  const there = new Set([...present, ...local].map((address) => canonicalIP(address)));
  const usable = (address: string): boolean => ipFamily(address) === family && isReachable(address);
  return (
    [...nodeIPs, ...present, ...local].find(
      (address) => usable(address) && there.has(canonicalIP(address)),
    ) ?? nodeIPs.find(usable)
  );
}

/** Where other machines reach the API server, as far as is known. Pure. */
export function serverAddress({ nodeIPs, present }: MachineAddresses): string | undefined {
  return [...nodeIPs, ...present].find(isReachable);
}

/** Whether nobody outside knows the machine by another address: bridges come and go with containers. Pure. */
export function sameNames(a: MachineAddresses, b: MachineAddresses): boolean {
  return a.nodeIPs.join() === b.nodeIPs.join() && a.present.join() === b.present.join();
}

/** What they are now, and who wants to hear of others. */
export class CurrentAddresses {
  readonly #listeners = new Set<() => void>();
  #current: MachineAddresses;

  constructor(first: MachineAddresses) {
    this.#current = first;
  }

  get current(): MachineAddresses {
    return this.#current;
  }

  /** Calls `listener` after a change. Returns the function that ends it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @returns Whether they are others than before. */
  set(next: MachineAddresses): boolean {
    if (JSON.stringify(next) === JSON.stringify(this.#current)) return false;
    this.#current = next;
    for (const listener of this.#listeners) listener();
    return true;
  }
}

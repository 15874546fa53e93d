import { cidrContains, type Cidr, type IPFamily, ipFamily, parseCidr } from "../../lib/cidr.ts";

/** A route of the node: the longest prefix that holds an address counts. */
export interface Route {
  readonly to: Cidr;
  readonly device: string;
}

/** What rules may ask about the machine. */
export interface HostFacts {
  /** Addresses of its interfaces, both families. */
  readonly addresses: readonly string[];
  /** Undefined: not known; rules that ask for the outgoing interface are then an error. */
  readonly routes?: readonly Route[];
  /** Sysctl net.ipv4.conf.all.route_localnet. */
  readonly routeLocalnet?: boolean;
}

const loopback: Readonly<Record<IPFamily, Cidr>> = {
  IPv4: parseCidr("127.0.0.0/8"),
  IPv6: parseCidr("::1/128"),
};
const multicast: Readonly<Record<IPFamily, Cidr>> = {
  IPv4: parseCidr("224.0.0.0/4"),
  IPv6: parseCidr("ff00::/8"),
};

function familyOf(ip: string): IPFamily {
  return ipFamily(ip) ?? "IPv4";
}

/** 127.0.0.0/8 or ::1. */
export function isLoopback(ip: string): boolean {
  return cidrContains(loopback[familyOf(ip)], ip);
}

/** The machine whose rules are executed. */
export class Host {
  readonly routeLocalnet: boolean;
  readonly #addresses: ReadonlySet<string>;
  readonly #routes: readonly Route[] | undefined;

  constructor(facts: HostFacts) {
    this.#addresses = new Set(facts.addresses);
    this.#routes = facts.routes?.toSorted((a, b) => b.to.prefix - a.to.prefix);
    this.routeLocalnet = facts.routeLocalnet ?? false;
  }

  isLocal(ip: string): boolean {
    return this.#addresses.has(ip) || isLoopback(ip);
  }

  /** The kind of an address as the kernel's routing tables tell it. */
  addressType(ip: string): "local" | "broadcast" | "multicast" | "unicast" {
    if (this.isLocal(ip)) return "local";
    if (ip === "255.255.255.255") return "broadcast";
    return cidrContains(multicast[familyOf(ip)], ip) ? "multicast" : "unicast";
  }

  /** The interface towards an address; undefined when it is not known. */
  deviceTo(ip: string): string | undefined {
    if (this.isLocal(ip)) return "lo";
    return this.#routes?.find(({ to }) => cidrContains(to, ip))?.device;
  }
}

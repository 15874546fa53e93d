import { type Cidr, cidrContains, type IPFamily, ipFamily, parseCidr } from "../../lib/cidr.ts";

/** A route of the node: the longest prefix that holds an address counts. */
export interface Route {
  readonly to: Cidr;
  /** Undefined: the kernel refuses to send there. */
  readonly device: string | undefined;
}

/** What rules may ask about the machine. */
export interface HostFacts {
  /** Its own addresses and networks that count as such, both families. */
  readonly addresses: readonly string[];
  readonly broadcasts?: readonly string[];
  /** Undefined: not known. Everything can be reached then, and rules that ask for the outgoing interface are an error. */
  readonly routes?: readonly Route[];
  /** Sysctl net.ipv4.conf.all.route_localnet. */
  readonly routeLocalnet?: boolean;
  /** Interfaces that have it of their own. */
  readonly localnetDevices?: readonly string[];
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
  readonly #routeLocalnet: boolean;
  readonly #localnetDevices: ReadonlySet<string>;
  readonly #addresses: ReadonlySet<string>;
  readonly #networks: readonly Cidr[];
  readonly #broadcasts: ReadonlySet<string>;
  readonly #routes: readonly Route[] | undefined;

  constructor(facts: HostFacts) {
    this.#addresses = new Set(facts.addresses.filter((text) => !text.includes("/")));
    this.#networks = facts.addresses
      .filter((text) => text.includes("/"))
      .map((text) => parseCidr(text));
    this.#broadcasts = new Set(["255.255.255.255", ...(facts.broadcasts ?? [])]);
    this.#routes = facts.routes?.toSorted((a, b) => b.to.prefix - a.to.prefix);
    this.#routeLocalnet = facts.routeLocalnet ?? false;
    this.#localnetDevices = new Set(facts.localnetDevices);
  }

  /** Whether packets with loopback addresses may come in or leave by an interface. */
  passesLocalnet(device: string | undefined): boolean {
    return this.#routeLocalnet || (device !== undefined && this.#localnetDevices.has(device));
  }

  isLocal(ip: string): boolean {
    return (
      this.#addresses.has(ip) ||
      isLoopback(ip) ||
      this.#networks.some((network) => cidrContains(network, ip))
    );
  }

  /** The kind of an address as the kernel's routing tables tell it. */
  addressType(ip: string): "local" | "broadcast" | "multicast" | "unicast" {
    if (this.#broadcasts.has(ip)) return "broadcast";
    if (this.isLocal(ip)) return "local";
    return cidrContains(multicast[familyOf(ip)], ip) ? "multicast" : "unicast";
  }

  /** The interface towards an address; undefined when there is none or it is not known. */
  deviceTo(ip: string): string | undefined {
    if (this.isLocal(ip)) return "lo";
    return this.#routes?.find(({ to }) => cidrContains(to, ip))?.device;
  }

  /** False when the kernel has no way to an address. */
  reaches(ip: string): boolean {
    return this.#routes === undefined || this.deviceTo(ip) !== undefined;
  }
}

import type { NodeAddress } from "../../api/types.gen.ts";
import { canonicalIP, cidrContains, ipFamily, type IPFamily, parseCidr } from "../../lib/cidr.ts";

/** One address of one of the host's interfaces. */
export interface HostAddress {
  readonly interfaceName: string;
  readonly address: string;
  /** Made for privacy, to be given up soon (RFC 8981). */
  readonly temporary?: boolean;
  /** Not usable yet, or not any more. */
  readonly doubtful?: boolean;
}

export interface AddressFacts {
  /**
   * Addresses asked for in the configuration: none, one, or one of each family; `::` or `0.0.0.0` alone asks for a family
   * (the kubelet's --node-ip).
   */
  readonly configured: readonly string[];
  readonly nodeName: string;
  readonly host: readonly HostAddress[];
  /** Source addresses that the default routes select, by family. */
  readonly routeSources: Readonly<Partial<Record<IPFamily, string>>>;
  /** What was chosen before; it stays while it is there and no default route says otherwise. */
  readonly previous?: readonly string[];
  /** Families that the node's pods have addresses of: the node has one of each, if it can. */
  readonly podFamilies?: readonly IPFamily[];
}

export type AddressChoice =
  | { readonly kind: "chosen"; readonly ips: readonly string[] }
  | { readonly kind: "none"; readonly why: string };

const refused: readonly (readonly [string, string])[] = [
  ["127.0.0.0/8", "loopback address"],
  ["::1/128", "loopback address"],
  ["224.0.0.0/4", "a multicast address"],
  ["ff00::/8", "a multicast address"],
  ["169.254.0.0/16", "a link-local unicast address"],
  ["fe80::/10", "a link-local unicast address"],
  ["0.0.0.0/32", "an all zeros address"],
  ["::/128", "an all zeros address"],
];
const refusedNetworks = refused.map(([cidr, what]) => ({ cidr: parseCidr(cidr), what }));

/** Interfaces that containers and pods hang on: their addresses exist on every node. */
const containerInterface = /^(docker|br-|veth|cni|remora|virbr|podman|flannel|cali|kube-)/;

/** Why an address cannot be a node's address, or undefined when it can. */
export function refuseNodeIP(address: string, host: readonly HostAddress[]): string | undefined {
  if (ipFamily(address) === undefined) return `nodeIP must be a valid IP address, not "${address}"`;
  const ip = canonicalIP(address);
  const network = refusedNetworks.find(({ cidr }) => cidrContains(cidr, ip));
  if (network !== undefined) return `nodeIP can't be ${network.what}: "${ip}"`;
  const known = host.some((entry) => canonicalIP(entry.address) === ip);
  return known ? undefined : `node IP: "${ip}" not found in the host's network interfaces`;
}

/** What a configuration asks for: certain addresses, or the family of the first one. */
export function nodeIPWish(configured: readonly string[]): {
  readonly fixed: readonly string[];
  readonly family: IPFamily;
} {
  const [only = "", second] = configured;
  const any = second === undefined && ipFamily(only) !== undefined ? canonicalIP(only) : "";
  if (any === "::") return { fixed: [], family: "IPv6" };
  return { fixed: any === "0.0.0.0" ? [] : configured, family: "IPv4" };
}

/**
 * The node's addresses, primary first: the configured ones, else the node's name when it is an address, else the source
 * of the default route (of IPv4 unless the other family is asked for), else the first address of a real interface. Where pods have addresses of both
 * families, an address of the other one follows: routes to these pods lead there.
 */
export function chooseNodeIPs(facts: AddressFacts): AddressChoice {
  const { fixed, family } = nodeIPWish(facts.configured);
  if (fixed.length > 0) return chooseConfigured(facts);
  const families = family === "IPv4" ? (["IPv4", "IPv6"] as const) : (["IPv6", "IPv4"] as const);
  const { nodeName, podFamilies = [], previous = [], routeSources } = facts;
  const primary = firstUsable(facts.host, [
    nodeName,
    ...families.map((each) => lasting(routeSources[each], facts.host)),
    ...previous,
    ...families.flatMap((each) => firstOfFamily(facts.host, each)),
  ]);
  if (primary === undefined) {
    return {
      kind: "none",
      why: "no usable address on any interface; set nodeIPs (--node-ip) or bring a network interface up",
    };
  }
  const other = ipFamily(primary) === "IPv4" ? "IPv6" : "IPv4";
  const second = podFamilies.includes(other)
    ? firstUsable(facts.host, [
        lasting(routeSources[other], facts.host),
        ...previous.filter((ip) => ipFamily(ip) === other),
        ...firstOfFamily(facts.host, other),
      ])
    : undefined;
  return { kind: "chosen", ips: second === undefined ? [primary] : [primary, second] };
}

function firstUsable(
  host: readonly HostAddress[],
  candidates: readonly (string | undefined)[],
): string | undefined {
  for (const candidate of candidates) {
    if (candidate === undefined || ipFamily(candidate) === undefined) continue;
    if (refuseNodeIP(candidate, host) === undefined) return canonicalIP(candidate);
  }
  return undefined;
}

/** The address beside a temporary one by which the machine can be reached for longer than a day. */
function lasting(source: string | undefined, host: readonly HostAddress[]): string | undefined {
  if (source === undefined) return undefined;
  const own = host.find(({ address }) => canonicalIP(address) === canonicalIP(source));
  if (own?.temporary !== true) return source;
  const beside = host.filter(
    ({ address, doubtful, interfaceName, temporary }) =>
      interfaceName === own.interfaceName &&
      ipFamily(address) === ipFamily(source) &&
      doubtful !== true &&
      temporary !== true &&
      refuseNodeIP(address, host) === undefined,
  );
  const network = parseCidr(`${source}/64`);
  return (
    (beside.find(({ address }) => cidrContains(network, address)) ?? beside[0])?.address ?? source
  );
}

function chooseConfigured(facts: AddressFacts): AddressChoice {
  for (const address of facts.configured) {
    const why = refuseNodeIP(address, facts.host);
    if (why !== undefined) return { kind: "none", why };
  }
  return { kind: "chosen", ips: facts.configured.map((address) => canonicalIP(address)) };
}

function firstOfFamily(host: readonly HostAddress[], family: IPFamily): string[] {
  return host
    .filter((entry) => ipFamily(entry.address) === family)
    .filter((entry) => !containerInterface.test(entry.interfaceName))
    .filter((entry) => entry.doubtful !== true)
    .toSorted((a, b) => Number(a.temporary === true) - Number(b.temporary === true))
    .map((entry) => entry.address);
}

/** The InternalIPs of a Node's status, in its order. */
export function internalIPs(addresses: readonly NodeAddress[] | undefined): readonly string[] {
  return (addresses ?? [])
    .filter(({ type }) => type === "InternalIP")
    .map(({ address }) => address)
    .filter((address) => ipFamily(address) !== undefined);
}

/** `status.addresses`: one InternalIP per address, then the Hostname. */
export function nodeAddresses(ips: readonly string[], hostname: string): NodeAddress[] {
  return [
    ...ips.map((address) => ({ type: "InternalIP", address })),
    { type: "Hostname", address: hostname },
  ];
}

import { type Cidr, cidrContains, formatCidr, formatIP, ipFamily, parseCidr } from "../lib/cidr.ts";

/** Another node of the cluster, as routes see it. */
export interface RemoteNode {
  readonly name: string;
  readonly podCIDRs: readonly string[];
  /** InternalIPs, in the order of the Node's status. */
  readonly addresses: readonly string[];
}

/** A route of this machine to the pods of another node. */
export interface NodeRoute {
  /** As `ip` prints it, for example `10.244.1.0/24`. */
  readonly destination: string;
  readonly gateway: string;
  readonly device: string;
  readonly metric: number;
}

/** Why one network of pods gets no route. */
export interface RouteProblem {
  readonly node: string;
  readonly podCIDR: string;
  readonly message: string;
}

export interface RoutePlan {
  /** Missing, or leading elsewhere. */
  readonly replace: readonly NodeRoute[];
  readonly remove: readonly NodeRoute[];
  readonly problems: readonly RouteProblem[];
}

/**
 * By it we know our routes: a number of its own in the field that names who made a route. 82 is in no registry
 * (rtnetlink.h, iproute2's rt_protos); it is the R of ASCII.
 */
export const routeProtocol = 82;

/** Worse than what people and other programs set, so that a route of theirs to the same network wins and is not replaced. */
export const routeMetric = 2048;

function overlaps(a: Cidr, b: Cidr): boolean {
  if (a.family !== b.family) return false;
  const [wide, narrow] = a.prefix <= b.prefix ? [a, b] : [b, a];
  return cidrContains(wide, formatIP(narrow.base, narrow.family));
}

/** `ip` leaves the length of a single address out. */
export function asPrinted(cidr: Cidr): string {
  const full = cidr.prefix === (cidr.family === "IPv4" ? 32 : 128);
  return full ? formatIP(cidr.base, cidr.family) : formatCidr(cidr);
}

export interface RoutePlanInput {
  /** Oldest first: of two nodes that claim one network the younger has it. */
  readonly remotes: readonly RemoteNode[];
  readonly ownPodCIDRs: readonly string[];
  /** Device behind which a node's address answers directly, by address; absent = not on a network of this machine. */
  readonly onLink: ReadonlyMap<string, string>;
  /** Addresses of nodes that this machine has as well. */
  readonly own?: ReadonlySet<string>;
  /** Our routes in the kernel. */
  readonly existing: readonly NodeRoute[];
}

function wantedRoutes(input: RoutePlanInput): {
  readonly routes: ReadonlyMap<string, NodeRoute>;
  readonly problems: readonly RouteProblem[];
} {
  const own = input.ownPodCIDRs.map((text) => parseCidr(text, "podCIDR"));
  const routes = new Map<string, NodeRoute>();
  const owners = new Map<string, string>();
  const problems: RouteProblem[] = [];
  for (const node of input.remotes) {
    // A Node that has not reported yet: its first status brings the addresses.
    if (node.addresses.length === 0) continue;
    for (const podCIDR of node.podCIDRs) {
      const refuse = (message: string): void =>
        void problems.push({ node: node.name, podCIDR, message });
      const cidr = parseCidr(podCIDR, "podCIDR");
      if (own.some((mine) => overlaps(mine, cidr))) {
        refuse("it overlaps the pod network of this node");
        continue;
      }
      const candidates = node.addresses.filter((address) => ipFamily(address) === cidr.family);
      const gateway = candidates.find((address) => input.onLink.has(address));
      const device = gateway === undefined ? undefined : input.onLink.get(gateway);
      if (gateway === undefined || device === undefined) {
        const mine = candidates.find((address) => input.own?.has(address) === true);
        refuse(
          candidates.length === 0
            ? `the node has no ${cidr.family} address`
            : mine !== undefined
              ? `the node's address ${mine} is one of this machine too: each machine needs an address of its own`
              : `the node's address ${candidates.join(", ")} is not on a network of this machine; a network plug-in or routes set by hand have to carry its pods`,
        );
        continue;
      }
      const destination = asPrinted(cidr);
      const earlier = owners.get(destination);
      if (earlier !== undefined) {
        problems.push({ node: earlier, podCIDR, message: `node ${node.name} has it as well` });
      }
      owners.set(destination, node.name);
      routes.set(destination, { destination, gateway, device, metric: routeMetric });
    }
  }
  return { routes, problems };
}

function sameRoute(a: NodeRoute, b: NodeRoute): boolean {
  return a.gateway === b.gateway && a.device === b.device && a.metric === b.metric;
}

/** What has to change so that the kernel's routes of ours are those that the nodes need. Pure. */
export function planRoutes(input: RoutePlanInput): RoutePlan {
  const { routes, problems } = wantedRoutes(input);
  const isRight = (route: NodeRoute): boolean => {
    const wanted = routes.get(route.destination);
    return wanted !== undefined && sameRoute(wanted, route);
  };
  const right = new Set(input.existing.filter(isRight).map((route) => route.destination));
  const replace = [...routes.values()].filter((route) => !right.has(route.destination));
  // `replace` takes the place of a route with the same destination and metric; only others have to be removed.
  const remove = input.existing.filter(
    (route) => !isRight(route) && (route.metric !== routeMetric || !routes.has(route.destination)),
  );
  return { replace, remove, problems };
}

import { keyOf } from "../../../api/object.ts";
import type { EndpointSlice, LoadBalancerIngress } from "../../../api/types.gen.ts";
import { canonicalIP, ipFamily } from "../../../lib/cidr.ts";
import type { StoredService } from "../endpoints/service-endpoints.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import type { Protocol } from "./host-ports.ts";
import { type BalancerNode, nodesFor } from "./nodes.ts";
import { type OwnMachine, TakenPorts } from "./taken-ports.ts";
import { wantsNodeAddresses } from "./wanted.ts";

/** Everything that decides which Service gets which addresses. */
export interface BalancerWorld {
  readonly services: Iterable<StoredService>;
  readonly nodes: readonly BalancerNode[];
  /** Those with host ports; others do not matter. */
  readonly pods: Iterable<StoredPod>;
  readonly slicesOf: (serviceKey: string) => Iterable<EndpointSlice>;
  /** Undefined where it is not known which node that is. */
  readonly machine: OwnMachine | undefined;
}

/** Why a Service does not have all that it wants. */
export interface BalancerProblem {
  readonly reason: "SyncLoadBalancerFailed" | "UnAvailableLoadBalancer";
  readonly message: string;
  /** The port is another's. */
  readonly conflict: boolean;
}

export interface Assignment {
  readonly ingress: readonly LoadBalancerIngress[];
  readonly problems: readonly BalancerProblem[];
}

export interface BalancerPlan {
  /** Of every Service that is to have addresses of nodes, by its key. */
  readonly assignments: ReadonlyMap<string, Assignment>;
  /** What else a Service does not have because an older one has it, in words by its key: node ports, external IPs. */
  readonly hidden: ReadonlyMap<string, string>;
}

interface Claimed {
  /** By `protocol port ip`: load balancer and external addresses. */
  readonly addresses: Map<string, string>;
  /** By `protocol port`: a load balancer port that stands on some address, and whose. */
  readonly balancers: Map<string, string>;
  /** By `protocol port`: node ports, which are on every address. */
  readonly nodePorts: Map<string, string>;
}

/**
 * Shares the addresses of nodes out. Of two Services that want one port of one address the older has it (by creation,
 * then by name), as the Service proxy decides it; ports that pods and programs have are never taken from them. A
 * Service gets an address with all of its ports or not at all.
 */
export function planLoadBalancers(world: BalancerWorld): BalancerPlan {
  const services = byAge([...world.services].filter(claimsPorts));
  const taken = new TakenPorts(world.nodes, world.pods, world.machine);
  const claimed: Claimed = { addresses: new Map(), balancers: new Map(), nodePorts: new Map() };
  const assignments = new Map<string, Assignment>();
  const hidden = new Map<string, string>();
  for (const service of services) {
    const key = keyOf(service);
    if (wantsNodeAddresses(service)) {
      assignments.set(key, assign(service, world, taken, claimed));
    }
    const lost = claimOthers(service, claimed);
    if (lost !== undefined) hidden.set(key, lost);
  }
  return { assignments, hidden };
}

/** Whether the Service has a say in who gets which port of a node. */
export function claimsPorts({ spec }: StoredService): boolean {
  return (
    spec?.type === "LoadBalancer" ||
    spec?.type === "NodePort" ||
    (spec?.externalIPs ?? []).length > 0
  );
}

/** Oldest first; of one age by name. */
function byAge(services: readonly StoredService[]): readonly StoredService[] {
  return services
    .map((service) => ({
      service,
      rank: `${service.metadata.creationTimestamp ?? ""} ${keyOf(service)}`,
    }))
    .toSorted((a, b) => (a.rank < b.rank ? -1 : 1))
    .map(({ service }) => service);
}

interface BalancerPort {
  readonly port: number;
  readonly protocol: Protocol;
}

function portsOf({ spec }: StoredService): readonly BalancerPort[] {
  return (spec?.ports ?? []).map(({ port, protocol = "TCP" }) => ({ port, protocol }));
}

const failed = "Error syncing load balancer: failed to ensure load balancer: ";

function refused(why: string, conflict = false): BalancerProblem {
  return { reason: "SyncLoadBalancerFailed", message: `${failed}${why}`, conflict };
}

function assign(
  service: StoredService,
  world: BalancerWorld,
  taken: TakenPorts,
  claimed: Claimed,
): Assignment {
  const nodes = nodesFor(service, world.nodes, world.slicesOf(keyOf(service)));
  if (nodes.length === 0) {
    return {
      ingress: [],
      problems: [
        {
          reason: "UnAvailableLoadBalancer",
          message: "There are no available nodes for LoadBalancer",
          conflict: false,
        },
      ],
    };
  }
  const { addresses, problems } = candidates(service, nodes);
  const ports = portsOf(service);
  const ingress: LoadBalancerIngress[] = [];
  const conflicts: Conflict[] = [];
  for (const ip of addresses) {
    const found = ports.flatMap(({ port, protocol }) => {
      const wanted = { ip, port, protocol };
      const holder =
        claimed.addresses.get(`${protocol} ${port} ${ip}`) ??
        claimed.nodePorts.get(`${protocol} ${port}`) ??
        taken.holder(service, wanted, holds(service, ip, { port, protocol }));
      return holder === undefined ? [] : [{ ip, port: `${port}/${protocol}`, holder }];
    });
    if (found.length > 0) {
      conflicts.push(...found);
      continue;
    }
    const who = serviceInWords(service);
    for (const { port, protocol } of ports) {
      claimed.addresses.set(`${protocol} ${port} ${ip}`, who);
      claimed.balancers.set(`${protocol} ${port}`, who);
    }
    ingress.push({ ip, ipMode: "VIP", ports: ports.map((port) => ({ ...port })) });
  }
  return { ingress, problems: [...problems, ...inWords(conflicts)] };
}

interface Conflict {
  readonly ip: string;
  /** `number/protocol`. */
  readonly port: string;
  readonly holder: string;
}

/** In one sentence; the cluster may have many nodes. */
const mostAddresses = 5;

/** One sentence for each port and who has it. */
function inWords(conflicts: readonly Conflict[]): readonly BalancerProblem[] {
  const groups = Map.groupBy(conflicts, ({ port, holder }) => `${port} ${holder}`);
  return [...groups.values()].flatMap((group) => {
    const [first] = group;
    if (first === undefined) return [];
    const shown = group.slice(0, mostAddresses).map(({ ip }) => ip);
    const more = group.length - shown.length;
    const addresses = `${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
    return [refused(`port ${first.port} of ${addresses} is taken by ${first.holder}`, true)];
  });
}

function serviceInWords({ metadata }: StoredService): string {
  return `Service ${metadata.namespace ?? ""}/${metadata.name}`;
}

/** The addresses that a Service may have, best first, if its ports are free there. */
function candidates(
  { spec }: StoredService,
  nodes: readonly BalancerNode[],
): { readonly addresses: readonly string[]; readonly problems: BalancerProblem[] } {
  const problems: BalancerProblem[] = [];
  const all = nodes.flatMap(({ addresses }) => addresses);
  // Deprecated, and still what many manifests say.
  const asked = (spec?.loadBalancerIP ?? "").trim();
  if (asked !== "") {
    const ip = ipFamily(asked) === undefined ? asked : canonicalIP(asked);
    const found = all.find((address) => address.ip === ip);
    const families = spec?.ipFamilies ?? ["IPv4"];
    if (found !== undefined && families.includes(found.family))
      return { addresses: [ip], problems };
    const why =
      found === undefined ? "is not an address of an available node" : "is not of its IP families";
    return { addresses: [], problems: [refused(`spec.loadBalancerIP ${asked} ${why}`)] };
  }
  const addresses = new Set<string>();
  for (const family of spec?.ipFamilies ?? ["IPv4"]) {
    const ofFamily = all.filter((address) => address.family === family);
    for (const type of ["ExternalIP", "InternalIP"] as const) {
      for (const address of ofFamily) if (address.type === type) addresses.add(address.ip);
    }
    if (ofFamily.length === 0) problems.push(refused(`no available node has an ${family} address`));
  }
  return { addresses: [...addresses], problems };
}

/** Whether the Service has the port since before. */
function holds({ status }: StoredService, ip: string, { port, protocol }: BalancerPort): boolean {
  return (
    status?.loadBalancer?.ingress?.some(
      (entry) =>
        entry.ip === ip &&
        entry.ports?.some((its) => its.port === port && its.protocol === protocol) === true,
    ) === true
  );
}

/**
 * Notes what else a Service has: addresses that others gave it, external ones and node ports.
 *
 * @returns What of that an older Service has, in words.
 */
function claimOthers(service: StoredService, claimed: Claimed): string | undefined {
  const { spec, status } = service;
  const who = serviceInWords(service);
  const own = wantsNodeAddresses(service);
  const given =
    own || spec?.type !== "LoadBalancer" || service.metadata.deletionTimestamp !== undefined
      ? []
      : (status?.loadBalancer?.ingress ?? []).map(({ ip = "" }) => ip);
  const lost: string[] = [];
  for (const ip of [...(spec?.externalIPs ?? []), ...given]) {
    if (ipFamily(ip) === undefined) continue;
    for (const { port, protocol } of portsOf(service)) {
      const place = `${protocol} ${port} ${canonicalIP(ip)}`;
      const owner = claimed.addresses.get(place);
      if (owner === undefined) claimed.addresses.set(place, who);
      else if (owner !== who) lost.push(`port ${port}/${protocol} of ${ip} is taken by ${owner}`);
    }
  }
  for (const { port, protocol, what } of nodePortsOf(service)) {
    const place = `${protocol} ${port}`;
    const balancer = claimed.balancers.get(place);
    if (balancer !== undefined && balancer !== who) {
      lost.push(`${what} ${port}/${protocol} is hidden by the load balancer of ${balancer}`);
    }
    if (!claimed.nodePorts.has(place)) claimed.nodePorts.set(place, `${what} of ${who}`);
  }
  return lost.length === 0 ? undefined : lost.join("; ");
}

function nodePortsOf({
  spec,
}: StoredService): readonly (BalancerPort & { readonly what: string })[] {
  if (spec?.type !== "LoadBalancer" && spec?.type !== "NodePort") return [];
  const ports = (spec.ports ?? []).flatMap(({ nodePort = 0, protocol = "TCP" }) =>
    nodePort === 0 ? [] : [{ port: nodePort, protocol, what: "node port" } as const],
  );
  const health = spec.healthCheckNodePort ?? 0;
  if (health === 0) return ports;
  return [...ports, { port: health, protocol: "TCP", what: "health check node port" }];
}

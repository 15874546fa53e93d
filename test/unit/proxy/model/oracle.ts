// Where a packet must end, written from the description of Service traffic and not from the code: the second opinion
// that rules are compared with. Knows nothing of plans, chains or maps.
import { BlockList } from "node:net";

import type { IPFamily } from "../../../../src/lib/cidr.ts";
import type {
  ModelCluster,
  ModelEndpoint,
  ModelNode,
  ModelPort,
  ModelProtocol,
  ModelService,
} from "./cluster.ts";

export type ModelDetector =
  | { readonly kind: "none" }
  | { readonly kind: "cidrs"; readonly cidrs: readonly string[] }
  | { readonly kind: "interface"; readonly name: string }
  | { readonly kind: "interface-prefix"; readonly prefix: string };

export interface ModelSettings {
  readonly mode: "nftables" | "iptables";
  readonly family: IPFamily;
  readonly local: ModelDetector;
  readonly nodePortIPs: readonly string[] | undefined;
  readonly localhostNodePorts: boolean;
  readonly serviceCIDRs: readonly string[];
  readonly masqueradeAll: boolean;
}

export interface ModelPacket {
  readonly protocol: ModelProtocol;
  readonly source: string;
  readonly destination: string;
  readonly port: number;
  /** Empty: from the node itself. */
  readonly inInterface: string;
}

/** Texts of ends, with their probabilities. */
export type Ends = ReadonlyMap<string, number>;

interface Unit {
  readonly service: ModelService;
  readonly port: ModelPort;
}

interface Target {
  readonly ip: string;
  readonly port: number;
  readonly endpoint: ModelEndpoint;
}

interface Lists {
  readonly cluster: readonly Target[];
  readonly local: readonly Target[];
  readonly any: boolean;
}

function within(ip: string, cidrs: readonly string[], family: IPFamily): boolean {
  const list = new BlockList();
  const name = family === "IPv4" ? "ipv4" : "ipv6";
  for (const cidr of cidrs) {
    const [address = "", prefix = "0"] = cidr.split("/");
    if (address.includes(":") === (family === "IPv6"))
      list.addSubnet(address, Number(prefix), name);
  }
  return list.check(ip, name);
}

function isReady(endpoint: ModelEndpoint): boolean {
  return endpoint.ready ?? true;
}

function isFallback(endpoint: ModelEndpoint): boolean {
  return (endpoint.serving ?? true) && (endpoint.terminating ?? false);
}

function usefulness(endpoint: ModelEndpoint): number {
  if (endpoint.terminating !== true) return isReady(endpoint) ? 4 : 3;
  return isFallback(endpoint) ? 2 : 1;
}

export class Oracle {
  readonly #cluster: ModelCluster;
  readonly #node: ModelNode;
  readonly #settings: ModelSettings;
  readonly #units: readonly Unit[];

  constructor(cluster: ModelCluster, node: ModelNode, settings: ModelSettings) {
    this.#cluster = cluster;
    this.#node = node;
    this.#settings = settings;
    // Who came first has an address that two want.
    this.#units = [...cluster.services.values()]
      .filter(({ clusterIPs }) => clusterIPs[settings.family] !== undefined)
      .toSorted((a, b) => a.created - b.created || (a.name < b.name ? -1 : 1))
      .flatMap((service) => service.ports.map((port) => ({ service, port })));
  }

  /** Where a new flow's first packet ends. */
  ends(packet: ModelPacket): Ends {
    const vip = this.#units.find((unit) => this.#isVIP(unit, packet));
    if (vip !== undefined) {
      return vip.service.clusterIPs[this.#settings.family] === packet.destination
        ? this.#internal(vip, packet)
        : this.#external(vip, packet);
    }
    const byPort = this.#isNodePortAddress(packet.destination)
      ? this.#byNodePort(packet)
      : undefined;
    return byPort === undefined ? this.#noService(packet) : this.#external(byPort, packet);
  }

  /** Where a packet of a flow ends that was there before the rules and that no rule has translated. */
  established({ destination }: ModelPacket): Ends {
    return this.#certain(this.#isOwn(destination) ? "host" : "forwarded kept");
  }

  /** Whether who was served once is served by the same endpoint the next time. */
  remembers(packet: ModelPacket): boolean {
    const unit = this.#units.find((one) => this.#isVIP(one, packet)) ?? this.#byNodePort(packet);
    return unit !== undefined && unit.service.affinitySeconds > 0;
  }

  #isVIP({ service, port }: Unit, packet: ModelPacket): boolean {
    if (port.port !== packet.port || port.protocol !== packet.protocol) return false;
    return [
      service.clusterIPs[this.#settings.family],
      ...service.externalIPs,
      ...this.#loadBalancerIPs(service),
    ].includes(packet.destination);
  }

  #loadBalancerIPs(service: ModelService): readonly string[] {
    if (service.type !== "LoadBalancer") return [];
    return service.ingress.filter(({ mode }) => mode !== "Proxy").map(({ ip }) => ip);
  }

  #isLoopback(ip: string): boolean {
    return ip === "::1" || ip.startsWith("127.");
  }

  #isOwn(ip: string): boolean {
    return this.#isLoopback(ip) || this.#node.addresses.includes(ip);
  }

  #isNodePortAddress(ip: string): boolean {
    const { nodePortIPs, localhostNodePorts, mode, family } = this.#settings;
    if (!this.#isOwn(ip)) return false;
    if (nodePortIPs !== undefined && !nodePortIPs.includes(ip)) return false;
    return (
      !this.#isLoopback(ip) || (mode === "iptables" && family === "IPv4" && localhostNodePorts)
    );
  }

  #fromPod({ source, inInterface }: ModelPacket): boolean {
    const { local, family } = this.#settings;
    switch (local.kind) {
      case "none":
        return false;
      case "cidrs":
        return within(source, local.cidrs, family);
      case "interface":
        return inInterface === local.name;
      case "interface-prefix":
        return inInterface.startsWith(local.prefix);
    }
  }

  #lists({ service, port }: Unit): Lists {
    const found = new Map<string, Target>();
    const slices = [...this.#cluster.slices.values()];
    // Of two that say the same of an address, the first by name counts.
    for (const slice of slices.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      if (slice.service !== service.name || slice.family !== this.#settings.family) continue;
      for (const ported of slice.ports) {
        if (ported.name !== port.name || ported.protocol !== port.protocol) continue;
        for (const endpoint of slice.endpoints) {
          const key = `${endpoint.ip} ${ported.port}`;
          const known = found.get(key)?.endpoint;
          // An address seen twice: who does not terminate has it, then who is of more use.
          if (known !== undefined && usefulness(known) >= usefulness(endpoint)) continue;
          found.set(key, { ip: endpoint.ip, port: ported.port, endpoint });
        }
      }
    }
    const all = [...found.values()];
    const ready = all.filter(({ endpoint }) => isReady(endpoint));
    const fallback = all.filter(({ endpoint }) => !isReady(endpoint) && isFallback(endpoint));
    const here = ({ endpoint }: Target): boolean => endpoint.node === this.#node.name;
    const near = this.#near(ready);
    return {
      cluster: near.length > 0 ? near : fallback,
      local: ready.some(here) ? ready.filter(here) : fallback.filter(here),
      any: ready.length > 0 || fallback.length > 0,
    };
  }

  #near(ready: readonly Target[]): readonly Target[] {
    const { name, zone } = this.#node;
    if (ready.every(({ endpoint }) => endpoint.forNodes !== undefined)) {
      const chosen = ready.filter(({ endpoint }) => endpoint.forNodes?.includes(name));
      if (chosen.length > 0) return chosen;
    }
    if (zone !== "" && ready.every(({ endpoint }) => endpoint.forZones !== undefined)) {
      const chosen = ready.filter(({ endpoint }) => endpoint.forZones?.includes(zone));
      if (chosen.length > 0) return chosen;
    }
    return ready;
  }

  #spread(targets: readonly Target[], packet: ModelPacket, masquerade: boolean): Ends {
    const ends = new Map<string, number>();
    for (const { ip, port, endpoint } of targets) {
      // Asking itself, a pod must see another source, or it would answer without the node. nftables knows this node's.
      const asksItself = ip === packet.source;
      const hairpin =
        asksItself && (this.#settings.mode === "iptables" || endpoint.node === this.#node.name);
      const end = `${ip} ${port} ${masquerade || hairpin ? "masqueraded" : "kept"}`;
      ends.set(end, (ends.get(end) ?? 0) + 1 / targets.length);
    }
    return ends;
  }

  #certain(end: string): Ends {
    return new Map([[end, 1]]);
  }

  #reject({ protocol }: ModelPacket): Ends {
    return this.#certain(protocol === "tcp" ? "rejected tcp-reset" : "rejected icmp");
  }

  #internal(unit: Unit, packet: ModelPacket): Ends {
    const { cluster, local, any } = this.#lists(unit);
    if (!any) return this.#reject(packet);
    const targets = unit.service.internalLocal ? local : cluster;
    if (targets.length === 0) return this.#certain("dropped");
    const known = this.#settings.local.kind !== "none";
    const masquerade = this.#settings.masqueradeAll || (known && !this.#fromPod(packet));
    return this.#spread(targets, packet, masquerade);
  }

  #external(unit: Unit, packet: ModelPacket): Ends {
    const { mode } = this.#settings;
    const { cluster, local, any } = this.#lists(unit);
    const barred = this.#isBarred(unit, packet);
    // iptables has no firewall for what has no endpoint.
    if (barred && (any || mode === "nftables")) return this.#certain("dropped");
    if (!any) {
      // iptables does not look at what the node sends to addresses that are not its own.
      const passes =
        mode === "iptables" && packet.inInterface === "" && !this.#isOwn(packet.destination);
      return passes ? this.#certain("forwarded kept") : this.#reject(packet);
    }
    if (!unit.service.externalLocal && !this.#keepsSource(cluster, local)) {
      return this.#spread(cluster, packet, true);
    }
    if (this.#fromPod(packet)) return this.#spread(cluster, packet, false);
    if (this.#isOwn(packet.source)) return this.#spread(cluster, packet, true);
    return local.length === 0 ? this.#certain("dropped") : this.#spread(local, packet, false);
  }

  /** All that may be asked are here, and none that is here is passed over. */
  #keepsSource(cluster: readonly Target[], local: readonly Target[]): boolean {
    return (
      this.#node.keepsSource === true &&
      cluster.length === local.length &&
      cluster.every(({ endpoint }) => endpoint.node === this.#node.name)
    );
  }

  /** Source ranges are for load balancer addresses only. */
  #isBarred({ service }: Unit, packet: ModelPacket): boolean {
    const addresses = this.#loadBalancerIPs(service);
    if (!addresses.includes(packet.destination)) return false;
    if (service.externalIPs.includes(packet.destination)) return false;
    const { family } = this.#settings;
    const ranges = service.sourceRanges.filter(
      (range) => range.includes(":") === (family === "IPv6"),
    );
    if (ranges.length === 0 || ranges.some((range) => range.endsWith("/0"))) return false;
    if (within(packet.source, ranges, family)) return false;
    // The node's own packets to such an address carry it as their source.
    const nodeAllowed = this.#node.ips.some(
      (ip) => ip.includes(":") === (family === "IPv6") && within(ip, ranges, family),
    );
    return !(nodeAllowed && addresses.includes(packet.source));
  }

  /** iptables refuses on all addresses of the node, also where node ports are not served. */
  #refusedNodePort(packet: ModelPacket): Ends {
    const unit = this.#settings.mode === "iptables" ? this.#byNodePort(packet) : undefined;
    if (unit === undefined) return this.#certain("host");
    const { local, any } = this.#lists(unit);
    if (!any) return this.#reject(packet);
    const dropped = unit.service.externalLocal && local.length === 0;
    return this.#certain(dropped ? "dropped" : "host");
  }

  #byNodePort(packet: ModelPacket): Unit | undefined {
    return this.#units.find(
      ({ service, port }) =>
        service.type !== "ClusterIP" &&
        port.nodePort === packet.port &&
        port.protocol === packet.protocol,
    );
  }

  #noService(packet: ModelPacket): Ends {
    const { mode, family, serviceCIDRs } = this.#settings;
    if (this.#isOwn(packet.destination)) return this.#refusedNodePort(packet);
    if (mode === "iptables") return this.#certain("forwarded kept");
    const live = this.#units.some(
      ({ service }) => service.clusterIPs[family] === packet.destination,
    );
    if (live) return this.#reject(packet);
    return within(packet.destination, serviceCIDRs, family)
      ? this.#certain("dropped")
      : this.#certain("forwarded kept");
  }
}

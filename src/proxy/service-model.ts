import { cidrContains, type IPFamily, ipFamily, parseCidr } from "../lib/cidr.ts";
import type { ServiceView } from "./parse.ts";
import type { ServicePort } from "./types.ts";

/** One for all: plans keep it. */
const noTexts: readonly string[] = [];

/**
 * The ports of one Service in one family. None for headless Services, ExternalName and Services without an address of
 * the family.
 *
 * @param nodeIPs Addresses of this node; a source range that holds one also admits the load balancer addresses
 *   themselves, because the node's own packets to them carry them as their source.
 * @param externalIPsCount Off: `spec.externalIPs` count as empty (gate AllowServiceExternalIPs, KEP-5707).
 */
export function servicePorts(
  service: ServiceView,
  family: IPFamily,
  nodeIPs: readonly string[],
  externalIPsCount = true,
): readonly ServicePort[] {
  if (service.type === "ExternalName") return [];
  const clusterIP = service.clusterIPs.find((candidate) => candidate.family === family)?.ip;
  if (clusterIP === undefined) return [];
  const ofFamily = (ip: string): boolean => ipFamily(ip) === family;
  const externalIPs = externalIPsCount ? service.externalIPs.filter(ofFamily) : noTexts;
  const isLoadBalancer = service.type === "LoadBalancer";
  const loadBalancerIPs = isLoadBalancer ? service.loadBalancerIPs.filter(ofFamily) : noTexts;
  const rank = `${service.createdAt} ${service.key}`;
  const external = isLoadBalancer || service.type === "NodePort" || externalIPs.length > 0;
  return service.ports.map((port) => ({
    key: `${service.key}:${port.name}/${port.protocol}`,
    service: service.key,
    portName: port.name,
    family,
    protocol: port.protocol,
    clusterIP,
    port: port.port,
    nodePort: isLoadBalancer || service.type === "NodePort" ? port.nodePort : 0,
    externalIPs,
    loadBalancerIPs,
    sourceRanges: isLoadBalancer
      ? allowedSources(service.sourceRanges, family, nodeIPs, loadBalancerIPs)
      : noTexts,
    internalLocal: service.internalLocal,
    externalLocal: external && service.externalLocal,
    affinitySeconds: service.affinitySeconds,
    rank,
  }));
}

function allowedSources(
  ranges: readonly string[],
  family: IPFamily,
  nodeIPs: readonly string[],
  loadBalancerIPs: readonly string[],
): readonly string[] {
  const own = ranges.map((text) => parseCidr(text)).filter((cidr) => cidr.family === family);
  if (own.length === 0 || own.some((cidr) => cidr.prefix === 0)) return [];
  const texts = ranges.filter((text) => parseCidr(text).family === family);
  const holdsNode = own.some((cidr) => nodeIPs.some((ip) => cidrContains(cidr, ip)));
  return [...new Set(holdsNode ? [...texts, ...loadBalancerIPs] : texts)].toSorted();
}

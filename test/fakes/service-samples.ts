import type { RulesContext } from "../../src/proxy/backend.ts";
import type { Endpoint, ServicePort } from "../../src/proxy/types.ts";

/** Rules for IPv4, pods in 10.244.0.0/16, node ports everywhere. */
export function rulesContext(over: Partial<RulesContext> = {}): RulesContext {
  return {
    family: "IPv4",
    local: { kind: "cidrs", cidrs: ["10.244.0.0/16"] },
    nodePortIPs: undefined,
    localhostNodePorts: false,
    serviceCIDRs: [],
    mark: 0x4000,
    masqueradeAll: false,
    ...over,
  };
}

/** One TCP port `ns/web:http` on 10.96.0.10:80, of a ClusterIP alone. */
export function servicePort(over: Partial<ServicePort> = {}): ServicePort {
  return {
    key: "ns/web:http/tcp",
    service: "ns/web",
    portName: "http",
    family: "IPv4",
    protocol: "tcp",
    clusterIP: "10.96.0.10",
    port: 80,
    nodePort: 0,
    externalIPs: [],
    loadBalancerIPs: [],
    sourceRanges: [],
    internalLocal: false,
    externalLocal: false,
    affinitySeconds: 0,
    rank: "2026-01-01T00:00:00Z ns/web",
    ...over,
  };
}

/** A ready endpoint on another node, port 8080. */
export function readyEndpoint(ip: string, over: Partial<Endpoint> = {}): Endpoint {
  return {
    ip,
    port: 8080,
    local: false,
    ready: true,
    serving: true,
    terminating: false,
    forZones: undefined,
    forNodes: undefined,
    ...over,
  };
}

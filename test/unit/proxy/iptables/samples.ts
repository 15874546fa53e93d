import type { RulesContext } from "../../../../src/proxy/backend.ts";
import { type PlannedPort, planPort } from "../../../../src/proxy/plan.ts";
import type { Endpoint, ServicePort } from "../../../../src/proxy/types.ts";

export const context: RulesContext = {
  family: "IPv4",
  local: { kind: "cidrs", cidrs: ["10.244.0.0/24"] },
  nodePortIPs: undefined,
  localhostNodePorts: false,
  serviceCIDRs: [],
  mark: 0x4000,
  masqueradeAll: false,
};

/** One TCP port `ns/web:http` on 10.96.0.10:80. */
export function port(over: Partial<ServicePort> = {}): ServicePort {
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
export function endpoint(ip: string, over: Partial<Endpoint> = {}): Endpoint {
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

export function plan(over: Partial<ServicePort>, endpoints: readonly Endpoint[]): PlannedPort {
  return planPort(port(over), endpoints, { name: "here", zone: "" });
}

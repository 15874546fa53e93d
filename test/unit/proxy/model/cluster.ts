// A cluster as tests describe it: what the API server would say, and what the oracle judges by.
import type { IPFamily } from "../../../../src/lib/cidr.ts";

export type ModelProtocol = "tcp" | "udp" | "sctp";

export interface ModelPort {
  readonly name: string;
  readonly protocol: ModelProtocol;
  readonly port: number;
  /** 0 = none. */
  readonly nodePort: number;
}

export interface ModelService {
  readonly name: string;
  /** Older ones first. */
  readonly created: number;
  readonly type: "ClusterIP" | "NodePort" | "LoadBalancer";
  readonly clusterIPs: Readonly<Partial<Record<IPFamily, string>>>;
  readonly externalIPs: readonly string[];
  readonly ingress: readonly { readonly ip: string; readonly mode?: "VIP" | "Proxy" }[];
  readonly sourceRanges: readonly string[];
  readonly internalLocal: boolean;
  readonly externalLocal: boolean;
  /** 0 = no affinity. */
  readonly affinitySeconds: number;
  readonly ports: readonly ModelPort[];
}

export interface ModelEndpoint {
  readonly ip: string;
  readonly node: string;
  readonly ready: boolean | undefined;
  readonly serving: boolean | undefined;
  readonly terminating: boolean | undefined;
  readonly forZones?: readonly string[];
  readonly forNodes?: readonly string[];
}

export interface ModelSlice {
  readonly name: string;
  readonly service: string;
  readonly family: IPFamily;
  readonly ports: readonly Pick<ModelPort, "name" | "protocol" | "port">[];
  readonly endpoints: readonly ModelEndpoint[];
}

export interface ModelNode {
  readonly name: string;
  readonly zone: string;
  /** What node ports answer on and what counts in source ranges. */
  readonly ips: readonly string[];
  /** All addresses of its interfaces. */
  readonly addresses: readonly string[];
  /** It is the only one, and clients from outside keep their addresses where they can. */
  readonly keepsSource?: boolean;
}

export interface ModelCluster {
  readonly services: ReadonlyMap<string, ModelService>;
  readonly slices: ReadonlyMap<string, ModelSlice>;
}

export function modelService(
  fields: Partial<ModelService> & { readonly name: string },
): ModelService {
  return {
    created: 1,
    type: "ClusterIP",
    clusterIPs: {},
    externalIPs: [],
    ingress: [],
    sourceRanges: [],
    internalLocal: false,
    externalLocal: false,
    affinitySeconds: 0,
    ports: [{ name: "p", protocol: "tcp", port: 80, nodePort: 0 }],
    ...fields,
  };
}

/** The Service as the API server has it. */
export function serviceObject(service: ModelService): unknown {
  const clusterIPs = Object.values(service.clusterIPs);
  return {
    metadata: {
      namespace: "ns",
      name: service.name,
      creationTimestamp: new Date(service.created * 1000).toISOString().replace(".000", ""),
    },
    spec: {
      type: service.type,
      clusterIP: clusterIPs[0],
      clusterIPs,
      ipFamilies: Object.keys(service.clusterIPs),
      externalIPs: service.externalIPs,
      loadBalancerSourceRanges: service.sourceRanges,
      internalTrafficPolicy: service.internalLocal ? "Local" : "Cluster",
      externalTrafficPolicy: service.externalLocal ? "Local" : "Cluster",
      ...(service.affinitySeconds === 0
        ? { sessionAffinity: "None" }
        : {
            sessionAffinity: "ClientIP",
            sessionAffinityConfig: { clientIP: { timeoutSeconds: service.affinitySeconds } },
          }),
      ports: service.ports.map(({ name, protocol, port, nodePort }) => ({
        name,
        port,
        protocol: protocol.toUpperCase(),
        ...(nodePort === 0 ? {} : { nodePort }),
      })),
    },
    status: {
      loadBalancer: {
        ingress: service.ingress.map(({ ip, mode }) => ({
          ip,
          ...(mode === undefined ? {} : { ipMode: mode }),
        })),
      },
    },
  };
}

/** The EndpointSlice as the API server has it. */
export function sliceObject(slice: ModelSlice): unknown {
  const named = (names: readonly string[]): unknown => names.map((name) => ({ name }));
  return {
    metadata: {
      namespace: "ns",
      name: slice.name,
      labels: { "kubernetes.io/service-name": slice.service },
    },
    addressType: slice.family,
    ports: slice.ports.map(({ name, protocol, port }) => ({
      name,
      port,
      protocol: protocol.toUpperCase(),
    })),
    endpoints: slice.endpoints.map((endpoint) => ({
      addresses: [endpoint.ip],
      nodeName: endpoint.node,
      conditions: {
        ready: endpoint.ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
      },
      hints: {
        ...(endpoint.forZones === undefined ? {} : { forZones: named(endpoint.forZones) }),
        ...(endpoint.forNodes === undefined ? {} : { forNodes: named(endpoint.forNodes) }),
      },
    })),
  };
}

import type { IPFamily } from "../lib/cidr.ts";

/** Transport of a Service port, as packet rules spell it. */
export type Protocol = "tcp" | "udp" | "sctp";

/** One port of one Service in one IP family: the unit that everything here works on. */
export interface ServicePort {
  /** `namespace/name:port/protocol`, unique within the family. */
  readonly key: string;
  /** `namespace/name`. */
  readonly service: string;
  readonly portName: string;
  readonly family: IPFamily;
  readonly protocol: Protocol;
  readonly clusterIP: string;
  readonly port: number;
  /** 0 = none. */
  readonly nodePort: number;
  readonly externalIPs: readonly string[];
  readonly loadBalancerIPs: readonly string[];
  /** Who may use the load balancer addresses; empty = everybody. */
  readonly sourceRanges: readonly string[];
  /** internalTrafficPolicy Local. */
  readonly internalLocal: boolean;
  /** externalTrafficPolicy Local. */
  readonly externalLocal: boolean;
  /** Session affinity by client address, in seconds; 0 = none. */
  readonly affinitySeconds: number;
  /** Of two Services that claim one address and port, the lower rank has it: the older one, then by name. */
  readonly rank: string;
}

/** One backend address of a Service port, from EndpointSlices. */
export interface Endpoint {
  readonly ip: string;
  readonly port: number;
  /** On this node. */
  readonly local: boolean;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  /** Topology hints (KEP-2433, KEP-4444); undefined when the controller gave none. */
  readonly forZones: readonly string[] | undefined;
  readonly forNodes: readonly string[] | undefined;
}

/** What the proxy knows about the machine it runs on. */
export interface NodeView {
  readonly name: string;
  /** Label topology.kubernetes.io/zone; empty when unknown. */
  readonly zone: string;
  readonly ips: readonly string[];
  /**
   * External traffic keeps its source address where all endpoints that it may go to are on this node: their answers
   * come back this way without a new one.
   */
  readonly keepsSource?: boolean;
}

/** Address and port that packets are sent to. */
export interface Backend {
  readonly ip: string;
  readonly port: number;
}

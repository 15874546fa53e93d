import type { IPFamily } from "../../lib/cidr.ts";
import type { ProxyMode, RulesContext } from "../backend.ts";
import type { Verdict } from "../plan.ts";
import type { Protocol } from "../types.ts";

/** The node that a Service is looked at from. */
export interface Viewpoint {
  readonly nodeName: string;
  readonly nodeIPs: readonly string[];
  /** Label topology.kubernetes.io/zone; undefined when it could not be read. */
  readonly zone: string | undefined;
  /** See `NodeView.keepsSource`. */
  readonly keepsSource?: boolean;
}

/** What a running agent says its rules depend on. */
export interface AgentFacts {
  readonly nodeName: string;
  readonly nodeIPs: readonly string[];
  /** File of the identity that the proxy has towards the API server; empty when that is not known. */
  readonly kubeconfig: string;
  readonly mode: ProxyMode;
  /** nftables table. */
  readonly table: string;
  /** `spec.externalIPs` of Services count (gate AllowServiceExternalIPs). */
  readonly externalIPs: boolean;
  /** External traffic keeps its source where all endpoints are on this node; left out = it does not. */
  readonly keepsSource?: boolean;
  readonly families: readonly RulesContext[];
}

export type AddressKind = "ClusterIP" | "ExternalIP" | "LoadBalancer" | "NodePort";

/** One address of a Service port, and where new flows to it go. */
export interface AddressExplanation {
  readonly kind: AddressKind;
  /** Empty for a node port: the addresses that node ports answer on. */
  readonly ip: string;
  readonly port: number;
  readonly verdict: Verdict;
  /** The verdict in words. */
  readonly goesTo: string;
  /** Who may ask; empty = everybody. */
  readonly sourceRanges: readonly string[];
  /** Other Service ports that want this address and port, `namespace/name:port/protocol`. */
  readonly claimedBy: readonly string[];
  /** One of them has it, because its Service is older. */
  readonly lostTo: string | undefined;
}

/** One endpoint of one slice, and whether it gets new flows. */
export interface EndpointExplanation {
  readonly slice: string;
  /** `address:port`; what the slice says where that is no address. */
  readonly address: string;
  /** Empty when the slice does not say. */
  readonly node: string;
  /** What the slice says it is, `Pod web-1`; empty when it does not. */
  readonly target: string;
  /** It gets flows to the ClusterIP. */
  readonly internal: boolean;
  /** It gets flows to the other addresses; `near` = those of pods and of the node alone. */
  readonly external: boolean | "near";
  /** On this node, so it may be asked by itself; then the flow gets a new source address. */
  readonly hairpin: boolean;
  readonly why: string;
}

/** One port of the Service in one family. */
export interface PortExplanation {
  readonly key: string;
  readonly family: IPFamily;
  readonly name: string;
  readonly protocol: Protocol;
  readonly addresses: readonly AddressExplanation[];
  readonly endpoints: readonly EndpointExplanation[];
  /** Seconds that a client stays with its endpoint; 0 = each flow may go elsewhere. */
  readonly affinitySeconds: number;
}

/** A Service seen from one node. */
export interface ServiceExplanation {
  readonly service: string;
  readonly type: string;
  readonly node: Viewpoint;
  /** Why this proxy has no rules for it; undefined when it should have some. */
  readonly notServed: string | undefined;
  readonly internalTrafficPolicy: string;
  readonly externalTrafficPolicy: string;
  /** 0 = none. */
  readonly healthCheckNodePort: number;
  /** Ready endpoints on this node, which the health check port counts. */
  readonly localReady: Partial<Record<IPFamily, number>>;
  readonly ports: readonly PortExplanation[];
  /** Parts of the Service or its slices that have no rules, each with the reason. */
  readonly remarks: readonly string[];
}

import type {
  EndpointSlice,
  LoadBalancerIngress,
  Service,
  ServiceSpec,
} from "../../../src/api/types.gen.ts";
import { type Addresses, type PodName } from "./addresses.ts";

/** Ports of Services here, by their one-letter names. */
const portKinds = {
  t: { port: 80, protocol: "TCP", targetPort: 8080 },
  u: { port: 80, protocol: "UDP", targetPort: 8080 },
  /** The conversations. */
  e: { port: 7, protocol: "TCP", targetPort: 7070 },
  /** What counts datagrams. */
  s: { port: 9, protocol: "UDP", targetPort: 9090 },
  /** A second TCP port with the same server. */
  x: { port: 81, protocol: "TCP", targetPort: 8080 },
  /** SCTP on the port number of the first two. */
  i: { port: 80, protocol: "SCTP", targetPort: 8080 },
} as const;

export type PortName = keyof typeof portKinds;

/** One endpoint: a pod that is ready, or with what is said of it. */
export type Target =
  | PodName
  | {
      readonly pod: PodName;
      /** It is said to be on another node. */
      readonly elsewhere?: boolean;
      readonly ready?: boolean;
      readonly serving?: boolean;
      readonly terminating?: boolean;
      readonly zone?: string;
      readonly node?: string;
    };

export interface ServiceDraft {
  readonly clusterIP: string;
  readonly ports?: readonly PortName[];
  readonly nodePorts?: Readonly<Partial<Record<PortName, number>>>;
  readonly spec?: ServiceSpec;
  readonly ingress?: readonly LoadBalancerIngress[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly createdAt?: string;
  /** More of it, for Services of two families. */
  readonly clusterIPs?: readonly string[];
  /** The port number instead of each kind's own. */
  readonly port?: number;
}

export function serviceObject(name: string, { family }: Addresses, draft: ServiceDraft): Service {
  const { clusterIP, clusterIPs = [clusterIP], ports = ["t", "u"], nodePorts = {} } = draft;
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: {
      name,
      namespace: "default",
      labels: { ...draft.labels },
      ...(draft.createdAt === undefined ? {} : { creationTimestamp: draft.createdAt }),
    },
    spec: {
      clusterIP,
      clusterIPs: [...clusterIPs],
      ipFamilies: clusterIPs.length > 1 ? ["IPv4", "IPv6"] : [family],
      ports: ports.map((kind) => {
        const { port, protocol } = portKinds[kind];
        const nodePort = nodePorts[kind];
        return {
          name: kind,
          port: draft.port ?? port,
          protocol,
          ...(nodePort === undefined ? {} : { nodePort }),
        };
      }),
      ...draft.spec,
    },
    ...(draft.ingress === undefined
      ? {}
      : { status: { loadBalancer: { ingress: [...draft.ingress] } } }),
  };
}

export interface SliceDraft {
  readonly targets: readonly Target[];
  readonly ports?: readonly PortName[];
  /** Port of the servers instead of each kind's own. */
  readonly targetPort?: number;
  readonly labels?: Readonly<Record<string, string>>;
  /** When there is more than one slice. */
  readonly part?: string;
}

export function sliceObject(
  service: string,
  addresses: Addresses,
  { targets, ports = ["t", "u"], targetPort, labels, part = "0" }: SliceDraft,
): EndpointSlice {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `${service}-${addresses.suffix}-${part}`,
      namespace: "default",
      labels: { "kubernetes.io/service-name": service, ...labels },
    },
    addressType: addresses.family,
    ports: ports.map((kind) => ({
      name: kind,
      port: targetPort ?? portKinds[kind].targetPort,
      protocol: portKinds[kind].protocol,
    })),
    endpoints: targets.map((target) => {
      const said = typeof target === "string" ? { pod: target } : target;
      const { pod, elsewhere, terminating = false, zone, node } = said;
      const ready = said.ready ?? !terminating;
      return {
        addresses: [addresses.pods[pod]],
        nodeName: elsewhere === true || pod === "remote" ? "other" : "here",
        conditions: { ready, serving: said.serving ?? (ready || terminating), terminating },
        ...(zone === undefined && node === undefined
          ? {}
          : {
              hints: {
                ...(zone === undefined ? {} : { forZones: [{ name: zone }] }),
                ...(node === undefined ? {} : { forNodes: [{ name: node }] }),
              },
            }),
      };
    }),
  };
}

/** The port that clients of a port's kind use. */
export function portOf(kind: PortName): number {
  return portKinds[kind].port;
}

// The Services that the Service proxy's benchmarks serve: objects as an API server sends them, always the same ones.
import type { EndpointSlice, Service } from "../../src/api/types.gen.ts";

/** Pods of one Service in a hundred run on the node that is measured, as in a cluster of a hundred nodes. */
const nodes = 100;
export const nodeName = "node-0";

export const clusterCIDR = "10.128.0.0/9";
export const portNumber = 80;
export const targetPort = 8080;

const createdAt = "2026-01-01T00:00:00Z";

function uid(kind: number, index: number): string {
  const hex = index.toString(16).padStart(12, "0");
  return `6f1c2d3e-${kind.toString(16).padStart(4, "0")}-4a5b-8c6d-${hex}`;
}

function quad(first: number, second: number, number: number): string {
  return `${first}.${second + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`;
}

/** Virtual address of the Service `index`, in 172.16.0.0/14. */
export function virtualIP(index: number): string {
  return quad(172, 16, index + 1);
}

/** Address of pod `which` of Service `index` after `moves` replacements. */
export function podIP(index: number, which: number, moves = 0): string {
  return quad(10, 128, (index * 2 + which + moves * 200_000) % 0x7f_0000);
}

export function serviceName(index: number): string {
  return `service-${index}`;
}

export function service(name: string, clusterIP: string, index: number): Service {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: {
      name,
      namespace: `team-${index % 50}`,
      uid: uid(1, index),
      resourceVersion: String(100 + index),
      creationTimestamp: createdAt,
      labels: { app: name },
    },
    spec: {
      type: "ClusterIP",
      clusterIP,
      clusterIPs: [clusterIP],
      ipFamilies: ["IPv4"],
      ipFamilyPolicy: "SingleStack",
      internalTrafficPolicy: "Cluster",
      sessionAffinity: "None",
      selector: { app: name },
      ports: [{ name: "http", port: portNumber, protocol: "TCP", targetPort }],
    },
    status: { loadBalancer: {} },
  };
}

export function slice(name: string, ips: readonly string[], index: number): EndpointSlice {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `${name}-x7k2p`,
      namespace: `team-${index % 50}`,
      uid: uid(2, index),
      resourceVersion: String(200 + index),
      creationTimestamp: createdAt,
      labels: {
        "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
      },
    },
    addressType: "IPv4",
    ports: [{ name: "http", port: targetPort, protocol: "TCP" }],
    endpoints: ips.map((ip, which) => ({
      addresses: [ip],
      nodeName: `node-${(index + which * 7) % nodes}`,
      zone: "zone-a",
      targetRef: { kind: "Pod", name: `${name}-pod-${which}`, namespace: `team-${index % 50}` },
      conditions: { ready: true, serving: true, terminating: false },
    })),
  };
}

/** Service `index` and its only slice. */
export function numbered(
  index: number,
  endpoints: number,
  moves = 0,
): { readonly service: Service; readonly slice: EndpointSlice } {
  const name = serviceName(index);
  const ips = Array.from({ length: endpoints }, (_, which) => podIP(index, which, moves));
  return { service: service(name, virtualIP(index), index), slice: slice(name, ips, index) };
}

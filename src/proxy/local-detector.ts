import type { ProxySettings } from "../config/types.ts";
import { formatCidr, type IPFamily, parseCidr } from "../lib/cidr.ts";
import type { LocalDetector } from "./backend.ts";

/** Networks that may tell pods. */
export interface DetectorNetworks {
  /** Of all pods of the cluster (`clusterCIDR`). */
  readonly clusterCIDRs: readonly string[];
  /** Of this node's pods (`spec.podCIDRs` of its Node). */
  readonly podCIDRs: readonly string[];
}

/** The first network of a family is the one that counts, as in kube-proxy. */
function byNetwork(cidrs: readonly string[], family: IPFamily): LocalDetector {
  const first = cidrs.map((text) => parseCidr(text)).find((cidr) => cidr.family === family);
  return first === undefined ? { kind: "none" } : { kind: "cidrs", cidrs: [formatCidr(first)] };
}

/** How pods are told from everybody else in one family. Without a network of the family nobody counts as a pod. */
export function localDetector(
  settings: Pick<ProxySettings, "detectLocalMode" | "bridgeInterface" | "interfaceNamePrefix">,
  family: IPFamily,
  { clusterCIDRs, podCIDRs }: DetectorNetworks,
): LocalDetector {
  switch (settings.detectLocalMode) {
    case "ClusterCIDR":
      return byNetwork(clusterCIDRs, family);
    case "NodeCIDR":
      return byNetwork(podCIDRs, family);
    case "BridgeInterface":
      return { kind: "interface", name: settings.bridgeInterface };
    case "InterfaceNamePrefix":
      return { kind: "interface-prefix", prefix: settings.interfaceNamePrefix };
  }
}

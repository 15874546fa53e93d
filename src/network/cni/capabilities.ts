import type { JsonRecord } from "../../lib/guard.ts";
import type { SandboxNetworkConfig } from "../types.ts";
import { hasCapability, type NetworkList } from "./config.ts";

/** A burst that limits nothing. */
const noBurst = 4_294_967_295;

function portMappings({ hostPorts }: SandboxNetworkConfig): readonly JsonRecord[] {
  return hostPorts.map(({ containerPort, hostIP, hostPort, protocol }) => ({
    hostPort,
    containerPort,
    protocol: protocol.toLowerCase(),
    ...(hostIP === "" ? {} : { hostIP }),
  }));
}

function bandwidth({ pod }: SandboxNetworkConfig): JsonRecord | undefined {
  const { egressBits, ingressBits } = pod?.bandwidth ?? {};
  if (egressBits === undefined && ingressBits === undefined) return undefined;
  return {
    ...(ingressBits === undefined ? {} : { ingressRate: ingressBits, ingressBurst: noBurst }),
    ...(egressBits === undefined ? {} : { egressRate: egressBits, egressBurst: noBurst }),
  };
}

/**
 * What plug-ins of the network ask for, of everything they may be given; by the names of CNI's conventions.
 *
 * @param podCIDRs Of the node, if it has any.
 */
export function capabilityArgs(
  list: NetworkList,
  config: SandboxNetworkConfig,
  podCIDRs: readonly string[],
): Readonly<JsonRecord> {
  const offers = Object.entries(everything(config, podCIDRs));
  return Object.fromEntries(offers.filter(([name]) => hasCapability(list, name)));
}

function everything(
  config: SandboxNetworkConfig,
  podCIDRs: readonly string[],
): Readonly<JsonRecord> {
  const { hostPorts, pod } = config;
  const shaped = bandwidth(config);
  return {
    ...(hostPorts.length === 0 ? {} : { portMappings: portMappings(config) }),
    ...(shaped === undefined ? {} : { bandwidth: shaped }),
    ...(pod?.dns === undefined ? {} : { dns: pod.dns }),
    ...(podCIDRs.length === 0 ? {} : { ipRanges: podCIDRs.map((subnet) => [{ subnet }]) }),
    ...(pod === undefined ? {} : { "io.kubernetes.cri.pod-annotations": pod.annotations }),
  };
}

/** `CNI_ARGS` as the runtimes of Kubernetes give it. */
export function cniArgs(config: SandboxNetworkConfig): readonly (readonly [string, string])[] {
  const [namespace = "", name = ""] = config.podKey.split("/");
  return [
    ["IgnoreUnknown", "1"],
    ["K8S_POD_NAMESPACE", namespace],
    ["K8S_POD_NAME", name],
    ["K8S_POD_INFRA_CONTAINER_ID", config.sandboxID],
    ["K8S_POD_UID", config.podUID],
  ];
}

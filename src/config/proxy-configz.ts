import { isIPv6 } from "node:net";

import { isRecord, type JsonRecord } from "../lib/guard.ts";
import { decodeShape, encodeShape } from "./decode.ts";
import { type KubeProxyConfiguration, proxyApiVersion, proxyShape } from "./proxy-configuration.ts";
import type { AgentConfig } from "./types.ts";

/** As a field of the configuration says where to listen; empty: nowhere. */
function listening(address: string, port: number): string {
  if (port === 0) return "";
  return isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`;
}

/** What the agent knows better than the configuration it was started with. */
function running(config: AgentConfig, said: KubeProxyConfiguration): KubeProxyConfiguration {
  const { proxyHealthzAddress = config.bindAddress, proxyMetricsAddress = "127.0.0.1" } = config;
  return {
    ...said,
    clientConnection: { ...said.clientConnection, kubeconfig: config.proxyKubeconfig },
    hostnameOverride: config.nodeName,
    healthzBindAddress: listening(proxyHealthzAddress, config.proxyHealthzPort),
    metricsBindAddress: listening(proxyMetricsAddress, config.proxyMetricsPort),
    clusterCIDR: config.clusterCIDRs.join(","),
  };
}

/** What runs now as a KubeProxyConfiguration, for kube-proxy's /configz: all fields, also those with defaults. */
export function kubeProxyConfiguration(config: AgentConfig): JsonRecord {
  const defaults = (): KubeProxyConfiguration =>
    decodeShape("KubeProxyConfiguration", proxyShape, undefined).value;
  const json = encodeShape(proxyShape, running(config, config.kubeProxy ?? defaults()));
  return {
    kind: "KubeProxyConfiguration",
    apiVersion: proxyApiVersion,
    ...(isRecord(json) ? json : {}),
  };
}

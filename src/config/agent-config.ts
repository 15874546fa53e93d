import { ipFamily, parseCidr } from "../lib/cidr.ts";
import { SetupError } from "../lib/errors.ts";
import type { AgentConfig, ProxySettings } from "./types.ts";

/** What the proxy does when nobody says anything: conntrack is the machine's own affair then. */
export const proxyDefaults: ProxySettings = {
  mode: "",
  masqueradeBit: 14,
  masqueradeAll: false,
  localhostNodePorts: true,
  syncPeriodMs: 30_000,
  minSyncPeriodMs: 0,
  nodePortAddresses: [],
  detectLocalMode: "ClusterCIDR",
  bridgeInterface: "",
  interfaceNamePrefix: "",
  bindAddress: "0.0.0.0",
  bindAddressHardFail: false,
  externalIPs: true,
  conntrack: {
    maxPerCore: 0,
    min: 0,
    tcpEstablishedTimeoutMs: 0,
    tcpCloseWaitTimeoutMs: 0,
    tcpBeLiberal: false,
    udpTimeoutMs: 0,
    udpStreamTimeoutMs: 0,
  },
};

/** Defaults are the kubelet's and kube-proxy's (KubeletConfiguration v1beta1, KubeProxyConfiguration v1alpha1). */
export const agentDefaults: Omit<AgentConfig, "nodeName" | "kubeconfig" | "proxyKubeconfig"> = {
  nodeIPs: [],
  nodeLabels: {},
  registerWithTaints: [],
  rootDir: "/var/lib/kubelet",
  podLogsDir: "/var/log/pods",
  containerLogsDir: "/var/log/containers",
  dockerSocket: "/var/run/docker.sock",
  bindAddress: "0.0.0.0",
  kubeletPort: 10_250,
  kubeletHealthzPort: 10_248,
  proxyHealthzPort: 10_256,
  proxyMetricsPort: 10_249,
  clientCAFile: "",
  tlsCertFile: "",
  tlsPrivateKeyFile: "",
  podCIDRs: [],
  clusterCIDRs: [],
  clusterDNS: [],
  clusterDomain: "cluster.local",
  dns: "auto",
  podNetwork: "auto",
  cniConfDir: "/etc/cni/net.d",
  cniBinDirs: ["/opt/cni/bin", "/usr/lib/cni"],
  resolvConf: "/etc/resolv.conf",
  maxPods: 110,
  podPidsLimit: -1,
  cgroupRoot: "/",
  cgroupsPerQOS: true,
  containerLogMaxBytes: 10 * 1024 * 1024,
  containerLogMaxFiles: 5,
  imagePullProgressDeadlineMs: 60_000,
  serializeImagePulls: true,
  nodeStatusUpdateFrequencyMs: 10_000,
  nodeStatusReportFrequencyMs: 300_000,
  nodeLeaseDurationSeconds: 40,
  nodeStatusMaxImages: 50,
  kubeReserved: {},
  systemReserved: {},
  evictionHard: {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "15%",
    "imagefs.inodesFree": "5%",
  },
  allowedUnsafeSysctls: [],
  enableDebuggingHandlers: true,
  proxy: proxyDefaults,
};

/** What a caller has to decide, and what it may. */
export type AgentConfigInput = Pick<AgentConfig, "nodeName" | "kubeconfig" | "proxyKubeconfig"> &
  Partial<AgentConfig>;

const dnsSubdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

function refuse(field: string, value: unknown, remedy: string): never {
  throw new SetupError(`configuration: ${field}: ${JSON.stringify(value)} ${remedy}`);
}

function checkPorts(config: AgentConfig): void {
  const ports = [
    "kubeletPort",
    "kubeletHealthzPort",
    "proxyHealthzPort",
    "proxyMetricsPort",
  ] as const;
  const taken = new Map<number, string>();
  for (const field of ports) {
    const port = config[field];
    if (!Number.isInteger(port) || port < 0 || port > 65_535) {
      refuse(field, port, "is not a port number between 0 and 65535");
    }
    const other = taken.get(port);
    if (port !== 0 && other !== undefined)
      refuse(field, port, `is also ${other}; give each its own port`);
    taken.set(port, field);
  }
}

function checkNetworks(config: AgentConfig): void {
  for (const ip of config.nodeIPs) {
    if (ipFamily(ip) === undefined) refuse("nodeIPs", ip, "is not an IP address");
  }
  if (config.nodeIPs.length > 2)
    refuse("nodeIPs", config.nodeIPs, "has more than one address of a family");
  for (const ip of config.clusterDNS) {
    if (ipFamily(ip) === undefined) refuse("clusterDNS", ip, "is not an IP address");
  }
  for (const cidr of config.podCIDRs) parseCidr(cidr, "podCIDRs");
  for (const cidr of config.clusterCIDRs) parseCidr(cidr, "clusterCIDRs");
}

/** Frozen to its depths: the same object is in many hands. */
function frozen<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  for (const member of Object.values(value)) frozen(member);
  return Object.freeze(value);
}

/**
 * Fills the defaults in, checks everything once and freezes the result.
 *
 * @throws {SetupError} naming the field and what to do about it; {@link ParseError} for a malformed network.
 */
export function agentConfig(input: AgentConfigInput): AgentConfig {
  const config: AgentConfig = { ...agentDefaults, ...input };
  if (config.nodeName.length > 253 || !dnsSubdomain.test(config.nodeName)) {
    refuse("nodeName", config.nodeName, "is not a DNS subdomain name; set --hostname-override");
  }
  for (const field of ["rootDir", "podLogsDir", "containerLogsDir", "dockerSocket"] as const) {
    if (!config[field].startsWith("/")) refuse(field, config[field], "is not an absolute path");
  }
  if (!Number.isInteger(config.maxPods) || config.maxPods < 1) {
    refuse("maxPods", config.maxPods, "must be a positive integer");
  }
  const { imageCredentialProviderBinDir = "", imageCredentialProviderConfig = "" } = config;
  if ((imageCredentialProviderConfig === "") !== (imageCredentialProviderBinDir === "")) {
    refuse(
      "imageCredentialProviderConfig",
      imageCredentialProviderConfig,
      "and imageCredentialProviderBinDir must be given together",
    );
  }
  const { maxContainerRestartPeriodMs: period = 300_000 } = config;
  if (!(period >= 1000 && period <= 300_000)) {
    refuse("maxContainerRestartPeriodMs", period, "must be between 1000 (1s) and 300000 (300s)");
  }
  if (!config.cgroupRoot.startsWith("/"))
    refuse("cgroupRoot", config.cgroupRoot, "must start with /");
  if ((config.tlsCertFile === "") !== (config.tlsPrivateKeyFile === "")) {
    refuse("tlsCertFile", config.tlsCertFile, "and tlsPrivateKeyFile must be given together");
  }
  checkPorts(config);
  checkNetworks(config);
  return frozen(config);
}

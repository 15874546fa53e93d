import { parseQuantity, value as wholeUnits } from "../api/quantity.ts";
import { agentDefaults } from "./agent-config.ts";
import type { Configuration } from "./configuration.ts";
import { gateEnabled } from "./feature-gates.ts";
import { flagTexts } from "./flag-texts.ts";
import { proxySettings } from "./proxy-members.ts";
import type { AgentConfig, ProxySettings } from "./types.ts";
import { hostPort } from "./validate-proxy.ts";

type Optional<T> = { readonly [K in keyof T]?: T[K] | undefined };

/** Without the members that say nothing. */
function present<T extends object>(members: Optional<T>): Partial<T> {
  const said = Object.entries(members).filter(([, member]) => member !== undefined);
  return Object.fromEntries(said) as Partial<T>;
}

/** `value` unless it is empty, which means that nobody said it. */
function some<T extends { readonly length: number }>(value: T): T | undefined {
  return value.length === 0 ? undefined : value;
}

/** Whether anything but a default stands there. */
export function isSet(
  { settings }: Pick<Configuration, "settings">,
  kind: keyof Configuration["settings"],
  path: string,
): boolean {
  return settings[kind].get(path)?.origin !== undefined;
}

/** Docker's socket. A CRI socket that kubeadm wrote belongs to another engine than ours. */
export function dockerSocketOf({ kubelet, remora }: Configuration): string {
  if (remora.dockerSocket !== "") return remora.dockerSocket;
  const path = kubelet.containerRuntimeEndpoint.replace(/^unix:\/\//, "");
  return isCRISocket(path) ? agentDefaults.dockerSocket : path;
}

/** Whether kubeadm's usual engines listen there. */
export function isCRISocket(endpoint: string): boolean {
  return /(containerd|crio|cri-dockerd|cri-docker|dockershim)\.sock$/.test(endpoint);
}

/** The thresholds that count: the given ones replace the defaults, unless they are to be merged. */
function evictionHard({ kubelet }: Configuration): Readonly<Record<string, string>> {
  if (kubelet.evictionHard === undefined) return agentDefaults.evictionHard;
  if (!kubelet.mergeDefaultEvictionSettings) return kubelet.evictionHard;
  return { ...agentDefaults.evictionHard, ...kubelet.evictionHard };
}

function maxPods({ kubelet }: Configuration, cores: number): number {
  const { podsPerCore } = kubelet;
  return podsPerCore === 0 ? kubelet.maxPods : Math.min(kubelet.maxPods, podsPerCore * cores);
}

function serverMembers(configuration: Configuration): Partial<AgentConfig> {
  const { kubelet, remora, proxy } = configuration;
  const { authentication, authorization, tlsMinVersion } = kubelet;
  const health = hostPort(proxy.healthzBindAddress);
  const metrics = hostPort(proxy.metricsBindAddress);
  const given = (path: string): boolean => isSet(configuration, "KubeletConfiguration", path);
  return present<AgentConfig>({
    // Who chooses an address opens it: `up` tells apart whether somebody did.
    bindAddress: given("address") ? kubelet.address : undefined,
    kubeletPort: kubelet.port,
    kubeletHealthzPort: kubelet.healthzPort,
    kubeletHealthzAddress: kubelet.healthzBindAddress,
    proxyHealthzPort: health?.port ?? 0,
    proxyHealthzAddress: isSet(configuration, "KubeProxyConfiguration", "healthzBindAddress")
      ? health?.host
      : undefined,
    proxyMetricsPort: metrics?.port ?? 0,
    proxyMetricsAddress: metrics?.host,
    clientCAFile: authentication.x509.clientCAFile,
    tlsCertFile: kubelet.tlsCertFile,
    tlsPrivateKeyFile: kubelet.tlsPrivateKeyFile,
    tlsMinVersion: tlsMinVersion === "VersionTLS13" ? "VersionTLS13" : "VersionTLS12",
    tlsCipherSuites: kubelet.tlsCipherSuites,
    tlsCurvePreferences: kubelet.tlsCurvePreferences,
    authentication: {
      anonymousEnabled: authentication.anonymous.enabled,
      webhookEnabled: authentication.webhook.enabled,
      webhookCacheTTLMs: authentication.webhook.cacheTTL,
    },
    authorization: {
      mode: authorization.mode,
      cacheAuthorizedTTLMs: authorization.webhook.cacheAuthorizedTTL,
      cacheUnauthorizedTTLMs: authorization.webhook.cacheUnauthorizedTTL,
    },
    // An empty list is one too: nobody but this machine.
    kubeletPeerCIDRs: isSet(configuration, "RemoraConfiguration", "kubeletPeerCIDRs")
      ? remora.kubeletPeerCIDRs
      : undefined,
    serverTLSBootstrap: given("serverTLSBootstrap") ? kubelet.serverTLSBootstrap : undefined,
    rotateCertificates: given("rotateCertificates") ? kubelet.rotateCertificates : undefined,
    certDir: some(remora.certDir),
    bootstrapKubeconfig: some(remora.bootstrapKubeconfig),
    enableDebuggingHandlers: kubelet.enableDebuggingHandlers,
    enableProfilingHandler: kubelet.enableProfilingHandler,
    enableSystemLogHandler: kubelet.enableSystemLogHandler,
    enableSystemLogQuery: kubelet.enableSystemLogQuery,
  });
}

function imageMembers({ kubelet, remora }: Configuration): Partial<AgentConfig> {
  return present<AgentConfig>({
    imagePullProgressDeadlineMs: remora.imagePullProgressDeadline,
    serializeImagePulls: kubelet.serializeImagePulls,
    maxParallelImagePulls: kubelet.maxParallelImagePulls,
    registryPullQPS: kubelet.registryPullQPS,
    registryBurst: kubelet.registryBurst,
    imagePullCredentialsVerificationPolicy: kubelet.imagePullCredentialsVerificationPolicy,
    preloadedImagesVerificationAllowlist: some(kubelet.preloadedImagesVerificationAllowlist),
    imageGCHighThresholdPercent: kubelet.imageGCHighThresholdPercent,
    imageGCLowThresholdPercent: kubelet.imageGCLowThresholdPercent,
    imageMinimumGCAgeMs: kubelet.imageMinimumGCAge,
    imageMaximumGCAgeMs: kubelet.imageMaximumGCAge,
    imageCredentialProviderConfig: some(remora.imageCredentialProviderConfig),
    imageCredentialProviderBinDir: some(remora.imageCredentialProviderBinDir),
  });
}

function nodeMembers(configuration: Configuration, cores: number): Partial<AgentConfig> {
  const { kubelet, remora, proxy } = configuration;
  return present<AgentConfig>({
    nodeIPs: some(remora.nodeIPs),
    nodeLabels: remora.nodeLabels,
    registerWithTaints: kubelet.registerWithTaints.map(({ key, value, effect }) => ({
      key,
      value,
      effect,
    })),
    providerID: some(kubelet.providerID),
    podCIDRs: kubelet.podCIDR === "" ? undefined : kubelet.podCIDR.split(","),
    clusterCIDRs: proxy.clusterCIDR === "" ? undefined : proxy.clusterCIDR.split(","),
    serviceCIDRs: some(remora.serviceCIDRs),
    clusterDNS: some(kubelet.clusterDNS),
    clusterDomain: some(kubelet.clusterDomain),
    dns: remora.dns,
    // `up` has another default.
    podNetwork: isSet(configuration, "RemoraConfiguration", "podNetwork")
      ? remora.podNetwork
      : undefined,
    cniConfDir: some(remora.cniConfDir),
    cniBinDirs: some(remora.cniBinDirs),
    resolvConf: kubelet.resolvConf,
    maxPods: maxPods(configuration, cores),
    kubeReserved: kubelet.kubeReserved,
    systemReserved: kubelet.systemReserved,
    evictionHard: evictionHard(configuration),
    evictionPressureTransitionPeriodMs: kubelet.evictionPressureTransitionPeriod,
    nodeStatusUpdateFrequencyMs: kubelet.nodeStatusUpdateFrequency,
    nodeStatusReportFrequencyMs: kubelet.nodeStatusReportFrequency,
    nodeLeaseDurationSeconds: kubelet.nodeLeaseDurationSeconds,
    nodeStatusMaxImages: kubelet.nodeStatusMaxImages,
    makeIPTablesUtilChains: kubelet.makeIPTablesUtilChains,
    eventRecordQPS: kubelet.eventRecordQPS,
    eventBurst: kubelet.eventBurst,
    volumeStatsAggPeriodMs: kubelet.volumeStatsAggPeriod,
  });
}

function podMembers(configuration: Configuration): Partial<AgentConfig> {
  const { kubelet, remora } = configuration;
  return present<AgentConfig>({
    podLogsDir: kubelet.podLogsDir,
    containerLogsDir: remora.containerLogsDir,
    podPidsLimit: kubelet.podPidsLimit,
    cgroupRoot: kubelet.cgroupRoot === "" ? agentDefaults.cgroupRoot : kubelet.cgroupRoot,
    cgroupsPerQOS: kubelet.cgroupsPerQOS,
    containerLogMaxBytes: Number(wholeUnits(parseQuantity(kubelet.containerLogMaxSize))),
    containerLogMaxFiles: kubelet.containerLogMaxFiles,
    allowedUnsafeSysctls: kubelet.allowedUnsafeSysctls,
    seccompDefault: kubelet.seccompDefault,
    maxContainerRestartPeriodMs: kubelet.crashLoopBackOff.maxContainerRestartPeriod,
    clusterTrustBundles: gateEnabled("ClusterTrustBundleProjection", kubelet.featureGates),
  });
}

/**
 * What a configuration without errors says about the agent. Members that it leaves open are absent: who starts the
 * agent knows them (addresses, certificates, what the cluster says), or they have defaults.
 *
 * @param cores Processors of this machine, for `podsPerCore`.
 */
export function agentMembers(configuration: Configuration, cores: number): Partial<AgentConfig> {
  return {
    ...serverMembers(configuration),
    ...imageMembers(configuration),
    ...nodeMembers(configuration, cores),
    ...podMembers(configuration),
    dockerSocket: dockerSocketOf(configuration),
    rootDir: configuration.remora.rootDir,
    kubelet: configuration.kubelet,
    kubeProxy: configuration.proxy,
    proxy: {
      ...proxySettings(configuration),
      ...present<ProxySettings>({ keepClientSource: configuration.remora.keepClientSource }),
    },
    flags: flagTexts(configuration),
  };
}

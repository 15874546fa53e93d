import type { AgentConfig } from "../../config/types.ts";
import type { JsonRecord } from "../../lib/guard.ts";

function seconds(ms: number): string {
  return `${ms / 1000}s`;
}

/** What runs now, in the fields of KubeletConfiguration (kubelet.config.k8s.io/v1beta1). */
export function kubeletConfiguration(config: AgentConfig): JsonRecord {
  return {
    kind: "KubeletConfiguration",
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    address: config.bindAddress,
    port: config.kubeletPort,
    healthzBindAddress: "127.0.0.1",
    healthzPort: config.kubeletHealthzPort,
    authentication: {
      x509: { clientCAFile: config.clientCAFile },
      webhook: { enabled: true, cacheTTL: "2m0s" },
      anonymous: { enabled: false },
    },
    authorization: {
      mode: "Webhook",
      webhook: { cacheAuthorizedTTL: "5m0s", cacheUnauthorizedTTL: "30s" },
    },
    tlsCertFile: config.tlsCertFile,
    tlsPrivateKeyFile: config.tlsPrivateKeyFile,
    registerWithTaints: config.registerWithTaints,
    clusterDomain: config.clusterDomain,
    clusterDNS: config.clusterDNS,
    resolvConf: config.resolvConf,
    maxPods: config.maxPods,
    podPidsLimit: config.podPidsLimit,
    podLogsDir: config.podLogsDir,
    cgroupRoot: config.cgroupRoot,
    cgroupsPerQOS: config.cgroupsPerQOS,
    containerLogMaxSize: String(config.containerLogMaxBytes),
    containerLogMaxFiles: config.containerLogMaxFiles,
    serializeImagePulls: config.serializeImagePulls,
    nodeStatusUpdateFrequency: seconds(config.nodeStatusUpdateFrequencyMs),
    nodeStatusReportFrequency: seconds(config.nodeStatusReportFrequencyMs),
    nodeLeaseDurationSeconds: config.nodeLeaseDurationSeconds,
    nodeStatusMaxImages: config.nodeStatusMaxImages,
    kubeReserved: config.kubeReserved,
    systemReserved: config.systemReserved,
    evictionHard: config.evictionHard,
    allowedUnsafeSysctls: config.allowedUnsafeSysctls,
    enableDebuggingHandlers: config.enableDebuggingHandlers,
  };
}

import type { KubeletConfiguration } from "./kubelet-configuration.ts";
import type { KubeProxyConfiguration } from "./proxy-configuration.ts";

/** Everything the agent may be told, resolved and checked once at start; frozen afterwards. */
export interface AgentConfig {
  /** Lower-case name of the Node object. */
  readonly nodeName: string;
  /** One address, or one of each family; empty = detect. */
  readonly nodeIPs: readonly string[];
  readonly nodeLabels: Readonly<Record<string, string>>;
  readonly registerWithTaints: readonly {
    readonly key: string;
    readonly value: string;
    readonly effect: string;
  }[];
  /** `spec.providerID` of a Node that is made; default none. */
  readonly providerID?: string;
  /** Kubelet root: pods/, pki/ and our own state files live below. */
  readonly rootDir: string;
  /** Where local volumes are kept that the cluster's own provisioner made; default `local-volumes` below `rootDir`. */
  readonly localVolumesDir?: string;
  /** /var/log/pods */
  readonly podLogsDir: string;
  /** /var/log/containers */
  readonly containerLogsDir: string;
  /** Identity system:node:NAME. */
  readonly kubeconfig: string;
  /** Identity that may read Services and EndpointSlices. */
  readonly proxyKubeconfig: string;
  readonly dockerSocket: string;
  /** Address the node's own servers listen on. */
  readonly bindAddress: string;
  /** 10250 */
  readonly kubeletPort: number;
  /** 10248, loopback only; 0 = off. */
  readonly kubeletHealthzPort: number;
  /** Default 127.0.0.1. */
  readonly kubeletHealthzAddress?: string;
  /** 10256 */
  readonly proxyHealthzPort: number;
  /** Default {@link bindAddress}. */
  readonly proxyHealthzAddress?: string;
  /** 10249, loopback only; 0 = off. */
  readonly proxyMetricsPort: number;
  /** Default 127.0.0.1. */
  readonly proxyMetricsAddress?: string;
  /** Signs client certificates that may use the kubelet port (clientCAFile); empty = from the kubeconfig's CA. */
  readonly clientCAFile: string;
  readonly tlsCertFile: string;
  readonly tlsPrivateKeyFile: string;
  /** Least version that port 10250 speaks; default TLS 1.2. */
  readonly tlsMinVersion?: "VersionTLS12" | "VersionTLS13";
  /** Suites of TLS 1.2 by their IANA names; empty = the default ones. Those of TLS 1.3 cannot be chosen. */
  readonly tlsCipherSuites?: readonly string[];
  /** Key exchanges by their numbers in the TLS registry (29 = X25519); empty = the default ones. */
  readonly tlsCurvePreferences?: readonly number[];
  /** KubeletConfiguration `authentication`; members left out have the defaults they name. */
  readonly authentication?: {
    /** Callers without a credential are `system:anonymous`; default false. */
    readonly anonymousEnabled?: boolean;
    /** Bearer tokens are shown to the API server; default true. */
    readonly webhookEnabled?: boolean;
    /** Milliseconds that its answer is believed; default 120 000. */
    readonly webhookCacheTTLMs?: number;
  };
  /** KubeletConfiguration `authorization`; members left out have the defaults they name. */
  readonly authorization?: {
    /** `AlwaysAllow`: whoever is somebody may do everything; default `Webhook`. */
    readonly mode?: "AlwaysAllow" | "Webhook";
    /** Milliseconds that an API server's yes is believed; default 300 000. */
    readonly cacheAuthorizedTTLMs?: number;
    /** Milliseconds that its no is believed; default 30 000. */
    readonly cacheUnauthorizedTTLMs?: number;
  };
  /**
   * Networks from which port 10250 is open, besides this machine itself; undefined = every network. Others are hung up
   * on before a byte is read.
   */
  readonly kubeletPeerCIDRs?: readonly string[];
  /** Asks the cluster for the certificate of port 10250 (signer kubernetes.io/kubelet-serving); default no. */
  readonly serverTLSBootstrap?: boolean;
  /** Renews the client certificate in time; default: yes where the node got it by token or bootstrap kubeconfig. */
  readonly rotateCertificates?: boolean;
  /** Where certificates are kept that the node makes or gets (--cert-dir); default `pki` below `rootDir`. */
  readonly certDir?: string;
  /** Kubeconfig with which the node asks for its first client certificate, and for another when that has expired. */
  readonly bootstrapKubeconfig?: string;
  /** Pod networks to use when the Node object carries none. */
  readonly podCIDRs: readonly string[];
  /** Networks of all pods of the cluster: what is not masqueraded. */
  readonly clusterCIDRs: readonly string[];
  /** Networks of ClusterIPs, where they are known without asking the server for ServiceCIDRs. */
  readonly serviceCIDRs?: readonly string[];
  readonly clusterDNS: readonly string[];
  readonly clusterDomain: string;
  /** Whether this node answers `clusterDNS` itself: when the Service of that address says so (default), always, never. */
  readonly dns?: "auto" | "local" | "off";
  /**
   * Who gives pods their network: our bridge, CNI plug-ins, or (default) plug-ins where a configuration for them is there
   * at the start or comes before the first pod got an address.
   */
  readonly podNetwork?: "auto" | "bridge" | "cni";
  /** Directory of CNI configurations; default /etc/cni/net.d. */
  readonly cniConfDir?: string;
  /** Directories of CNI plug-ins; default /opt/cni/bin and Debian's /usr/lib/cni. */
  readonly cniBinDirs?: readonly string[];
  readonly resolvConf: string;
  readonly maxPods: number;
  readonly podPidsLimit: number;
  /** Cgroup under which the kubepods tree is made; "/" for the root. */
  readonly cgroupRoot: string;
  readonly cgroupsPerQOS: boolean;
  readonly containerLogMaxBytes: number;
  readonly containerLogMaxFiles: number;
  readonly imagePullProgressDeadlineMs: number;
  readonly serializeImagePulls: boolean;
  /** How many images are pulled at a time when they are not serialized; default no limit. */
  readonly maxParallelImagePulls?: number;
  /** Pulls a second, 0 = no limit; default 5. */
  readonly registryPullQPS?: number;
  /** Pulls at once before that counts; default 10. */
  readonly registryBurst?: number;
  /** Whose pods must show credentials for images that are there already; default `NeverVerifyPreloadedImages`. */
  readonly imagePullCredentialsVerificationPolicy?:
    | "NeverVerify"
    | "NeverVerifyPreloadedImages"
    | "NeverVerifyAllowlistedImages"
    | "AlwaysVerify";
  /** For `NeverVerifyAllowlistedImages`: repositories, or `prefix/*`. */
  readonly preloadedImagesVerificationAllowlist?: readonly string[];
  /** CredentialProviderConfig: a file, or a directory of such; default none. */
  readonly imageCredentialProviderConfig?: string;
  /** Directory of the programs that it names. */
  readonly imageCredentialProviderBinDir?: string;
  /** Percent of the image disk in use from which on images are removed; 100 = never; default 85. */
  readonly imageGCHighThresholdPercent?: number;
  /** Percent down to which they are removed; default 80. */
  readonly imageGCLowThresholdPercent?: number;
  /** Milliseconds that an image is kept at least; default 120 000. */
  readonly imageMinimumGCAgeMs?: number;
  /** Milliseconds after which an unused image is removed whatever the disk says; 0 = never (default). */
  readonly imageMaximumGCAgeMs?: number;
  /** How often sizes of volumes are measured while somebody asks for them; negative = never; default 60 000. */
  readonly volumeStatsAggPeriodMs?: number;
  readonly nodeStatusUpdateFrequencyMs: number;
  readonly nodeStatusReportFrequencyMs: number;
  readonly nodeLeaseDurationSeconds: number;
  readonly nodeStatusMaxImages: number;
  readonly kubeReserved: Readonly<Record<string, string>>;
  readonly systemReserved: Readonly<Record<string, string>>;
  readonly evictionHard: Readonly<Record<string, string>>;
  /** Milliseconds that a condition of pressure stays after the pressure; default 300 000. */
  readonly evictionPressureTransitionPeriodMs?: number;
  /** Events a second in the long run, 0 = as upstream's default; default 50. */
  readonly eventRecordQPS?: number;
  /** Events at once before that counts; default 100. */
  readonly eventBurst?: number;
  readonly allowedUnsafeSysctls: readonly string[];
  /** Containers that name no seccomp profile get the runtime's own; default false. */
  readonly seccompDefault?: boolean;
  /** Longest wait between restarts of a container that keeps ending, 1 000 to 300 000; default 300 000. */
  readonly maxContainerRestartPeriodMs?: number;
  /** Projected volumes may show ClusterTrustBundles (gate ClusterTrustBundleProjection); default false. */
  readonly clusterTrustBundles?: boolean;
  readonly enableDebuggingHandlers: boolean;
  /** Makes the chains of iptables that every kubelet makes, for whom other programs look; default true. */
  readonly makeIPTablesUtilChains?: boolean;
  /** Whether /logs/ serves the files below /var/log; default true. */
  readonly enableSystemLogHandler?: boolean;
  /** Whether /logs/?query= serves the journal of services (KEP-2258); default false. */
  readonly enableSystemLogQuery?: boolean;
  /** Off: /debug/pprof says so. On, the default: it says that there are no such profiles. */
  readonly enableProfilingHandler?: boolean;
  /** Every flag of the command line with its value, nothing secret among them, for /flagz; default: none. */
  readonly flags?: Readonly<Record<string, string>>;
  /** The KubeletConfiguration that this was made of, for /configz; default: all defaults. */
  readonly kubelet?: KubeletConfiguration;
  /** The KubeProxyConfiguration that this was made of, for /configz of its port; default: all defaults. */
  readonly kubeProxy?: KubeProxyConfiguration;
  /** What KubeProxyConfiguration says about the rules of Services. */
  readonly proxy: ProxySettings;
}

/** Settings of the Service proxy; each stands for the field of KubeProxyConfiguration (v1alpha1) of its name. */
export interface ProxySettings {
  /** Empty: nftables where this machine can do it, else iptables. */
  readonly mode: "" | "nftables" | "iptables";
  /** Of the mode's own section; 0 to 31. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  /** Node ports answer on 127.0.0.0/8 (iptables, IPv4). */
  readonly localhostNodePorts: boolean;
  /** A synchronisation may be late by twice this before /healthz says so. */
  readonly syncPeriodMs: number;
  /** Least time between the end of one synchronisation and the start of the next; 0 = what the last one took decides. */
  readonly minSyncPeriodMs: number;
  /** Networks whose addresses node ports answer on, or `primary` alone; empty = the mode's default. */
  readonly nodePortAddresses: readonly string[];
  readonly detectLocalMode: "ClusterCIDR" | "NodeCIDR" | "BridgeInterface" | "InterfaceNamePrefix";
  readonly bridgeInterface: string;
  readonly interfaceNamePrefix: string;
  /** Overrides the node's own addresses when it is no wildcard. */
  readonly bindAddress: string;
  /** A taken port of the proxy's own servers ends the start; else it is tried again. */
  readonly bindAddressHardFail: boolean;
  /** Gate AllowServiceExternalIPs (KEP-5707): off = `spec.externalIPs` of Services count as empty. */
  readonly externalIPs: boolean;
  /**
   * While this is the only node, clients from outside keep their source address also under externalTrafficPolicy
   * Cluster. Left out: false, as kube-proxy does; `remora up` has its own default.
   */
  readonly keepClientSource?: boolean;
  readonly conntrack: ConntrackSettings;
}

/** KubeProxyConfiguration `conntrack`; 0 = the kernel's setting is left as it is. */
export interface ConntrackSettings {
  readonly maxPerCore: number;
  readonly min: number;
  /** Nobody said how many connections: a kernel that tracks more goes on doing so; default false. */
  readonly onlyRaiseMax?: boolean;
  readonly tcpEstablishedTimeoutMs: number;
  readonly tcpCloseWaitTimeoutMs: number;
  readonly tcpBeLiberal: boolean;
  readonly udpTimeoutMs: number;
  readonly udpStreamTimeoutMs: number;
}

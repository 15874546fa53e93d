import {
  durationType,
  int32Type,
  stringMapType,
  stringsType,
  stringType,
  wordType,
  boolType,
} from "./leaf-types.ts";
import { fixed, honoured, ignored, leaf, object, type ValueOf } from "./shape.ts";

export const remoraApiVersion = "config.remora.io/v1alpha1";

/** RemoraConfiguration: what upstream has as flags only, and what upstream does not have. */
export const remoraShape = object({
  kubeconfig: leaf(stringType, "", honoured, { flag: "kubeconfig", path: true }),
  bootstrapKubeconfig: leaf(stringType, "", honoured, { flag: "bootstrap-kubeconfig", path: true }),
  certDir: leaf(stringType, "", honoured, { flag: "cert-dir", path: true }),
  hostnameOverride: leaf(stringType, "", honoured, { flag: "hostname-override", change: "drain" }),
  nodeIPs: leaf(stringsType, [], honoured, { flag: "node-ip", change: "new pods" }),
  nodeLabels: leaf(stringMapType, {}, honoured, { flag: "node-labels" }),
  rootDir: leaf(stringType, "/var/lib/kubelet", honoured, {
    flag: "root-dir",
    path: true,
    change: "drain",
  }),
  containerLogsDir: leaf(stringType, "/var/log/containers", honoured, {
    path: true,
    change: "drain",
  }),
  dockerSocket: leaf(stringType, "", honoured, {
    flag: "docker-socket",
    path: true,
    change: "drain",
  }),
  dns: leaf(wordType("auto", "local", "off"), "auto", honoured, { flag: "dns" }),
  podNetwork: leaf(wordType("auto", "bridge", "cni"), "auto", honoured, {
    flag: "pod-network",
    change: "new pods",
  }),
  cniConfDir: leaf(stringType, "/etc/cni/net.d", honoured, { flag: "cni-conf-dir", path: true }),
  cniBinDirs: leaf(stringsType, ["/opt/cni/bin", "/usr/lib/cni"], honoured, {
    flag: "cni-bin-dir",
  }),
  serviceCIDRs: leaf(stringsType, [], honoured),
  kubeletPeerCIDRs: leaf(stringsType, undefined, honoured, { pointer: true }),
  keepClientSource: leaf(boolType, undefined, honoured, { pointer: true }),
  imagePullProgressDeadline: leaf(durationType, "1m0s", honoured, {
    flag: "image-pull-progress-deadline",
  }),
  imageCredentialProviderConfig: leaf(stringType, "", honoured, {
    flag: "image-credential-provider-config",
    path: true,
  }),
  imageCredentialProviderBinDir: leaf(stringType, "", honoured, {
    flag: "image-credential-provider-bin-dir",
    path: true,
  }),
});

export type RemoraConfiguration = ValueOf<typeof remoraShape>;

/** Flags of the kubelet and of kube-proxy that no file can say, and that mean nothing new here. */
export const flagOnlyShape = object({
  cloudProvider: leaf(stringType, "", fixed("there is no cloud provider's part in this agent"), {
    flag: "cloud-provider",
  }),
  runtimeCgroups: leaf(
    stringType,
    "",
    ignored("the service manager decides where the engine runs"),
    {
      flag: "runtime-cgroups",
    },
  ),
  podInfraContainerImage: leaf(stringType, "", ignored("the sandbox needs no image of its own"), {
    flag: "pod-infra-container-image",
  }),
  containerRuntime: leaf(stringType, "", fixed('upstream knows "remote" only', "remote"), {
    flag: "container-runtime",
  }),
  networkPlugin: leaf(stringType, "", ignored("--pod-network says who gives pods their network"), {
    flag: "network-plugin",
  }),
  lockFile: leaf(stringType, "", ignored("each state directory has a lock already"), {
    flag: "lock-file",
  }),
  exitOnLockContention: leaf(boolType, false, fixed("each state directory has a lock already"), {
    flag: "exit-on-lock-contention",
  }),
  minimumContainerTTLDuration: leaf(
    durationType,
    "0s",
    fixed("one ended container of each name is kept"),
    {
      flag: "minimum-container-ttl-duration",
    },
  ),
  maximumDeadContainersPerContainer: leaf(
    int32Type,
    1,
    fixed("one ended container of each name is kept"),
    { flag: "maximum-dead-containers-per-container", pointer: true },
  ),
  maximumDeadContainers: leaf(int32Type, -1, fixed("one ended container of each name is kept"), {
    flag: "maximum-dead-containers",
    pointer: true,
  }),
  experimentalMounterPath: leaf(stringType, "", fixed("volumes are mounted by mount(8)"), {
    flag: "experimental-mounter-path",
  }),
  experimentalAllocatableIgnoreEviction: leaf(
    boolType,
    false,
    fixed("thresholds of evictionHard are kept free; say an empty evictionHard"),
    { flag: "experimental-allocatable-ignore-eviction" },
  ),
  housekeepingInterval: leaf(
    durationType,
    "10s",
    ignored("usage is measured when it is asked for"),
    {
      flag: "housekeeping-interval",
    },
  ),
  globalHousekeepingInterval: leaf(
    durationType,
    "1m0s",
    ignored("usage is measured when it is asked for"),
    { flag: "global-housekeeping-interval" },
  ),
  maxHousekeepingInterval: leaf(
    durationType,
    "1m0s",
    ignored("usage is measured when it is asked for"),
    { flag: "max-housekeeping-interval" },
  ),
  master: leaf(stringType, "", fixed("kubeconfigs name the API server"), { flag: "master" }),
  metricsPort: leaf(int32Type, 10_249, fixed("say --metrics-bind-address"), {
    flag: "metrics-port",
    pointer: true,
  }),
  writeConfigTo: leaf(stringType, "", fixed("`remora config print-defaults` prints it"), {
    flag: "write-config-to",
  }),
  initOnly: leaf(boolType, false, fixed("the agent does all of it, and needs root for it"), {
    flag: "init-only",
  }),
  cleanup: leaf(boolType, false, fixed("`remora down` removes packet rules"), { flag: "cleanup" }),
});

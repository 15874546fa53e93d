import {
  boolType,
  durationType,
  int32Type,
  int64Type,
  stringsType,
  stringType,
  wordType,
} from "./leaf-types.ts";
import { fixed, honoured, ignored, leaf, object } from "./shape.ts";

const rotated = "the container engine rotates logs itself";

/** What pods get: images, logs, limits, volumes, networks. */
export const kubeletPodFields = {
  containerRuntimeEndpoint: leaf(stringType, "unix:///var/run/docker.sock", honoured, {
    flag: "container-runtime-endpoint",
    change: "drain",
  }),
  imageServiceEndpoint: leaf(stringType, "", fixed("the container engine has the images too"), {
    flag: "image-service-endpoint",
  }),
  runtimeRequestTimeout: leaf(
    durationType,
    "2m0s",
    ignored("each kind of call to the engine has a deadline of its own"),
    { flag: "runtime-request-timeout" },
  ),
  registryPullQPS: leaf(int32Type, 5, honoured, { flag: "registry-qps", pointer: true }),
  registryBurst: leaf(int32Type, 10, honoured, { flag: "registry-burst" }),
  serializeImagePulls: leaf(boolType, true, honoured, {
    flag: "serialize-image-pulls",
    pointer: true,
  }),
  maxParallelImagePulls: leaf(int32Type, undefined, honoured, { pointer: true }),
  imagePullCredentialsVerificationPolicy: leaf(
    wordType(
      "NeverVerify",
      "NeverVerifyPreloadedImages",
      "NeverVerifyAllowlistedImages",
      "AlwaysVerify",
    ),
    "NeverVerifyPreloadedImages",
    honoured,
  ),
  preloadedImagesVerificationAllowlist: leaf(stringsType, [], honoured),
  imageMinimumGCAge: leaf(durationType, "2m0s", honoured, { flag: "minimum-image-ttl-duration" }),
  imageMaximumGCAge: leaf(durationType, "0s", honoured),
  imageGCHighThresholdPercent: leaf(int32Type, 85, honoured, {
    flag: "image-gc-high-threshold",
    pointer: true,
  }),
  imageGCLowThresholdPercent: leaf(int32Type, 80, honoured, {
    flag: "image-gc-low-threshold",
    pointer: true,
  }),
  podLogsDir: leaf(stringType, "/var/log/pods", honoured, { path: true, change: "drain" }),
  containerLogMaxSize: leaf(stringType, "10Mi", honoured, {
    flag: "container-log-max-size",
    change: "new pods",
  }),
  containerLogMaxFiles: leaf(int32Type, 5, honoured, {
    flag: "container-log-max-files",
    pointer: true,
    change: "new pods",
  }),
  containerLogMaxWorkers: leaf(int32Type, 1, ignored(rotated), { pointer: true }),
  containerLogMonitorInterval: leaf(durationType, "10s", ignored(rotated), { pointer: true }),
  crashLoopBackOff: object({
    maxContainerRestartPeriod: leaf(durationType, "5m0s", honoured, { pointer: true }),
  }),
  podPidsLimit: leaf(int64Type, -1, honoured, {
    flag: "pod-max-pids",
    pointer: true,
    change: "new pods",
  }),
  cpuCFSQuota: leaf(boolType, true, fixed("CPU limits are always enforced"), {
    flag: "cpu-cfs-quota",
    pointer: true,
  }),
  cpuCFSQuotaPeriod: leaf(durationType, "100ms", fixed("CPU limits are enforced per 100 ms"), {
    flag: "cpu-cfs-quota-period",
    pointer: true,
  }),
  singleProcessOOMKill: leaf(
    boolType,
    undefined,
    fixed("where the kernel can (cgroup v2) a container without memory ends as a whole", false),
    { pointer: true },
  ),
  memorySwap: object({
    swapBehavior: leaf(stringType, "", fixed("containers get no swap", "NoSwap")),
  }),
  seccompDefault: leaf(boolType, false, honoured, {
    flag: "seccomp-default",
    pointer: true,
    change: "new pods",
  }),
  allowedUnsafeSysctls: leaf(stringsType, [], honoured, { flag: "allowed-unsafe-sysctls" }),
  userNamespaces: object(
    {
      idsPerPod: leaf(int64Type, undefined, ignored("pods with hostUsers: false are refused"), {
        pointer: true,
      }),
    },
    true,
  ),
  localStorageCapacityIsolation: leaf(
    boolType,
    true,
    fixed("ephemeral storage is part of what a node has"),
    { flag: "local-storage-capacity-isolation", pointer: true },
  ),
  enableControllerAttachDetach: leaf(
    boolType,
    true,
    fixed("volumes are attached by the cluster's controller"),
    { flag: "enable-controller-attach-detach", pointer: true },
  ),
  volumePluginDir: leaf(
    stringType,
    "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
    ignored("FlexVolume drivers are not run"),
    { flag: "volume-plugin-dir", path: true },
  ),
  volumeStatsAggPeriod: leaf(durationType, "1m0s", honoured, { flag: "volume-stats-agg-period" }),
  configMapAndSecretChangeDetectionStrategy: leaf(
    wordType("Get", "Cache", "Watch"),
    "Watch",
    ignored("objects that pods use are watched, whatever it says"),
  ),
  hairpinMode: leaf(
    stringType,
    "promiscuous-bridge",
    ignored("a pod reaches itself through its Service in every mode"),
    { flag: "hairpin-mode" },
  ),
  makeIPTablesUtilChains: leaf(boolType, true, honoured, {
    flag: "make-iptables-util-chains",
    pointer: true,
  }),
  iptablesMasqueradeBit: leaf(int32Type, 14, ignored("it has no meaning since Kubernetes 1.28"), {
    pointer: true,
  }),
  iptablesDropBit: leaf(int32Type, 15, ignored("it has no meaning since Kubernetes 1.28"), {
    pointer: true,
  }),
  runOnce: leaf(boolType, false, fixed("the agent serves a cluster"), { flag: "runonce" }),
};

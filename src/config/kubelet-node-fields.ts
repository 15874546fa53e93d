import { objectsType } from "./decode.ts";
import {
  boolMapType,
  boolType,
  durationType,
  floatType,
  int32Type,
  int64Type,
  stringMapType,
  stringsType,
  stringType,
  thresholdsType,
} from "./leaf-types.ts";
import type { Raw } from "./raw.ts";
import { fixed, honoured, ignored, leaf, object } from "./shape.ts";

const noEviction = "pods are not evicted for soft thresholds";
const noShutdown = "a shutdown of the machine is not delayed for pods";
const noManagers = "CPUs and memory are not assigned to single containers";

const taint = object({
  key: leaf(stringType, "", honoured),
  value: leaf(stringType, "", honoured),
  effect: leaf(stringType, "", honoured),
  timeAdded: leaf(stringType, undefined, honoured),
});

const shutdownStep = object({
  priority: leaf(int32Type, 0, honoured),
  shutdownGracePeriodSeconds: leaf(int64Type, 0, honoured),
});

const memoryReservation = object({
  numaNode: leaf(int32Type, 0, honoured),
  limits: leaf(stringMapType, {}, honoured),
});

/** `key=value:effect`, `key:effect` or `key`. */
function taintOfFlag(text: string, flag: string): Raw {
  const origin = { kind: "flag", flag } as const;
  const [head = "", effect = "", extra] = text.split(":");
  const [key = "", value = "", rest] = head.split("=");
  if (key === "" || extra !== undefined || rest !== undefined) {
    return { kind: "scalar", text, style: "flag", origin };
  }
  const scalar = (part: string): Raw => ({ kind: "scalar", text: part, style: "flag", origin });
  const entries = Object.entries({ key, value, effect }).filter(([, part]) => part !== "");
  return {
    kind: "map",
    entries: new Map(entries.map(([name, part]) => [name, scalar(part)])),
    origin,
  };
}

/** The Node object, what the machine keeps for itself, and the clients of the API server. */
export const kubeletNodeFields = {
  registerNode: leaf(boolType, true, fixed("the agent makes its own Node object"), {
    flag: "register-node",
    pointer: true,
  }),
  registerWithTaints: leaf(objectsType("list of taints", taint, taintOfFlag), [], honoured, {
    flag: "register-with-taints",
  }),
  providerID: leaf(stringType, "", honoured, { flag: "provider-id" }),
  nodeStatusUpdateFrequency: leaf(durationType, "10s", honoured, {
    flag: "node-status-update-frequency",
  }),
  nodeStatusReportFrequency: leaf(durationType, "5m0s", honoured),
  nodeLeaseDurationSeconds: leaf(int32Type, 40, honoured),
  nodeStatusMaxImages: leaf(int32Type, 50, honoured, {
    flag: "node-status-max-images",
    pointer: true,
  }),
  maxPods: leaf(int32Type, 110, honoured, { flag: "max-pods" }),
  podsPerCore: leaf(int32Type, 0, honoured, { flag: "pods-per-core" }),
  podCIDR: leaf(stringType, "", honoured, { flag: "pod-cidr" }),
  clusterDNS: leaf(stringsType, [], honoured, { flag: "cluster-dns", change: "new pods" }),
  clusterDomain: leaf(stringType, "", honoured, { flag: "cluster-domain", change: "new pods" }),
  resolvConf: leaf(stringType, "/etc/resolv.conf", honoured, {
    flag: "resolv-conf",
    pointer: true,
    path: true,
    change: "new pods",
  }),
  systemReserved: leaf(stringMapType, {}, honoured, { flag: "system-reserved" }),
  kubeReserved: leaf(stringMapType, {}, honoured, { flag: "kube-reserved" }),
  reservedSystemCPUs: leaf(stringType, "", fixed(noManagers), { flag: "reserved-cpus" }),
  enforceNodeAllocatable: leaf(stringsType, ["pods"], honoured, {
    flag: "enforce-node-allocatable",
    pointer: true,
  }),
  systemReservedCgroup: leaf(stringType, "", fixed("only pods are limited by a cgroup"), {
    flag: "system-reserved-cgroup",
  }),
  kubeReservedCgroup: leaf(stringType, "", fixed("only pods are limited by a cgroup"), {
    flag: "kube-reserved-cgroup",
  }),
  evictionHard: leaf(thresholdsType, undefined, honoured, { flag: "eviction-hard", pointer: true }),
  mergeDefaultEvictionSettings: leaf(boolType, false, honoured, { pointer: true }),
  evictionSoft: leaf(thresholdsType, {}, fixed(noEviction), { flag: "eviction-soft" }),
  evictionSoftGracePeriod: leaf(stringMapType, {}, fixed(noEviction), {
    flag: "eviction-soft-grace-period",
  }),
  evictionMaxPodGracePeriod: leaf(int32Type, 0, fixed(noEviction), {
    flag: "eviction-max-pod-grace-period",
  }),
  evictionMinimumReclaim: leaf(stringMapType, {}, fixed("pods are not evicted by the node"), {
    flag: "eviction-minimum-reclaim",
  }),
  evictionPressureTransitionPeriod: leaf(durationType, "5m0s", honoured, {
    flag: "eviction-pressure-transition-period",
  }),
  kernelMemcgNotification: leaf(boolType, false, fixed("memory is looked at, nothing notifies"), {
    flag: "kernel-memcg-notification",
  }),
  shutdownGracePeriod: leaf(durationType, "0s", fixed(noShutdown)),
  shutdownGracePeriodCriticalPods: leaf(durationType, "0s", fixed(noShutdown)),
  shutdownGracePeriodByPodPriority: leaf(
    objectsType("list of grace periods", shutdownStep),
    [],
    fixed(noShutdown),
  ),
  cgroupRoot: leaf(stringType, "", honoured, { flag: "cgroup-root", change: "drain" }),
  cgroupsPerQOS: leaf(boolType, true, honoured, {
    flag: "cgroups-per-qos",
    pointer: true,
    change: "drain",
  }),
  cgroupDriver: leaf(stringType, "cgroupfs", ignored("the container engine's driver is used"), {
    flag: "cgroup-driver",
  }),
  kubeletCgroups: leaf(
    stringType,
    "",
    ignored("the service manager decides where the agent runs"),
    {
      flag: "kubelet-cgroups",
    },
  ),
  systemCgroups: leaf(stringType, "", fixed("processes of the system are left where they are"), {
    flag: "system-cgroups",
  }),
  failCgroupV1: leaf(boolType, false, honoured, { flag: "fail-cgroupv1", pointer: true }),
  failSwapOn: leaf(boolType, false, honoured, { flag: "fail-swap-on", pointer: true }),
  protectKernelDefaults: leaf(boolType, false, fixed("kernel parameters are left as they are"), {
    flag: "protect-kernel-defaults",
  }),
  oomScoreAdj: leaf(int32Type, -999, ignored("set OOMScoreAdjust= in the service's unit"), {
    flag: "oom-score-adj",
    pointer: true,
  }),
  maxOpenFiles: leaf(int64Type, 1_000_000, ignored("set LimitNOFILE= in the service's unit"), {
    flag: "max-open-files",
  }),
  cpuManagerPolicy: leaf(stringType, "none", fixed(noManagers), { flag: "cpu-manager-policy" }),
  cpuManagerPolicyOptions: leaf(stringMapType, {}, fixed(noManagers), {
    flag: "cpu-manager-policy-options",
  }),
  cpuManagerReconcilePeriod: leaf(durationType, "10s", ignored(noManagers), {
    flag: "cpu-manager-reconcile-period",
  }),
  memoryManagerPolicy: leaf(stringType, "None", fixed(noManagers), {
    flag: "memory-manager-policy",
  }),
  reservedMemory: leaf(
    objectsType("list of reservations", memoryReservation),
    [],
    fixed(noManagers),
    {
      flag: "reserved-memory",
    },
  ),
  topologyManagerPolicy: leaf(stringType, "none", fixed(noManagers), {
    flag: "topology-manager-policy",
  }),
  topologyManagerScope: leaf(stringType, "container", ignored(noManagers), {
    flag: "topology-manager-scope",
  }),
  topologyManagerPolicyOptions: leaf(stringMapType, {}, fixed(noManagers), {
    flag: "topology-manager-policy-options",
  }),
  qosReserved: leaf(stringMapType, {}, fixed("no memory is kept for higher classes of pods"), {
    flag: "qos-reserved",
  }),
  memoryThrottlingFactor: leaf(floatType, 0.9, ignored("memory is limited, not throttled"), {
    pointer: true,
  }),
  memoryReservationPolicy: leaf(stringType, "None", fixed("memory is limited, not reserved")),
  featureGates: leaf(boolMapType, {}, honoured, { flag: "feature-gates" }),
  eventRecordQPS: leaf(int32Type, 50, honoured, { flag: "event-qps", pointer: true }),
  eventBurst: leaf(int32Type, 100, honoured, { flag: "event-burst" }),
  contentType: leaf(
    stringType,
    "application/vnd.kubernetes.protobuf",
    ignored("the API server is spoken to in JSON"),
    { flag: "kube-api-content-type" },
  ),
  kubeAPIQPS: leaf(int32Type, 50, ignored("the server's flow control is the limit"), {
    flag: "kube-api-qps",
    pointer: true,
  }),
  kubeAPIBurst: leaf(int32Type, 100, ignored("the server's flow control is the limit"), {
    flag: "kube-api-burst",
  }),
};

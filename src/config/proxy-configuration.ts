import { kubeletServerFields, loggingFields } from "./kubelet-server-fields.ts";
import {
  boolMapType,
  boolType,
  durationType,
  floatType,
  int32Type,
  stringsType,
  stringType,
} from "./leaf-types.ts";
import { honoured, ignored, leaf, object, type ValueOf } from "./shape.ts";

export const proxyApiVersion = "kubeproxy.config.k8s.io/v1alpha1";

const noIPVS = "the kernel's ipvs is not used";
const noWindows = "it is for Windows";
/** What the sections of both modes have. Upstream too takes these flags for whatever mode there is. */
const section = {
  masqueradeAll: leaf(boolType, false, honoured, { flag: "masquerade-all" }),
  syncPeriod: leaf(durationType, "30s", honoured, { flag: "iptables-sync-period" }),
  // Upstream's default is 1s. Without a floor the first change is applied at once, and what comes meanwhile together.
  minSyncPeriod: leaf(durationType, "0s", honoured, { flag: "iptables-min-sync-period" }),
};

/** Fields that the sections `iptables` and `nftables` both have. */
export const sectionFields = [
  "masqueradeBit",
  "masqueradeAll",
  "syncPeriod",
  "minSyncPeriod",
] as const;

/** All fields of KubeProxyConfiguration (1.36). */
export const proxyShape = object({
  featureGates: leaf(boolMapType, {}, honoured, { flag: "feature-gates" }),
  clientConnection: object({
    kubeconfig: leaf(stringType, "", honoured, { flag: "proxy-kubeconfig", path: true }),
    acceptContentTypes: leaf(stringType, "", ignored("the API server is spoken to in JSON")),
    contentType: leaf(
      stringType,
      "application/vnd.kubernetes.protobuf",
      ignored("the API server is spoken to in JSON"),
    ),
    qps: leaf(floatType, 5, ignored("the server's flow control is the limit")),
    burst: leaf(int32Type, 10, ignored("the server's flow control is the limit")),
  }),
  logging: loggingFields,
  hostnameOverride: leaf(stringType, "", honoured),
  bindAddress: leaf(stringType, "0.0.0.0", honoured, { flag: "bind-address" }),
  healthzBindAddress: leaf(stringType, "0.0.0.0:10256", honoured),
  metricsBindAddress: leaf(stringType, "127.0.0.1:10249", honoured, {
    flag: "metrics-bind-address",
  }),
  bindAddressHardFail: leaf(boolType, false, honoured, { flag: "bind-address-hard-fail" }),
  enableProfiling: leaf(boolType, false, ignored("there are no profiles of Go to be shown"), {
    flag: "profiling",
  }),
  showHiddenMetricsForVersion: kubeletServerFields.showHiddenMetricsForVersion,
  mode: leaf(stringType, "", honoured, { flag: "proxy-mode" }),
  iptables: object({
    masqueradeBit: leaf(int32Type, 14, honoured, {
      flag: "iptables-masquerade-bit",
      pointer: true,
    }),
    localhostNodePorts: leaf(boolType, true, honoured, {
      flag: "iptables-localhost-nodeports",
      pointer: true,
    }),
    ...section,
  }),
  ipvs: object({
    syncPeriod: leaf(durationType, "30s", ignored(noIPVS), { flag: "ipvs-sync-period" }),
    minSyncPeriod: leaf(durationType, "0s", ignored(noIPVS), { flag: "ipvs-min-sync-period" }),
    scheduler: leaf(stringType, "", ignored(noIPVS), { flag: "ipvs-scheduler" }),
    excludeCIDRs: leaf(stringsType, [], ignored(noIPVS), { flag: "ipvs-exclude-cidrs" }),
    strictARP: leaf(boolType, false, ignored(noIPVS), { flag: "ipvs-strict-arp" }),
    tcpTimeout: leaf(durationType, "0s", ignored(noIPVS), { flag: "ipvs-tcp-timeout" }),
    tcpFinTimeout: leaf(durationType, "0s", ignored(noIPVS), { flag: "ipvs-tcpfin-timeout" }),
    udpTimeout: leaf(durationType, "0s", ignored(noIPVS), { flag: "ipvs-udp-timeout" }),
  }),
  nftables: object({
    masqueradeBit: leaf(int32Type, 14, honoured, { pointer: true }),
    ...section,
  }),
  winkernel: object({
    networkName: leaf(stringType, "", ignored(noWindows)),
    sourceVip: leaf(stringType, "", ignored(noWindows)),
    enableDSR: leaf(boolType, false, ignored(noWindows)),
    rootHnsEndpointName: leaf(stringType, "", ignored(noWindows)),
    forwardHealthCheckVip: leaf(boolType, false, ignored(noWindows)),
  }),
  detectLocalMode: leaf(stringType, "ClusterCIDR", honoured, { flag: "detect-local-mode" }),
  detectLocal: object({
    bridgeInterface: leaf(stringType, "", honoured, { flag: "pod-bridge-interface" }),
    interfaceNamePrefix: leaf(stringType, "", honoured, { flag: "pod-interface-name-prefix" }),
  }),
  clusterCIDR: leaf(stringType, "", honoured, { flag: "cluster-cidr" }),
  nodePortAddresses: leaf(stringsType, [], honoured, { flag: "nodeport-addresses" }),
  oomScoreAdj: leaf(
    int32Type,
    -999,
    ignored("kubelet and proxy are one process: set OOMScoreAdjust= in the service's unit"),
    { pointer: true },
  ),
  conntrack: object({
    maxPerCore: leaf(int32Type, 32_768, honoured, {
      flag: "conntrack-max-per-core",
      pointer: true,
    }),
    min: leaf(int32Type, 131_072, honoured, { flag: "conntrack-min", pointer: true }),
    tcpEstablishedTimeout: leaf(durationType, "24h0m0s", honoured, {
      flag: "conntrack-tcp-timeout-established",
      pointer: true,
    }),
    tcpCloseWaitTimeout: leaf(durationType, "1h0m0s", honoured, {
      flag: "conntrack-tcp-timeout-close-wait",
      pointer: true,
    }),
    tcpBeLiberal: leaf(boolType, false, honoured, { flag: "conntrack-tcp-be-liberal" }),
    udpTimeout: leaf(durationType, "0s", honoured, { flag: "conntrack-udp-timeout" }),
    udpStreamTimeout: leaf(durationType, "0s", honoured, {
      flag: "conntrack-udp-timeout-stream",
    }),
  }),
  configSyncPeriod: leaf(
    durationType,
    "15m0s",
    ignored("watches bring every change, and nothing is listed again"),
    {
      flag: "config-sync-period",
    },
  ),
  portRange: leaf(stringType, "", ignored("it has no meaning upstream either")),
  windowsRunAsService: leaf(boolType, false, ignored(noWindows)),
});

export type KubeProxyConfiguration = ValueOf<typeof proxyShape>;

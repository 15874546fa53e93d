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
import { fixed, honoured, ignored, leaf, object, type ValueOf } from "./shape.ts";

export const proxyApiVersion = "kubeproxy.config.k8s.io/v1alpha1";

const atOnce = "changes are applied at once, and together while others are being applied";
const noIPVS = "the kernel's ipvs is not used";
const noWindows = "it is for Windows";
const byNetwork = "the bridge of the node's own pods tells local traffic";
const conntrackLeft = "the kernel's connection tracking is left as it is";

const sync = {
  syncPeriod: leaf(durationType, "30s", ignored("what others delete is noticed at once")),
  minSyncPeriod: leaf(durationType, "1s", ignored(atOnce)),
};

/** All fields of KubeProxyConfiguration (1.36). */
export const proxyShape = object({
  featureGates: leaf(boolMapType, {}, honoured),
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
  bindAddress: leaf(stringType, "0.0.0.0", ignored("the addresses of the Node object count"), {
    flag: "bind-address",
  }),
  healthzBindAddress: leaf(stringType, "0.0.0.0:10256", honoured),
  metricsBindAddress: leaf(stringType, "127.0.0.1:10249", honoured, {
    flag: "metrics-bind-address",
  }),
  bindAddressHardFail: leaf(boolType, false, ignored("a port that is taken stops the start"), {
    flag: "bind-address-hard-fail",
  }),
  enableProfiling: leaf(boolType, false, fixed("there are no profiles"), { flag: "profiling" }),
  showHiddenMetricsForVersion: kubeletServerFields.showHiddenMetricsForVersion,
  mode: leaf(
    stringType,
    "",
    fixed("packet rules are written for nftables; say nftables or leave it out", "nftables"),
    { flag: "proxy-mode" },
  ),
  iptables: object({
    masqueradeBit: leaf(int32Type, 14, ignored("packet rules are written for nftables"), {
      flag: "iptables-masquerade-bit",
      pointer: true,
    }),
    masqueradeAll: leaf(boolType, false, ignored("packet rules are written for nftables")),
    localhostNodePorts: leaf(boolType, true, ignored("packet rules are written for nftables"), {
      flag: "iptables-localhost-nodeports",
      pointer: true,
    }),
    syncPeriod: leaf(durationType, "30s", sync.syncPeriod.standing, {
      flag: "iptables-sync-period",
    }),
    minSyncPeriod: leaf(durationType, "1s", sync.minSyncPeriod.standing, {
      flag: "iptables-min-sync-period",
    }),
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
    masqueradeBit: leaf(int32Type, 14, fixed("bit 14 (0x4000) marks what is masqueraded"), {
      pointer: true,
    }),
    masqueradeAll: leaf(boolType, false, fixed("pods keep their addresses towards Services"), {
      flag: "masquerade-all",
    }),
    ...sync,
  }),
  winkernel: object({
    networkName: leaf(stringType, "", ignored(noWindows)),
    sourceVip: leaf(stringType, "", ignored(noWindows)),
    enableDSR: leaf(boolType, false, ignored(noWindows)),
    rootHnsEndpointName: leaf(stringType, "", ignored(noWindows)),
    forwardHealthCheckVip: leaf(boolType, false, ignored(noWindows)),
  }),
  detectLocalMode: leaf(stringType, "", ignored(byNetwork), { flag: "detect-local-mode" }),
  detectLocal: object({
    bridgeInterface: leaf(stringType, "", ignored(byNetwork), { flag: "pod-bridge-interface" }),
    interfaceNamePrefix: leaf(stringType, "", ignored(byNetwork), {
      flag: "pod-interface-name-prefix",
    }),
  }),
  clusterCIDR: leaf(stringType, "", honoured, { flag: "cluster-cidr" }),
  nodePortAddresses: leaf(
    stringsType,
    [],
    fixed("node ports are open on all addresses of the node"),
    { flag: "nodeport-addresses" },
  ),
  oomScoreAdj: leaf(int32Type, -999, ignored("set OOMScoreAdjust= in the service's unit"), {
    pointer: true,
  }),
  conntrack: object({
    maxPerCore: leaf(int32Type, 32_768, ignored(conntrackLeft), {
      flag: "conntrack-max-per-core",
      pointer: true,
    }),
    min: leaf(int32Type, 131_072, ignored(conntrackLeft), { flag: "conntrack-min", pointer: true }),
    tcpEstablishedTimeout: leaf(durationType, "24h0m0s", ignored(conntrackLeft), {
      flag: "conntrack-tcp-timeout-established",
      pointer: true,
    }),
    tcpCloseWaitTimeout: leaf(durationType, "1h0m0s", ignored(conntrackLeft), {
      flag: "conntrack-tcp-timeout-close-wait",
      pointer: true,
    }),
    tcpBeLiberal: leaf(boolType, false, fixed(conntrackLeft), { flag: "conntrack-tcp-be-liberal" }),
    udpTimeout: leaf(durationType, "0s", fixed(conntrackLeft), { flag: "conntrack-udp-timeout" }),
    udpStreamTimeout: leaf(durationType, "0s", fixed(conntrackLeft), {
      flag: "conntrack-udp-timeout-stream",
    }),
  }),
  configSyncPeriod: leaf(durationType, "15m0s", ignored("watches bring every change"), {
    flag: "config-sync-period",
  }),
  portRange: leaf(stringType, "", ignored("it has no meaning upstream either")),
  windowsRunAsService: leaf(boolType, false, ignored(noWindows)),
});

export type KubeProxyConfiguration = ValueOf<typeof proxyShape>;

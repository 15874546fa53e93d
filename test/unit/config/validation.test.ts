import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { composeConfiguration, type Configuration } from "../../../src/config/configuration.ts";
import { gateEnabled, judgeGate, judgeGates } from "../../../src/config/feature-gates.ts";
import type { ConfigKind } from "../../../src/config/load.ts";
import { nearest } from "../../../src/config/nearest.ts";
import { mergePatch, type Raw, resolvePlain } from "../../../src/config/raw.ts";
import type { Json } from "../../../src/config/shape.ts";
import { rawOf } from "./raw-of.ts";

const origin = { kind: "file", file: "/c.yaml", line: 1 } as const;

const raw = (json: Json): Raw => rawOf(json, origin);

function json(value: Raw): Json {
  if (value.kind === "null") return null;
  if (value.kind === "scalar") return value.style === "quoted" ? value.text : Number(value.text);
  if (value.kind === "list") return value.items.map((item) => json(item));
  return Object.fromEntries([...value.entries].map(([key, member]) => [key, json(member)]));
}

function compose(kind: ConfigKind, document: Json): Configuration {
  return composeConfiguration(
    { documents: new Map([[kind, raw(document)]]), troubles: [], skipped: [] },
    [],
  );
}

function errors(kind: ConfigKind, document: Json): string[] {
  return compose(kind, document)
    .remarks.filter(({ severity }) => severity === "error")
    .map(({ path, text }) => `${path}: ${text}`);
}

/** Upstream's sentences are an interface: people search for them. */
const kubelet: readonly (readonly [document: Json, error: string])[] = [
  [
    { nodeLeaseDurationSeconds: -1 },
    "nodeLeaseDurationSeconds: invalid configuration: nodeLeaseDurationSeconds must be greater than 0",
  ],
  [
    { eventBurst: -1 },
    "eventBurst: invalid configuration: eventBurst (--event-burst) -1 must not be a negative number",
  ],
  [
    { eventRecordQPS: -1 },
    "eventRecordQPS: invalid configuration: eventRecordQPS (--event-qps) -1 must not be a negative number",
  ],
  [
    { healthzPort: 65_536 },
    "healthzPort: invalid configuration: healthzPort (--healthz-port) 65536 must be between 1 and 65535, inclusive",
  ],
  [
    { port: 65_536 },
    "port: invalid configuration: port (--port) 65536 must be between 1 and 65535, inclusive",
  ],
  [
    { readOnlyPort: 65_536 },
    "readOnlyPort: invalid configuration: readOnlyPort (--read-only-port) 65536 must be between 0 and 65535, inclusive",
  ],
  [
    { cpuCFSQuotaPeriod: "2s" },
    "cpuCFSQuotaPeriod: invalid configuration: cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {2s} must be between 1ms and 1sec, inclusive",
  ],
  [
    { imageGCHighThresholdPercent: 101 },
    "imageGCHighThresholdPercent: invalid configuration: imageGCHighThresholdPercent (--image-gc-high-threshold) 101 must be between 0 and 100, inclusive",
  ],
  [
    { imageGCLowThresholdPercent: -1 },
    "imageGCLowThresholdPercent: invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) -1 must be between 0 and 100, inclusive",
  ],
  [
    { imageGCLowThresholdPercent: 85 },
    "imageGCLowThresholdPercent: invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) 85 must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) 85",
  ],
  [
    { imageMinimumGCAge: "-1s" },
    "imageMinimumGCAge: invalid configuration: imageMinimumGCAge -1s must not be negative",
  ],
  [
    { imageMaximumGCAge: "-1s" },
    "imageMaximumGCAge: invalid configuration: imageMaximumGCAge -1s must not be negative",
  ],
  [
    { imageMaximumGCAge: "1m" },
    "imageMaximumGCAge: invalid configuration: imageMaximumGCAge 1m0s must be greater than imageMinimumGCAge 2m0s",
  ],
  [
    { iptablesDropBit: 32 },
    "iptablesDropBit: invalid configuration: iptablesDropBit (--iptables-drop-bit) 32 must be between 0 and 31, inclusive",
  ],
  [
    { iptablesMasqueradeBit: -1 },
    "iptablesMasqueradeBit: invalid configuration: iptablesMasqueradeBit (--iptables-masquerade-bit) -1 must be between 0 and 31, inclusive",
  ],
  [
    { kubeAPIBurst: -1 },
    "kubeAPIBurst: invalid configuration: kubeAPIBurst (--kube-api-burst) -1 must not be a negative number",
  ],
  [
    { kubeAPIQPS: -1 },
    "kubeAPIQPS: invalid configuration: kubeAPIQPS (--kube-api-qps) -1 must not be a negative number",
  ],
  [
    { nodeStatusMaxImages: -2 },
    "nodeStatusMaxImages: invalid configuration: nodeStatusMaxImages (--node-status-max-images) -2 must be -1 or greater",
  ],
  [
    { maxOpenFiles: -1 },
    "maxOpenFiles: invalid configuration: maxOpenFiles (--max-open-files) -1 must not be a negative number",
  ],
  [
    { maxPods: -1 },
    "maxPods: invalid configuration: maxPods (--max-pods) -1 must not be a negative number",
  ],
  [
    { oomScoreAdj: -1001 },
    "oomScoreAdj: invalid configuration: oomScoreAdj (--oom-score-adj) -1001 must be between -1000 and 1000, inclusive",
  ],
  [
    { podsPerCore: -1 },
    "podsPerCore: invalid configuration: podsPerCore (--pods-per-core) -1 must not be a negative number",
  ],
  [
    { registryBurst: -1 },
    "registryBurst: invalid configuration: registryBurst (--registry-burst) -1 must not be a negative number",
  ],
  [
    { registryPullQPS: -1 },
    "registryPullQPS: invalid configuration: registryPullQPS (--registry-qps) -1 must not be a negative number",
  ],
  [
    { maxParallelImagePulls: 0 },
    "maxParallelImagePulls: invalid configuration: maxParallelImagePulls 0 must be a positive number",
  ],
  [
    { maxParallelImagePulls: 4, serializeImagePulls: true },
    "maxParallelImagePulls: invalid configuration: maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false",
  ],
  [
    { runOnce: true },
    "runOnce: invalid configuration: runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set",
  ],
  [
    { topologyManagerPolicy: "best" },
    'topologyManagerPolicy: invalid configuration: topologyManagerPolicy (--topology-manager-policy) "best" must be one of: ["none" "best-effort" "restricted" "single-numa-node"]',
  ],
  [
    { topologyManagerScope: "node" },
    'topologyManagerScope: invalid configuration: topologyManagerScope (--topology-manager-scope) "node" must be one of: "container", or "pod"',
  ],
  [
    { memorySwap: { swapBehavior: "Unlimited" } },
    'memorySwap.swapBehavior: invalid configuration: memorySwap.swapBehavior "Unlimited" must be one of: "", "LimitedSwap" or "NoSwap"',
  ],
  [
    { crashLoopBackOff: { maxContainerRestartPeriod: "301s" } },
    "crashLoopBackOff.maxContainerRestartPeriod: invalid configuration: CrashLoopBackOff.MaxContainerRestartPeriod (got: 301 seconds) must be set between 1s and 300s",
  ],
  [
    { hairpinMode: "bridge" },
    'hairpinMode: invalid configuration: option "bridge" specified for hairpinMode (--hairpin-mode). Valid options are "none", "hairpin-veth" or "promiscuous-bridge"',
  ],
  [
    { systemCgroups: "/s" },
    "systemCgroups: invalid configuration: systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified",
  ],
  [
    { enforceNodeAllocatable: ["pods", "pods"] },
    'enforceNodeAllocatable: invalid configuration: duplicated enforcements "pods" in enforceNodeAllocatable (--enforce-node-allocatable)',
  ],
  [
    { enforceNodeAllocatable: ["pods", "all"] },
    'enforceNodeAllocatable: invalid configuration: option "all" specified for enforceNodeAllocatable (--enforce-node-allocatable). Valid options are "pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible" or "none"',
  ],
  [
    { enforceNodeAllocatable: ["none", "pods"] },
    'enforceNodeAllocatable: invalid configuration: enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional enforcements when "none" is specified',
  ],
  [
    { enforceNodeAllocatable: ["kube-reserved"] },
    'enforceNodeAllocatable: invalid configuration: kubeReservedCgroup (--kube-reserved-cgroup) must be specified when "kube-reserved" or "kube-reserved-compressible" included in enforceNodeAllocatable (--enforce-node-allocatable)',
  ],
  [
    { cgroupsPerQOS: false, enforceNodeAllocatable: ["pods"] },
    'cgroupsPerQOS: invalid configuration: cgroupsPerQOS (--cgroups-per-qos) must be set to true when "pods" contained in enforceNodeAllocatable (--enforce-node-allocatable)',
  ],
  [{ enforceNodeAllocatable: ["none"] }, "enforceNodeAllocatable: only [pods] is enforced"],
  [
    { preloadedImagesVerificationAllowlist: ["a"] },
    'preloadedImagesVerificationAllowlist: invalid configuration: can\'t set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not "NeverVerifyAllowlistedImages"',
  ],
  [
    {
      imagePullCredentialsVerificationPolicy: "NeverVerifyAllowlistedImages",
      preloadedImagesVerificationAllowlist: ["a*b"],
    },
    "preloadedImagesVerificationAllowlist: invalid configuration: invalid image pattern in `preloadedImagesVerificationAllowlist`: not a valid wildcard pattern, only patterns ending with '/*' are allowed: a*b",
  ],
  [
    {
      imagePullCredentialsVerificationPolicy: "NeverVerifyAllowlistedImages",
      preloadedImagesVerificationAllowlist: ["r.example:5000/a:1"],
    },
    "preloadedImagesVerificationAllowlist: invalid configuration: invalid image pattern in `preloadedImagesVerificationAllowlist`: neither tag nor digest is accepted in an image reference: r.example:5000/a:1",
  ],
  [
    { serverTLSBootstrap: true, featureGates: { RotateKubeletServerCertificate: false } },
    "serverTLSBootstrap: invalid configuration: serverTLSBootstrap true requires feature gate RotateKubeletServerCertificate",
  ],
  [
    { shutdownGracePeriodCriticalPods: "10s" },
    "shutdownGracePeriodCriticalPods: invalid configuration: shutdownGracePeriodCriticalPods {10s} must be <= shutdownGracePeriod {0s}",
  ],
  [
    { shutdownGracePeriod: "10ms" },
    "shutdownGracePeriod: invalid configuration: shutdownGracePeriod {10ms} must be either zero or otherwise >= 1 sec",
  ],
  [
    { containerLogMaxWorkers: 0 },
    "containerLogMaxWorkers: invalid configuration: containerLogMaxWorkers must be greater than or equal to 1",
  ],
  [
    { containerLogMonitorInterval: "2s" },
    "containerLogMonitorInterval: invalid configuration: containerLogMonitorInterval must be a positive time duration greater than or equal to 3s",
  ],
  [
    { containerLogMaxFiles: 1 },
    "containerLogMaxFiles: invalid configuration: containerLogMaxFiles must be greater than 1",
  ],
  [
    { containerLogMaxSize: "ten" },
    "containerLogMaxSize: failed to parse container log max size \"ten\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
  ],
  [
    { containerLogMaxSize: "-1" },
    'containerLogMaxSize: failed to parse container log max size "-1": must be a whole number of bytes, at least 1',
  ],
  [
    { containerLogMaxSize: "0" },
    'containerLogMaxSize: failed to parse container log max size "0": must be a whole number of bytes, at least 1',
  ],
  [
    { podLogsDir: "/var/log/../pods" },
    'podLogsDir: invalid configuration: pod logs path "/var/log/../pods" must be normalized',
  ],
  [
    { podLogsDir: "/var/log/h\u00FClsen" },
    'podLogsDir: invalid configuration: pod logs path "/var/log/h\u00FClsen" mut contains ASCII characters only',
  ],
  [
    { memoryThrottlingFactor: 1.5 },
    "memoryThrottlingFactor: invalid configuration: memoryThrottlingFactor 1.5 must be greater than 0 and less than or equal to 1.0",
  ],
  [
    { enableSystemLogQuery: true, enableSystemLogHandler: false },
    "enableSystemLogQuery: invalid configuration: enableSystemLogHandler is required for enableSystemLogQuery",
  ],
  [
    { registerWithTaints: [{ key: "a", effect: "Never" }] },
    "registerWithTaints: invalid taint: a=:Never: invalid taint effect: Never, unsupported taint effect",
  ],
  [
    { registerWithTaints: [{ key: "a", effect: "NoSchedule", timeAdded: "2026-01-01T00:00:00Z" }] },
    "registerWithTaints: invalid taint: a=:NoSchedule: taint.TimeAdded is not nil",
  ],
  [
    { registerWithTaints: [{ key: "a", efect: "NoSchedule" }] },
    "registerWithTaints: [0].efect: unknown field; did you mean effect?",
  ],
  [{ kubeReserved: { gpu: "1" } }, 'kubeReserved: cannot reserve "gpu" resource'],
  [
    { systemReserved: { cpu: "-1" } },
    'systemReserved: resource quantity for "cpu" cannot be negative: -1',
  ],
  [
    { systemReserved: { cpu: "one" } },
    'systemReserved: failed to parse quantity "one" for "cpu" resource: quantities must match the regular expression \'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$\'',
  ],
  [{ evictionHard: { "disk.free": "1Gi" } }, "evictionHard: unsupported eviction signal disk.free"],
  [
    { evictionHard: { "memory.available": "110%" } },
    "evictionHard: eviction percentage threshold memory.available must be >= 0% and <= 100%: 110%",
  ],
  [{ clusterDNS: ["dns.example"] }, 'clusterDNS: "dns.example" is not an IP address'],
  [{ address: "localhost" }, 'address: "localhost" is not an IP address'],
  [{ tlsCertFile: "/c" }, "tlsCertFile: tlsCertFile and tlsPrivateKeyFile must be given together"],
  [
    { tlsMinVersion: "VersionTLS11" },
    "tlsMinVersion: is not spoken; say VersionTLS12 or VersionTLS13",
  ],
  [
    { tlsMinVersion: "TLS1.3" },
    'tlsMinVersion: "TLS1.3" must be one of: "VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"',
  ],
  [{ logging: { format: "xml" } }, 'logging.format: Invalid value: "xml": Unsupported log format'],
  [
    { logging: { flushFrequency: -1 } },
    "logging.flushFrequency: Invalid value: -1ns: Must be greater than zero",
  ],
  [
    { featureGates: { NodeSwap: false } },
    "featureGates: cannot set feature gate NodeSwap to false, feature is locked to true",
  ],
  [
    { featureGates: { NodeSwop: true } },
    "featureGates: unrecognized feature gate: NodeSwop; did you mean NodeSwap?",
  ],
];

const proxy: readonly (readonly [document: Json, error: string])[] = [
  [
    { iptables: { masqueradeBit: 32 } },
    "iptables.masqueradeBit: Invalid value: 32: must be within the range [0, 31]",
  ],
  [
    { nftables: { masqueradeBit: -1 } },
    "nftables.masqueradeBit: Invalid value: -1: must be within the range [0, 31]",
  ],
  [
    { oomScoreAdj: 1001 },
    "oomScoreAdj: Invalid value: 1001: must be within the range [-1000, 1000]",
  ],
  [
    { conntrack: { maxPerCore: -1 } },
    "conntrack.maxPerCore: Invalid value: -1: must be greater than or equal to 0",
  ],
  [
    { conntrack: { tcpEstablishedTimeout: "-1s" } },
    'conntrack.tcpEstablishedTimeout: Invalid value: "-1s": must be greater than or equal to 0',
  ],
  [{ configSyncPeriod: "-1m" }, 'configSyncPeriod: Invalid value: "-1m0s": must be greater than 0'],
  [
    { bindAddress: "node" },
    'bindAddress: Invalid value: "node": not a valid textual representation of an IP address',
  ],
  [
    { healthzBindAddress: "0.0.0.0:port" },
    'healthzBindAddress: Invalid value: "0.0.0.0:port": must be IP:port',
  ],
  [
    { metricsBindAddress: "host:10249" },
    'metricsBindAddress: Invalid value: "host": must be a valid IP',
  ],
  [
    { metricsBindAddress: "127.0.0.1:99999" },
    'metricsBindAddress: Invalid value: "99999": must be a valid port',
  ],
  [
    { mode: "userspace" },
    'mode: Invalid value: "userspace": must be nftables, iptables or blank (blank means the best-available proxy)',
  ],
  [
    { mode: "ipvs" },
    'mode: "ipvs" is not supported: Kubernetes gives this mode up (KEP-5495); say "nftables" or "iptables", or leave it out. What kube-proxy left of it on the node is removed at the start',
  ],
  [
    { mode: "nftables", nftables: { syncPeriod: "5s", minSyncPeriod: "6s" } },
    'nftables.syncPeriod: Invalid value: "5s": must be greater than or equal to nftables.minSyncPeriod',
  ],
  [
    { iptables: { syncPeriod: "-5s" } },
    'iptables.syncPeriod: Invalid value: "-5s": must be greater than 0',
  ],
  [
    { iptables: { minSyncPeriod: "-1s" } },
    'iptables.minSyncPeriod: Invalid value: "-1s": must be greater than or equal to 0',
  ],
  [
    { conntrack: { udpTimeout: "-1s" } },
    'conntrack.udpTimeout: Invalid value: "-1s": must be greater than or equal to 0',
  ],
  [
    { detectLocalMode: "InterfaceNamePrefix", detectLocal: { interfaceNamePrefix: 'v" drop' } },
    'detectLocal.interfaceNamePrefix: Invalid value: "v\\" drop": must be the name of an interface: at most 15 letters, digits and any of . _ - @',
  ],
  [
    { detectLocalMode: "BridgeInterface", detectLocal: { bridgeInterface: "a-bridge-of-pods" } },
    'detectLocal.bridgeInterface: Invalid value: "a-bridge-of-pods": must be the name of an interface: at most 15 letters, digits and any of . _ - @',
  ],
  [
    { clusterCIDR: "10.0.0.0" },
    'clusterCIDR: Invalid value: "10.0.0.0": must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)',
  ],
  [
    { clusterCIDR: "10.0.0.0/16,10.1.0.0/16" },
    'clusterCIDR: Invalid value: ["10.0.0.0/16","10.1.0.0/16"]: must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]',
  ],
  [
    { nodePortAddresses: ["primary", "10.0.0.0/8"] },
    "nodePortAddresses: [0]: Invalid value: \"primary\": can't use both 'primary' and CIDRs",
  ],
  [
    { nodePortAddresses: ["all"] },
    'nodePortAddresses: [0]: Invalid value: "all": must be a valid CIDR',
  ],
  [
    { detectLocalMode: "Guess" },
    'detectLocalMode: Unsupported value: "Guess": supported values: "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix", ""',
  ],
  [
    { detectLocalMode: "BridgeInterface" },
    'detectLocal.bridgeInterface: Invalid value: "": must not be empty',
  ],
];

const remora: readonly (readonly [document: Json, error: string])[] = [
  [{ nodeIPs: ["host"] }, 'nodeIPs: "host" is not an IP address'],
  [
    { nodeIPs: ["::"] },
    "nodeIPs: :: is no address of a machine; leave it out to have the address found",
  ],
  [
    { nodeIPs: ["192.0.2.1", "192.0.2.2"] },
    "nodeIPs: must contain either a single IP or a dual-stack pair of IPs",
  ],
  [
    { serviceCIDRs: ["10.0.0.0"] },
    'serviceCIDRs: "10.0.0.0": expected a CIDR such as 10.244.0.0/24',
  ],
  [{ imagePullProgressDeadline: "-1s" }, "imagePullProgressDeadline: must be greater than 0"],
  [{ dns: "yes" }, 'dns: "yes" must be one of: "auto", "local", "off"'],
  [
    { nodeLabels: { "a b": "c" } },
    "nodeLabels: invalid node labels: 'a b' - name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
  ],
];

describe("what upstream's validation refuses is refused in its words", () => {
  for (const [kind, rows] of [
    ["KubeletConfiguration", kubelet],
    ["KubeProxyConfiguration", proxy],
    ["RemoraConfiguration", remora],
  ] as const) {
    for (const [document, error] of rows) {
      test(`${kind} ${JSON.stringify(document)}`, () => {
        assert.ok(errors(kind, document).includes(error), errors(kind, document).join("\n"));
      });
    }
  }

  test("a node gives itself no label of Kubernetes' own", () => {
    const [error] = errors("RemoraConfiguration", {
      nodeLabels: {
        "kubernetes.io/role": "x",
        "topology.kubernetes.io/zone": "z",
        "node.kubernetes.io/mine": "y",
        "example.com/a": "b",
      },
    });
    assert.match(
      error ?? "",
      /^nodeLabels: unknown 'kubernetes\.io' or 'k8s\.io' labels specified with --node-labels: \[kubernetes\.io\/role\]; /,
    );
  });
});

describe("feature gates", () => {
  test("a gate as it is anyhow is nothing to talk about", () => {
    for (const [name, value] of [
      ["NodeSwap", true],
      ["PodLevelResources", true],
      ["MemoryQoS", false],
      ["CBORServingAndStorage", false],
    ] as const)
      assert.equal(judgeGate(name, value), undefined, name);
  });

  test("what the node would have to do otherwise is refused, other components' gates are not", () => {
    assert.equal(judgeGate("MemoryQoS", true)?.severity, "error");
    assert.equal(judgeGate("PodLevelResources", false)?.severity, "error");
    assert.equal(judgeGate("AllAlpha", true)?.severity, "error");
    assert.equal(judgeGate("GangScheduling", true)?.severity, "ignored");
    assert.equal(judgeGate("SchedulerAsyncPreemption", false)?.severity, "ignored");
  });

  test("trust bundles in volumes are the node's choice, but not without the API's own gate", () => {
    for (const value of [true, false]) {
      assert.equal(judgeGate("ClusterTrustBundleProjection", value), undefined);
      assert.equal(judgeGate("ClusterTrustBundle", value), undefined);
    }
    assert.deepEqual(judgeGates({}), []);
    const both = { ClusterTrustBundle: true, ClusterTrustBundleProjection: true };
    assert.deepEqual(judgeGates(both), []);
    assert.deepEqual(judgeGates({ ClusterTrustBundleProjection: true }), [
      {
        severity: "error",
        text: "ClusterTrustBundleProjection is enabled, but depends on features that are disabled: [ClusterTrustBundle]",
      },
    ]);
  });

  test("external IPs of Services are the node's choice, and there by default", () => {
    for (const value of [true, false]) {
      assert.equal(judgeGate("AllowServiceExternalIPs", value), undefined);
      assert.equal(
        gateEnabled("AllowServiceExternalIPs", { AllowServiceExternalIPs: value }),
        value,
      );
    }
    assert.equal(gateEnabled("AllowServiceExternalIPs", {}), true);
  });

  test("defaults count where nobody set the gate", () => {
    assert.equal(gateEnabled("NodeLogQuery", {}), true);
    assert.equal(gateEnabled("MemoryQoS", {}), false);
    assert.equal(gateEnabled("MemoryQoS", { MemoryQoS: true }), true);
  });
});

describe("merge patches", () => {
  // The examples of RFC 7386, appendix A, whose documents are objects.
  const cases: readonly (readonly [Json, Json, Json])[] = [
    [{ a: "b" }, { a: "c" }, { a: "c" }],
    [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
    [{ a: "b" }, { a: null }, {}],
    [{ a: "b", b: "c" }, { a: null }, { b: "c" }],
    [{ a: ["b"] }, { a: "c" }, { a: "c" }],
    [{ a: "c" }, { a: ["b"] }, { a: ["b"] }],
    [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
    [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ];
  for (const [base, patch, result] of cases) {
    test(`${JSON.stringify(base)} with ${JSON.stringify(patch)}`, () => {
      assert.deepEqual(json(mergePatch(raw(base), raw(patch))), result);
    });
  }
});

describe("plain text", () => {
  const cases: readonly (readonly [string, unknown])[] = [
    ["~", "null"],
    ["", "null"],
    ["yes", true],
    ["Off", false],
    ["10", 10],
    ["-3", -3],
    ["0644", 420],
    ["0o17", 15],
    ["0x10", 16],
    ["0b11", 3],
    ["1_000", 1000],
    ["1.5", 1.5],
    ["1e3", 1000],
    ["10s", "string"],
    ["08", 8],
    ["1.2.3.4", "string"],
    ["12:30", "string"],
    ["truE", "string"],
  ];
  for (const [text, expected] of cases) {
    test(`${JSON.stringify(text)} is ${String(expected)}`, () => {
      const plain = resolvePlain(text);
      assert.equal("value" in plain ? plain.value : plain.is, expected);
    });
  }
});

describe("nearest names", () => {
  test("a slip is found, a stranger is not", () => {
    const known = ["maxPods", "podsPerCore", "port"];
    assert.equal(nearest("maxpod", known), "maxPods");
    assert.equal(nearest("prot", known), "port");
    assert.equal(nearest("evictionHard", known), undefined);
    assert.equal(nearest("x".repeat(10_000), known), undefined);
  });
});

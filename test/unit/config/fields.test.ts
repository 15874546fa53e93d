import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { agentMembers } from "../../../src/config/agent-members.ts";
import {
  composeConfiguration,
  type Configuration,
  configurationFlags,
  type GivenFlag,
} from "../../../src/config/configuration.ts";
import { fallbackOf } from "../../../src/config/decode.ts";
import { kubeletShape } from "../../../src/config/kubelet-configuration.ts";
import type { ConfigKind } from "../../../src/config/load.ts";
import { proxyShape } from "../../../src/config/proxy-configuration.ts";
import type { Raw } from "../../../src/config/raw.ts";
import { flagOnlyShape, remoraShape } from "../../../src/config/remora-configuration.ts";
import { type Json, type Leaf, leavesOf } from "../../../src/config/shape.ts";
import { rawOf } from "./raw-of.ts";

const origin = { kind: "file", file: "/c.yaml", line: 7 } as const;

const raw = (json: Json): Raw => rawOf(json, origin);

function at(path: string, json: Json): Json {
  return path.split(".").reduceRight<Json>((inner, key) => ({ [key]: inner }), json);
}

function compose(kind: ConfigKind, json: Json, flags: readonly GivenFlag[] = []): Configuration {
  return composeConfiguration(
    { documents: new Map([[kind, raw(json)]]), troubles: [], skipped: [] },
    flags,
  );
}

/** A value that no default has, for fields whose type alone does not tell a good one. */
const samples: Readonly<Record<string, Json>> = {
  address: "192.0.2.9",
  healthzBindAddress: "192.0.2.9",
  "KubeProxyConfiguration.healthzBindAddress": "192.0.2.9:4000",
  metricsBindAddress: "192.0.2.9:4001",
  tlsCipherSuites: ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
  tlsCurvePreferences: [29],
  tlsMinVersion: "VersionTLS13",
  "authorization.mode": "AlwaysAllow",
  "logging.format": "json",
  "logging.vmodule": [{ filePattern: "a", verbosity: 2 }],
  registerWithTaints: [{ key: "a", value: "b", effect: "NoExecute" }],
  podCIDR: "10.7.0.0/24",
  clusterCIDR: "10.6.0.0/16",
  clusterDNS: ["192.0.2.53"],
  systemReserved: { cpu: "100m" },
  kubeReserved: { memory: "1Gi" },
  evictionHard: { "memory.available": "3%" },
  cgroupRoot: "/pods",
  containerRuntimeEndpoint: "unix:///run/other/docker.sock",
  imagePullCredentialsVerificationPolicy: "AlwaysVerify",
  imageMaximumGCAge: "100h0m0s",
  containerLogMaxSize: "20Mi",
  "memorySwap.swapBehavior": "LimitedSwap",
  configMapAndSecretChangeDetectionStrategy: "Get",
  hairpinMode: "none",
  topologyManagerPolicy: "restricted",
  topologyManagerScope: "pod",
  memoryReservationPolicy: "TieredReservation",
  memoryThrottlingFactor: 0.5,
  maxParallelImagePulls: 3,
  preloadedImagesVerificationAllowlist: ["registry.example/a"],
  featureGates: { CBORServingAndStorage: true },
  mode: "iptables",
  bindAddress: "192.0.2.9",
  detectLocalMode: "NodeCIDR",
  "detectLocal.bridgeInterface": "br-pods.7",
  "detectLocal.interfaceNamePrefix": "veth",
  nodePortAddresses: ["192.0.2.0/24"],
  dns: "off",
  podNetwork: "cni",
  cniBinDirs: ["/opt/plug-ins"],
  nodeIPs: ["192.0.2.9"],
  serviceCIDRs: ["10.5.0.0/16"],
  kubeletPeerCIDRs: ["192.0.2.0/24"],
  nodeLabels: { a: "b" },
  oomScoreAdj: -5,
  reservedMemory: [{ numaNode: 0, limits: { memory: "1Gi" } }],
  shutdownGracePeriodByPodPriority: [{ priority: 1, shutdownGracePeriodSeconds: 2 }],
  staticPodURLHeader: { A: ["b"] },
  enforceNodeAllocatable: [],
  imageGCHighThresholdPercent: 90,
  imageGCLowThresholdPercent: 70,
  podPidsLimit: 1000,
  "logging.verbosity": 5,
};

/** What else has to be said for a sample to be good. */
const company: Readonly<Record<string, Json>> = {
  tlsCertFile: { tlsPrivateKeyFile: "/k" },
  tlsPrivateKeyFile: { tlsCertFile: "/c" },
  enableSystemLogQuery: { enableSystemLogHandler: true },
  preloadedImagesVerificationAllowlist: {
    imagePullCredentialsVerificationPolicy: "NeverVerifyAllowlistedImages",
  },
  maxParallelImagePulls: { serializeImagePulls: false },
  mergeDefaultEvictionSettings: { evictionHard: { "pid.available": "5%" } },
  "detectLocal.bridgeInterface": { detectLocalMode: "BridgeInterface" },
  "detectLocal.interfaceNamePrefix": { detectLocalMode: "InterfaceNamePrefix" },
  enforceNodeAllocatable: { cgroupsPerQOS: false },
};

function sampleOf(kind: string, path: string, leaf: Leaf<unknown>): Json {
  const special = samples[`${kind}.${path}`] ?? samples[path];
  if (special !== undefined) return special;
  const { fallback, type } = leaf;
  switch (type.name) {
    case "boolean":
      return fallback !== true;
    case "int32":
    case "int64":
    case "uint32":
      return (typeof fallback === "number" ? fallback : 0) + 1;
    case "number":
      return 7.5;
    case "duration":
    case "duration, or nanoseconds":
      return "4m7s";
    case "list of strings":
      return ["sample"];
    case "map of strings":
      return { sample: "1" };
    default:
      return "/sample";
  }
}

const shapes = [
  ["KubeletConfiguration", kubeletShape],
  ["KubeProxyConfiguration", proxyShape],
  ["RemoraConfiguration", remoraShape],
] as const;

const rows = shapes.flatMap(([kind, shape]) =>
  leavesOf(shape).map(([path, leaf]) => ({ kind, path, leaf, sample: sampleOf(kind, path, leaf) })),
);

function merged(a: Json, b: Json): Json {
  return { ...(a as Readonly<Record<string, Json>>), ...(b as Readonly<Record<string, Json>>) };
}

/** Honoured by somebody else than the agent's members. */
const elsewhere: ReadonlySet<string> = new Set([
  "KubeletConfiguration.logging.format",
  "KubeletConfiguration.logging.verbosity",
  "KubeletConfiguration.featureGates",
  "KubeletConfiguration.failCgroupV1",
  "KubeletConfiguration.failSwapOn",
  // Judged only: it has to fit cgroupsPerQOS.
  "KubeletConfiguration.enforceNodeAllocatable",
  // All that 1.2 and 1.3 can be told by.
  "KubeProxyConfiguration.logging.format",
  "KubeProxyConfiguration.logging.verbosity",
  "KubeProxyConfiguration.featureGates",
  "KubeProxyConfiguration.clientConnection.kubeconfig",
  // Compared with the node's name.
  "KubeProxyConfiguration.hostnameOverride",
  "RemoraConfiguration.kubeconfig",
  "RemoraConfiguration.hostnameOverride",
]);

describe("every field of a configuration", () => {
  for (const { kind, path, leaf, sample } of rows) {
    const name = `${kind}.${path}`;
    const document = merged(at(path, sample), company[path] ?? {});

    test(`${name}: its default is a value of its type, and saying it changes nothing`, () => {
      if (leaf.fallback === undefined) return;
      assert.deepEqual(leaf.type.encode(fallbackOf(leaf) ?? {}), leaf.fallback);
      const said = compose(kind, at(path, leaf.fallback));
      const mine = said.remarks.filter((remark) => remark.path === path);
      assert.deepEqual(mine, []);
    });

    test(`${name}: ${leaf.standing.kind}`, () => {
      const configuration = compose(kind, document);
      const setting = configuration.settings[kind].get(path);
      assert.deepEqual(leaf.type.encode(setting?.value ?? {}), sample);
      assert.deepEqual(setting?.origin, origin);
      const mine = configuration.remarks.filter((remark) => remark.path === path);
      if (leaf.standing.kind === "honoured") {
        const errors = mine.filter(({ severity }) => severity === "error");
        assert.deepEqual(errors, []);
        if (elsewhere.has(name)) return;
        const before = {
          ...agentMembers(compose(kind, company[path] ?? {}), 4),
          kubelet: undefined,
          kubeProxy: undefined,
        };
        const after = {
          ...agentMembers(configuration, 4),
          kubelet: undefined,
          kubeProxy: undefined,
        };
        assert.notDeepEqual(after, before, "it is said to be honoured, but nobody hears of it");
        return;
      }
      assert.equal(mine.length, 1);
      const [remark] = mine;
      assert.equal(remark?.severity, leaf.standing.kind === "fixed" ? "error" : "ignored");
      assert.deepEqual(remark?.origin, origin);
      assert.notEqual(leaf.standing.reason, "");
    });

    test(`${name}: a value of another type is refused at its place`, () => {
      const wrong: Json = typeof sample === "object" ? "text" : { an: "object" };
      const errors = compose(kind, at(path, wrong)).remarks.filter(
        ({ severity }) => severity === "error",
      );
      assert.deepEqual(
        errors.map((error) => [error.path, error.origin]),
        [[path, origin]],
      );
    });

    if (leaf.flag !== undefined && typeof sample !== "object") {
      test(`${name}: --${leaf.flag} says the same, and wins`, () => {
        const flag = { name: leaf.flag ?? "", texts: [String(sample)] };
        const json = leaf.fallback === undefined ? {} : at(path, leaf.fallback);
        const setting = compose(kind, json, [flag]).settings[kind].get(path);
        assert.deepEqual(setting?.origin, { kind: "flag", flag: leaf.flag });
        assert.deepEqual(leaf.type.encode(setting.value ?? {}), sample);
      });
    }
  }

  test("there are as many fields as upstream has", () => {
    const counts = shapes.map(([, shape]) => leavesOf(shape).length);
    // KubeletConfiguration and KubeProxyConfiguration of 1.36, members of nested objects counted one by one.
    assert.deepEqual(counts.slice(0, 2), [138, 60]);
  });

  test("no two fields of a kind share a flag, but those of kube-proxy that are for all modes", () => {
    const forAllModes = ["masquerade-all", "iptables-sync-period", "iptables-min-sync-period"];
    for (const [, shape] of [...shapes, ["", flagOnlyShape] as const]) {
      const flags = leavesOf(shape)
        .flatMap(([, leaf]) => leaf.flag ?? [])
        .filter((flag) => !forAllModes.includes(flag));
      assert.deepEqual(flags, [...new Set(flags)]);
    }
    assert.ok(configurationFlags().has("max-pods"));
  });
});

describe("flags of lists and maps", () => {
  const cases: readonly (readonly [flag: string, texts: readonly string[], path: string, Json])[] =
    [
      ["cluster-dns", ["192.0.2.1,192.0.2.2"], "clusterDNS", ["192.0.2.1", "192.0.2.2"]],
      ["cluster-dns", ["192.0.2.1", "192.0.2.2"], "clusterDNS", ["192.0.2.1", "192.0.2.2"]],
      [
        "eviction-hard",
        ["memory.available<1Gi,nodefs.available<5%"],
        "evictionHard",
        { "memory.available": "1Gi", "nodefs.available": "5%" },
      ],
      ["kube-reserved", ["cpu=100m, memory=1Gi"], "kubeReserved", { cpu: "100m", memory: "1Gi" }],
      [
        "register-with-taints",
        ["a=b:NoSchedule,c:NoExecute"],
        "registerWithTaints",
        [
          { key: "a", value: "b", effect: "NoSchedule" },
          { key: "c", value: "", effect: "NoExecute" },
        ],
      ],
      ["register-with-taints", [""], "registerWithTaints", []],
      ["fail-swap-on", [""], "failSwapOn", true],
      ["fail-swap-on", ["false"], "failSwapOn", false],
      ["fail-swap-on", ["F"], "failSwapOn", false],
    ];
  for (const [name, texts, path, expected] of cases) {
    test(`--${name} ${texts.join(" ")}`, () => {
      const setting = compose("KubeletConfiguration", {}, [
        { name, texts },
      ]).settings.KubeletConfiguration.get(path);
      assert.deepEqual(setting?.leaf.type.encode(setting.value ?? {}), expected);
    });
  }

  const bad: readonly (readonly [flag: string, text: string, message: RegExp])[] = [
    ["eviction-hard", "memory.available=1Gi", /malformed pair, expect string<string/],
    ["kube-reserved", "cpu", /malformed pair, expect string=string: "cpu"/],
    ["max-pods", "ten", /"ten" is not good; it must be a whole number/],
    ["fail-swap-on", "perhaps", /must be true or false/],
    ["register-with-taints", "a=b=c:NoSchedule", /an object belongs here/],
    ["register-with-taints", "a=b:Never", /unsupported taint effect/],
    ["feature-gates", "NoSuchGate=true", /unrecognized feature gate: NoSuchGate/],
  ];
  for (const [name, text, message] of bad) {
    test(`--${name} ${text} is refused`, () => {
      const { remarks } = compose("KubeletConfiguration", {}, [{ name, texts: [text] }]);
      assert.match(
        remarks
          .filter(({ severity }) => severity === "error")
          .map((r) => r.text)
          .join("\n"),
        message,
      );
      assert.deepEqual(remarks[0]?.origin, { kind: "flag", flag: name });
    });
  }
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { agentConfig } from "../../../src/config/agent-config.ts";
import { agentMembers } from "../../../src/config/agent-members.ts";
import {
  composeConfiguration,
  type Configuration,
  type GivenFlag,
} from "../../../src/config/configuration.ts";
import { kubeProxyConfiguration } from "../../../src/config/proxy-configz.ts";
import type { Json } from "../../../src/config/shape.ts";
import type { ProxySettings } from "../../../src/config/types.ts";
import { rawOf } from "./raw-of.ts";

const origin = { kind: "file", file: "/c.yaml", line: 7 } as const;

function compose(
  document: Json,
  flags: readonly (readonly [string, string])[] = [],
): Configuration {
  const given: readonly GivenFlag[] = flags.map(([name, text]) => ({ name, texts: [text] }));
  const documents = new Map([["KubeProxyConfiguration", rawOf(document, origin)] as const]);
  return composeConfiguration({ documents, troubles: [], skipped: [] }, given);
}

function settings(configuration: Configuration): ProxySettings {
  const { proxy } = agentMembers(configuration, 4);
  assert.ok(proxy !== undefined);
  return proxy;
}

/** What is said about fields, without where they stand. */
function remarks({ remarks: all }: Configuration): readonly string[] {
  return all.map(({ severity, path, text }) => `${severity} ${path}: ${text}`);
}

describe("what KubeProxyConfiguration says about Services", () => {
  test("nothing: upstream's defaults, but changes are not held back", () => {
    assert.deepEqual(settings(compose({})), {
      mode: "",
      masqueradeBit: 14,
      masqueradeAll: false,
      localhostNodePorts: true,
      syncPeriodMs: 30_000,
      minSyncPeriodMs: 0,
      nodePortAddresses: [],
      detectLocalMode: "ClusterCIDR",
      bridgeInterface: "",
      interfaceNamePrefix: "",
      bindAddress: "0.0.0.0",
      bindAddressHardFail: false,
      externalIPs: true,
      conntrack: {
        maxPerCore: 32_768,
        min: 131_072,
        onlyRaiseMax: true,
        tcpEstablishedTimeoutMs: 86_400_000,
        tcpCloseWaitTimeoutMs: 3_600_000,
        tcpBeLiberal: false,
        udpTimeoutMs: 0,
        udpStreamTimeoutMs: 0,
      },
    } satisfies ProxySettings);
  });

  test("everything", () => {
    const configuration = compose({
      mode: "iptables",
      iptables: {
        masqueradeBit: 0,
        masqueradeAll: true,
        localhostNodePorts: false,
        syncPeriod: "1m",
        minSyncPeriod: "2s",
      },
      nodePortAddresses: ["192.0.2.0/24"],
      detectLocalMode: "InterfaceNamePrefix",
      detectLocal: { interfaceNamePrefix: "veth" },
      bindAddress: "192.0.2.5",
      bindAddressHardFail: true,
      featureGates: { AllowServiceExternalIPs: false },
      conntrack: {
        maxPerCore: 1000,
        min: 5,
        tcpEstablishedTimeout: "0s",
        tcpCloseWaitTimeout: "10s",
        tcpBeLiberal: true,
        udpTimeout: "3s",
        udpStreamTimeout: "4s",
      },
    });
    assert.deepEqual(configuration.remarks, []);
    assert.deepEqual(settings(configuration), {
      mode: "iptables",
      masqueradeBit: 0,
      masqueradeAll: true,
      localhostNodePorts: false,
      syncPeriodMs: 60_000,
      minSyncPeriodMs: 2000,
      nodePortAddresses: ["192.0.2.0/24"],
      detectLocalMode: "InterfaceNamePrefix",
      bridgeInterface: "",
      interfaceNamePrefix: "veth",
      bindAddress: "192.0.2.5",
      bindAddressHardFail: true,
      externalIPs: false,
      conntrack: {
        maxPerCore: 1000,
        min: 5,
        onlyRaiseMax: false,
        tcpEstablishedTimeoutMs: 0,
        tcpCloseWaitTimeoutMs: 10_000,
        tcpBeLiberal: true,
        udpTimeoutMs: 3000,
        udpStreamTimeoutMs: 4000,
      },
    } satisfies ProxySettings);
  });

  test("flags", () => {
    const configuration = compose({}, [
      ["proxy-mode", "nftables"],
      ["masquerade-all", ""],
      ["iptables-sync-period", "20s"],
      ["iptables-min-sync-period", "1s"],
      ["nodeport-addresses", "primary"],
      ["detect-local-mode", "BridgeInterface"],
      ["pod-bridge-interface", "br0"],
      ["bind-address", "2001:db8::1"],
      ["conntrack-max-per-core", "0"],
      ["conntrack-tcp-be-liberal", "true"],
      ["feature-gates", "AllowServiceExternalIPs=false"],
    ]);
    assert.deepEqual(configuration.remarks, []);
    const got = settings(configuration);
    assert.deepEqual(
      [got.mode, got.masqueradeAll, got.syncPeriodMs, got.minSyncPeriodMs, got.nodePortAddresses],
      ["nftables", true, 20_000, 1000, ["primary"]],
    );
    assert.deepEqual(
      [got.detectLocalMode, got.bridgeInterface, got.bindAddress, got.externalIPs],
      ["BridgeInterface", "br0", "2001:db8::1", false],
    );
    assert.deepEqual([got.conntrack.maxPerCore, got.conntrack.tcpBeLiberal], [0, true]);
  });

  test("a feature gate of the command line is judged once", () => {
    const configuration = compose({}, [["feature-gates", "NodeSwap=false"]]);
    assert.deepEqual(remarks(configuration), [
      "error featureGates: cannot set feature gate NodeSwap to false, feature is locked to true",
    ]);
  });

  test("the section of the mode counts, and the other one is told to have no effect", () => {
    const sections = {
      iptables: { masqueradeBit: 3 },
      nftables: { masqueradeBit: 4, syncPeriod: "9s" },
    };
    const nftables = compose({ mode: "nftables", ...sections });
    assert.equal(settings(nftables).masqueradeBit, 4);
    assert.deepEqual(remarks(nftables), [
      "ignored iptables.masqueradeBit: has no effect: mode is nftables",
    ]);
    const iptables = compose({ mode: "iptables", ...sections });
    assert.equal(settings(iptables).masqueradeBit, 3);
    assert.equal(settings(iptables).syncPeriodMs, 30_000);
    assert.deepEqual(remarks(iptables), [
      "ignored nftables.masqueradeBit: has no effect: mode is iptables",
      "ignored nftables.syncPeriod: has no effect: mode is iptables",
    ]);
  });

  test("without a mode either section counts, nftables' before the other", () => {
    const one = compose({ iptables: { masqueradeBit: 3, masqueradeAll: true } });
    assert.deepEqual(remarks(one), []);
    assert.deepEqual([settings(one).masqueradeBit, settings(one).masqueradeAll], [3, true]);
    const both = compose({ iptables: { masqueradeBit: 3 }, nftables: { masqueradeBit: 4 } });
    assert.equal(settings(both).masqueradeBit, 4);
    assert.deepEqual(remarks(both), [
      "ignored iptables.masqueradeBit: has no effect: no mode is set, and nftables.masqueradeBit counts",
    ]);
    // Saying the default is saying something.
    const fallback = compose({ iptables: { masqueradeBit: 3 }, nftables: { masqueradeBit: 14 } });
    assert.equal(settings(fallback).masqueradeBit, 14);
  });

  test("what has no effect beside others is told", () => {
    const idle: readonly (readonly [Json, string])[] = [
      [
        { mode: "nftables", iptables: { localhostNodePorts: false } },
        "iptables.localhostNodePorts: has no effect: mode is nftables",
      ],
      [
        { detectLocal: { bridgeInterface: "br0" } },
        "detectLocal.bridgeInterface: has no effect: detectLocalMode is ClusterCIDR",
      ],
      [
        { conntrack: { maxPerCore: 0, min: 7 } },
        "conntrack.min: has no effect: conntrack.maxPerCore is 0",
      ],
      [
        { mode: "nftables", nodePortAddresses: ["127.0.0.0/8", "192.0.2.0/24"] },
        "nodePortAddresses: 127.0.0.0/8 has no effect: there are no node ports on localhost with mode: nftables",
      ],
      [
        { ipvs: { scheduler: "lc" } },
        "ipvs.scheduler: has no effect: the kernel's ipvs is not used",
      ],
      [
        { oomScoreAdj: -500 },
        "oomScoreAdj: has no effect: kubelet and proxy are one process: set OOMScoreAdjust= in the service's unit",
      ],
      [
        { enableProfiling: true },
        "enableProfiling: has no effect: there are no profiles of Go to be shown",
      ],
    ];
    for (const [document, expected] of idle)
      assert.deepEqual(remarks(compose(document)), [`ignored ${expected}`]);
  });

  test("with mode nftables node ports answer on the node's own addresses, and the reason is told", () => {
    const configuration = compose({ mode: "nftables" });
    assert.deepEqual(settings(configuration).nodePortAddresses, ["primary"]);
    const setting = configuration.settings.KubeProxyConfiguration.get("nodePortAddresses");
    assert.equal(setting?.because, "mode is nftables");
  });
});

test("/configz says what runs: the document, and what the agent knows better", () => {
  const configuration = compose({ mode: "nftables", conntrack: { udpTimeout: "5s" } });
  const config = agentConfig({
    ...agentMembers(configuration, 4),
    nodeName: "worker",
    kubeconfig: "/k",
    proxyKubeconfig: "/p",
    clusterCIDRs: ["10.244.0.0/16", "fd00:1::/48"],
    proxyMetricsPort: 0,
    proxyHealthzAddress: "2001:db8::1",
  });
  const json = kubeProxyConfiguration(config);
  assert.deepEqual(
    [json["kind"], json["mode"], json["clusterCIDR"], json["nodePortAddresses"]],
    ["KubeProxyConfiguration", "nftables", "10.244.0.0/16,fd00:1::/48", ["primary"]],
  );
  assert.deepEqual(
    [json["healthzBindAddress"], json["metricsBindAddress"], json["hostnameOverride"]],
    ["[2001:db8::1]:10256", "", "worker"],
  );
  assert.deepEqual(json["conntrack"], {
    maxPerCore: 32_768,
    min: 131_072,
    tcpEstablishedTimeout: "24h0m0s",
    tcpCloseWaitTimeout: "1h0m0s",
    tcpBeLiberal: false,
    udpTimeout: "5s",
    udpStreamTimeout: "0s",
  });
});

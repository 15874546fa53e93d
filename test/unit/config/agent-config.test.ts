import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { agentConfig, type AgentConfigInput } from "../../../src/config/agent-config.ts";

const minimal: AgentConfigInput = { nodeName: "n1", kubeconfig: "/k", proxyKubeconfig: "/p" };

describe("agentConfig", () => {
  test("fills upstream's defaults and cannot be changed afterwards", () => {
    const config = agentConfig(minimal);
    assert.equal(config.kubeletPort, 10_250);
    assert.equal(config.maxPods, 110);
    assert.throws(() => Object.assign(config, { maxPods: 1 }), TypeError);
    assert.throws(() => Object.assign(config.evictionHard, { "pid.available": "1%" }), TypeError);
  });

  const refused: readonly (readonly [string, Partial<AgentConfigInput>, RegExp])[] = [
    [
      "a node name with a capital",
      { nodeName: "Node1" },
      /nodeName: "Node1" .*--hostname-override/,
    ],
    [
      "a relative root directory",
      { rootDir: "kubelet" },
      /rootDir: "kubelet" is not an absolute path/,
    ],
    ["a port out of range", { kubeletPort: 70_000 }, /kubeletPort: 70000/],
    [
      "one port for two servers",
      { kubeletPort: 10_256 },
      /proxyHealthzPort: 10256 is also kubeletPort/,
    ],
    [
      "a node address that is a name",
      { nodeIPs: ["host"] },
      /nodeIPs: "host" is not an IP address/,
    ],
    ["a pod network without a prefix", { podCIDRs: ["10.1.0.0"] }, /podCIDRs: expected a CIDR/],
    [
      "a certificate without its key",
      { tlsCertFile: "/c" },
      /tlsPrivateKeyFile must be given together/,
    ],
    [
      "credential providers without their programs",
      { imageCredentialProviderConfig: "/etc/providers.yaml" },
      /imageCredentialProviderConfig: .* must be given together/,
    ],
    [
      "a crash loop longer than the kubelet allows",
      { maxContainerRestartPeriodMs: 300_001 },
      /maxContainerRestartPeriodMs: 300001 must be between/,
    ],
  ];
  for (const [what, input, message] of refused) {
    test(`${what} is refused by field name`, () => {
      assert.throws(() => agentConfig({ ...minimal, ...input }), { message });
    });
  }

  test("the same port 0 (off) may be given to several servers", () => {
    assert.equal(
      agentConfig({ ...minimal, proxyMetricsPort: 0, kubeletHealthzPort: 0 }).proxyMetricsPort,
      0,
    );
  });
});

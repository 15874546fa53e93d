import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { type NetworkList, parseConfigList } from "../../../src/network/cni/config.ts";
import { capabilityArgs, cniArgs } from "../../../src/network/cni/capabilities.ts";
import { isAccepting } from "../../../src/network/cni/forward-last.ts";
import type { SandboxNetworkConfig } from "../../../src/network/types.ts";

const plain: SandboxNetworkConfig = {
  sandboxID: "s1",
  podUID: "u1",
  podKey: "shop/web-0",
  pid: 7,
  hostPorts: [],
};

function listWith(...names: readonly string[]): NetworkList {
  const capabilities = Object.fromEntries(names.map((name) => [name, true]));
  return parseConfigList(JSON.stringify({ name: "n", plugins: [{ type: "t", capabilities }] }));
}

const greedy = listWith(
  "portMappings",
  "bandwidth",
  "dns",
  "ipRanges",
  "mac",
  "io.kubernetes.cri.pod-annotations",
);

describe("what plug-ins may be given", () => {
  test("is nothing for a pod that asks for nothing", () => {
    assert.deepEqual(capabilityArgs(greedy, plain, []), {});
  });

  test("is what the conventions of CNI name", () => {
    const config: SandboxNetworkConfig = {
      ...plain,
      hostPorts: [
        { protocol: "TCP", hostIP: "", hostPort: 80, containerPort: 8080 },
        { protocol: "UDP", hostIP: "192.0.2.1", hostPort: 53, containerPort: 5353 },
      ],
      pod: {
        annotations: { a: "b" },
        bandwidth: { egressBits: 1_000_000 },
        dns: { servers: ["10.96.0.10"], searches: ["svc"], options: ["ndots:5"] },
      },
    };
    assert.deepEqual(capabilityArgs(listWith("bandwidth"), config, []), {
      bandwidth: { egressRate: 1_000_000, egressBurst: 4_294_967_295 },
    });
    assert.deepEqual(capabilityArgs(greedy, config, ["10.1.0.0/24", "fd00::/64"]), {
      portMappings: [
        { hostPort: 80, containerPort: 8080, protocol: "tcp" },
        { hostPort: 53, containerPort: 5353, protocol: "udp", hostIP: "192.0.2.1" },
      ],
      bandwidth: { egressRate: 1_000_000, egressBurst: 4_294_967_295 },
      dns: { servers: ["10.96.0.10"], searches: ["svc"], options: ["ndots:5"] },
      ipRanges: [[{ subnet: "10.1.0.0/24" }], [{ subnet: "fd00::/64" }]],
      "io.kubernetes.cri.pod-annotations": { a: "b" },
    });
  });

  test("names the pod as the runtimes of Kubernetes do", () => {
    assert.equal(
      cniArgs(plain)
        .map((pair) => pair.join("="))
        .join(";"),
      "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=s1;K8S_POD_UID=u1",
    );
  });
});

describe("the rules that accept what nobody refused", () => {
  const accept = {
    family: "IPv4",
    chain: "REMORA-CNI",
    podNetworks: ["10.1.0.0/16", "fd00::/48"],
    serviceMark: 0x4000,
  } as const;
  const rules = [
    "-A REMORA-CNI -s 10.1.0.0/16 -j ACCEPT",
    "-A REMORA-CNI -d 10.1.0.0/16 -j ACCEPT",
    "-A REMORA-CNI -m mark --mark 0x4000/0x4000 -j ACCEPT",
    "-A REMORA-CNI -m conntrack --ctstate RELATED,ESTABLISHED -m conntrack --ctstate DNAT -j ACCEPT",
  ];
  const listing = (...forward: readonly string[]): string =>
    [":REMORA-CNI - [0:0]", ...forward, ...rules].join("\n");

  for (const [what, text, right] of [
    [
      "are right behind those of others",
      listing("-A FORWARD -j CALICO", "-A FORWARD -j REMORA-CNI"),
      true,
    ],
    [
      "are right with others behind them",
      listing("-A FORWARD -j REMORA-CNI", "-A FORWARD -j X"),
      true,
    ],
    ["are wrong without a jump", listing("-A FORWARD -j X"), false],
    ["are wrong with two", listing("-A FORWARD -j REMORA-CNI", "-A FORWARD -j REMORA-CNI"), false],
    [
      "are wrong when one is missing",
      listing("-A FORWARD -j REMORA-CNI").replace(`${rules[1]}\n`, ""),
      false,
    ],
    [
      "are wrong in another order",
      listing("-A FORWARD -j REMORA-CNI").replace(
        `${rules[0]}\n${rules[1]}`,
        `${rules[1]}\n${rules[0]}`,
      ),
      false,
    ],
  ] as const) {
    test(what, () => {
      assert.equal(isAccepting(text, accept), right);
    });
  }
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { proxyDefaults } from "../../../src/config/agent-config.ts";
import type { ProxySettings } from "../../../src/config/types.ts";
import type { LocalDetector, ProxyMode } from "../../../src/proxy/backend.ts";
import { localDetector } from "../../../src/proxy/local-detector.ts";
import {
  answersOnLocalhost,
  nodePortIPs,
  nodePortRemarks,
  ownAddresses,
} from "../../../src/proxy/node-addresses.ts";
import { parseService } from "../../../src/proxy/parse.ts";
import { servicePorts } from "../../../src/proxy/service-model.ts";

const interfaces = ["127.0.0.1", "192.0.2.5", "198.51.100.7", "2001:db8::5", "::1", "fe80::1"];
const nodeIPs = ["192.0.2.5", "2001:db8::5"];

function settings(change: Partial<ProxySettings>): ProxySettings {
  return { ...proxyDefaults, ...change };
}

describe("the addresses that node ports answer on", () => {
  const cases: readonly (readonly [
    name: string,
    mode: ProxyMode,
    said: readonly string[],
    v4: readonly string[] | undefined,
    v6: readonly string[] | undefined,
  ])[] = [
    ["nothing said, nftables: the node's own", "nftables", [], ["192.0.2.5"], ["2001:db8::5"]],
    ["nothing said, iptables: all", "iptables", [], undefined, undefined],
    ["primary", "iptables", ["primary"], ["192.0.2.5"], ["2001:db8::5"]],
    [
      "a network of one family: all of the other",
      "nftables",
      ["198.51.100.0/24"],
      ["198.51.100.7"],
      undefined,
    ],
    ["a network that no interface is in: none", "nftables", ["203.0.113.0/24"], [], undefined],
    [
      "everything of a family",
      "nftables",
      ["0.0.0.0/0", "192.0.2.0/24", "fe80::/10"],
      undefined,
      ["fe80::1"],
    ],
    [
      "several networks",
      "nftables",
      ["192.0.2.0/24", "198.51.100.0/24"],
      ["192.0.2.5", "198.51.100.7"],
      undefined,
    ],
    [
      "never loopback with nftables",
      "nftables",
      ["127.0.0.0/8", "192.0.2.0/24", "::1/128"],
      ["192.0.2.5"],
      [],
    ],
    [
      "loopback with iptables, IPv4 only",
      "iptables",
      ["127.0.0.0/8", "::1/128"],
      ["127.0.0.1"],
      [],
    ],
  ];
  for (const [name, mode, nodePortAddresses, v4, v6] of cases) {
    test(name, () => {
      const said = settings({ nodePortAddresses });
      assert.deepEqual(nodePortIPs(said, mode, "IPv4", nodeIPs, interfaces), v4);
      assert.deepEqual(nodePortIPs(said, mode, "IPv6", nodeIPs, interfaces), v6);
    });
  }

  test("primary without a known address of the family means all of them", () => {
    const said = settings({ nodePortAddresses: ["primary"] });
    assert.deepEqual(nodePortIPs(said, "nftables", "IPv4", ["192.0.2.5"], interfaces), [
      "192.0.2.5",
    ]);
    assert.equal(nodePortIPs(said, "nftables", "IPv6", ["192.0.2.5"], interfaces), undefined);
    // Loopback is what a node has that knows no address.
    assert.equal(nodePortIPs(said, "nftables", "IPv4", ["127.0.0.1"], interfaces), undefined);
  });

  test("an address that no interface has yet is none", () => {
    assert.deepEqual(nodePortIPs(settings({}), "nftables", "IPv4", nodeIPs, ["127.0.0.1"]), []);
  });

  test("a spelling of an address does not matter", () => {
    const said = settings({ nodePortAddresses: ["2001:DB8:0::/64"] });
    assert.deepEqual(
      nodePortIPs(said, "nftables", "IPv6", nodeIPs, ["2001:db8:0:0::5", "2001:db8::5"]),
      ["2001:db8::5"],
    );
  });

  test("bindAddress takes the place of the address of its family", () => {
    assert.deepEqual(ownAddresses({ bindAddress: "0.0.0.0" }, nodeIPs), nodeIPs);
    assert.deepEqual(ownAddresses({ bindAddress: "0:0::0" }, nodeIPs), nodeIPs);
    assert.deepEqual(ownAddresses({ bindAddress: "198.51.100.7" }, nodeIPs), [
      "198.51.100.7",
      "2001:db8::5",
    ]);
    assert.deepEqual(ownAddresses({ bindAddress: "2001:DB8::9" }, ["192.0.2.5"]), [
      "2001:db8::9",
      "192.0.2.5",
    ]);
  });
});

describe("node ports on localhost", () => {
  const cases: readonly (readonly [
    name: string,
    mode: ProxyMode,
    change: Partial<ProxySettings>,
    answers: boolean,
  ])[] = [
    ["iptables", "iptables", {}, true],
    ["nftables", "nftables", {}, false],
    ["switched off", "iptables", { localhostNodePorts: false }, false],
    ["primary leaves loopback out", "iptables", { nodePortAddresses: ["primary"] }, false],
    ["so does a network", "iptables", { nodePortAddresses: ["192.0.2.0/24"] }, false],
    ["a network with it", "iptables", { nodePortAddresses: ["127.0.0.0/8"] }, true],
    ["one address of it", "iptables", { nodePortAddresses: ["127.0.0.1/32"] }, true],
    ["a wide network around it", "iptables", { nodePortAddresses: ["112.0.0.0/4"] }, true],
    ["networks of the other family only", "iptables", { nodePortAddresses: ["::/0"] }, true],
  ];
  for (const [name, mode, change, answers] of cases) {
    test(name, () => {
      assert.equal(answersOnLocalhost(settings(change), mode, "IPv4", nodeIPs), answers);
      assert.equal(answersOnLocalhost(settings(change), mode, "IPv6", nodeIPs), false);
    });
  }
});

describe("what is said about nodePortAddresses", () => {
  const both = ["IPv4", "IPv6"] as const;
  test("nothing when all is as one expects", () => {
    for (const nodePortAddresses of [
      [],
      ["primary"],
      ["0.0.0.0/0", "::/0"],
      ["192.0.2.0/24", "2001:db8::/64"],
    ]) {
      assert.deepEqual(
        nodePortRemarks(settings({ nodePortAddresses }), "nftables", both, nodeIPs),
        [],
      );
    }
  });
  const cases: readonly (readonly [mode: ProxyMode, Partial<ProxySettings>, RegExp])[] = [
    ["iptables", {}, /is not set: node ports answer on all addresses/],
    ["nftables", { nodePortAddresses: ["192.0.2.0/24"] }, /names no IPv6 network/],
    [
      "nftables",
      { nodePortAddresses: ["127.0.0.0/8", "::/0"] },
      /127\.0\.0\.0\/8, but .* iptables mode and IPv4 only/,
    ],
    ["iptables", { nodePortAddresses: ["::1/128", "0.0.0.0/0"] }, /::1\/128, but .* IPv4 only/],
    [
      "iptables",
      { nodePortAddresses: ["127.0.0.0/8", "::/0"], localhostNodePorts: false },
      /localhostNodePorts is false/,
    ],
  ];
  for (const [mode, change, expected] of cases) {
    test(`${mode} ${JSON.stringify(change)}`, () => {
      assert.match(nodePortRemarks(settings(change), mode, both, nodeIPs).join("\n"), expected);
    });
  }
  test("an address that is not known", () => {
    assert.match(
      nodePortRemarks(settings({}), "nftables", both, ["192.0.2.5"]).join("\n"),
      /node's IPv6 address is not known/,
    );
  });
});

describe("who is a pod of this node", () => {
  const networks = {
    clusterCIDRs: ["10.244.0.0/16", "10.9.0.0/16", "fd00:1::/48"],
    podCIDRs: ["10.244.3.0/24"],
  };
  const cases: readonly (readonly [
    Partial<ProxySettings>,
    v4: LocalDetector,
    v6: LocalDetector,
  ])[] = [
    [{}, { kind: "cidrs", cidrs: ["10.244.0.0/16"] }, { kind: "cidrs", cidrs: ["fd00:1::/48"] }],
    [
      { detectLocalMode: "NodeCIDR" },
      { kind: "cidrs", cidrs: ["10.244.3.0/24"] },
      { kind: "none" },
    ],
    [
      { detectLocalMode: "BridgeInterface", bridgeInterface: "br0" },
      { kind: "interface", name: "br0" },
      { kind: "interface", name: "br0" },
    ],
    [
      { detectLocalMode: "InterfaceNamePrefix", interfaceNamePrefix: "veth" },
      { kind: "interface-prefix", prefix: "veth" },
      { kind: "interface-prefix", prefix: "veth" },
    ],
  ];
  for (const [change, v4, v6] of cases) {
    test(JSON.stringify(change), () => {
      assert.deepEqual(localDetector(settings(change), "IPv4", networks), v4);
      assert.deepEqual(localDetector(settings(change), "IPv6", networks), v6);
    });
  }
});

test("without the gate AllowServiceExternalIPs a Service has no external IPs", () => {
  const service = parseService({
    metadata: { namespace: "ns", name: "web" },
    spec: {
      clusterIP: "10.96.0.1",
      externalIPs: ["198.51.100.1"],
      externalTrafficPolicy: "Local",
      ports: [{ port: 80 }],
    },
  });
  const [on] = servicePorts(service, "IPv4", nodeIPs);
  assert.deepEqual([on?.externalIPs, on?.externalLocal], [["198.51.100.1"], true]);
  const [off] = servicePorts(service, "IPv4", nodeIPs, false);
  assert.deepEqual([off?.externalIPs, off?.externalLocal], [[], false]);
});

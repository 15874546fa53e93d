import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  type AddressFacts,
  chooseNodeIPs,
  internalIPs,
} from "../../../src/kubelet/node/choose-node-ips.ts";

const host = [
  { interfaceName: "lo", address: "127.0.0.1" },
  { interfaceName: "docker0", address: "172.17.0.1" },
  { interfaceName: "eth0", address: "192.0.2.2" },
  { interfaceName: "eth1", address: "198.51.100.2" },
  { interfaceName: "eth0", address: "fd00::7", temporary: true },
  { interfaceName: "eth0", address: "2001:db8::2" },
  { interfaceName: "eth0", address: "fd00::2" },
];

function chosen(facts: Partial<AddressFacts>): readonly string[] | string {
  const choice = chooseNodeIPs({
    configured: [],
    nodeName: "n1",
    host,
    routeSources: {},
    ...facts,
  });
  return choice.kind === "chosen" ? choice.ips : choice.why;
}

describe("the addresses of a machine that moves", () => {
  test("what was chosen stays while no default route says otherwise", () => {
    assert.deepEqual(chosen({ previous: ["198.51.100.2"] }), ["198.51.100.2"]);
  });

  test("the default route says otherwise", () => {
    const routeSources = { IPv4: "192.0.2.2" };
    assert.deepEqual(chosen({ previous: ["198.51.100.2"], routeSources }), ["192.0.2.2"]);
  });

  test("what is gone from all interfaces does not stay", () => {
    assert.deepEqual(chosen({ previous: ["203.0.113.1"] }), ["192.0.2.2"]);
  });

  test("a temporary address gives way to the lasting one beside it, of its own network first", () => {
    assert.deepEqual(chosen({ routeSources: { IPv6: "fd00::7" } }), ["fd00::2"]);
    const only = host.slice(0, -1);
    assert.deepEqual(chosen({ host: only, routeSources: { IPv6: "fd00::7" } }), ["2001:db8::2"]);
    const alone = host.slice(0, -2);
    assert.deepEqual(chosen({ host: alone, routeSources: { IPv6: "fd00::7" } }), ["fd00::7"]);
  });

  test("a doubtful address is nobody's lasting one, and not the first of its interface", () => {
    const doubtful = host.map((entry) =>
      entry.address === "fd00::2" ? { ...entry, doubtful: true } : entry,
    );
    assert.deepEqual(chosen({ host: doubtful, routeSources: { IPv6: "fd00::7" } }), [
      "2001:db8::2",
    ]);
    const first = [{ interfaceName: "eth0", address: "192.0.2.9", doubtful: true }, ...host];
    assert.deepEqual(chosen({ host: first }), ["192.0.2.2"]);
  });

  const both = { IPv4: "192.0.2.2", IPv6: "2001:db8::2" };
  const table: readonly [string, Partial<AddressFacts>, readonly string[]][] = [
    ["one family without pods", { routeSources: both }, ["192.0.2.2"]],
    ["pods of the same family", { routeSources: both, podFamilies: ["IPv4"] }, ["192.0.2.2"]],
    [
      "pods of both families",
      { routeSources: both, podFamilies: ["IPv4", "IPv6"] },
      ["192.0.2.2", "2001:db8::2"],
    ],
    [
      "pods of the other one, and no route of it",
      { routeSources: { IPv4: "192.0.2.2" }, podFamilies: ["IPv4", "IPv6"] },
      ["192.0.2.2", "2001:db8::2"],
    ],
    [
      "pods of both on a machine of one",
      { host: host.slice(0, 4), routeSources: both, podFamilies: ["IPv4", "IPv6"] },
      ["192.0.2.2"],
    ],
    [
      "pods of both, and IPv6 is asked for first",
      { configured: ["::"], routeSources: both, podFamilies: ["IPv6", "IPv4"] },
      ["2001:db8::2", "192.0.2.2"],
    ],
    ["IPv6 is asked for", { configured: ["::"], routeSources: both }, ["2001:db8::2"]],
    [
      "IPv6 is asked for and not there",
      { configured: ["::"], host: host.slice(0, 4) },
      ["192.0.2.2"],
    ],
    ["IPv4 is asked for", { configured: ["0.0.0.0"], routeSources: both }, ["192.0.2.2"]],
    [
      "pods of both, and addresses that were configured",
      { configured: ["198.51.100.2"], podFamilies: ["IPv4", "IPv6"] },
      ["198.51.100.2"],
    ],
  ];
  for (const [what, facts, wanted] of table) {
    test(`families follow the pods: ${what}`, () => {
      assert.deepEqual(chosen(facts), wanted);
    });
  }

  test("the InternalIPs of a status are read in its order", () => {
    assert.deepEqual(
      internalIPs([
        { type: "ExternalIP", address: "203.0.113.1" },
        { type: "InternalIP", address: "192.0.2.2" },
        { type: "InternalIP", address: "nonsense" },
        { type: "InternalIP", address: "fd00::2" },
        { type: "Hostname", address: "n1" },
      ]),
      ["192.0.2.2", "fd00::2"],
    );
    assert.deepEqual(internalIPs(undefined), []);
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  CurrentAddresses,
  endpointAddress,
  type MachineAddresses,
  serverAddress,
} from "../../../src/controlplane/machine-addresses.ts";

const home: MachineAddresses = {
  nodeIPs: ["192.0.2.5", "2001:db8::5"],
  present: ["192.0.2.5", "2001:db8::5", "10.8.0.2"],
  local: ["10.244.0.1", "172.17.0.1"],
};

describe("where a control plane can be reached", () => {
  const endpoints: readonly [string, MachineAddresses, string | undefined][] = [
    ["at the node's address", home, "192.0.2.5"],
    ["in the Services' family", { ...home, nodeIPs: ["2001:db8::5", "192.0.2.5"] }, "192.0.2.5"],
    ["elsewhere while the node's is gone", { ...home, present: ["10.8.0.2"] }, "10.8.0.2"],
    ["at a bridge in a train", { ...home, present: [] }, "10.244.0.1"],
    ["at the node's while nothing is there", { ...home, present: [], local: [] }, "192.0.2.5"],
    ["nowhere", { nodeIPs: [], present: [], local: [] }, undefined],
    ["never at loopback", { nodeIPs: ["127.0.0.1"], present: ["127.0.0.1"], local: [] }, undefined],
    [
      "nowhere in another family",
      { ...home, nodeIPs: ["2001:db8::5"], present: [], local: [] },
      undefined,
    ],
  ];
  for (const [what, addresses, wanted] of endpoints) {
    test(`by pods: ${what}`, () => {
      assert.equal(endpointAddress(addresses, "IPv4"), wanted);
    });
  }

  test("spelling does not matter", () => {
    const addresses = { nodeIPs: ["2001:DB8:0::5"], present: ["2001:db8::5"], local: [] };
    assert.equal(endpointAddress(addresses, "IPv6"), "2001:DB8:0::5");
  });

  test("by machines that join: at the node's address, never at a bridge", () => {
    assert.equal(serverAddress(home), "192.0.2.5");
    assert.equal(serverAddress({ ...home, nodeIPs: [] }), "192.0.2.5");
    assert.equal(serverAddress({ ...home, nodeIPs: [], present: [] }), undefined);
  });
});

test("the same addresses again are no news", () => {
  const addresses = new CurrentAddresses(home);
  let told = 0;
  const end = addresses.onChange(() => (told += 1));
  assert.equal(addresses.set({ ...home }), false);
  assert.equal(addresses.set({ ...home, local: [] }), true);
  end();
  assert.equal(addresses.set(home), true);
  assert.equal(told, 1);
  assert.equal(addresses.current, home);
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { parseCidr } from "../../../src/lib/cidr.ts";
import {
  attachCommands,
  linkLocalAddress,
  type BridgeDevice,
  renamedBridge,
  rivals,
} from "../../../src/network/bridge-device.ts";
import { bridgeMAC, type Link } from "../../../src/network/links.ts";
import { overruledRoutes } from "../../../src/network/node-routes.ts";

const wanted: BridgeDevice = {
  name: "remora0",
  podCIDRs: [parseCidr("10.244.1.0/24"), parseCidr("fd00:244:0:1::/64")],
  local: ["10.96.0.10"],
  mtu: 1500,
};

function link(name: string, part: Partial<Link> = {}): Link {
  return {
    name,
    master: undefined,
    up: true,
    mtu: 1500,
    mac: "02:00:00:00:00:01",
    kind: undefined,
    addresses: [],
    ...part,
  };
}

describe("the bridge among other interfaces", () => {
  const ours = link("remora0", { kind: "bridge", mac: bridgeMAC("10.244.1.1") });

  it("is known under another name by its MAC address, unless there is one of its name", () => {
    assert.equal(renamedBridge(wanted, [link("eth0"), { ...ours, name: "mine" }])?.name, "mine");
    assert.equal(renamedBridge(wanted, [ours, { ...ours, name: "mine" }]), undefined);
    assert.equal(renamedBridge(wanted, [link("docker0", { kind: "bridge" })]), undefined);
    assert.equal(
      renamedBridge(wanted, [link("mine", { mac: ours.mac, kind: "dummy" })]),
      undefined,
    );
  });

  it("has the link-local address of its MAC address", () => {
    assert.equal(linkLocalAddress("0a:58:0a:f4:00:01"), "fe80::858:aff:fef4:1");
  });

  it("has rivals that hold addresses of its networks", () => {
    const at = (ip: string, prefix: number): Partial<Link> => ({ addresses: [{ ip, prefix }] });
    assert.deepEqual(
      rivals(wanted, [
        { ...ours, ...at("10.244.1.1", 24) },
        link("cni0", at("10.244.1.1", 24)),
        link("eth0", at("10.244.2.1", 24)),
        link("flannel.1", at("fd00:244:0:1::", 128)),
      ]).map((text) => text.split(",")[0]),
      ["interface cni0 has 10.244.1.1/24", "interface flannel.1 has fd00:244:0:1::/128"],
    );
  });

  it("gets interfaces of pods back, with hairpin, and nothing else", () => {
    const right = { master: "remora0", hairpin: true };
    const links = [
      link("rmv1", right),
      link("rmv2", { up: false, ...right }),
      link("rmv3", { master: "br1", hairpin: true }),
      link("rmv4", { master: "remora0", hairpin: false }),
      link("eth0"),
    ];
    assert.deepEqual(attachCommands(new Set(["rmv1", "rmv2", "rmv3", "rmv4"]), links, "remora0"), [
      "link set dev rmv2 up",
      "link set dev rmv3 master remora0",
      "link set dev rmv3 type bridge_slave hairpin on",
      "link set dev rmv4 type bridge_slave hairpin on",
    ]);
  });
});

it("a route of ours is overruled when packets go another way, or none", () => {
  const route = {
    destination: "10.244.2.0/24",
    gateway: "192.0.2.2",
    device: "eth0",
    metric: 2048,
  };
  const probed = new Map([["10.244.2.0/24", "10.244.2.2"]]);
  const by = (gateway: string, device: string): readonly string[] =>
    overruledRoutes([route], probed, new Map([["10.244.2.2", { gateway, device, local: false }]]));
  assert.deepEqual(by("192.0.2.2", "eth0"), []);
  assert.match(by("", "wg0")[0] ?? "", /sends 10\.244\.2\.2 dev wg0/);
  assert.match(by("192.0.2.2", "eth1")[0] ?? "", /via 192\.0\.2\.2 dev eth1/);
  assert.match(overruledRoutes([route], probed, new Map())[0] ?? "", /nowhere/);
  assert.deepEqual(overruledRoutes([route], new Map(), new Map()), []);
});

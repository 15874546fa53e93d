import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { parseCidr } from "../../../src/lib/cidr.ts";
import { forwardIsRight, renderForwardChain } from "../../../src/netfilter/forward-accept.ts";
import type { Lease } from "../../../src/network/leases.ts";
import { defaultRouteDevice } from "../../../src/network/links.ts";
import { expectedListing, tableMatches } from "../../../src/network/node-table.ts";
import { planHostPorts } from "../../../src/network/host-ports.ts";
import { damagesNetwork, renderNetwork } from "../../../src/network/rules.ts";

const context = {
  family: "IPv4",
  bridge: "remora0",
  podCIDR: parseCidr("10.244.0.0/24"),
  clusterCIDRs: [parseCidr("10.244.0.0/16")],
} as const;

function lease(id: string, ip: string, hostPort: number): Lease {
  const hostPorts = [{ protocol: "TCP", hostIP: "", hostPort, containerPort: 80 } as const];
  return { sandboxID: id, podUID: id, podKey: `ns/${id}`, hostPorts, ips: [ip] };
}

describe("the comparison of our table with the kernel's", () => {
  const ops = renderNetwork(context, planHostPorts("IPv4", [lease("a", "10.244.0.2", 8080)]));

  it("finds equal what was built, and sees each kind of damage", () => {
    assert.equal(tableMatches(expectedListing(ops), ops), true);
    assert.equal(tableMatches(undefined, ops), false);
    const damages: readonly ((listing: ReturnType<typeof expectedListing>) => void)[] = [
      ({ chains }) => chains.get("postrouting")?.tags.pop(),
      ({ chains }) => chains.get("postrouting")?.tags.push(""),
      ({ chains }) => chains.delete("guard"),
      ({ containers }) => containers.get("hostports-any")?.elements.clear(),
      ({ containers }) => containers.delete("hairpin"),
      ({ chains }) => chains.set("stranger", { hook: undefined, tags: [] }),
    ];
    for (const damage of damages) {
      const listing = expectedListing(ops);
      damage(listing);
      assert.equal(tableMatches(listing, ops), false, damage.toString());
    }
  });

  it("sees a changed pod network", () => {
    const other = renderNetwork({ ...context, podCIDR: parseCidr("10.244.1.0/24") }, []);
    assert.equal(tableMatches(expectedListing(renderNetwork(context, [])), other), false);
  });
});

it("deletions in our table are damage, elements and other tables are not", () => {
  const at = { family: "ip", table: "remora-network", name: "leaving" };
  assert.equal(damagesNetwork({ ...at, kind: "rule" }), true);
  assert.equal(damagesNetwork({ ...at, kind: "table" }), true);
  assert.equal(damagesNetwork({ ...at, kind: "element" }), false);
  assert.equal(damagesNetwork({ ...at, table: "nat", kind: "rule" }), false);
  assert.equal(
    damagesNetwork({ ...at, table: "nat", kind: "rule", name: "REMORA-HOSTPORTS" }),
    true,
  );
  assert.equal(damagesNetwork({ ...at, table: "nat", kind: "table", name: "" }), true);
  assert.equal(damagesNetwork({ ...at, table: "other", kind: "table", name: "" }), false);
  assert.equal(damagesNetwork("unwatched"), true);
});

it("the default route's interface is that of the lowest metric, IPv4's first", () => {
  const v4 = [
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
    "wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0",
    "eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0",
    "eth1\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0",
  ].join("\n");
  const zero = "0".repeat(32);
  const v6 = [
    `${zero} 00 ${zero} 00 ${zero} ffffffff 00000001 00000000 00200200       lo`,
    `${zero} 00 ${zero} 00 fe80000000000000000000000000000f 00000400 00000001 00000000 00000003     eth6`,
  ].join("\n");
  assert.equal(defaultRouteDevice(v4, v6), "eth0");
  assert.equal(defaultRouteDevice("", v6), "eth6");
  assert.equal(defaultRouteDevice("", ""), undefined);
});

it("the FORWARD chain is right only with our rules, in order, and the jump on top, once", () => {
  const accept = {
    family: "IPv4",
    chain: "REMORA-FORWARD",
    podNetworks: ["10.244.0.0/16"],
    serviceMark: 0x4000,
    input: {
      chain: "REMORA-INPUT",
      device: "remora0",
      source: "10.244.0.0/24",
      nameServers: ["10.96.0.10"],
    },
  } as const;
  const rules = renderForwardChain(accept)
    .split("\n")
    .filter((line) => line.startsWith("-A"));
  const listing = (lines: readonly string[]): string => ["*filter", ...lines, "COMMIT"].join("\n");
  const jump = "-A FORWARD -j REMORA-FORWARD";
  const other = "-A FORWARD -j DOCKER";
  const input = "-A INPUT -j REMORA-INPUT";
  const isRight = (...lines: readonly string[]): boolean => forwardIsRight(listing(lines), accept);
  assert.equal(isRight(jump, other, input, ...rules), true);
  assert.equal(isRight(other, jump, input, ...rules), false);
  assert.equal(isRight(jump, jump, input, ...rules), false);
  assert.equal(isRight(jump, input, ...rules.slice(1)), false);
  assert.equal(isRight(jump, input, ...rules, "-A REMORA-FORWARD -j DROP"), false);
  assert.equal(isRight(jump, ...rules), false);
  assert.equal(isRight(jump, "-A INPUT -j ufw-before-input", input, ...rules), false);
  assert.equal(isRight(jump, input, ...rules.slice(0, -1)), false);
});

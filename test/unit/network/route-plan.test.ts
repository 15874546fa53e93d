import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { disturbsRoutes, parseLookups, parseRoutes } from "../../../src/network/node-routes.ts";
import {
  type NodeRoute,
  planRoutes,
  type RemoteNode,
  routeMetric,
} from "../../../src/network/route-plan.ts";

const onLink = new Map([
  ["172.30.0.2", "eth0"],
  ["172.30.0.3", "eth0"],
  ["fd00:30::2", "eth0"],
]);

function node(name: string, podCIDRs: readonly string[], ...addresses: string[]): RemoteNode {
  return { name, podCIDRs, addresses };
}

function route(destination: string, gateway: string, device = "eth0"): NodeRoute {
  return { destination, gateway, device, metric: routeMetric };
}

function plan(remotes: readonly RemoteNode[], existing: readonly NodeRoute[] = []) {
  return planRoutes({
    remotes,
    ownPodCIDRs: ["10.244.0.0/24", "fd00:244::/64"],
    onLink,
    existing,
  });
}

const two = node(
  "two",
  ["10.244.1.0/24", "fd00:244:0:1::/64"],
  "192.0.2.9",
  "172.30.0.2",
  "fd00:30::2",
);
const twoRoutes = [route("10.244.1.0/24", "172.30.0.2"), route("fd00:244:0:1::/64", "fd00:30::2")];

describe("routes to the pods of other nodes", () => {
  test("each pod network goes to the node's first address of that family that is on-link", () => {
    assert.deepEqual(plan([two]), { replace: twoRoutes, remove: [], problems: [] });
  });

  test("what is right is left alone", () => {
    assert.deepEqual(plan([two], twoRoutes), { replace: [], remove: [], problems: [] });
  });

  test("a route of a node that is gone is removed", () => {
    assert.deepEqual(plan([], twoRoutes), { replace: [], remove: twoRoutes, problems: [] });
  });

  test("a network that another node has now is replaced in place, never removed first", () => {
    const three = node("three", ["10.244.1.0/24"], "172.30.0.3");
    assert.deepEqual(plan([three], [route("10.244.1.0/24", "172.30.0.2")]), {
      replace: [route("10.244.1.0/24", "172.30.0.3")],
      remove: [],
      problems: [],
    });
  });

  test("a node that came back with another network: the old route goes, the new one comes", () => {
    const moved = node("two", ["10.244.7.0/24"], "172.30.0.2");
    assert.deepEqual(plan([moved], [route("10.244.1.0/24", "172.30.0.2")]), {
      replace: [route("10.244.7.0/24", "172.30.0.2")],
      remove: [route("10.244.1.0/24", "172.30.0.2")],
      problems: [],
    });
  });

  test("the same route over another device is replaced", () => {
    const { replace, remove } = plan(
      [node("two", ["10.244.1.0/24"], "172.30.0.2")],
      [route("10.244.1.0/24", "172.30.0.2", "eth1")],
    );
    assert.deepEqual([replace, remove], [[route("10.244.1.0/24", "172.30.0.2")], []]);
  });

  test("a route of ours with another metric does not stay beside the new one", () => {
    const old = { ...route("10.244.1.0/24", "172.30.0.2"), metric: 5 };
    const { replace, remove } = plan([node("two", ["10.244.1.0/24"], "172.30.0.2")], [old]);
    assert.deepEqual([replace, remove], [[route("10.244.1.0/24", "172.30.0.2")], [old]]);
  });

  test("a node on another network gets no route and a sentence", () => {
    const { replace, problems } = plan([node("far", ["10.244.2.0/24"], "198.51.100.1")]);
    assert.deepEqual(replace, []);
    assert.equal(problems.length, 1);
    assert.match(problems[0]?.message ?? "", /198\.51\.100\.1 is not on a network of this machine/);
  });

  test("a node without an address of the family gets its other network routed", () => {
    const { replace, problems } = plan([
      node("two", ["10.244.1.0/24", "fd00:244:0:1::/64"], "172.30.0.2"),
    ]);
    assert.deepEqual(replace, [route("10.244.1.0/24", "172.30.0.2")]);
    assert.deepEqual(problems, [
      { node: "two", podCIDR: "fd00:244:0:1::/64", message: "the node has no IPv6 address" },
    ]);
  });

  test("a node that has not reported any address yet is no problem", () => {
    assert.deepEqual(plan([node("new", ["10.244.2.0/24"])]).problems, []);
  });

  test("nothing is routed away that overlaps the pods of this node", () => {
    for (const cidr of ["10.244.0.0/24", "10.244.0.128/25", "10.244.0.0/16"]) {
      const { replace, problems } = plan([node("two", [cidr], "172.30.0.2")]);
      assert.deepEqual(replace, [], cidr);
      assert.match(problems[0]?.message ?? "", /overlaps the pod network of this node/);
    }
  });

  test("of two nodes that claim one network the younger has it, and the other is told", () => {
    const older = node("older", ["10.244.1.0/24"], "172.30.0.2");
    const younger = node("younger", ["10.244.1.0/24"], "172.30.0.3");
    const { replace, problems } = plan([older, younger]);
    assert.deepEqual(replace, [route("10.244.1.0/24", "172.30.0.3")]);
    assert.deepEqual(problems, [
      { node: "older", podCIDR: "10.244.1.0/24", message: "node younger has it as well" },
    ]);
  });
});

describe("what ip prints", () => {
  test("routes", () => {
    const text =
      '[{"dst":"10.244.1.0/24","gateway":"172.30.0.2","dev":"eth0","metric":2048,"flags":[]}]';
    assert.deepEqual(parseRoutes(JSON.parse(text)), [route("10.244.1.0/24", "172.30.0.2")]);
  });

  test("where packets for an address go, of those that are reachable", () => {
    const text = [
      '[{"dst":"172.30.0.2","dev":"eth0","prefsrc":"172.30.0.1","flags":[],"uid":0,"cache":[]}]',
      '[{"dst":"8.8.8.8","gateway":"172.30.0.254","dev":"eth0","flags":[],"uid":0,"cache":[]}]',
      '[{"type":"local","dst":"172.30.0.1","dev":"lo","flags":[],"cache":["local"]}]',
      '[{"type":"unreachable","dst":"172.30.0.9","dev":"eth0","flags":[]}]',
      '[{"dst":"10.0.0.9","via":{"family":"inet6","host":"fe80::1"},"dev":"eth0","flags":[]}]',
      '[{"dst":"fd00:30::2","from":"::","dev":"eth0","protocol":"kernel","flags":[]}]',
    ].join("\n");
    assert.deepEqual(
      parseLookups(text),
      new Map([
        ["172.30.0.2", { gateway: "", device: "eth0", local: false }],
        ["8.8.8.8", { gateway: "172.30.0.254", device: "eth0", local: false }],
        ["172.30.0.1", { gateway: "", device: "lo", local: true }],
        ["10.0.0.9", { gateway: "fe80::1", device: "eth0", local: false }],
        ["fd00:30::2", { gateway: "", device: "eth0", local: false }],
      ]),
    );
  });

  test("the monitor's lines that call for a look", () => {
    const lines: readonly [string, boolean][] = [
      ["Deleted 10.244.1.0/24 via 172.30.0.2 dev eth0 proto 82 metric 2048 ", true],
      ["10.244.1.0/24 via 172.30.0.2 dev eth0 proto 82 metric 2048 ", false],
      ["Deleted 10.9.0.0/24 via 172.30.0.2 dev eth0 proto static ", false],
      ["3: eth0@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 state UP", true],
      ["Deleted 3: eth0    inet 172.30.0.1/24 scope global eth0", true],
      ["4: remora0    inet 10.244.0.1/24 scope global remora0", false],
      ["9: rmv12ab@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 master remora0", false],
      ["Deleted 9: rmv12ab@NONE: <BROADCAST,MULTICAST> mtu 1500", false],
    ];
    for (const [line, expected] of lines) {
      assert.equal(disturbsRoutes(line, "remora0"), expected, line);
    }
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { parseCidr } from "../../../src/lib/cidr.ts";
import {
  describeObstacle,
  type FirewallNeeds,
  neededFlows,
  type Obstacle,
} from "../../../src/network/firewall-plan.ts";
import { parseForeignTables } from "../../../src/network/obstacles.ts";

const needs: FirewallNeeds = {
  family: "IPv4",
  bridge: "remora0",
  podCIDR: parseCidr("10.244.1.0/24"),
  clusterCIDRs: [parseCidr("10.244.0.0/16")],
  uplink: { device: "eth0", address: "192.0.2.1" },
  nameServers: ["10.96.0.10"],
  nodeServices: [
    { from: "pods", port: 6443, protocol: "tcp", trouble: "pods cannot reach the API server" },
    { from: "192.0.2.9", port: 10_250, protocol: "tcp", trouble: "no logs" },
    { from: "2001:db8::9", port: 10_250, protocol: "tcp", trouble: "no logs" },
  ],
  otherNodes: true,
};

function ways(given: FirewallNeeds): readonly string[] {
  return neededFlows(given).map(
    ({ packet: { hook, inDevice, outDevice, source, destination, protocol, port } }) =>
      `${hook} ${inDevice} ${source} > ${outDevice ?? "here"} ${destination} ${protocol}/${port}`,
  );
}

describe("what firewalls have to let pass", () => {
  it("all ways of packets on a node with neighbours", () => {
    assert.deepEqual(ways(needs), [
      "forward remora0 10.244.1.2 > remora0 10.244.1.3 tcp/8080",
      "input remora0 10.244.1.2 > here 10.96.0.10 udp/53",
      "input remora0 10.244.1.2 > here 10.96.0.10 tcp/53",
      "input remora0 10.244.1.2 > here 192.0.2.1 tcp/6443",
      "input eth0 192.0.2.9 > here 192.0.2.1 tcp/10250",
      "forward remora0 10.244.1.2 > eth0 198.51.100.1 tcp/443",
      "forward eth0 198.51.100.1 > remora0 10.244.1.2 tcp/8080",
      "forward eth0 10.244.255.254 > remora0 10.244.1.2 tcp/8080",
    ]);
  });

  it("nothing of others on a node without any, and nothing from outside without a default route", () => {
    assert.equal(ways({ ...needs, otherNodes: false }).length, 7);
    assert.deepEqual(ways({ ...needs, uplink: undefined }), [
      "forward remora0 10.244.1.2 > remora0 10.244.1.3 tcp/8080",
      "input remora0 10.244.1.2 > here 10.96.0.10 udp/53",
      "input remora0 10.244.1.2 > here 10.96.0.10 tcp/53",
    ]);
  });
});

describe("what people are told", () => {
  const flows = neededFlows(needs);
  const obstacle = (part: Partial<Obstacle>, ...indexes: readonly number[]): string =>
    describeObstacle(
      {
        owner: "nftables",
        hook: "input",
        table: "inet filter",
        chain: "input",
        by: "policy",
        flows: flows.filter((_flow, index) => indexes.includes(index)),
        ...part,
      },
      needs,
    );
  const remedy = (text: string): string => text.replace(/^.* Allow them there: /, "");

  it("what does not work, once each, whose rule it is, and the commands", () => {
    assert.equal(
      obstacle({}, 1, 2, 3),
      'pods cannot resolve names, pods cannot reach the API server: nftables drops the packets in table inet filter, chain input (its policy is drop). Allow them there: nft insert rule inet filter input iifname "remora0" udp dport 53 accept; nft insert rule inet filter input iifname "remora0" tcp dport 53 accept; nft insert rule inet filter input iifname "remora0" tcp dport 6443 accept',
    );
  });

  const cases: readonly (readonly [string, Partial<Obstacle>, readonly number[], string])[] = [
    [
      "both directions where packets are forwarded",
      { hook: "forward", chain: "fwd" },
      [0, 5],
      'nft insert rule inet filter fwd iifname "remora0" accept; nft insert rule inet filter fwd oifname "remora0" accept',
    ],
    [
      "ufw's own command",
      { owner: "ufw", table: "iptables" },
      [3, 4],
      "ufw allow in on remora0 to any port 6443 proto tcp; ufw allow from 192.0.2.9 to any port 10250 proto tcp",
    ],
    [
      "the kind of iptables that has the rule",
      { owner: "iptables", table: "iptables-legacy" },
      [3],
      "iptables-legacy -I INPUT -i remora0 -p tcp --dport 6443 -j ACCEPT",
    ],
    [
      "firewalld: the pods trusted, a port for others",
      { owner: "firewalld" },
      [1, 4],
      "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16; firewall-cmd --permanent --add-port=10250/tcp; firewall-cmd --reload",
    ],
    [
      "firewalld: nobody trusted for a port",
      { owner: "firewalld" },
      [4],
      "firewall-cmd --permanent --add-port=10250/tcp; firewall-cmd --reload",
    ],
  ];
  for (const [name, part, indexes, expected] of cases) {
    it(name, () => assert.equal(remedy(obstacle(part, ...indexes)), expected));
  }
});

it("only tables of others are read: not ours, not a Service proxy's, not those that iptables itself lists", () => {
  const tables = [
    "ip remora-network",
    "ip6 remora-proxy",
    "ip kube-proxy",
    "ip filter",
    "ip6 filter",
    "inet filter",
    "ip docker-bridges",
    "bridge own",
  ];
  const listing = {
    nftables: [
      { metainfo: {} },
      ...tables.map((text) => ({
        table: { family: text.split(" ")[0], name: text.split(" ")[1] },
      })),
    ],
  };
  assert.deepEqual(
    parseForeignTables(listing, (family) => family === "ip").map(
      ({ family, name }) => `${family} ${name}`,
    ),
    ["ip6 filter", "inet filter", "ip docker-bridges"],
  );
});

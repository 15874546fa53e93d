import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { parseCidr } from "../../../src/lib/cidr.ts";
import { parseFlow } from "../../../src/netfilter/conntrack.ts";
import { boundAddress, planHostPorts } from "../../../src/network/host-ports.ts";
import type { Lease } from "../../../src/network/leases.ts";
import type { RuleContext } from "../../../src/network/node-rules.ts";
import { expectedListing } from "../../../src/network/node-table.ts";
import { renderNetwork } from "../../../src/network/rules.ts";
import { iptablesChanges, iptablesRules } from "../../../src/network/rules-iptables.ts";
import type { HostPort } from "../../../src/network/types.ts";
import { isPastHostPort } from "../../../src/network/udp-flows.ts";
import { IptablesTraceRuleset } from "../../../src/proxy/trace/iptables-text.ts";

const context: RuleContext = {
  family: "IPv4",
  bridge: "remora0",
  podCIDR: parseCidr("10.244.0.0/24"),
  clusterCIDRs: [parseCidr("10.244.0.0/16")],
  localAddresses: ["10.96.0.10", "fd00:96::a"],
};

function lease(id: number, hostPorts: readonly Partial<HostPort>[]): Lease {
  return {
    sandboxID: `s${id}`,
    podUID: `u${id}`,
    podKey: `ns/p${id}`,
    ips: [`10.244.0.${id}`, `fd00:244::${id}`],
    hostPorts: hostPorts.map((port) => ({
      protocol: "TCP",
      hostIP: "",
      hostPort: 80,
      containerPort: 8080,
      ...port,
    })),
  };
}

describe("host ports of a node", () => {
  it("bind to an address of their family, to all of one, or to all", () => {
    const rows: readonly (readonly [string, string | undefined, string | undefined])[] = [
      ["", "", ""],
      ["0.0.0.0", "", undefined],
      ["::", undefined, ""],
      ["0:0:0:0:0:0:0:0", undefined, ""],
      ["192.0.2.1", "192.0.2.1", undefined],
      ["2001:DB8::0001", undefined, "2001:db8::1"],
      ["::1", undefined, "::1"],
      ["not an address", undefined, undefined],
    ];
    for (const [hostIP, v4, v6] of rows) {
      assert.deepEqual([boundAddress(hostIP, "IPv4"), boundAddress(hostIP, "IPv6")], [v4, v6]);
    }
  });

  it("of one number coexist on other addresses and protocols, the most particular first", () => {
    const plan = planHostPorts("IPv4", [
      lease(2, [{ hostIP: "" }]),
      lease(3, [{ hostIP: "192.0.2.1" }]),
      lease(4, [{ protocol: "UDP", hostIP: "192.0.2.1" }]),
      lease(5, [{ hostIP: "127.0.0.1" }]),
    ]);
    assert.deepEqual(
      plan.map(({ address, protocol, podIP }) => `${address} ${protocol} ${podIP}`),
      [
        "127.0.0.1 TCP 10.244.0.5",
        "192.0.2.1 TCP 10.244.0.3",
        "192.0.2.1 UDP 10.244.0.4",
        " TCP 10.244.0.2",
      ],
    );
  });

  it("that two pods claim are the younger one's", () => {
    const [old, young] = [lease(2, [{}]), lease(3, [{}])];
    assert.deepEqual(
      planHostPorts("IPv4", [old, young]).map(({ podIP }) => podIP),
      ["10.244.0.3"],
    );
    assert.deepEqual(
      planHostPorts("IPv4", [young, old]).map(({ podIP }) => podIP),
      ["10.244.0.2"],
    );
  });

  it("need an address of the pod in the family", () => {
    const single: Lease = { ...lease(2, [{}, { hostIP: "2001:db8::1" }]), ips: ["10.244.0.2"] };
    assert.equal(planHostPorts("IPv6", [single]).length, 0);
  });
});

describe("host ports in nftables", () => {
  it("are elements of two maps, and the table's only where the node is meant", () => {
    const plan = planHostPorts("IPv4", [
      lease(2, [{}, { protocol: "SCTP", hostIP: "192.0.2.1", hostPort: 81 }]),
    ]);
    const ops = renderNetwork(context, plan);
    const { containers } = expectedListing(ops);
    assert.deepEqual(
      [...containers].map(([name, { elements }]) => [name, ...elements]),
      [
        ["hostports", ["192.0.2.1 . sctp . 81", "10.244.0.2 . 8080"]],
        ["hostports-any", ["tcp . 80", "10.244.0.2 . 8080"]],
        ["hairpin", ["10.244.0.2 . 10.244.0.2", ""]],
      ],
    );
    const rules = ops.flatMap((op) =>
      op.op === "add-rule" ? [`${op.chain}: ${op.rule.text}`] : [],
    );
    assert.equal(rules.filter((text) => text.includes("10.96.0.10")).length, 1);
    assert.equal(rules.filter((text) => text.includes("fd00:96::a")).length, 0);
    for (const jump of rules.filter((text) => text.endsWith("jump host-ports"))) {
      assert.match(jump, /fib daddr type local/);
    }
  });
});

describe("host ports in iptables", () => {
  const isOwn = (chain: string): boolean =>
    chain.startsWith("REMORA-") && chain !== "REMORA-FORWARD";
  const plan = planHostPorts("IPv4", [lease(2, [{}, { hostIP: "192.0.2.1", hostPort: 81 }])]);

  /** A kernel in memory, of which no packets are asked that are not TCP, UDP or SCTP. */
  const kernelOf = (): IptablesTraceRuleset =>
    new IptablesTraceRuleset({
      program: "iptables",
      strict: (chain) => chain !== "REMORA-REDIRECTS",
    });

  function bring(
    kernel: IptablesTraceRuleset,
    mappings: typeof plan,
    of: RuleContext = context,
  ): readonly string[] {
    const changed: string[] = [];
    for (const [table, rules] of iptablesRules(of, mappings, "REMORA")) {
      const text = iptablesChanges(table, rules, kernel.save(table), isOwn);
      if (text !== "") changed.push(table);
      kernel.run(text);
    }
    return changed;
  }

  it("are written once, and then only what differs", () => {
    const kernel = kernelOf();
    assert.deepEqual(bring(kernel, plan), ["mangle", "nat", "filter"]);
    assert.deepEqual(bring(kernel, plan), []);
    const saved = kernel.save("nat");
    assert.deepEqual(
      saved.split("\n").filter((line) => line.startsWith("-A REMORA-HOSTPORTS")),
      [
        "-A REMORA-HOSTPORTS -d 192.0.2.1/32 -p tcp -m tcp --dport 81 -j DNAT --to-destination 10.244.0.2:8080",
        "-A REMORA-HOSTPORTS -m iprange --dst-range 127.0.0.2-127.255.255.255 -j RETURN",
        "-A REMORA-HOSTPORTS -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.0.2:8080",
      ],
    );
    assert.deepEqual(bring(kernel, []), ["nat"]);
    assert.doesNotMatch(kernel.save("nat"), /DNAT --to/);
  });

  it("stand behind Services, and leave the chains of other programs alone", () => {
    const kernel = kernelOf();
    const others = [
      "*nat",
      ":CNI-HOSTPORT-DNAT - [0:0]",
      "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
      "COMMIT",
      "",
    ].join("\n");
    kernel.run(others);
    bring(kernel, plan);
    kernel.run(
      "*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-I OUTPUT 1 -j KUBE-SERVICES\nCOMMIT\n",
    );
    assert.deepEqual(bring(kernel, plan), ["nat"]);
    const order = kernel
      .save("nat")
      .split("\n")
      .filter((line) => line.startsWith("-A PREROUTING"))
      .map((line) => line.split(" -j ")[1]);
    assert.deepEqual(order, ["CNI-HOSTPORT-DNAT", "KUBE-SERVICES", "REMORA-PREROUTING"]);
    assert.deepEqual(bring(kernel, plan), []);
  });

  it("are mended when somebody emptied, doubled or removed something", () => {
    const damages = [
      "-F REMORA-HOSTPORTS",
      "-A PREROUTING -m addrtype --dst-type LOCAL -j REMORA-PREROUTING",
      "-D OUTPUT -m addrtype --dst-type LOCAL -j REMORA-OUTPUT",
      "-I REMORA-LEAVING 1 -j RETURN",
      "-A POSTROUTING -s 10.0.0.0/8 -j REMORA-POSTROUTING",
    ];
    const right = kernelOf();
    bring(right, plan);
    for (const damage of damages) {
      const kernel = kernelOf();
      bring(kernel, plan);
      kernel.run(`*nat\n${damage}\nCOMMIT\n`);
      assert.deepEqual(bring(kernel, plan), ["nat"], damage);
      assert.deepEqual(kernel.dump(), right.dump(), damage);
    }
  });

  it("go without a trace", () => {
    const kernel = kernelOf();
    bring(kernel, plan);
    for (const table of ["mangle", "nat", "filter"]) {
      kernel.run(
        iptablesChanges(table, { chains: new Map(), jumps: [] }, kernel.save(table), isOwn),
      );
      assert.doesNotMatch(kernel.save(table), /REMORA/);
    }
  });
});

it("flows of datagrams are past a host port when they went where they were sent, and that is the node", () => {
  const isPast = (to: string, from: string): boolean => {
    const flow = parseFlow(
      `udp      17 29 src=192.0.2.2 dst=${to} sport=5353 dport=53 [UNREPLIED] src=${from} dst=192.0.2.2 sport=53 dport=5353 mark=0 use=1`,
    );
    assert.ok(flow !== undefined);
    return isPastHostPort(flow, (address) => address === "192.0.2.1");
  };
  assert.equal(isPast("192.0.2.1", "192.0.2.1"), true);
  assert.equal(isPast("192.0.2.1", "10.244.0.2"), false);
  assert.equal(isPast("192.0.2.99", "192.0.2.99"), false);
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { judgeIptables } from "../../../src/netfilter/iptables-judge.ts";
import { judgeNft, parseBaseChains } from "../../../src/netfilter/nft-judge.ts";
import type { PacketSketch } from "../../../src/netfilter/packet-sketch.ts";

const leaving: PacketSketch = {
  hook: "forward",
  family: "IPv4",
  inDevice: "remora0",
  outDevice: "eth0",
  source: "10.244.0.2",
  destination: "198.51.100.1",
  protocol: "tcp",
  port: 443,
  translated: false,
};
const asking: PacketSketch = {
  ...leaving,
  hook: "input",
  outDevice: undefined,
  destination: "192.0.2.1",
  port: 6443,
};

describe("what iptables does with a packet", () => {
  const judge = (policy: string, ...rules: readonly string[]): string => {
    const text = ["*filter", `:INPUT ${policy} [0:0]`, ":own - [0:0]", ...rules, "COMMIT", ""];
    const { verdict, by } = judgeIptables(text.join("\n"), asking);
    return `${verdict} ${by}`.trimEnd();
  };
  const known = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
  const cases: readonly (readonly [name: string, expected: string, ...rules: string[]])[] = [
    ["the policy, where no rule applies", "drop policy", known],
    ["an accept of its port", "accept", "-A INPUT -p tcp -m tcp --dport 6443 -j ACCEPT"],
    [
      "one of a range of ports",
      "accept",
      "-A INPUT -p tcp -m multiport --dports 80,6000:7000 -j ACCEPT",
    ],
    ["another port", "drop policy", "-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT"],
    ["another protocol", "drop policy", "-A INPUT -p udp -m udp --dport 6443 -j ACCEPT"],
    ["its device by a wildcard", "accept", "-A INPUT -i remora+ -j ACCEPT"],
    ["not another device", "accept", "-A INPUT ! -i eth0 -j ACCEPT"],
    ["its network", "accept", "-A INPUT -s 10.244.0.0/16 -j ACCEPT"],
    ["the other way round", "drop policy", "-A INPUT ! -s 10.244.0.0/16 -j ACCEPT"],
    ["new flows", "accept", "-A INPUT -m state --state NEW -j ACCEPT"],
    ["its address is local", "accept", "-A INPUT -m addrtype --dst-type LOCAL -j ACCEPT"],
    ["a set is not known", "unclear policy", "-A INPUT -m set --match-set trusted src -j ACCEPT"],
    [
      "a rate is not known, and a log no decision",
      "drop policy",
      '-A INPUT -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "',
    ],
    [
      "a quoted comment is none of it",
      "accept",
      '-A INPUT -m comment --comment "say -j DROP" -j ACCEPT',
    ],
    [
      "another chain, and back",
      "drop policy",
      "-A INPUT -j own",
      "-A own -s 10.0.0.0/8 -j RETURN",
      "-A own -j ACCEPT",
    ],
    [
      "another chain that decides",
      "drop -A own -j REJECT --reject-with icmp-port-unreachable",
      "-A INPUT -j own",
      "-A INPUT -j ACCEPT",
      "-A own -j REJECT --reject-with icmp-port-unreachable",
    ],
    [
      "gone over for good",
      "drop policy",
      "-A INPUT -g own",
      "-A INPUT -j ACCEPT",
      "-A own -j RETURN",
    ],
    [
      "whatever is not known, in the end",
      "drop -A INPUT -j DROP",
      "-A INPUT -m recent --rcheck -j own",
      "-A INPUT -j DROP",
      "-A INPUT -j ACCEPT",
    ],
    ["a program decides", "unclear", "-A INPUT -j NFQUEUE --queue-num 1"],
    ["chains in a circle", "unclear", "-A INPUT -j own", "-A own -j own"],
  ];
  for (const [name, expected, ...rules] of cases) {
    it(`${name}: ${expected}`, () => assert.equal(judge("DROP", ...rules), expected));
  }
  it("without a filter table it passes", () => {
    assert.equal(judgeIptables("", asking).verdict, "accept");
  });
});

describe("what nftables does with a packet", () => {
  const match = (left: unknown, right: unknown, op = "=="): unknown => ({
    match: { op, left, right },
  });
  const meta = (key: string): unknown => ({ meta: { key } });
  const ip = (field: string, protocol = "ip"): unknown => ({ payload: { protocol, field } });
  const accept = { accept: null };
  const judge = (packet: PacketSketch, ...rules: readonly (readonly unknown[])[]): string => {
    const listing = {
      nftables: [
        {
          chain: {
            family: "inet",
            table: "t",
            name: "c",
            type: "filter",
            hook: packet.hook,
            prio: 0,
            policy: "drop",
          },
        },
        { chain: { family: "inet", table: "t", name: "own" } },
        { set: { family: "inet", table: "t", name: "ports", elem: [22, { range: [6000, 7000] }] } },
        ...rules.map((expr, index) => ({ rule: { chain: "c", handle: index + 10, expr } })),
        { rule: { chain: "own", handle: 99, expr: [{ reject: { type: "tcp reset" } }] } },
      ],
    };
    const [chain] = parseBaseChains(listing);
    assert.ok(chain !== undefined);
    const { verdict, by } = judgeNft(listing, chain, packet);
    return `${verdict} ${by}`.trimEnd();
  };
  const translated = { ...leaving, translated: true };
  const six: PacketSketch = {
    ...leaving,
    family: "IPv6",
    source: "fd00::2",
    destination: "2001:db8::1",
  };
  const cases: readonly (readonly [string, string, PacketSketch, ...(readonly unknown[])[]])[] = [
    [
      "the policy",
      "drop policy",
      leaving,
      [match({ ct: { key: "state" } }, ["established", "related"], "in"), accept],
    ],
    ["a device", "accept", leaving, [match(meta("iifname"), "remora*"), accept]],
    [
      "devices in a set",
      "accept",
      leaving,
      [match(meta("iifname"), { set: ["wg0", "remora0"] }), accept],
    ],
    ["another device", "drop policy", leaving, [match(meta("oifname"), "wg0"), accept]],
    ["not a device", "accept", leaving, [match(meta("oifname"), "wg0", "!="), accept]],
    [
      "a network",
      "accept",
      leaving,
      [match(ip("saddr"), { prefix: { addr: "10.244.0.0", len: 16 } }), accept],
    ],
    [
      "an address of the other family, however compared",
      "drop policy",
      six,
      [match(ip("saddr"), "10.0.0.1", "!="), accept],
    ],
    ["a named set with ranges", "accept", asking, [match(ip("dport", "tcp"), "@ports"), accept]],
    [
      "a named set that is not there",
      "unclear policy",
      asking,
      [match(ip("dport", "tcp"), "@none"), accept],
    ],
    [
      "a verdict map",
      "drop handle 99",
      leaving,
      [
        {
          vmap: {
            key: { ct: { key: "state" } },
            data: {
              set: [
                ["established", accept],
                ["new", { jump: { target: "own" } }],
              ],
            },
          },
        },
      ],
      [accept],
    ],
    ["translated", "accept", translated, [match({ ct: { key: "status" } }, "dnat", "in"), accept]],
    [
      "not translated",
      "drop policy",
      leaving,
      [match({ ct: { key: "status" } }, "dnat", "in"), accept],
    ],
    ["a mark is not known", "unclear policy", leaving, [match(meta("mark"), 5), accept]],
    [
      "a rate is not known",
      "unclear policy",
      leaving,
      [{ limit: { rate: 5, per: "second" } }, accept],
    ],
    [
      "a match of iptables is not known",
      "unclear policy",
      leaving,
      [{ xt: { type: "match", name: "x" } }, accept],
    ],
    [
      "counted and logged, then dropped",
      "drop handle 10",
      leaving,
      [{ counter: {} }, { log: {} }, { drop: null }],
      [accept],
    ],
  ];
  for (const [name, expected, packet, ...rules] of cases) {
    it(`${name}: ${expected}`, () => assert.equal(judge(packet, ...rules), expected));
  }
});

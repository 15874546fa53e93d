import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  RefusedTextError,
  UnknownFactError,
  UnknownRuleError,
} from "../../../../src/proxy/trace/errors.ts";
import type { Packet } from "../../../../src/proxy/trace/flow.ts";
import { Host } from "../../../../src/proxy/trace/host.ts";
import { IptablesTraceRuleset } from "../../../../src/proxy/trace/iptables-text.ts";
import { type End, walk, type Way } from "../../../../src/proxy/trace/walk.ts";
import { parseCidr } from "../../../../src/lib/cidr.ts";

const host = new Host({
  addresses: ["192.0.2.1", "10.244.0.1"],
  routes: [
    { to: parseCidr("10.244.0.0/16"), device: "br0" },
    { to: parseCidr("0.0.0.0/0"), device: "eth0" },
  ],
});

const fromPod: Packet = {
  family: "IPv4",
  protocol: "tcp",
  source: "10.244.0.2",
  sourcePort: 40_000,
  destination: "172.30.0.1",
  destinationPort: 80,
  inInterface: "br0",
};

function ruleset(table: string, lines: readonly string[]): IptablesTraceRuleset {
  const rules = new IptablesTraceRuleset({ program: "iptables" });
  rules.run([`*${table}`, ...lines, "COMMIT", ""].join("\n"));
  return rules;
}

function ways(rules: IptablesTraceRuleset, packet: Partial<Packet> = {}): readonly Way[] {
  return walk(rules.rules(), { ...fromPod, ...packet }, host);
}

function end(lines: readonly string[], packet: Partial<Packet> = {}): End | undefined {
  const found = ways(ruleset("filter", lines), packet);
  assert.equal(found.length, 1, "nothing here is decided by chance");
  return found[0]?.end;
}

describe("matches of iptables", () => {
  const match: readonly (readonly [string, boolean, Partial<Packet>?])[] = [
    ["-s 10.244.0.2/32", true],
    ["! -s 10.244.0.2/32", false],
    ["-d 172.30.0.0/16", true],
    ["-s 10.244.0.0/255.255.0.0", true],
    ["-p tcp -m tcp --dport 80", true],
    ["-m tcp -p tcp --dport 1:79", false],
    ["-p udp", false],
    ["-p 6", true],
    ["-p udp -m udp --dport 80", false],
    ["-p tcp -m multiport --dports 22,70:90", true],
    ["-p tcp -m tcp --sport 40000", true],
    ["-i br0", true],
    ["-i b+", true],
    ["! -i br0", false],
    ["-o eth0", true],
    ["! -o br0", true],
    ["-m mark --mark 0x4000/0x4000", true, { mark: 0x4001 }],
    ["-m mark ! --mark 0x4000/0x4000", true],
    ["-m conntrack --ctstate NEW", true],
    ["-m conntrack --ctstate RELATED,ESTABLISHED", false],
    ["-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT", true],
    ["-m state --state ESTABLISHED", true, { state: "established" }],
    ["-m addrtype --dst-type LOCAL", false],
    ["-m addrtype ! --dst-type LOCAL", true],
    ["-m addrtype --src-type UNICAST,LOCAL", true],
    ['-m comment --comment "with \\"quotes\\" and spaces"', true],
    ["-m iprange --src-range 10.244.0.1-10.244.0.9", true],
    ["", true],
  ];
  for (const [text, matches, packet] of match) {
    test(`${text === "" ? "no match at all" : text}: ${matches ? "matches" : "does not match"}`, () => {
      assert.equal(
        end([`-A FORWARD ${text} -j DROP`.replace("  ", " ")], packet)?.kind,
        matches ? "dropped" : "forwarded",
      );
    });
  }

  test("members of an ipset are found by address, network and port", () => {
    const rules = new IptablesTraceRuleset({ program: "iptables" });
    rules.setMembers("nets", ["10.0.0.0/8"]);
    rules.setMembers("ports", ["172.30.0.1,tcp:80"]);
    rules.run(
      "*filter\n-A FORWARD -m set --match-set nets src -m set --match-set ports dst,dst -j DROP\nCOMMIT\n",
    );
    assert.equal(ways(rules)[0]?.end.kind, "dropped");
    assert.equal(ways(rules, { protocol: "udp" })[0]?.end.kind, "forwarded");
  });

  test("chance is followed both ways", () => {
    const rules = ruleset("filter", [
      "-A FORWARD -m statistic --mode random --probability 0.25 -j DROP",
      "-A FORWARD -m statistic --mode nth --every 3 --packet 0 -j REJECT",
    ]);
    assert.deepEqual(
      ways(rules).map(({ probability, end: { kind } }) => [probability, kind]),
      [
        [0.25, "dropped"],
        [0.25, "rejected"],
        [0.75 * (1 - 1 / 3), "forwarded"],
      ],
    );
  });

  test("a list of recent addresses is asked, with the age it allows", () => {
    const lines = [
      "-A FORWARD -m recent --rcheck --seconds 10 --reap --name seen --mask 255.255.255.255 --rsource -j DROP",
      "-A FORWARD -m recent --set --name seen --mask 255.255.255.255 --rsource",
    ];
    const rules = ruleset("filter", lines);
    assert.deepEqual(ways(rules)[0]?.remembered, [{ container: "seen", key: "10.244.0.2" }]);
    rules.remember({ container: "seen", key: "10.244.0.2" }, 11);
    assert.equal(ways(rules)[0]?.end.kind, "forwarded");
    rules.remember({ container: "seen", key: "10.244.0.2" }, 9);
    assert.equal(ways(rules)[0]?.end.kind, "dropped");
  });

  test("what is not understood is an error that names it", () => {
    for (const [rule, words] of [
      ["-m hashlimit --hashlimit-name x -j DROP", "-m hashlimit"],
      ["-p tcp -m tcp --tcp-flags SYN SYN -j DROP", "--tcp-flags"],
      ["-j REDIRECT --to-ports 80", "-j REDIRECT"],
      ["-j REJECT --reject-with something", "-j REJECT --reject-with something"],
      ["-m set --match-set unknown src -j DROP", "--match-set unknown src"],
      ["-j DROP --surprise", "--surprise"],
      ["-s 10.0.0.0/255.0.255.0 -j DROP", "-s 10.0.0.0/255.0.255.0"],
    ] as const) {
      assert.throws(
        () => ruleset("filter", [`-A FORWARD ${rule}`]),
        (error) => error instanceof UnknownRuleError && error.words === words,
        rule,
      );
    }
  });

  test("in chains of others only packets that meet it cannot be judged", () => {
    const rules = new IptablesTraceRuleset({
      program: "iptables",
      strict: (chain) => chain.startsWith("KUBE-"),
    });
    const rule = "-A FORWARD -i docker0 -m hashlimit --hashlimit-name x -j DROP";
    rules.run(`*filter\n${rule}\nCOMMIT\n`);
    assert.equal(ways(rules)[0]?.end.kind, "forwarded");
    assert.throws(() => ways(rules, { inInterface: "docker0" }), UnknownRuleError);
    assert.throws(
      () => rules.run(`*filter\n:KUBE-X - [0:0]\n${rule.replace("FORWARD", "KUBE-X")}\nCOMMIT\n`),
      UnknownRuleError,
    );
  });

  test("an interface that is not known is an error, not a guess", () => {
    const rules = ruleset("filter", ["-A FORWARD -o eth0 -j DROP"]);
    const blind = new Host({ addresses: [] });
    assert.throws(() => walk(rules.rules(), fromPod, blind), UnknownFactError);
  });
});

describe("chains of iptables", () => {
  test("jump comes back, goto and RETURN do not", () => {
    const chains = [":A - [0:0]", ":B - [0:0]"];
    assert.equal(end([...chains, "-A FORWARD -j A", "-A FORWARD -j DROP"])?.kind, "dropped");
    assert.equal(end([...chains, "-A FORWARD -g A", "-A FORWARD -j DROP"])?.kind, "forwarded");
    assert.equal(
      end([...chains, "-A A -j RETURN", "-A A -j DROP", "-A FORWARD -j A"])?.kind,
      "forwarded",
    );
  });

  test("ACCEPT in one table does not save from the next", () => {
    const rules = new IptablesTraceRuleset({ program: "iptables" });
    rules.run("*mangle\n-A FORWARD -j ACCEPT\nCOMMIT\n*filter\n-A FORWARD -j DROP\nCOMMIT\n");
    assert.equal(ways(rules)[0]?.end.kind, "dropped");
  });

  test("the policy decides about the rest and is named", () => {
    assert.deepEqual(end([":FORWARD DROP [0:0]"]), {
      kind: "dropped",
      why: "policy of iptables filter FORWARD",
    });
    assert.equal(end([":FORWARD DROP [0:0]", "-A FORWARD -j ACCEPT"])?.kind, "forwarded");
  });

  test("marks are set, changed and cleared", () => {
    for (const [option, mark] of [
      ["--or-mark 0x4000", 0x4001],
      ["--set-xmark 0x4000/0x4000", 0x4001],
      ["--and-mark 0xfffffffe", 0],
      ["--xor-mark 0x1", 0],
      ["--set-mark 0x8", 8],
    ] as const) {
      const [way] = ways(ruleset("mangle", [`-A FORWARD -j MARK ${option}`]), { mark: 1 });
      assert.equal(way?.mark, mark, option);
    }
  });

  test("DNAT in one hook, MASQUERADE in the last, and each only for the first packet of a flow", () => {
    const rules = ruleset("nat", [
      "-A PREROUTING -d 172.30.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.0.3:8080",
      "-A POSTROUTING -d 10.244.0.3/32 -j MASQUERADE --random-fully",
    ]);
    assert.deepEqual(ways(rules)[0]?.end, {
      kind: "backend",
      ip: "10.244.0.3",
      port: 8080,
      masqueraded: true,
    });
    assert.equal(ways(rules, { state: "established" })[0]?.end.kind, "forwarded");
  });
});

describe("texts for iptables-restore", () => {
  test("insert, delete, empty and remove; what iptables would refuse is refused", () => {
    const rules = ruleset("filter", [
      ":A - [0:0]",
      "-A FORWARD -j A",
      "-I FORWARD -s 10.0.0.1/32 -j DROP",
      "-I FORWARD 2 -s 10.0.0.2/32 -j DROP",
      '-A A -m comment --comment "one two" -j ACCEPT',
    ]);
    assert.equal(
      rules.list("filter", "FORWARD"),
      "-P FORWARD ACCEPT\n-A FORWARD -s 10.0.0.1/32 -j DROP\n-A FORWARD -s 10.0.0.2/32 -j DROP\n-A FORWARD -j A\n",
    );
    const refuse = (line: string): void => {
      assert.throws(() => rules.run(`*filter\n${line}\nCOMMIT\n`), RefusedTextError, line);
    };
    refuse("-D FORWARD -s 10.0.0.3/32 -j DROP");
    refuse("-X A");
    refuse("-A NOWHERE -j DROP");
    rules.run("*filter\n:A - [0:0]\n-D FORWARD -s 10.0.0.1/32 -j DROP\nCOMMIT\n");
    refuse("-X A");
    rules.run("*filter\n-D FORWARD -j A\n-X A\nCOMMIT\n");
    assert.equal(rules.list("filter", "A"), undefined);
    assert.throws(() => rules.run("*filter\n-Z FORWARD\nCOMMIT\n"), UnknownRuleError);
  });
});

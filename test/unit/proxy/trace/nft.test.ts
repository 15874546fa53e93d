import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { RefusedTextError, UnknownRuleError } from "../../../../src/proxy/trace/errors.ts";
import type { Packet } from "../../../../src/proxy/trace/flow.ts";
import { Host } from "../../../../src/proxy/trace/host.ts";
import { readListing } from "../../../../src/proxy/trace/nft-listing.ts";
import { NftTraceRuleset } from "../../../../src/proxy/trace/nft-text.ts";
import { type End, walk, type Way } from "../../../../src/proxy/trace/walk.ts";

const host = new Host({
  addresses: ["192.0.2.1", "10.244.0.1", "2001:db8::1"],
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

/** A table `ip t` with base chains `pre` (nat prerouting), `fwd` (filter forward) and `post` (nat postrouting). */
function table(lines: readonly string[]): NftTraceRuleset {
  const rules = new NftTraceRuleset();
  const script = [
    "add table ip t",
    "add chain ip t pre { type nat hook prerouting priority -100 ; }",
    "add chain ip t fwd { type filter hook forward priority 0 ; policy accept ; }",
    "add chain ip t post { type nat hook postrouting priority 100 ; }",
    ...lines.map((line) => `add ${line.replace(/^(\w+) /, "$1 ip t ")}`),
  ];
  rules.run(script.join("\n"));
  return rules;
}

function ways(lines: readonly string[], packet: Partial<Packet> = {}): readonly Way[] {
  return walk(table(lines).rules("IPv4"), { ...fromPod, ...packet }, host);
}

function end(lines: readonly string[], packet: Partial<Packet> = {}): End | undefined {
  const [only, ...others] = ways(lines, packet);
  assert.equal(others.length, 0, "nothing here is decided by chance");
  return only?.end;
}

const dropped: End = { kind: "dropped", why: "" };
const untouched: End = { kind: "forwarded", masqueraded: false };

describe("matches of the nft language", () => {
  const match: readonly (readonly [string, boolean, Partial<Packet>?])[] = [
    ["ip saddr 10.244.0.2", true],
    ["ip saddr 10.244.0.3", false],
    ["ip saddr != 10.244.0.3", true],
    ["ip saddr 10.244.0.0/16", true],
    ["ip saddr != 10.244.0.0/16", false],
    ["ip saddr 10.244.0.1-10.244.0.9", true],
    ["ip saddr { 10.0.0.0/8, 192.168.0.0/16 }", true],
    ["ip saddr != { 10.0.0.0/8, 192.168.0.0/16 }", false],
    ["ip6 saddr ::/0", false],
    ["ip6 saddr != fd00::1", false],
    ["meta l4proto tcp", true],
    ["meta l4proto udp", false],
    ["meta l4proto { tcp, udp, sctp }", true],
    ["ip protocol tcp", true],
    ["th dport 80", true],
    ["th dport 1-100", true],
    ["th dport { 53, 443 }", false],
    ["tcp dport 80", true],
    ["udp dport 80", false],
    ["udp dport != 80", false],
    ["th sport 40000", true],
    ['iifname "br0"', true],
    ['iifname "b*"', true],
    ['iifname "eth*"', false],
    ['iifname != "eth*"', true],
    ["ip daddr . meta l4proto . th dport 172.30.0.1 . tcp . 80", true],
    ["ip daddr . th dport { 172.30.0.1 . 81, 172.30.0.2 . 80 }", false],
    ["ip daddr . th dport { 172.30.0.0/16 . 80 }", true],
    ["ct state new", true],
    ["ct state established,related", false],
    ["ct state { established, new }", true],
    ["ct status dnat", false],
    ["fib daddr type local", false],
    ["fib daddr type != local", true],
    ["fib daddr type local", true, { destination: "192.0.2.1" }],
    ["fib daddr type local", true, { destination: "127.0.0.9" }],
    ["fib daddr type multicast", true, { destination: "224.0.0.1" }],
    ["meta mark and 0x4000 != 0", true, { mark: 0x4001 }],
    ["meta mark & 0x00004000 != 0x00000000", false, { mark: 0x8001 }],
    ["meta mark & 0x4000 == 0x4000", true, { mark: 0x4000 }],
    ["counter packets 3 bytes 180 ip saddr 10.244.0.2", true],
  ];
  for (const [text, matches, packet] of match) {
    test(`${text}: ${matches ? "matches" : "does not match"}`, () => {
      const out = new NftTraceRuleset();
      out.run(
        `add table ip t\nadd chain ip t c { type filter hook prerouting priority 0 ; }\nadd rule ip t c ${text} drop`,
      );
      const [way] = walk(out.rules("IPv4"), { ...fromPod, ...packet }, host);
      assert.equal(way?.end.kind === "dropped", matches);
    });
  }

  test("what is not understood is an error that names it", () => {
    for (const [rule, words] of [
      ["ip ttl 3 drop", "ip ttl 3"],
      ["tcp flags syn drop", "tcp flags syn"],
      ["limit rate 5/second accept", "limit"],
      ["ct helper set x", "ct helper"],
      ["queue num 1", "queue"],
      ["numgen sequential mod 2 vmap { 0 : drop }", "numgen sequential mod 2 vmap"],
      ["ip saddr", "ip saddr"],
      ["reject with icmp echo", "reject with icmp echo"],
    ] as const) {
      assert.throws(
        () => table([`rule fwd ${rule}`]),
        (error) => error instanceof UnknownRuleError && error.words === words,
        rule,
      );
    }
  });

  test("what somebody has put into a table is an error for packets that meet it only", () => {
    const rules = new NftTraceRuleset(false);
    readListing(
      "table ip t {\n\tchain c {\n\t\ttype filter hook forward priority 0; policy accept;\n\t\tip saddr 10.244.0.3 limit rate 5/second drop\n\t}\n}\n",
      rules,
    );
    assert.equal(walk(rules.rules("IPv4"), fromPod, host)[0]?.end.kind, "forwarded");
    const other = { ...fromPod, source: "10.244.0.3" };
    assert.throws(() => walk(rules.rules("IPv4"), other, host), UnknownRuleError);
  });

  test("what is not understood in a listing is an error too", () => {
    const read = (text: string): void => readListing(text, new NftTraceRuleset());
    assert.throws(() => read("table ip t {\n\tsynproxy x {\n\t}\n}\n"), UnknownRuleError);
    assert.throws(() => read("table ip t {\n\tset s {\n\t\tmagic\n\t}\n}\n"), UnknownRuleError);
    assert.throws(() => read("ip saddr 1.2.3.4\n"), UnknownRuleError);
  });
});

describe("chains", () => {
  test("jump comes back, goto does not, return ends a chain", () => {
    const chains = ["chain a", "chain b"];
    assert.deepEqual(end([...chains, "rule fwd jump a", "rule fwd drop"]), dropped);
    assert.deepEqual(end([...chains, "rule fwd goto a", "rule fwd drop"]), untouched);
    assert.deepEqual(
      end([...chains, "rule a goto b", "rule a accept", "rule fwd jump a", "rule fwd drop"]),
      dropped,
    );
    assert.deepEqual(
      end([...chains, "rule a return", "rule a drop", "rule fwd jump a", "rule fwd accept"]),
      untouched,
    );
  });

  test("accept ends one base chain, drop ends the packet", () => {
    const second = "chain late { type filter hook forward priority 5 ; }";
    assert.deepEqual(end([second, "rule fwd accept", "rule late drop"]), dropped);
    assert.deepEqual(end([second, "rule fwd drop", "rule late accept"]), dropped);
  });

  test("the policy decides about what no rule did, and is named", () => {
    const last = "chain last { type filter hook forward priority 5 ; policy drop ; }";
    assert.deepEqual(end([last]), { kind: "dropped", why: "policy of nft ip t last" });
    assert.deepEqual(end([last, "rule last accept"]), untouched);
  });

  test("chains that call each other in a circle are an error", () => {
    assert.throws(
      () => end(["chain a", "rule a jump a", "rule fwd jump a"]),
      (error) => error instanceof UnknownRuleError && error.words.includes("16"),
    );
  });

  test("priorities order the chains of a hook; nat has its own place among them", () => {
    const early = (priority: number): string[] => [
      `chain first { type filter hook prerouting priority ${priority} ; }`,
      "rule first ip daddr 172.30.0.1 drop",
      "rule pre dnat to 10.244.0.3:8080",
    ];
    assert.equal(end(early(-110))?.kind, "dropped");
    assert.equal(end(early(-90))?.kind, "backend");
  });
});

describe("address translation", () => {
  const map = [
    "map ep { typeof ip daddr . numgen random mod 4 : ip daddr . th dport ; }",
    "element ep { 172.30.0.1 . 0 : 10.244.0.2 . 8080, 172.30.0.1 . 1 : 10.244.0.3 . 8081 }",
    "element ep { 172.30.0.1 . 2 : 10.244.0.3 . 8081 }",
    "rule pre dnat ip addr . port to ip daddr . numgen random mod 4 map @ep",
  ];

  test("chance is followed every way it may go, with its probability", () => {
    assert.deepEqual(
      ways(map).map((way) => [way.probability, way.end]),
      [
        [0.25, { kind: "backend", ip: "10.244.0.2", port: 8080, masqueraded: false }],
        [0.25, { kind: "backend", ip: "10.244.0.3", port: 8081, masqueraded: false }],
        [0.25, { kind: "backend", ip: "10.244.0.3", port: 8081, masqueraded: false }],
        // A slot that is missing from the map.
        [0.25, untouched],
      ],
    );
  });

  test("two decisions after each other multiply", () => {
    const two = [
      "rule pre numgen random mod 2 vmap { 0 : accept, 1 : drop }",
      "rule fwd numgen random mod 3 vmap { 0 : drop }",
    ];
    const found = ways(two).map((way) => [way.probability, way.end.kind]);
    assert.deepEqual(found, [
      [1 / 6, "dropped"],
      [1 / 6, "forwarded"],
      [1 / 6, "forwarded"],
      [0.5, "dropped"],
    ]);
  });

  test("later hooks see the new destination, conntrack's status and the mark", () => {
    const rules = [
      "rule pre meta mark set meta mark or 0x4000 dnat to 10.244.0.3:8080",
      "rule fwd ip daddr 172.30.0.1 drop",
      "rule post ip saddr . ip daddr . meta l4proto . th dport { 10.244.0.2 . 10.244.0.3 . tcp . 8080 } ct status dnat meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random",
    ];
    assert.deepEqual(end(rules), {
      kind: "backend",
      ip: "10.244.0.3",
      port: 8080,
      masqueraded: true,
    });
  });

  test("the first chain that translates has it; a later one is not asked", () => {
    const rules = [
      "chain docker { type nat hook prerouting priority -99 ; }",
      "rule docker dnat to 9.9.9.9",
      "rule pre dnat to 10.244.0.3:8080",
    ];
    assert.deepEqual(end(rules), {
      kind: "backend",
      ip: "10.244.0.3",
      port: 8080,
      masqueraded: false,
    });
  });

  test("an established flow is not translated anew", () => {
    assert.deepEqual(end(["rule pre dnat to 10.244.0.3"], { state: "established" }), untouched);
  });

  test("an address alone keeps the port; IPv6 wants brackets with one", () => {
    const rules = new NftTraceRuleset();
    rules.run(
      [
        "add table ip6 t",
        "add chain ip6 t pre { type nat hook prerouting priority -100 ; }",
        "add rule ip6 t pre th dport 80 dnat to [fd00:0::2]:8080",
        "add rule ip6 t pre dnat to fd00::3",
      ].join("\n"),
    );
    const v6: Packet = {
      ...fromPod,
      family: "IPv6",
      source: "fd00::9",
      destination: "fd00:30::1",
    };
    const to = (destinationPort: number): End | undefined =>
      walk(rules.rules("IPv6"), { ...v6, destinationPort }, host)[0]?.end;
    const backend = { kind: "backend", masqueraded: false } as const;
    assert.deepEqual(to(80), { ...backend, ip: "fd00::2", port: 8080 });
    assert.deepEqual(to(81), { ...backend, ip: "fd00::3", port: 81 });
    assert.deepEqual(walk(rules.rules("IPv4"), fromPod, host)[0]?.end, untouched);
  });

  test("a set that remembers says so, and what it holds is found", () => {
    const rules = [
      "set clients { type ipv4_addr ; flags dynamic, timeout ; timeout 10s ; }",
      "rule fwd ip saddr @clients drop",
      "rule fwd update @clients { ip saddr }",
    ];
    assert.deepEqual(ways(rules)[0]?.remembered, [{ container: "clients", key: "10.244.0.2" }]);
    assert.deepEqual(end([...rules, "element clients { 10.244.0.2 }"]), dropped);
  });

  test("TCP is reset, the rest gets ICMP", () => {
    const rules = ["rule fwd meta l4proto tcp reject with tcp reset", "rule fwd reject"];
    assert.deepEqual(end(rules), { kind: "rejected", how: "tcp-reset" });
    assert.deepEqual(end(rules, { protocol: "udp" }), { kind: "rejected", how: "icmp" });
    // As listings print it.
    const listed = ["rule fwd reject with tcp reset", "rule fwd reject"];
    assert.deepEqual(end(listed, { protocol: "udp" }), { kind: "rejected", how: "icmp" });
  });
});

describe("ways through the node", () => {
  test("what is for the node goes to input, not forward", () => {
    const rules = [
      "chain in { type filter hook input priority 0 ; }",
      "rule fwd drop",
      "rule in th dport 22 drop",
    ];
    assert.deepEqual(end(rules, { destination: "192.0.2.1" }), { kind: "host" });
    assert.deepEqual(end(rules, { destination: "192.0.2.1", destinationPort: 22 }), dropped);
    assert.deepEqual(end(rules), dropped);
  });

  const own: Partial<Packet> = { inInterface: "", source: "192.0.2.1" };

  test("what the node sends passes output and postrouting, and loopback only once through nat", () => {
    const rules = [
      "chain out { type nat hook output priority -100 ; }",
      "rule out ip daddr 172.30.0.1 dnat to 192.0.2.1:8080",
      "rule pre dnat to 9.9.9.9",
      "rule post masquerade",
    ];
    assert.deepEqual(end(rules, own), {
      kind: "backend",
      ip: "192.0.2.1",
      port: 8080,
      masqueraded: true,
    });
    assert.deepEqual(end(rules, { ...own, destination: "8.8.8.8" }), {
      kind: "forwarded",
      masqueraded: true,
    });
  });

  test("a loopback address leaves the machine only with route_localnet", () => {
    const rules = [
      "chain out { type nat hook output priority -100 ; }",
      "rule out ip daddr 127.0.0.1 dnat to 10.244.0.3:8080",
    ];
    const packet: Packet = {
      ...fromPod,
      inInterface: "",
      source: "127.0.0.1",
      destination: "127.0.0.1",
    };
    assert.equal(end(rules, packet)?.kind, "dropped");
    const open = new Host({ addresses: [], routeLocalnet: true });
    assert.equal(walk(table(rules).rules("IPv4"), packet, open)[0]?.end.kind, "backend");
  });

  test("loopback addresses do not come in from outside", () => {
    assert.equal(end([], { destination: "127.0.0.1" })?.kind, "dropped");
    assert.equal(end([], { source: "127.0.0.1" })?.kind, "dropped");
  });
});

describe("transactions", () => {
  const refused = (lines: readonly string[], command: string): void => {
    const rules = table(lines);
    assert.throws(() => rules.run(command), RefusedTextError, command);
  };

  test("what the kernel would refuse is refused", () => {
    const map = ["map m { type inet_service : verdict ; }", "element m { 80 : drop }"];
    refused(map, "add element ip t m { 80 : accept }");
    refused(map, "delete element ip t m { 81 }");
    refused(map, "delete map ip t other");
    refused([...map, "rule fwd th dport vmap @m"], "delete map ip t m");
    refused(["chain a", "rule fwd jump a"], "delete chain ip t a");
    refused([...map, "chain a", "element m { 82 : goto a }"], "delete chain ip t a");
    refused([], "flush chain ip t nowhere");
    refused([], "add rule ip other c drop");
  });

  test("unknown commands are errors", () => {
    assert.throws(() => table([]).run("rename chain ip t a b"), UnknownRuleError);
  });
});

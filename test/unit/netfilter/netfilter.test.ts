import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { SetupError } from "../../../src/lib/errors.ts";
import { classifyNftFailure, NftError } from "../../../src/netfilter/errors.ts";
import { jumpPosition, renderForwardChain } from "../../../src/netfilter/forward-accept.ts";
import { parseMonitorLine } from "../../../src/netfilter/monitor.ts";
import { parseTableListing } from "../../../src/netfilter/read-back.ts";
import { renderTransaction } from "../../../src/netfilter/transaction.ts";

const table = { family: "ip", name: "t" } as const;

describe("a transaction", () => {
  it("puts at most a thousand elements into one command", () => {
    const elements = Array.from({ length: 2500 }, (_, i) => ({
      key: `1.2.${i >> 8}.${i & 255}`,
      value: "",
    }));
    const lines = renderTransaction(table, [{ op: "add-elements", container: "s", elements }])
      .trim()
      .split("\n");
    assert.equal(lines.length, 3);
    assert.match(lines[0] ?? "", /^add element ip t s \{ 1\.2\.0\.0, 1\.2\.0\.1, /);
  });
  it("of nothing is no text", () => {
    assert.equal(renderTransaction(table, []), "");
  });
  it("tags rules", () => {
    assert.equal(
      renderTransaction(table, [{ op: "add-rule", chain: "c", rule: { text: "drop", tag: "ab" } }]),
      'add rule ip t c drop comment "ab"\n',
    );
  });
});

describe("what nft says", () => {
  const cases: readonly [string, string][] = [
    ["/dev/stdin:1:1-2: Error: Could not process rule: No such file or directory", "missing"],
    ["/dev/stdin:1:1-2: Error: Could not process rule: File exists", "exists"],
    ["/dev/stdin:1:1-2: Error: Could not process rule: Device or resource busy", "busy"],
    ["/dev/stdin:1:1-2: Error: syntax error, unexpected newline", "other"],
  ];
  for (const [stderr, failure] of cases) {
    it(`is classified as ${failure}`, () => {
      const error = classifyNftFailure(stderr);
      assert.ok(error instanceof NftError);
      assert.equal(error.failure, failure);
    });
  }
  it("about rights names the remedy", () => {
    const error = classifyNftFailure("Error: Could not process rule: Operation not permitted");
    assert.ok(error instanceof SetupError);
    assert.match(error.message, /root/);
  });
});

describe("a listing", () => {
  it("gives chains with their tags and elements in the words of transactions", () => {
    const listing = parseTableListing({
      nftables: [
        { metainfo: {} },
        { chain: { name: "a", type: "nat", hook: "output", prio: -101 } },
        { chain: { name: "c2" } },
        { rule: { chain: "a", comment: "x", expr: [] } },
        { rule: { chain: "a", expr: [] } },
        {
          map: {
            name: "m",
            elem: [
              [{ concat: ["fd00:0::1", "tcp", 80, 0] }, { concat: ["10.0.0.1", 80] }],
              [{ concat: ["10.0.0.2", "udp", 53] }, { goto: { target: "c2" } }],
              [5, { drop: null }],
            ],
          },
        },
        {
          set: {
            name: "s",
            elem: [
              "10.0.0.1",
              { elem: { val: "10.0.0.2", timeout: 5 } },
              { prefix: { addr: "10.1.0.0", len: 16 } },
            ],
          },
        },
      ],
    });
    assert.deepEqual(listing.chains.get("a"), {
      hook: { type: "nat", hook: "output", priority: -101 },
      tags: ["x", ""],
    });
    assert.equal(listing.chains.get("c2")?.hook, undefined);
    assert.deepEqual(
      [...(listing.containers.get("m")?.elements ?? [])],
      [
        ["fd00::1 . tcp . 80 . 0", "10.0.0.1 . 80"],
        ["10.0.0.2 . udp . 53", "goto c2"],
        ["5", "drop"],
      ],
    );
    assert.deepEqual(
      [...(listing.containers.get("s")?.elements.keys() ?? [])],
      ["10.0.0.1", "10.0.0.2", "10.1.0.0/16"],
    );
  });
  it("of another shape is an error with its place", () => {
    assert.throws(() => parseTableListing({}), /\$\.nftables/);
    assert.throws(
      () => parseTableListing({ nftables: [{ map: { name: "m", elem: [[{ weird: 1 }, 2]] } }] }),
      /map\.elem/,
    );
  });
});

describe("the monitor", () => {
  it("knows deletions of whole tables and of parts", () => {
    assert.deepEqual(parseMonitorLine("delete table ip remora-proxy"), {
      kind: "table",
      family: "ip",
      table: "remora-proxy",
      name: "",
    });
    assert.deepEqual(parseMonitorLine("delete rule ip6 t c handle 5"), {
      kind: "rule",
      family: "ip6",
      table: "t",
      name: "c",
    });
    assert.equal(parseMonitorLine("delete map ip t m")?.kind, "container");
    assert.equal(parseMonitorLine("delete element ip t s { 1.2.3.4 . 80 }")?.kind, "element");
    assert.equal(parseMonitorLine("# new generation 5 by process 1 (nft)"), undefined);
  });
});

describe("the FORWARD jump", () => {
  const ours = "-A FORWARD -j REMORA-FORWARD";
  const docker = "-A FORWARD -j DOCKER-USER";
  const kube = [
    '-A FORWARD -m conntrack --ctstate NEW -m comment --comment "load balancer" -j KUBE-PROXY-FIREWALL',
    '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
  ];
  const cases: readonly (readonly [
    name: string,
    rules: readonly string[],
    right: boolean,
    place: number,
    others: readonly number[],
  ])[] = [
    ["first", [ours, docker], true, 1, []],
    ["behind Docker's", [docker, ours], false, 1, [2]],
    ["twice", [ours, docker, ours], true, 1, [3]],
    ["none, but one of a longer name", ["-A FORWARD -j REMORA-FORWARD-2"], false, 1, []],
    ["behind a service proxy's rules", [...kube, ours, docker], true, 3, []],
    ["before a service proxy's rules", [ours, ...kube, docker], false, 4, [1]],
    ["between them and Docker's, which came later", [docker, ...kube, ours], true, 4, []],
    ["far behind them", [...kube, docker, ours], false, 3, [4]],
  ];
  for (const [name, rules, right, place, others] of cases) {
    it(`${name}: ${right ? "right" : "to be moved"}`, () => {
      assert.deepEqual(
        jumpPosition(["-P FORWARD DROP", ...rules, ""].join("\n"), "REMORA-FORWARD"),
        {
          right,
          count: others.length + (right ? 1 : 0),
          place,
          others,
        },
      );
    });
  }
  it("leads to a chain that accepts pods and translated flows only", () => {
    const text = renderForwardChain({
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
    });
    assert.match(
      text,
      /^\*filter\n:REMORA-FORWARD - \[0:0\]\n:REMORA-INPUT - \[0:0\]\n-A REMORA-FORWARD -s 10\.244\.0\.0\/16 -j ACCEPT\n/,
    );
    assert.match(text, /--mark 0x4000\/0x4000 -j ACCEPT/);
    assert.ok(
      text
        .split("\n")
        .filter((line) => line.startsWith("-A"))
        .every((line) => /^-A REMORA-(FORWARD|INPUT) -/.test(line)),
    );
    assert.deepEqual(
      text.split("\n").filter((line) => line.startsWith("-A REMORA-INPUT")),
      ["udp", "tcp"].map(
        (protocol) =>
          `-A REMORA-INPUT -s 10.244.0.0/24 -d 10.96.0.10/32 -i remora0 -p ${protocol} -m ${protocol} --dport 53 -j ACCEPT`,
      ),
    );
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { parseTarget } from "../../../../src/agent/commands/trace.ts";
import { SetupError } from "../../../../src/lib/errors.ts";
import { ruleTag } from "../../../../src/proxy/rule-tag.ts";
import { isOwnRule } from "../../../../src/proxy/trace/recognise.ts";
import { reportLines, reportWays, type TraceReport } from "../../../../src/proxy/trace/report.ts";
import { walk } from "../../../../src/proxy/trace/walk.ts";
import { addressesOf, judge, settingsOf } from "../model/build.ts";
import { type ModelEndpoint, modelService, type ModelService } from "../model/cluster.ts";
import { packetOf } from "../model/compare.ts";
import { modes } from "../model/modes.ts";
import type { ModelPacket } from "../model/oracle.ts";

const at = addressesOf.IPv4;

function traced(
  mode: (typeof modes)[number],
  service: Partial<ModelService>,
  endpoints: readonly Partial<ModelEndpoint>[],
  ask: Partial<ModelPacket>,
): TraceReport {
  const web = modelService({
    name: "web",
    type: "LoadBalancer",
    clusterIPs: { IPv4: at.clusterIP(1) },
    ingress: [{ ip: at.balancer(1) }],
    ports: [{ name: "p", protocol: "tcp", port: 80, nodePort: 30_001 }],
    ...service,
  });
  const cluster = {
    services: new Map([["web", web]]),
    slices: new Map([
      [
        "web",
        {
          name: "web",
          service: "web",
          family: "IPv4" as const,
          ports: [{ name: "p", protocol: "tcp" as const, port: 8080 }],
          endpoints: endpoints.map((endpoint) => ({
            ip: at.pod(2),
            node: "here",
            ready: true,
            serving: true,
            terminating: false,
            ...endpoint,
          })),
        },
      ],
    ]),
  };
  const settings = settingsOf(mode, "IPv4");
  const { rules, host } = judge(cluster, settings);
  const packet = packetOf(
    {
      source: at.pod(9),
      inInterface: "remora0",
      destination: at.clusterIP(1),
      port: 80,
      protocol: "tcp",
      ...ask,
    },
    settings,
  );
  return reportWays(walk(rules, packet, host), packet, {
    from: packet.source,
    read: [],
    notSimulated: [],
    notOwn: [],
  });
}

function lastLine(report: TraceReport): string {
  return reportLines(report).at(-1) ?? "";
}

const outside = { source: at.outside, inInterface: "up0" };
const elsewhere = [{ ip: at.otherPod(3), node: "there" }];

for (const mode of modes) {
  describe(`the last line of a trace says where and why [${mode}]`, () => {
    const nft = mode === "nftables";
    const says = (report: TraceReport, pattern: RegExp): void => {
      assert.match(lastLine(report), pattern);
    };

    test("one backend, and whether the source is kept", () => {
      const kept = traced(mode, {}, [{}], {});
      assert.equal(kept.outcome, "delivered");
      says(kept, /^delivered: backend 10\.244\.0\.2:8080, source 10\.244\.0\.9 kept$/);
      says(
        traced(mode, {}, [{}], outside),
        /^delivered: backend .*, source rewritten to the node's address$/,
      );
    });

    test("several backends, with their chances", () => {
      const report = traced(mode, {}, [{}, ...elsewhere], {});
      says(report, /^delivered: one of 2 backends$/);
      const chances = reportLines(report).filter((line) => line.includes(" 50 %"));
      assert.equal(chances.length, 2);
    });

    test("no endpoint", () => {
      const report = traced(mode, {}, [], {});
      assert.equal(report.outcome, "not delivered");
      says(report, nft ? /TCP reset\): the Service has no endpoint \(noep\)/ : /has no endpoints/);
    });

    test("externalTrafficPolicy Local and nobody here, by node port and by address", () => {
      const byPort = { ...outside, destination: at.node, port: 30_001 };
      says(
        traced(mode, { externalLocal: true }, elsewhere, byPort),
        nft
          ? /^not delivered: dropped: externalTrafficPolicy Local and no local endpoint \(noep-np\)$/
          : /^not delivered: dropped: .*has no local endpoints/,
      );
      const byAddress = { ...outside, destination: at.balancer(1) };
      says(
        traced(mode, { externalLocal: true }, elsewhere, byAddress),
        nft
          ? /dropped: externalTrafficPolicy Local and no local endpoint \(noep\)$/
          : /has no local endpoints/,
      );
    });

    test("internalTrafficPolicy Local and nobody here", () => {
      says(
        traced(mode, { internalLocal: true }, elsewhere, {}),
        nft
          ? /dropped: internalTrafficPolicy Local and no local endpoint \(noep\)$/
          : /has no local endpoints/,
      );
    });

    test("a source that the ranges do not hold", () => {
      const report = traced(mode, { sourceRanges: ["10.99.0.0/16"] }, [{}], {
        ...outside,
        destination: at.balancer(1),
      });
      says(report, nft ? /loadBalancerSourceRanges do not hold 192\.0\.2\.2/ : /not accepted by/);
    });

    test("a port that the ClusterIP does not have", () => {
      const report = traced(mode, {}, [{}], { port: 81 });
      assert.equal(report.outcome, nft ? "not delivered" : "cannot tell");
      says(report, nft ? /the ClusterIP has no port 81\/tcp/ : /leaves for 172\.30\.0\.1:81/);
    });

    test("the node itself, and an address of nobody", () => {
      assert.equal(traced(mode, {}, [{}], { destination: at.node, port: 22 }).outcome, "delivered");
      const gone = traced(mode, {}, [{}], { destination: "8.8.8.8" });
      assert.equal(gone.outcome, "cannot tell");
    });
  });
}

describe("rules as nft lists them", () => {
  const same: readonly (readonly [written: string, listed: string])[] = [
    ["meta mark set meta mark or 0x4000", "meta mark set meta mark | 0x00004000"],
    [
      "meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random",
      "meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random",
    ],
    [
      "meta l4proto tcp dnat ip addr . port to ip daddr . tcp dport . numgen random mod 2 map @ep-c-tcp",
      "meta l4proto tcp dnat ip to ip daddr . tcp dport . numgen random mod 2 map @ep-c-tcp",
    ],
    [
      "meta l4proto udp dnat ip6 addr . port to udp dport . numgen random mod 1 map @ep-nc-udp",
      "dnat ip6 to udp dport . numgen random mod 1 map @ep-nc-udp",
    ],
    ["meta l4proto tcp reject with tcp reset", "reject with tcp reset"],
    ["ip saddr 192.0.2.2/32 return", "ip saddr 192.0.2.2 return"],
    ["ip6 saddr 2001:db8::2/128 return", "ip6 saddr 2001:db8::2 return"],
    [
      "ct state new ip daddr { 192.0.2.1 } meta l4proto . th dport vmap @noep-np",
      "ct state new ip daddr 192.0.2.1 meta l4proto . th dport vmap @noep-np",
    ],
    [
      "ip daddr { 192.0.2.10, 192.0.2.9 } meta l4proto . th dport vmap @np",
      "ip daddr { 192.0.2.9, 192.0.2.10 } meta l4proto . th dport vmap @np",
    ],
  ];
  for (const [written, listed] of same) {
    test(`${listed}: is ours`, () => {
      assert.ok(isOwnRule(listed, ruleTag(written)));
      assert.ok(isOwnRule(written, ruleTag(written)));
    });
  }

  test("a rule that somebody changed is not", () => {
    assert.ok(!isOwnRule("ip saddr 10.0.0.0/8 return", ruleTag("ip saddr 10.1.0.0/16 return")));
    assert.ok(!isOwnRule("drop", ""));
  });
});

describe("--to", () => {
  test("an address, a port, and a protocol that is TCP unless it is said", () => {
    assert.deepEqual(parseTarget("10.96.0.10:53/udp"), {
      ip: "10.96.0.10",
      port: 53,
      protocol: "udp",
    });
    assert.deepEqual(parseTarget("[FD00:0::A]:80"), { ip: "fd00::a", port: 80, protocol: "tcp" });
    assert.equal(parseTarget("1.2.3.4:1/SCTP").protocol, "sctp");
  });

  test("anything else is refused with an example", () => {
    for (const text of [
      "",
      "1.2.3.4",
      "1.2.3.4:0",
      "1.2.3.4:65536",
      "fd00::a:80",
      "[1.2.3.4]:80",
      "web:80",
      "1.2.3.4:80/icmp",
    ]) {
      assert.throws(() => parseTarget(text), SetupError, text);
    }
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type FlowEnds, parseFlow } from "../../../src/netfilter/conntrack.ts";
import { type StaleFlows, touchedFrontends } from "../../../src/proxy/conntrack.ts";
import type { RulesContext } from "../../../src/proxy/backend.ts";
import { FamilyRules } from "../../../src/proxy/family-rules.ts";
import { NftBackend } from "../../../src/proxy/nftables/backend.ts";
import { parseService, parseSlice } from "../../../src/proxy/parse.ts";
import type { PlannedPort } from "../../../src/proxy/plan.ts";
import type { FlowTarget } from "../../../src/proxy/conntrack.ts";
import { SliceIndex } from "../../../src/proxy/slice-index.ts";
import { rulesContext } from "../../fakes/service-samples.ts";

const node = { name: "here", zone: "", ips: ["192.0.2.1"] };

const testContext: RulesContext = rulesContext();

describe("a line of conntrack's listing", () => {
  it("gives where a flow goes and who answers, for both families and unanswered flows", () => {
    assert.deepEqual(
      parseFlow(
        "udp      17 17 src=10.244.0.4 dst=172.30.0.1 sport=5555 dport=80 src=10.244.0.2 dst=10.244.0.4 sport=8080 dport=5555 [ASSURED] mark=0 use=1",
      ),
      { destination: "172.30.0.1", port: 80, from: "10.244.0.2", fromPort: 8080 },
    );
    assert.deepEqual(
      parseFlow(
        "udp      17 29 src=fd00:244::4 dst=fd00:30::1 sport=5 dport=53 [UNREPLIED] src=fd00:30::1 dst=fd00:244::4 sport=53 dport=5 mark=0 use=1",
      ),
      { destination: "fd00:30::1", port: 53, from: "fd00:30::1", fromPort: 53 },
    );
  });
  it("is nothing for another protocol and for counts", () => {
    assert.equal(parseFlow("tcp 6 1 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2"), undefined);
    assert.equal(parseFlow("conntrack v1.4.7 (conntrack-tools): 3 flow entries"), undefined);
  });
});

describe("the verdict on a UDP flow", () => {
  const rules = new FamilyRules({
    context: testContext,
    backend: new NftBackend({
      context: testContext,
      tableName: "t",
      logger: silentLogger,
      clock: systemClock,
    }),
    logger: silentLogger,
  });
  const index = new SliceIndex("here");
  const slice = (name: string, endpoints: unknown[]): void => {
    index.set(
      parseSlice({
        metadata: { namespace: "ns", name, labels: { "kubernetes.io/service-name": name } },
        addressType: "IPv4",
        ports: [{ name: "", port: 8080, protocol: "UDP" }],
        endpoints,
      }),
    );
  };
  const service = (name: string, clusterIP: string, nodePort: number): void => {
    const view = parseService({
      metadata: { namespace: "ns", name },
      spec: { type: "NodePort", clusterIP, ports: [{ port: 53, protocol: "UDP", nodePort }] },
    });
    rules.update(view.key, view, index, node);
  };
  slice("dns", [
    { addresses: ["10.244.0.2"] },
    { addresses: ["10.244.0.3"], conditions: { ready: false, serving: true, terminating: true } },
  ]);
  service("dns", "172.30.0.1", 30_053);
  service("empty", "172.30.0.2", 30_054);
  rules.setServiceCIDRs(["172.30.0.0/16", "172.30.7.0/24", "fd00::/64"]);

  const judged = (
    flow: FlowEnds,
    wasFrontend?: (target: FlowTarget) => boolean,
  ): StaleFlows | undefined => rules.judge(flow, (ip) => ip === "192.0.2.1", wasFrontend);
  const stale = (destination: string, port: number, from: string, fromPort = 8080): boolean =>
    judged({ destination, port, from, fromPort }) !== undefined;
  const cases: readonly [string, boolean, boolean][] = [
    ["to a ready endpoint", stale("172.30.0.1", 53, "10.244.0.2"), false],
    ["to one that still serves while it ends", stale("172.30.0.1", 53, "10.244.0.3"), false],
    ["to an endpoint that is gone", stale("172.30.0.1", 53, "10.244.0.9"), true],
    ["to another port of an endpoint", stale("172.30.0.1", 53, "10.244.0.2", 9090), true],
    [
      "that was never translated, though there is an endpoint",
      stale("172.30.0.1", 53, "172.30.0.1", 53),
      true,
    ],
    [
      "of a Service without endpoints that is refused",
      stale("172.30.0.2", 53, "172.30.0.2", 53),
      false,
    ],
    [
      "of a Service without endpoints that still goes somewhere",
      stale("172.30.0.2", 53, "10.244.0.2"),
      true,
    ],
    ["to a port the Service had", stale("172.30.0.1", 54, "10.244.0.2"), true],
    ["to a Service that is gone", stale("172.30.9.9", 53, "10.244.0.2"), true],
    ["to a node port, right", stale("192.0.2.1", 30_053, "10.244.0.2"), false],
    ["to a node port, endpoint gone", stale("192.0.2.1", 30_053, "10.244.0.9"), true],
    ["to a node port, of before it was one", stale("192.0.2.1", 30_053, "192.0.2.1", 30_053), true],
    [
      "to a node port that refuses, of before it was one",
      stale("192.0.2.1", 30_054, "192.0.2.1", 30_054),
      false,
    ],
    [
      "to a stranger with the number of a node port",
      stale("198.51.100.1", 30_053, "198.51.100.1", 30_053),
      false,
    ],
    [
      "to a stranger that was translated by others",
      stale("198.51.100.1", 30_053, "10.0.0.1"),
      false,
    ],
    ["to a host port of the node", stale("192.0.2.1", 5000, "10.244.0.7"), false],
  ];
  for (const [name, actual, expected] of cases) {
    it(`${name}: ${expected ? "goes" : "stays"}`, () => {
      assert.equal(actual, expected);
    });
  }

  it("says who answers, where somebody else may; where nobody may, all must go", () => {
    const flow = { destination: "172.30.0.1", port: 53, from: "10.244.0.9", fromPort: 8080 };
    const kind = { family: "IPv4", vip: "172.30.0.1", port: 53 };
    assert.deepEqual(judged(flow), { ...kind, from: { ip: "10.244.0.9", port: 8080 } });
    assert.deepEqual(judged({ ...flow, destination: "172.30.0.2" }), {
      ...kind,
      vip: "172.30.0.2",
      from: undefined,
    });
  });

  it("an address or node port that a Service had is known by who was told of it", () => {
    const external = { destination: "198.51.100.7", port: 53, from: "10.244.0.2", fromPort: 8080 };
    const nodePort = { ...external, destination: "192.0.2.1", port: 30_099 };
    assert.equal(judged(external), undefined);
    assert.equal(judged(nodePort), undefined);
    const was = ({ ip, port }: FlowTarget): boolean =>
      ["198.51.100.7 53", " 30099"].includes(`${ip} ${port}`);
    assert.equal(judged(external, was)?.vip, "198.51.100.7");
    assert.equal(judged(nodePort, was)?.vip, "192.0.2.1");
    assert.equal(judged({ ...nodePort, from: "192.0.2.1" }, was), undefined);
    assert.equal(judged({ ...nodePort, destination: "192.0.2.9" }, was), undefined);
  });

  it("networks inside others and of the other family make no rule", () => {
    const text = rules.render();
    assert.match(text, /ip daddr 172\.30\.0\.0\/16 fib daddr type != local drop/);
    assert.doesNotMatch(text, /172\.30\.7\.0|fd00/);
  });
});

describe("an address of two UDP Services", () => {
  it("is the younger one's when the older one is gone", () => {
    const backend = new NftBackend({
      context: testContext,
      tableName: "t",
      logger: silentLogger,
      clock: systemClock,
    });
    const rules = new FamilyRules({ context: testContext, backend, logger: silentLogger });
    const index = new SliceIndex("here");
    const service = (name: string, creationTimestamp: string, clusterIP: string): void => {
      const view = parseService({
        metadata: { namespace: "ns", name, creationTimestamp },
        spec: {
          clusterIP,
          externalIPs: ["203.0.113.1"],
          ports: [{ port: 53, protocol: "UDP" }],
        },
      });
      index.set(
        parseSlice({
          metadata: { namespace: "ns", name, labels: { "kubernetes.io/service-name": name } },
          addressType: "IPv4",
          ports: [{ name: "", port: 8080, protocol: "UDP" }],
          endpoints: [{ addresses: [clusterIP.replace("172.30", "10.244")] }],
        }),
      );
      rules.update(view.key, view, index, node);
    };
    const isStale = (from: string): boolean => {
      const flow = { destination: "203.0.113.1", port: 53, from, fromPort: 8080 };
      return rules.judge(flow, () => false) !== undefined;
    };
    service("old", "2020-01-01T00:00:00Z", "172.30.0.1");
    service("new", "2021-01-01T00:00:00Z", "172.30.0.2");
    assert.deepEqual([isStale("10.244.0.1"), isStale("10.244.0.2")], [false, true]);
    rules.update("ns/old", undefined, index, node);
    assert.deepEqual([isStale("10.244.0.1"), isStale("10.244.0.2")], [true, false]);
  });
});

describe("frontends that were touched while nothing could be applied", () => {
  it("are known up to a number; beyond it is known that there are more", () => {
    const backend = new NftBackend({
      context: testContext,
      tableName: "t",
      logger: silentLogger,
      clock: systemClock,
    });
    const rules = new FamilyRules({ context: testContext, backend, logger: silentLogger });
    const index = new SliceIndex("here");
    const change = (port: number): void => {
      const view = parseService({
        metadata: { namespace: "ns", name: "dns" },
        spec: { clusterIP: "172.30.0.1", ports: [{ port, protocol: "UDP" }] },
      });
      rules.update(view.key, view, index, node);
    };
    for (let at = 0; at < 20_000; at += 1) change(53 + (at % 2));
    const { frontends, all } = rules.takeTouched();
    assert.deepEqual([frontends.length, all], [10_000, false]);
    change(60);
    assert.equal(rules.takeTouched().all, true);
  });
});

describe("frontends that a change touches", () => {
  const plan = (
    serving: readonly string[],
    verdict: "cluster" | "reject" = serving.length > 0 ? "cluster" : "reject",
    nodePort = 30_053,
  ): PlannedPort => ({
    key: "ns/dns:/udp",
    service: "ns/dns",
    protocol: "udp",
    clusterIP: "172.30.0.1",
    rank: "",
    frontends: [
      { ip: "172.30.0.1", port: 53, verdict, restricted: false },
      { ip: "", port: nodePort, verdict, restricted: false },
    ],
    cluster: [],
    local: [],
    serving: serving.map((name) => {
      const [ip = "", port = ""] = name.split(":");
      return { ip, port: Number(port) };
    }),
    hairpin: [],
    affinitySeconds: 0,
    sourceRanges: [],
  });
  const [one, other] = ["10.244.0.2:8080", "10.244.0.3:8080"];
  const touched = (before: PlannedPort | undefined, after: PlannedPort | undefined): string =>
    touchedFrontends(before, after)
      .map(({ ip, port }) => `${ip}:${port}`)
      .join(" ");
  const both = "172.30.0.1:53 :30053";
  const cases: readonly [string, PlannedPort | undefined, PlannedPort | undefined, string][] = [
    ["all, when a backend is gone", plan([one, other]), plan([other]), both],
    ["all, when the last one is gone: nobody sends to it any more", plan([one]), plan([]), both],
    ["all, when the port of a backend changes", plan([one]), plan(["10.244.0.2:9090"]), both],
    ["all, when the first backend appears", plan([]), plan([one]), both],
    ["all, when backends stay and none may be used", plan([one]), plan([one], "reject"), both],
    ["none, when a backend is added", plan([one]), plan([one, other]), ""],
    ["all of a Service that is new", undefined, plan([one]), both],
    ["none of one that is new and refuses", undefined, plan([]), ""],
    ["all of a Service that is gone", plan([one]), undefined, both],
    [
      "a node port that is another one, the old and the new",
      plan([one]),
      plan([one], "cluster", 30_054),
      ":30053 :30054",
    ],
    [
      "none of a Service of TCP",
      { ...plan([one]), protocol: "tcp" },
      { ...plan([]), protocol: "tcp" },
      "",
    ],
  ];
  for (const [name, before, after, expected] of cases) {
    it(`are ${name}`, () => {
      assert.equal(touched(before, after), expected);
    });
  }
});

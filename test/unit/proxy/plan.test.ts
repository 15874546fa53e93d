import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { categorizeEndpoints } from "../../../src/proxy/categorize.ts";
import { healthAnswer } from "../../../src/proxy/health.ts";
import { parseService, parseSlice } from "../../../src/proxy/parse.ts";
import { planPort } from "../../../src/proxy/plan.ts";
import { servicePorts } from "../../../src/proxy/service-model.ts";
import { mergeEndpoints } from "../../../src/proxy/slice-index.ts";
import type { Endpoint } from "../../../src/proxy/types.ts";
import { readyEndpoint } from "../../fakes/service-samples.ts";

const here = { name: "here", zone: "z1", ips: ["192.0.2.1"] };

function endpoint(last: number, change: Partial<Endpoint> = {}): Endpoint {
  return readyEndpoint(`10.244.0.${last}`, change);
}

const dying = { ready: false, terminating: true };

function ips(endpoints: readonly { readonly ip: string }[]): string[] {
  return endpoints.map(({ ip }) => ip.split(".").at(-1) ?? "");
}

function port(spec: Record<string, unknown>, status: unknown = {}) {
  const view = parseService({
    metadata: { namespace: "ns", name: "web", creationTimestamp: "2026-01-01T00:00:00Z" },
    spec: {
      clusterIP: "172.30.0.1",
      ports: [{ port: 53, protocol: "UDP", nodePort: 30_053 }],
      ...spec,
    },
    status,
  });
  const [found] = servicePorts(view, "IPv4", here.ips);
  assert.ok(found !== undefined);
  return found;
}

describe("the choice of endpoints", () => {
  const cases: readonly [string, readonly Endpoint[], string[], string[], boolean][] = [
    ["ready ones only, while there are any", [endpoint(2), endpoint(3, dying)], ["2"], [], true],
    ["terminating ones that serve, when nothing is ready", [endpoint(3, dying)], ["3"], [], true],
    [
      "nothing that terminates without serving",
      [endpoint(3, { ...dying, serving: false })],
      [],
      [],
      false,
    ],
    ["nothing that is merely unready", [endpoint(3, { ready: false })], [], [], false],
    [
      "a local terminating one for local traffic, though others are ready",
      [endpoint(2), endpoint(3, { ...dying, local: true })],
      ["2"],
      ["3"],
      true,
    ],
    [
      "the zone's own, when every ready one has hints",
      [endpoint(2, { forZones: ["z1"] }), endpoint(3, { forZones: ["z2"] })],
      ["2"],
      [],
      true,
    ],
    [
      "all, when one lacks a hint",
      [endpoint(2, { forZones: ["z1"] }), endpoint(3)],
      ["2", "3"],
      [],
      true,
    ],
    ["all, when no hint names this zone", [endpoint(2, { forZones: ["z2"] })], ["2"], [], true],
    [
      "the node's own before the zone's",
      [
        endpoint(2, { forZones: ["z1"], forNodes: ["other"] }),
        endpoint(3, { forZones: ["z1"], forNodes: ["here"] }),
      ],
      ["3"],
      [],
      true,
    ],
  ];
  for (const [name, endpoints, cluster, local, hasAny] of cases) {
    it(name, () => {
      const choice = categorizeEndpoints(endpoints, here);
      assert.deepEqual(ips(choice.cluster), cluster);
      assert.deepEqual(ips(choice.local), local);
      assert.equal(choice.hasAny, hasAny);
    });
  }
});

describe("the plan of a port", () => {
  const verdicts = (spec: Record<string, unknown>, endpoints: readonly Endpoint[]): string[] =>
    planPort(port({ type: "NodePort", ...spec }), endpoints, here).frontends.map(
      ({ verdict }) => verdict,
    );

  it("rejects everywhere without endpoints", () => {
    assert.deepEqual(verdicts({}, []), ["reject", "reject"]);
  });
  it("is silent for internal local traffic without a local endpoint, and serves the node port", () => {
    assert.deepEqual(verdicts({ internalTrafficPolicy: "Local" }, [endpoint(2)]), [
      "drop",
      "cluster-masqueraded",
    ]);
  });
  it("splits external local traffic", () => {
    assert.deepEqual(verdicts({ externalTrafficPolicy: "Local" }, [endpoint(2, { local: true })]), [
      "cluster",
      "split",
    ]);
  });
});

describe("the model of a Service", () => {
  it("has no ports for headless Services, ExternalName and the other family", () => {
    for (const spec of [
      { clusterIP: "None" },
      { type: "ExternalName", clusterIP: "172.30.0.1" },
      { clusterIP: "fd00::1" },
    ]) {
      const view = parseService({
        metadata: { namespace: "ns", name: "web" },
        spec: { ports: [{ port: 80 }], ...spec },
      });
      assert.deepEqual(servicePorts(view, "IPv4", []), []);
    }
  });
  it("ignores load balancers in proxy mode and host names", () => {
    const status = {
      loadBalancer: {
        ingress: [
          { ip: "198.51.100.1", ipMode: "Proxy" },
          { hostname: "x" },
          { ip: "198.51.100.2" },
        ],
      },
    };
    assert.deepEqual(port({ type: "LoadBalancer" }, status).loadBalancerIPs, ["198.51.100.2"]);
  });
  it("admits a load balancer address as a source when a range holds the node", () => {
    const status = { loadBalancer: { ingress: [{ ip: "198.51.100.2" }] } };
    const ranges = (list: string[]): readonly string[] =>
      port({ type: "LoadBalancer", loadBalancerSourceRanges: list }, status).sourceRanges;
    assert.deepEqual(ranges([" 192.0.2.0/24"]), ["192.0.2.0/24", "198.51.100.2"]);
    assert.deepEqual(ranges(["10.0.0.0/8"]), ["10.0.0.0/8"]);
    assert.deepEqual(ranges(["10.0.0.0/8", "0.0.0.0/0"]), []);
    assert.deepEqual(ranges(["fd00::/8"]), []);
  });
  it("reports what it cannot understand and serves the rest", () => {
    const view = parseService({
      metadata: { namespace: "ns", name: "web" },
      spec: {
        clusterIP: "172.30.0.1",
        externalIPs: ["x; flush ruleset"],
        ports: [{ port: 80 }, { port: 70_000 }],
      },
    });
    assert.deepEqual(view.problems, ["spec.externalIPs[0]", "spec.ports[1]"]);
    assert.equal(servicePorts(view, "IPv4", []).length, 1);
  });
  it("refuses a name that is no DNS name", () => {
    assert.throws(
      () => parseService({ metadata: { namespace: "ns", name: 'a" ; flush' }, spec: {} }),
      /metadata\.name/,
    );
  });
});

describe("endpoints of several slices", () => {
  it("appear once, and the one that does not terminate counts", () => {
    const slice = (name: string, terminating: boolean) =>
      parseSlice({
        metadata: { namespace: "ns", name, labels: { "kubernetes.io/service-name": "web" } },
        addressType: "IPv4",
        ports: [{ name: "", port: 8080 }, { port: null }],
        endpoints: [
          { addresses: ["10.244.0.2"], conditions: { ready: !terminating, terminating } },
        ],
      });
    const selector = { portName: "", protocol: "tcp", family: "IPv4" } as const;
    for (const order of [
      [true, false],
      [false, true],
    ]) {
      const slices = order.map((terminating, index) => slice(`web-${index}`, terminating));
      const merged = mergeEndpoints(slices, selector, "here");
      assert.deepEqual(
        merged.map(({ ready }) => ready),
        [true],
      );
    }
  });
});

describe("the health answer", () => {
  const state = (pendingSince: number | undefined, eligible: boolean) => ({
    startedAt: 0,
    lastSuccess: new Map([["IPv4" as const, 5]]),
    pendingSince: new Map(pendingSince === undefined ? [] : [["IPv4" as const, pendingSince]]),
    node: () => ({ zone: "", eligible }),
  });
  it("is 503 for a late update, and for a node that is leaving only at healthz", () => {
    assert.equal(healthAnswer(state(undefined, true), 100_000, true).status, 200);
    assert.equal(healthAnswer(state(1, true), 100_000, true).status, 503);
    assert.equal(healthAnswer(state(undefined, false), 100_000, true).status, 503);
    assert.equal(healthAnswer(state(undefined, false), 100_000, false).status, 200);
  });
});

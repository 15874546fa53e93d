import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import { parseService, parseSlice } from "../../../src/proxy/parse.ts";
import { IptablesTraceRuleset } from "../../../src/proxy/trace/iptables-text.ts";
import { NftTraceRuleset } from "../../../src/proxy/trace/nft-text.ts";
import { renderedRules } from "../../fakes/hostile-rules.ts";
import { hostileService, hostileSlice, marker } from "../../fakes/hostile-services.ts";

const families = ["IPv4", "IPv6"] as const;

describe("objects that no server would let in", () => {
  for (const mode of ["nftables", "iptables"] as const) {
    it(`lead to rules that can be read, and nothing of their texts reaches ${mode}`, () => {
      const objects = fc.record({
        services: fc.array(hostileService, { minLength: 1, maxLength: 3 }),
        slices: fc.array(hostileSlice, { minLength: 2, maxLength: 6 }),
      });
      let ports = 0;
      fc.assert(
        fc.property(objects, fc.constantFrom(...families), (found, family) => {
          const text = renderedRules(found, family, mode);
          assert.ok(!text.includes(marker), text);
          // Strict: whatever it does not understand, or the kernel would refuse, is an error.
          if (mode === "nftables") new NftTraceRuleset().run(text);
          else new IptablesTraceRuleset({ program: "iptables" }).run(text);
          if (/KUBE-SVC|add element ip6? remora-proxy svc/.test(text)) ports += 1;
        }),
        { numRuns: 500 },
      );
      assert.ok(ports > 3, `${ports} of them make a Service`);
    });
  }
});

describe("an EndpointSlice", () => {
  const slice = (over: Record<string, unknown>): ReturnType<typeof parseSlice> =>
    parseSlice({
      metadata: { namespace: "ns", name: "s", labels: { "kubernetes.io/service-name": "web" } },
      addressType: "IPv4",
      ports: [{ name: "http", port: 8080, protocol: "TCP" }],
      ...over,
    });

  it("may have a thousand endpoints", () => {
    const endpoints = Array.from({ length: 1000 }, (_, index) => ({
      addresses: [`10.244.${index >> 8}.${index & 255}`],
    }));
    assert.equal(slice({ endpoints }).endpoints.length, 1000);
  });

  it("counts with addresses of its own family only, and with the first of each endpoint", () => {
    const endpoints = [
      { addresses: ["fd00::1"] },
      { addresses: ["10.244.0.1", "10.244.0.2"] },
      { addresses: [] },
      {},
      null,
    ];
    const found = slice({ endpoints }).endpoints.map(({ ip }) => ip);
    assert.deepEqual(found, ["10.244.0.1"]);
    assert.deepEqual(slice({ addressType: "FQDN", endpoints }).endpoints, []);
  });

  it("without a number for a port has no such port", () => {
    const ports = [{ name: "http" }, { name: "http", port: null }, { name: "http", port: 0 }, null];
    assert.deepEqual(slice({ ports, endpoints: [] }).ports, []);
  });
});

describe("a Service whose fields are partly wrong", () => {
  it("is served with the rest, and says which they are", () => {
    const view = parseService({
      metadata: { namespace: "ns", name: "web" },
      spec: {
        type: "LoadBalancer",
        clusterIP: "10.96.0.1",
        externalIPs: ["nonsense", "203.0.113.1"],
        loadBalancerSourceRanges: ["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/40"],
        ports: [
          { port: 80, protocol: "TCP" },
          { port: 70_000, protocol: "TCP" },
        ],
      },
    });
    assert.deepEqual(view.externalIPs, ["203.0.113.1"]);
    assert.equal(view.ports.length, 1);
    assert.deepEqual(view.problems, [
      "spec.externalIPs[0]",
      "spec.loadBalancerSourceRanges[2]",
      "spec.ports[1]",
    ]);
  });

  it("with ranges that lie in each other, one port twice, and itself as its own external address, still has rules", () => {
    const service = {
      metadata: { namespace: "ns", name: "web" },
      spec: {
        type: "LoadBalancer",
        clusterIP: "10.96.0.1",
        externalIPs: ["10.96.0.1", "203.0.113.1", "203.0.113.1"],
        loadBalancerSourceRanges: ["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"],
        ports: [
          { name: "a", port: 80, protocol: "TCP", nodePort: 30_080 },
          { name: "b", port: 80, protocol: "TCP", nodePort: 30_080 },
        ],
      },
      status: { loadBalancer: { ingress: [{ ip: "203.0.113.1" }, { ip: "203.0.113.1" }] } },
    };
    const slices = ["a", "b"].map((name) => ({
      metadata: { namespace: "ns", name, labels: { "kubernetes.io/service-name": "web" } },
      addressType: "IPv4",
      ports: [{ name, port: 8080, protocol: "TCP" }],
      endpoints: [{ addresses: ["10.244.0.2"] }, { addresses: ["10.244.0.2"] }],
    }));
    const objects = { services: [service], slices };
    new NftTraceRuleset().run(renderedRules(objects, "IPv4", "nftables"));
    new IptablesTraceRuleset({ program: "iptables" }).run(
      renderedRules(objects, "IPv4", "iptables"),
    );
  });
});

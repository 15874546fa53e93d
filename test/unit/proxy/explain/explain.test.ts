import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { explainService } from "../../../../src/proxy/explain/explain.ts";
import type {
  EndpointExplanation,
  ServiceExplanation,
} from "../../../../src/proxy/explain/model.ts";
import { reportLines } from "../../../../src/proxy/explain/text.ts";
import { parseService } from "../../../../src/proxy/parse.ts";

const node = { nodeName: "here", nodeIPs: ["192.0.2.1"], zone: "z1" };

function service(spec: object = {}, metadata: object = {}, status: object = {}): object {
  return {
    metadata: {
      namespace: "ns",
      name: "web",
      creationTimestamp: "2026-01-02T00:00:00Z",
      ...metadata,
    },
    spec: {
      clusterIP: "10.96.0.9",
      clusterIPs: ["10.96.0.9"],
      ports: [{ name: "http", port: 80, protocol: "TCP" }],
      ...spec,
    },
    status,
  };
}

function endpoint(
  ip: string,
  nodeName: string,
  conditions: object = {},
  more: object = {},
): object {
  return { addresses: [ip], nodeName, conditions, ...more };
}

function slice(
  name: string,
  endpoints: readonly object[],
  change: object = {},
): Record<string, unknown> {
  return {
    metadata: { namespace: "ns", name, labels: { "kubernetes.io/service-name": "web" } },
    addressType: "IPv4",
    ports: [{ name: "http", port: 8080, protocol: "TCP" }],
    endpoints,
    ...change,
  };
}

function explain(
  object: object,
  slices: readonly Record<string, unknown>[] = [],
  change: Partial<Parameters<typeof explainService>[0]> = {},
): ServiceExplanation {
  return explainService({
    service: object,
    slices,
    others: [parseService(object)],
    node,
    families: ["IPv4", "IPv6"],
    externalIPs: true,
    ...change,
  });
}

function rows(explanation: ServiceExplanation): readonly EndpointExplanation[] {
  return explanation.ports.flatMap(({ endpoints }) => endpoints);
}

/** Who gets what, and why, in one line each. */
function lines(explanation: ServiceExplanation): readonly string[] {
  return rows(explanation).map(
    ({ address, internal, external, why }) => `${address} ${internal}/${external} ${why}`,
  );
}

const going = { ready: false, serving: true, terminating: true };
const loadBalancer = { type: "LoadBalancer", externalTrafficPolicy: "Local" };

describe("why an endpoint is in or out", () => {
  it("goes by its conditions", () => {
    const found = lines(
      explain(service(), [
        slice("a", [
          endpoint("10.1.0.1", "here", { ready: true }),
          endpoint("10.1.0.2", "there"),
          endpoint("10.1.0.3", "there", { ready: false, serving: false }),
          endpoint("10.1.0.4", "there", going),
          endpoint("10.1.0.5", "there", { ready: false, serving: false, terminating: true }),
        ]),
      ]),
    );
    assert.deepEqual(found, [
      "10.1.0.1:8080 true/false ready",
      "10.1.0.2:8080 true/false ready",
      "10.1.0.3:8080 false/false not ready",
      "10.1.0.4:8080 false/false terminating, and others are ready",
      "10.1.0.5:8080 false/false terminating, and no longer serving",
    ]);
  });

  it("tells the fallback to those that terminate, everywhere and on this node alone", () => {
    const all = lines(explain(service(), [slice("a", [endpoint("10.1.0.1", "there", going)])]));
    assert.deepEqual(all, [
      "10.1.0.1:8080 true/false still serves while it terminates, and none is ready",
    ]);
    const here = lines(
      explain(service({ ...loadBalancer, externalIPs: ["198.51.100.1"] }), [
        slice("a", [endpoint("10.1.0.1", "here", going), endpoint("10.1.0.2", "there")]),
      ]),
    );
    assert.deepEqual(here, [
      "10.1.0.1:8080 false/true still serves while it terminates, and none on this node is ready",
      "10.1.0.2:8080 true/near ready; not on this node, which the Local policy asks for",
    ]);
  });

  it("tells what externalTrafficPolicy Local leaves to pods and the node", () => {
    const found = explain(service({ ...loadBalancer, externalIPs: ["198.51.100.1"] }), [
      slice("a", [endpoint("10.1.0.1", "here"), endpoint("10.1.0.2", "there")]),
    ]);
    assert.deepEqual(
      rows(found).map(({ internal, external, hairpin }) => [internal, external, hairpin]),
      [
        [true, true, true],
        [true, "near", false],
      ],
    );
    const outside = found.ports[0]?.addresses[1];
    assert.equal(outside?.kind, "ExternalIP");
    assert.equal(
      outside.goesTo,
      "from outside: 1 endpoint on this node, source kept; from pods and this node: 2 endpoints",
    );
  });

  it("tells hints of nodes and zones, and not those that do not count", () => {
    const zoned = (zone: string): object => ({ hints: { forZones: [{ name: zone }] } });
    const one = endpoint("10.1.0.1", "a", {}, zoned("z1"));
    const two = endpoint("10.1.0.2", "b", {}, zoned("z2"));
    assert.deepEqual(lines(explain(service(), [slice("a", [one, two])])), [
      "10.1.0.1:8080 true/false ready; its hint names this zone",
      "10.1.0.2:8080 false/false ready; its hint names zone z2, not z1",
    ]);
    const hintless = endpoint("10.1.0.3", "b");
    assert.deepEqual(lines(explain(service(), [slice("a", [one, two, hintless])])), [
      "10.1.0.1:8080 true/false ready",
      "10.1.0.2:8080 true/false ready",
      "10.1.0.3:8080 true/false ready",
    ]);
    const near = endpoint("10.1.0.4", "here", {}, { hints: { forNodes: [{ name: "here" }] } });
    const far = endpoint("10.1.0.5", "b", {}, { hints: { forNodes: [{ name: "b" }] } });
    assert.deepEqual(lines(explain(service(), [slice("a", [near, far])])), [
      "10.1.0.4:8080 true/false ready; its hint names this node",
      "10.1.0.5:8080 false/false ready; its hint names node b, not here",
    ]);
  });

  it("tells ports that do not fit, and addresses that are none", () => {
    const found = lines(
      explain(service(), [
        slice("a", [endpoint("10.1.0.1", "b")], { ports: [{ name: "web", port: 1 }] }),
        slice("b", [endpoint("10.1.0.2", "b")], { ports: [{ name: "http" }] }),
        slice("c", [endpoint("10.1.0.3", "b")], { ports: [] }),
        slice("d", [endpoint("fd00::1", "b"), { addresses: [] }]),
      ]),
    );
    assert.deepEqual(found, [
      '10.1.0.1 false/false its slice has no port "http" (tcp); it has "web" (tcp)',
      '10.1.0.2 false/false port "http" (tcp) has no number in its slice',
      '10.1.0.3 false/false its slice has no port "http" (tcp); it has none',
      'fd00::1 false/false "fd00::1" is not an IPv4 address',
      ' false/false "" is not an IPv4 address',
    ]);
  });

  it("tells duplicates, of which the better one counts", () => {
    const found = lines(
      explain(service(), [
        slice("a", [endpoint("10.1.0.1", "b", going)]),
        slice("b", [endpoint("10.1.0.1", "b")]),
        slice("c", [endpoint("10.1.0.1", "b")]),
      ]),
    );
    assert.deepEqual(found, [
      "10.1.0.1:8080 false/false a duplicate: the same address stands in another slice, and that one counts",
      "10.1.0.1:8080 true/false ready",
      "10.1.0.1:8080 false/false a duplicate: the same address stands in slice b, and that one counts",
    ]);
  });

  it("tells slices that proxies do not look at, and those of a family that is not served", () => {
    const headless = {
      metadata: {
        namespace: "ns",
        name: "h",
        labels: { "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": "" },
      },
    };
    const found = explain(service(), [
      slice("h", [endpoint("10.1.0.1", "b")], headless),
      slice("f", [endpoint("x.example", "b")], { addressType: "FQDN" }),
      slice("6", [endpoint("fd00::1", "b")], { addressType: "IPv6" }),
    ]);
    assert.deepEqual(lines(found), [
      "10.1.0.1 false/false the slice has the label service.kubernetes.io/headless",
    ]);
    assert.deepEqual(found.remarks, [
      'slice 6: addressType "IPv6", and nothing is served in it here',
      'slice f: addressType "FQDN", and nothing is served in it here',
    ]);
  });
});

describe("the addresses of a Service", () => {
  it("say what becomes of flows that have nowhere to go", () => {
    const words = (spec: object, ...slices: Record<string, unknown>[]): readonly string[] =>
      explain(service(spec), slices).ports.flatMap(({ addresses }) =>
        addresses.map(({ kind, goesTo }) => `${kind} ${goesTo}`),
      );
    assert.deepEqual(words({}), ["ClusterIP refused: no endpoint is usable"]);
    const there = slice("a", [endpoint("10.1.0.1", "there")]);
    assert.deepEqual(words({ internalTrafficPolicy: "Local" }, there), [
      "ClusterIP dropped: no endpoint on this node (internalTrafficPolicy Local)",
    ]);
    const nodePort = { ports: [{ name: "http", port: 80, nodePort: 30_080 }] };
    assert.deepEqual(words({ ...loadBalancer, ...nodePort }, there), [
      "ClusterIP 1 endpoint",
      "NodePort from outside: dropped, none is on this node; from pods and this node: 1 endpoint",
    ]);
    assert.deepEqual(
      words({ type: "NodePort", ...nodePort }, there)[1],
      ["NodePort 1 endpoint, with a new source address"][0],
    );
  });

  it("name who else wants one, and who has it: the older Service", () => {
    const ours = service({ externalIPs: ["198.51.100.1"] });
    const rival = (name: string, creationTimestamp: string) =>
      parseService(
        service(
          { clusterIP: "10.96.0.77", clusterIPs: ["10.96.0.77"], externalIPs: ["198.51.100.1"] },
          { name, creationTimestamp },
        ),
      );
    const of = (others: readonly ReturnType<typeof rival>[]) =>
      explain(ours, [], { others: [...others, parseService(ours)] }).ports[0]?.addresses[1];
    const younger = rival("young", "2026-05-01T00:00:00Z");
    const older = rival("old", "2025-01-01T00:00:00Z");
    assert.deepEqual(of([])?.claimedBy, []);
    assert.deepEqual(of([younger])?.claimedBy, ["ns/young:http/tcp"]);
    assert.equal(of([younger])?.lostTo, undefined);
    assert.deepEqual(of([younger, older])?.claimedBy, ["ns/old:http/tcp", "ns/young:http/tcp"]);
    assert.equal(of([younger, older])?.lostTo, "ns/old:http/tcp");
  });

  it("tell those of a load balancer that have no rules, and sources", () => {
    const status = {
      loadBalancer: {
        ingress: [
          { ip: "198.51.100.1" },
          { ip: "198.51.100.2", ipMode: "Proxy" },
          { hostname: "lb.example" },
        ],
      },
    };
    const spec = { type: "LoadBalancer", loadBalancerSourceRanges: ["203.0.113.0/24", "junk"] };
    const found = explain(service(spec, {}, status));
    assert.deepEqual(
      found.ports[0]?.addresses.map(({ kind, ip, sourceRanges }) => [kind, ip, sourceRanges]),
      [
        ["ClusterIP", "10.96.0.9", []],
        ["LoadBalancer", "198.51.100.1", ["203.0.113.0/24"]],
      ],
    );
    assert.deepEqual(found.remarks, [
      "spec.loadBalancerSourceRanges[1] is not understood, so it has no rules",
      "load balancer address 198.51.100.2: ipMode Proxy, so packets go to the load balancer itself",
      "load balancer lb.example: a host name has no rules",
    ]);
  });

  it("are of each family that is served", () => {
    const dual = service({ clusterIPs: ["10.96.0.9", "fd00:1::9"] });
    const six = slice("6", [endpoint("fd00::1", "here")], { addressType: "IPv6" });
    const found = explain(dual, [slice("4", [endpoint("10.1.0.1", "here")]), six]);
    assert.deepEqual(
      found.ports.map(({ family, endpoints }) => [family, endpoints.map(({ address }) => address)]),
      [
        ["IPv4", ["10.1.0.1:8080"]],
        ["IPv6", ["[fd00::1]:8080"]],
      ],
    );
    assert.deepEqual(found.localReady, { IPv4: 1, IPv6: 1 });
  });
});

describe("a Service without rules", () => {
  it("says why", () => {
    const why = (spec: object, metadata: object = {}): string | undefined =>
      explain(service(spec, metadata)).notServed;
    assert.match(why({ clusterIP: "None", clusterIPs: ["None"] }) ?? "", /^it is headless/);
    assert.match(
      why({ type: "ExternalName", externalName: "a.example" }) ?? "",
      /DNS answers with a\.example/,
    );
    const labels = { "service.kubernetes.io/service-proxy-name": "mesh" };
    assert.equal(
      why({}, { labels }),
      'another proxy serves it: its label service.kubernetes.io/service-proxy-name is "mesh"',
    );
    assert.equal(why({ clusterIP: "", clusterIPs: [] }), "it has no ClusterIP yet");
    assert.equal(why({}), undefined);
  });
});

describe("the report", () => {
  const explanation = explain(service({ sessionAffinity: "ClientIP" }), [
    slice("a", [endpoint("10.1.0.1", "here"), endpoint("10.1.0.2", "b", { ready: false })]),
  ]);
  const base = {
    explanation,
    mode: "nftables" as const,
    kernel: {},
    kernelMissing: undefined,
    flows: undefined,
    flowsMissing: undefined,
    counted: undefined,
  };

  it("is a table for people", () => {
    const target = { ip: "10.96.0.9", protocol: "tcp", port: 80 };
    const flows = [
      { target, answeredBy: "10.1.0.1:8080", flows: 3, packets: undefined, bytes: undefined },
    ];
    assert.deepEqual(reportLines({ ...base, flows, kernelMissing: "run remora as root" }), [
      "Service ns/web (ClusterIP), as node here sees it, zone z1, rules in nftables",
      "internalTrafficPolicy Cluster; a client stays with its endpoint for 10800 s (sessionAffinity)",
      "",
      "Port http (TCP, IPv4)",
      "  ADDRESS       KIND       FLOWS  NEW FLOWS GO TO",
      "  10.96.0.9:80  ClusterIP  3      1 endpoint",
      "",
      "  ENDPOINT       ON           FLOWS  INTERNAL  EXTERNAL  WHY",
      "  10.1.0.1:8080  here (here)  3      yes       -         ready; asked by itself it sees this node's address",
      "  10.1.0.2:8080  b            0      no        -         not ready",
      "",
      "Rules in the kernel are not shown: run remora as root",
    ]);
  });

  it("says what of the kernel is not as it should be", () => {
    const kernel = {
      IPv4: {
        program: "nft ip remora-proxy",
        carried: [{ where: "map svc", rule: "a : goto c1" }],
        drift: [
          { where: "map svc", key: "b", wanted: "goto c2", found: undefined },
          { where: "map svc", key: "c", wanted: undefined, found: "drop" },
          { where: "map svc", key: "d", wanted: "goto c1", found: "goto c2" },
        ],
      },
    };
    assert.deepEqual(reportLines({ ...base, kernel }).slice(-6), [
      "Rules in the kernel, IPv4 (nft ip remora-proxy): 3 are not as they should be",
      "  map svc: a : goto c1",
      "  MISSING map svc: b : goto c2",
      "  UNWANTED map svc: c : drop",
      "  DIFFERENT map svc: d : goto c2",
      "     wanted goto c1",
    ]);
  });
});

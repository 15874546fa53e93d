import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { ClusterRecords } from "../../../src/dns/cluster-records.ts";
import type { DnsSlice, RecordsUpdate } from "../../../src/dns/types.ts";
import { parseDnsService, parseDnsSlice } from "../../../src/dns/parse.ts";
import { parseCidr } from "../../../src/lib/cidr.ts";

type Spec = Readonly<Record<string, unknown>>;

function service(name: string, spec: Spec, namespace = "default") {
  return parseDnsService({ metadata: { namespace, name }, spec });
}

function clusterIP(name: string, ip: string, ports: readonly Spec[] = []) {
  return service(name, { clusterIP: ip, clusterIPs: [ip], ports });
}

function slice(name: string, of: string, endpoints: readonly Spec[], more: Spec = {}): DnsSlice {
  const labels = { "kubernetes.io/service-name": of };
  return parseDnsSlice({
    metadata: { namespace: "default", name, labels },
    addressType: "IPv4",
    endpoints,
    ...more,
  });
}

const nothing: RecordsUpdate = {
  full: false,
  services: [],
  slices: [],
  removedServices: [],
  removedSlices: [],
  namespaces: undefined,
};

function empty(): ClusterRecords {
  return new ClusterRecords({
    domain: "cluster.local",
    serverIPs: ["10.96.0.10"],
    ownNetworks: [parseCidr("10.96.0.0/16"), parseCidr("10.244.0.0/16")],
  });
}

function filled(update: Partial<RecordsUpdate>): ClusterRecords {
  const records = empty();
  records.apply({ ...nothing, full: true, namespaces: ["default", "bare"], ...update });
  return records;
}

/** `nxdomain`, `outside`, `nodata`, or the data of the records. */
function ask(records: ClusterRecords, name: string, type = "A"): unknown {
  const lookup = records.lookup(name, type);
  if (lookup.kind !== "found") return lookup.kind;
  if (lookup.records.length === 0) return "nodata";
  return lookup.records.map((record) => (record.type === "SOA" ? record.data.mname : record.data));
}

const svc = "svc.cluster.local";

describe("names of a Service with a ClusterIP", () => {
  const records = filled({
    services: [
      service("web", {
        clusterIP: "10.96.0.7",
        clusterIPs: ["10.96.0.7", "fd00:10::7"],
        ports: [
          { name: "http", port: 80 },
          { name: "dns", port: 53, protocol: "UDP" },
        ],
      }),
      clusterIP("one", "10.96.0.8", [{ port: 8080 }]),
      service("pending", { ports: [{ port: 1 }] }),
    ],
    slices: [slice("web-1", "web", [{ addresses: ["10.244.0.5"], hostname: "named" }])],
  });
  const table: readonly (readonly [string, string, unknown])[] = [
    [`web.default.${svc}`, "A", ["10.96.0.7"]],
    [`web.default.${svc}`, "AAAA", ["fd00:10::7"]],
    [`web.default.${svc}`, "MX", "nodata"],
    [`one.default.${svc}`, "AAAA", "nodata"],
    [`nope.default.${svc}`, "A", "nxdomain"],
    [`pending.default.${svc}`, "A", "nxdomain"],
    [`named.web.default.${svc}`, "A", ["10.244.0.5"]],
    [`x.y.web.default.${svc}`, "A", "nxdomain"],
    [
      `_http._tcp.web.default.${svc}`,
      "SRV",
      [{ priority: 0, weight: 100, port: 80, target: `web.default.${svc}` }],
    ],
    [
      `_dns._udp.web.default.${svc}`,
      "SRV",
      [{ priority: 0, weight: 100, port: 53, target: `web.default.${svc}` }],
    ],
    [`_http._udp.web.default.${svc}`, "SRV", "nxdomain"],
    [`_http._tcp.web.default.${svc}`, "A", "nodata"],
    [`_tcp.web.default.${svc}`, "SRV", "nodata"],
    [
      `one.default.${svc}`,
      "SRV",
      [{ priority: 0, weight: 100, port: 8080, target: `one.default.${svc}` }],
    ],
    ["7.0.96.10.in-addr.arpa", "PTR", [`web.default.${svc}`]],
    ["7.0.96.10.in-addr.arpa", "A", "nodata"],
    ["5.0.244.10.in-addr.arpa", "PTR", [`named.web.default.${svc}`]],
    ["99.0.96.10.in-addr.arpa", "PTR", "nxdomain"],
    ["8.8.8.8.in-addr.arpa", "PTR", "outside"],
    ["0.96.10.in-addr.arpa", "PTR", "outside"],
  ];
  for (const [name, type, expected] of table) {
    it(`${type} ${name}`, () => assert.deepEqual(ask(records, name, type), expected));
  }

  it("SRV brings the addresses of its target along", () => {
    const lookup = records.lookup(`_http._tcp.web.default.${svc}`, "SRV");
    assert.ok(lookup.kind === "found");
    assert.deepEqual(
      lookup.additionals.map(({ data }) => data),
      ["10.96.0.7", "fd00:10::7"],
    );
  });
});

describe("names of a headless Service", () => {
  const db = service("db", { clusterIP: "None", ports: [{ name: "pg", port: 5432 }] });
  const ports = [{ name: "pg", port: 5432, protocol: "TCP" }];
  const records = filled({
    services: [db, service("idle", { clusterIP: "None", ports: [{ name: "pg", port: 1 }] })],
    slices: [
      slice(
        "db-1",
        "db",
        [
          { addresses: ["10.244.0.5"], hostname: "db-0" },
          { addresses: ["10.244.0.6"], conditions: { ready: true } },
          { addresses: ["10.244.0.7"], conditions: { ready: false, serving: true } },
        ],
        { ports },
      ),
      // Slices overlap while endpoints move from one to the other.
      slice("db-2", "db", [{ addresses: ["10.244.0.5"], hostname: "db-0" }], { ports }),
      slice("db-6", "db", [{ addresses: ["fd00::1:5"] }], { ports, addressType: "IPv6" }),
      slice("idle-1", "idle", [{ addresses: ["10.244.0.9"], conditions: { ready: false } }]),
    ],
  });
  const table: readonly (readonly [string, string, unknown])[] = [
    [`db.default.${svc}`, "A", ["10.244.0.5", "10.244.0.6"]],
    [`db.default.${svc}`, "AAAA", ["fd00::1:5"]],
    [`db-0.db.default.${svc}`, "A", ["10.244.0.5"]],
    [`10-244-0-5.db.default.${svc}`, "A", "nxdomain"],
    [`10-244-0-6.db.default.${svc}`, "A", ["10.244.0.6"]],
    [`10-244-0-7.db.default.${svc}`, "A", "nxdomain"],
    [`fd00--1-5.db.default.${svc}`, "AAAA", ["fd00::1:5"]],
    // DNS specification 2.4.1: no ready endpoint, no name.
    [`idle.default.${svc}`, "A", "nxdomain"],
    [`_pg._tcp.idle.default.${svc}`, "SRV", "nxdomain"],
    ["5.0.244.10.in-addr.arpa", "PTR", [`db-0.db.default.${svc}`]],
    ["6.0.244.10.in-addr.arpa", "PTR", [`10-244-0-6.db.default.${svc}`]],
    ["7.0.244.10.in-addr.arpa", "PTR", "nxdomain"],
  ];
  for (const [name, type, expected] of table) {
    it(`${type} ${name}`, () => assert.deepEqual(ask(records, name, type), expected));
  }

  it("SRV names each ready endpoint once", () => {
    const lookup = records.lookup(`_pg._tcp.db.default.${svc}`, "SRV");
    assert.ok(lookup.kind === "found");
    const targets = lookup.records.map((record) =>
      record.type === "SRV"
        ? `${record.data.target} ${record.data.port} ${record.data.weight}`
        : "",
    );
    assert.deepEqual(targets, [
      `db-0.db.default.${svc} 5432 33`,
      `10-244-0-6.db.default.${svc} 5432 33`,
      `fd00--1-5.db.default.${svc} 5432 33`,
    ]);
    assert.deepEqual(
      lookup.additionals.map(({ data }) => data),
      ["10.244.0.5", "10.244.0.6", "fd00::1:5"],
    );
  });
});

describe("reverse names of pods", () => {
  const headless = { clusterIP: "None", ports: [] };
  const at = (name: string, more: Spec = {}): DnsSlice =>
    slice(`${name}-1`, name, [{ addresses: ["10.244.0.5"], ...more }]);
  const reverse = (services: readonly string[], slices: readonly DnsSlice[]): unknown =>
    ask(
      filled({
        services: services.map((name) =>
          name === "web" ? clusterIP("web", "10.96.0.7") : service(name, headless),
        ),
        slices,
      }),
      "5.0.244.10.in-addr.arpa",
      "PTR",
    );

  it("a Service with a ClusterIP names its endpoints too, as CoreDNS does", () => {
    assert.deepEqual(reverse(["web"], [at("web")]), [`10-244-0-5.web.default.${svc}`]);
  });

  it("the name that a pod was given comes before those that were made up, headless before others", () => {
    const named = at("db", { hostname: "db-0" });
    assert.deepEqual(reverse(["web", "db"], [at("web"), named]), [`db-0.db.default.${svc}`]);
    assert.deepEqual(reverse(["web", "db"], [at("web"), at("db")]), [
      `10-244-0-5.db.default.${svc}`,
    ]);
  });

  it("each Service in which it has a name counts", () => {
    const slices = [at("db", { hostname: "db-0" }), at("other", { hostname: "db-0" })];
    assert.deepEqual(reverse(["db", "other"], slices), [
      `db-0.db.default.${svc}`,
      `db-0.other.default.${svc}`,
    ]);
  });

  it("an address of both families, and of a Service in IPv6", () => {
    const records = filled({
      services: [service("six", { clusterIP: "fd00:10::7", clusterIPs: ["fd00:10::7"] })],
    });
    const name = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.d.f.ip6.arpa";
    assert.deepEqual(ask(records, name, "PTR"), [`six.default.${svc}`]);
    assert.equal(ask(records, name.slice(2), "PTR"), "outside");
  });
});

describe("SRV of several slices and ports", () => {
  const ports = (more: readonly Spec[] = []) => ({
    ports: [{ name: "dns", port: 53, protocol: "UDP" }, ...more],
  });
  const tcp = { name: "dns-tcp", port: 53, protocol: "TCP" };
  const records = filled({
    services: [service("dns", { clusterIP: "None" })],
    slices: [
      slice("dns-1", "dns", [{ addresses: ["10.244.0.5"] }], ports([tcp])),
      // While a Service changes, its slices differ in their ports.
      slice("dns-2", "dns", [{ addresses: ["10.244.0.6"] }], ports()),
    ],
  });
  const targets = (name: string): readonly string[] => {
    const lookup = records.lookup(name, "SRV");
    assert.ok(lookup.kind === "found");
    return lookup.records.map((record) =>
      record.type === "SRV" ? `${record.data.target.split(".")[0]} ${record.data.weight}` : "",
    );
  };

  it("each port has the endpoints of the slices that name it", () => {
    assert.deepEqual(targets(`_dns._udp.dns.default.${svc}`), ["10-244-0-5 50", "10-244-0-6 50"]);
    assert.deepEqual(targets(`_dns-tcp._tcp.dns.default.${svc}`), ["10-244-0-5 100"]);
  });

  it("a number that has two names is there once, with one weight", () => {
    assert.deepEqual(targets(`dns.default.${svc}`), ["10-244-0-5 50", "10-244-0-6 50"]);
  });
});

describe("what an endpoint is", () => {
  const records = filled({
    services: [service("db", { clusterIP: "None", publishNotReadyAddresses: true })],
    slices: [
      slice("db-1", "db", [
        // As the controller writes them for publishNotReadyAddresses.
        { addresses: ["10.244.0.1"], conditions: { ready: true, serving: false } },
        { addresses: ["10.244.0.2"], conditions: {} },
        { addresses: ["10.244.0.3"] },
        { addresses: ["10.244.0.4"], conditions: { ready: false, terminating: true } },
        { addresses: ["10.244.0.5"], hostname: "SAME" },
        { addresses: ["10.244.0.6"], hostname: "same" },
        { addresses: ["not an address"] },
      ]),
      slice("db-fqdn", "db", [{ addresses: ["example.org"] }], { addressType: "FQDN" }),
    ],
  });

  it("ready, or not said to be otherwise", () => {
    const expected = [1, 2, 3, 5, 6].map((last) => `10.244.0.${last}`);
    assert.deepEqual(ask(records, `db.default.${svc}`), expected);
  });

  it("a hostname may be that of several, in any case", () => {
    assert.deepEqual(ask(records, `same.db.default.${svc}`), ["10.244.0.5", "10.244.0.6"]);
  });

  it("without ports there is no SRV, but the name", () => {
    assert.equal(ask(records, `db.default.${svc}`, "SRV"), "nodata");
  });
});

describe("other names of the cluster", () => {
  const records = filled({
    services: [
      service("far", { type: "ExternalName", externalName: "Example.ORG." }),
      service("odd", { type: "ExternalName", externalName: "192.0.2.1" }),
      service("odd6", { type: "ExternalName", externalName: "2001:db8::1" }),
      service("worse", { type: "ExternalName", externalName: "a..b c" }),
      service("ports", {
        type: "ExternalName",
        externalName: "example.org",
        ports: [{ name: "http", port: 80 }],
      }),
    ],
  });
  const table: readonly (readonly [string, string, unknown])[] = [
    ["cluster.local", "A", "nodata"],
    ["cluster.local", "NS", ["ns.dns.cluster.local"]],
    ["ns.dns.cluster.local", "A", ["10.96.0.10"]],
    ["dns.cluster.local", "A", "nodata"],
    ["dns-version.cluster.local", "TXT", ["1.1.0"]],
    ["x.cluster.local", "A", "nxdomain"],
    [svc, "A", "nodata"],
    ["pod.cluster.local", "A", "nodata"],
    [`bare.${svc}`, "A", "nodata"],
    [`none.${svc}`, "A", "nxdomain"],
    ["bare.pod.cluster.local", "A", "nodata"],
    ["10-1-2-3.bare.pod.cluster.local", "A", ["10.1.2.3"]],
    ["10-1-2-3.bare.pod.cluster.local", "AAAA", "nodata"],
    ["10-1-2-3.none.pod.cluster.local", "A", "nxdomain"],
    ["10-1-2.bare.pod.cluster.local", "A", "nxdomain"],
    ["10-1-2-300.bare.pod.cluster.local", "A", "nxdomain"],
    ["x.10-1-2-3.bare.pod.cluster.local", "A", "nxdomain"],
    ["fd00--1-5.bare.pod.cluster.local", "AAAA", ["fd00::1:5"]],
    [`far.default.${svc}`, "A", ["example.org"]],
    [`far.default.${svc}`, "CNAME", ["example.org"]],
    // No address is a name (API field `externalName`), as CoreDNS says.
    [`odd.default.${svc}`, "A", "nxdomain"],
    [`odd6.default.${svc}`, "AAAA", "nxdomain"],
    [`worse.default.${svc}`, "A", "nxdomain"],
    // Ports and endpoints of an ExternalName are nobody's.
    [`_http._tcp.ports.default.${svc}`, "SRV", "nxdomain"],
    [`x.ports.default.${svc}`, "A", "nxdomain"],
    ["cluster.local", "SOA", ["ns.dns.cluster.local"]],
    [svc, "SOA", "nodata"],
    [`default.${svc}`, "NS", "nodata"],
    ["dns-version.cluster.local", "A", "nodata"],
    ["x.dns-version.cluster.local", "TXT", "nxdomain"],
    ["x.dns.cluster.local", "A", "nxdomain"],
    // Wildcards were taken out of the specification with 1.1.0.
    [`*.default.${svc}`, "A", "nxdomain"],
    [`far.*.${svc}`, "A", "nxdomain"],
    [`any.any.${svc}`, "A", "nxdomain"],
    [`*.*.ports.default.${svc}`, "SRV", "nxdomain"],
    // Names that the search path of a pod makes of a name outside.
    [`example.org.default.${svc}`, "A", "nxdomain"],
    [`example.org.${svc}`, "A", "nxdomain"],
    ["example.org.cluster.local", "A", "nxdomain"],
    ["localhost", "A", ["127.0.0.1"]],
    ["db.localhost", "AAAA", ["::1"]],
    ["localhost", "MX", "nodata"],
    ["1.0.0.127.in-addr.arpa", "PTR", ["localhost"]],
    [`1.${"0.".repeat(31)}ip6.arpa`, "PTR", ["localhost"]],
    ["x.invalid", "A", "nxdomain"],
    ["duckduckgo.onion", "A", "nxdomain"],
    [`localhost.default.${svc}`, "A", "nxdomain"],
    // Private networks that are not the cluster's: the network's own name servers may know them.
    ["1.1.168.192.in-addr.arpa", "PTR", "outside"],
    ["1.254.169.in-addr.arpa", "PTR", "outside"],
    ["example.org", "A", "outside"],
    ["notcluster.local", "A", "outside"],
    ["", "NS", "outside"],
  ];
  for (const [name, type, expected] of table) {
    it(`${type} ${name}`, () => assert.deepEqual(ask(records, name, type), expected));
  }

  it("the zone's SOA goes with every name that is not there", () => {
    const lookup = records.lookup(`none.${svc}`, "A");
    assert.ok(lookup.kind === "nxdomain");
    assert.equal(lookup.soa.name, "cluster.local");
    assert.equal(lookup.soa.type === "SOA" && lookup.soa.data.minimum, 5);
  });
});

describe("changes of the records", () => {
  it("before anybody has said what there is, nothing is denied", () => {
    const records = empty();
    assert.equal(ask(records, `web.default.${svc}`), "unknown");
    assert.equal(ask(records, "1.0.96.10.in-addr.arpa", "PTR"), "unknown");
    assert.equal(ask(records, "example.org"), "outside");
  });

  it("a Service and its endpoints come in any order and go again", () => {
    const records = filled({});
    const endpoints = slice("db-1", "db", [{ addresses: ["10.244.0.5"] }]);
    records.apply({ ...nothing, slices: [endpoints] });
    assert.equal(ask(records, `db.default.${svc}`), "nxdomain");
    records.apply({ ...nothing, services: [service("db", { clusterIP: "None" })] });
    assert.deepEqual(ask(records, `db.default.${svc}`), ["10.244.0.5"]);
    const moved = slice("db-1", "db", [{ addresses: ["10.244.0.6"] }]);
    records.apply({ ...nothing, slices: [moved] });
    assert.deepEqual(ask(records, `db.default.${svc}`), ["10.244.0.6"]);
    assert.equal(ask(records, "5.0.244.10.in-addr.arpa", "PTR"), "nxdomain");
    records.apply({ ...nothing, removedSlices: ["default/db-1"] });
    assert.equal(ask(records, `db.default.${svc}`), "nxdomain");
    records.apply({ ...nothing, removedServices: ["default/db"] });
    assert.equal(ask(records, "6.0.244.10.in-addr.arpa", "PTR"), "nxdomain");
  });

  it("a full update forgets what it does not name", () => {
    const records = filled({
      services: [clusterIP("a", "10.96.0.1"), clusterIP("b", "10.96.0.2")],
    });
    records.apply({ ...nothing, full: true, services: [clusterIP("b", "10.96.0.3")] });
    assert.equal(ask(records, `a.default.${svc}`), "nxdomain");
    assert.deepEqual(ask(records, `b.default.${svc}`), ["10.96.0.3"]);
    assert.equal(ask(records, "2.0.96.10.in-addr.arpa", "PTR"), "nxdomain");
  });

  it("without the list of namespaces those with Services are known", () => {
    const records = filled({ services: [clusterIP("a", "10.96.0.1")], namespaces: "unknown" });
    assert.equal(ask(records, `default.${svc}`), "nodata");
    assert.equal(ask(records, `bare.${svc}`), "nxdomain");
    records.apply({ ...nothing, removedServices: ["default/a"] });
    assert.equal(ask(records, `default.${svc}`), "nxdomain");
    // Nobody can say that such a pod is not there.
    assert.deepEqual(ask(records, "10-1-2-3.bare.pod.cluster.local"), ["10.1.2.3"]);
  });
});

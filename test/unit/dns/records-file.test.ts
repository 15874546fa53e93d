import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { ClusterRecords } from "../../../src/dns/cluster-records.ts";
import { parseDnsService, parseDnsSlice } from "../../../src/dns/parse.ts";
import { decodeRecords, encodeRecords, type Records } from "../../../src/dns/records-file.ts";
import type { DnsService, DnsSlice } from "../../../src/dns/types.ts";

const head = { writtenAt: 1_700_000_000_000, domain: "cluster.local" };

function service(name: string, spec: Record<string, unknown>, labels = {}): DnsService {
  return parseDnsService({ metadata: { namespace: "default", name, labels }, spec });
}

const ports = [
  { name: "http", port: 80, protocol: "TCP" },
  { port: 53, protocol: "UDP" },
];

const services: readonly DnsService[] = [
  service("web", { clusterIP: "10.96.0.7", clusterIPs: ["10.96.0.7", "fd00::7"], ports }),
  service("many", { clusterIP: "None", clusterIPs: ["None"], ports }),
  service("far", { type: "ExternalName", externalName: "www.example.test" }),
  service("waiting", {}),
  service(
    "kube-dns",
    { clusterIP: "10.96.0.10" },
    { "service.kubernetes.io/service-proxy-name": "remora-node-dns" },
  ),
];

function slice(name: string, of: string | undefined, addresses: readonly string[]): DnsSlice {
  return parseDnsSlice({
    metadata: {
      namespace: "default",
      name,
      labels: of === undefined ? {} : { "kubernetes.io/service-name": of },
    },
    addressType: addresses[0]?.includes(":") === true ? "IPv6" : "IPv4",
    ports,
    endpoints: addresses.map((address, index) => ({
      addresses: [address],
      conditions: { ready: true },
      ...(index === 0 ? { hostname: "first" } : {}),
    })),
  });
}

const slices: readonly DnsSlice[] = [
  slice("many-1", "many", ["10.244.0.1", "10.244.0.2"]),
  slice("many-2", "many", ["fd00:244::1"]),
  slice("nobody-1", undefined, []),
];

function encoded(records: Partial<Records> = {}): Buffer {
  const all = { services, slices, namespaces: ["default", "kube-system"], ...records };
  return Buffer.concat([...encodeRecords(all, head)]);
}

describe("records on disk", () => {
  it("come back as they were", () => {
    for (const namespaces of [["default", "kube-system"], "unknown", []] as const) {
      const { writtenAt, update } = decodeRecords(encoded({ namespaces }), head.domain);
      assert.equal(writtenAt, head.writtenAt);
      assert.deepEqual(update, {
        full: true,
        services,
        slices,
        removedServices: [],
        removedSlices: [],
        namespaces,
      });
    }
  });

  it("of nothing are those of an empty cluster", () => {
    const { update } = decodeRecords(encoded({ services: [], slices: [] }), head.domain);
    assert.deepEqual([update.full, update.services, update.slices], [true, [], []]);
  });

  it("of a large cluster come in pieces", () => {
    const many = Array.from({ length: 3000 }, (_, index) =>
      service(`s${index}`, { clusterIP: "10.96.0.7" }),
    );
    const parts = [...encodeRecords({ services: many, slices: [], namespaces: [] }, head)];
    assert.ok(parts.length > 10 && parts.every(({ length }) => length < 100_000));
    const { update } = decodeRecords(Buffer.concat(parts), head.domain);
    assert.equal(update.services.length, 3000);
  });

  it("are what the records say they are, and nothing before they were told", () => {
    const records = new ClusterRecords({ domain: head.domain, serverIPs: [], ownNetworks: [] });
    assert.equal(records.contents(), undefined);
    records.apply(decodeRecords(encoded(), head.domain).update);
    const contents = records.contents();
    assert.ok(contents !== undefined);
    assert.deepEqual(Buffer.concat([...encodeRecords(contents, head)]), encoded());
  });

  it("that are damaged anywhere are not read", () => {
    const whole = encoded();
    for (let at = 0; at < whole.length - 1; at += 1) {
      const damaged = Buffer.from(whole);
      damaged.writeUInt8((whole[at] ?? 0) ^ 1, at);
      assert.throws(() => decodeRecords(damaged, head.domain), /expected/, `byte ${at}`);
    }
    for (let length = 0; length < whole.length - 1; length += 1) {
      const cut = whole.subarray(0, length);
      assert.throws(() => decodeRecords(cut, head.domain), /expected/, `${length} bytes`);
    }
  });

  it("of another version or domain are not read", () => {
    const domain = (): unknown => decodeRecords(encoded(), "example.test");
    assert.throws(domain, /domain: expected example\.test/);
  });
});

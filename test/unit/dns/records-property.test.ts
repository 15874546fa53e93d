import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import { ClusterRecords, type Lookup } from "../../../src/dns/cluster-records.ts";
import { parseDnsService, parseDnsSlice } from "../../../src/dns/parse.ts";
import type { DnsService, DnsSlice, RecordsUpdate } from "../../../src/dns/types.ts";
import { parseCidr } from "../../../src/lib/cidr.ts";

const svc = "svc.cluster.local";
const names = ["a", "b"] as const;
const hostnames = ["", "x"] as const;
const addresses = ["10.244.0.1", "10.244.0.2"] as const;
const clusterIPs = ["10.96.0.1", "10.96.0.2"] as const;

function empty(): ClusterRecords {
  return new ClusterRecords({
    domain: "cluster.local",
    serverIPs: ["10.96.0.10"],
    ownNetworks: [parseCidr("10.96.0.0/16"), parseCidr("10.244.0.0/16")],
  });
}

const service: fc.Arbitrary<DnsService> = fc
  .record({
    name: fc.constantFrom(...names),
    spec: fc.oneof(
      fc.constantFrom(...clusterIPs).map((ip) => ({ clusterIP: ip, clusterIPs: [ip] })),
      fc.constant({ clusterIP: "None" }),
      fc.constantFrom("a.default.svc.cluster.local", "192.0.2.1").map((externalName) => ({
        type: "ExternalName",
        externalName,
      })),
    ),
    port: fc.constantFrom("", "p"),
  })
  .map(({ name, spec, port }) =>
    parseDnsService({
      metadata: { namespace: "default", name },
      spec: { ...spec, ports: [{ name: port, port: 80 }] },
    }),
  );

const slice: fc.Arbitrary<DnsSlice> = fc
  .record({
    name: fc.constantFrom("s1", "s2", "s3"),
    of: fc.constantFrom(...names, ""),
    endpoints: fc.uniqueArray(
      fc.record({
        ip: fc.constantFrom(...addresses),
        hostname: fc.constantFrom(...hostnames),
        ready: fc.boolean(),
      }),
      { maxLength: 2, selector: ({ ip }) => ip },
    ),
  })
  .map(({ name, of, endpoints }) =>
    parseDnsSlice({
      metadata: { namespace: "default", name, labels: { "kubernetes.io/service-name": of } },
      addressType: "IPv4",
      ports: [{ name: "p", port: 80, protocol: "TCP" }],
      endpoints: endpoints.map(({ ip, hostname, ready }) => ({
        addresses: [ip],
        conditions: { ready },
        ...(hostname === "" ? {} : { hostname }),
      })),
    }),
  );

type Step =
  | { readonly kind: "service"; readonly object: DnsService }
  | { readonly kind: "slice"; readonly object: DnsSlice }
  | { readonly kind: "dropService" | "dropSlice"; readonly key: string };

const step: fc.Arbitrary<Step> = fc.oneof(
  service.map((object): Step => ({ kind: "service", object })),
  slice.map((object): Step => ({ kind: "slice", object })),
  fc.constantFrom(...names).map((name): Step => ({ kind: "dropService", key: `default/${name}` })),
  fc
    .constantFrom("s1", "s2", "s3")
    .map((name): Step => ({ kind: "dropSlice", key: `default/${name}` })),
);

function updateOf(each: Step): RecordsUpdate {
  return {
    full: false,
    services: each.kind === "service" ? [each.object] : [],
    slices: each.kind === "slice" ? [each.object] : [],
    removedServices: each.kind === "dropService" ? [each.key] : [],
    removedSlices: each.kind === "dropSlice" ? [each.key] : [],
    namespaces: undefined,
  };
}

/** Every name that anything of this test could have. */
const questions: readonly (readonly [string, string])[] = [
  ...names.flatMap((name) =>
    ["", "x.", "10-244-0-1.", "10-244-0-2.", "_p._tcp.", "_tcp."].flatMap((below) =>
      ["A", "SRV", "ANY"].map((type) => [`${below}${name}.default.${svc}`, type] as const),
    ),
  ),
  [`default.${svc}`, "A"],
  ...[1, 2].flatMap((last) => [
    [`${last}.0.244.10.in-addr.arpa`, "PTR"] as const,
    [`${last}.0.96.10.in-addr.arpa`, "PTR"] as const,
  ]),
];

/** What an answer says, without the order of records and without the zone's serial. */
function said(lookup: Lookup): unknown {
  if (lookup.kind !== "found") return lookup.kind;
  const text = (records: typeof lookup.records): readonly string[] =>
    records.map((record) => JSON.stringify(record)).toSorted();
  return [text(lookup.records), text(lookup.additionals)];
}

describe("records that were told in any order", () => {
  it("say the same as those that were told at once", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 14 }), (steps) => {
        const grown = empty();
        grown.apply({ ...updateOf({ kind: "dropService", key: "" }), full: true });
        const services = new Map<string, DnsService>();
        const slices = new Map<string, DnsSlice>();
        for (const each of steps) {
          grown.apply(updateOf(each));
          // So that whatever is kept for the next question is kept now.
          for (const [name, type] of questions) grown.lookup(name, type);
          if (each.kind === "service") services.set(each.object.key, each.object);
          if (each.kind === "slice") slices.set(each.object.key, each.object);
          if (each.kind === "dropService") services.delete(each.key);
          if (each.kind === "dropSlice") slices.delete(each.key);
        }
        const fresh = empty();
        const namespaces = "unknown" as const;
        const everything = { services: [...services.values()], slices: [...slices.values()] };
        const none = { removedServices: [], removedSlices: [] };
        fresh.apply({ full: true, ...everything, ...none, namespaces });
        for (const [name, type] of questions) {
          assert.deepEqual(
            said(grown.lookup(name, type)),
            said(fresh.lookup(name, type)),
            `${type} ${name}`,
          );
        }
      }),
      { numRuns: 300, plugins: [fc.interruptAfterTimeLimit(3000)] },
    );
  });
});

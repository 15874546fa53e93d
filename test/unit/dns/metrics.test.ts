import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";

import { SharedCounts } from "../../../src/dns/counts.ts";
import { dnsMetrics } from "../../../src/dns/metrics.ts";
import { parsePrometheus } from "../../fakes/prometheus-text.ts";

function reply(rcode: number): Buffer {
  return Buffer.from([0, 0, 0x80, rcode, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/** `name{label="value",...}` to value. */
function samples(text: string): ReadonlyMap<string, number> {
  return new Map(
    [...parsePrometheus(text).values()].flatMap((family) =>
      family.samples.map(({ name, labels, value }) => {
        const pairs = Object.entries(labels).map((pair) => pair.join("="));
        return [[name, ...pairs].join(" "), value] as const;
      }),
    ),
  );
}

describe("figures of the name server", () => {
  it("are there from the start, and can be read", () => {
    const found = samples(dnsMetrics(new SharedCounts().read()));
    assert.equal(
      found.get("coredns_dns_requests_total server=dns://:53 zone=. view= proto=udp"),
      0,
    );
    assert.ok([...found.values()].every((value) => value === 0));
  });

  it("come from the thread that counts, under CoreDNS's names", () => {
    const here = new SharedCounts();
    const there = new SharedCounts(here.buffer);
    for (const what of ["udp", "udp", "tcp", "known", "limited", "dropped"] as const)
      there.add(what);
    for (const what of ["cacheMiss", "cacheSuccess", "cacheSuccess", "cacheDenial"] as const) {
      there.add(what);
    }
    for (const what of ["forwarded", "rejected", "stray", "probeFailed"] as const) there.add(what);
    for (const rcode of [0, 0, 3, 11]) there.addReply(reply(rcode));
    for (const seconds of [0.0001, 0.001, 0.0011, 100]) there.addUpstream(seconds);
    const found = samples(dnsMetrics(here.read()));
    const all = "server=dns://:53 zone=. view=";
    const cache = "server=dns://:53 zones=. view=";
    const duration = "coredns_proxy_request_duration_seconds";
    for (const [name, value] of [
      [`coredns_dns_requests_total ${all} proto=udp`, 2],
      [`coredns_dns_requests_total ${all} proto=tcp`, 1],
      [`coredns_dns_responses_total ${all} rcode=NOERROR`, 2],
      [`coredns_dns_responses_total ${all} rcode=NXDOMAIN`, 1],
      [`coredns_dns_responses_total ${all} rcode=11`, 1],
      [`coredns_cache_requests_total ${cache}`, 4],
      [`coredns_cache_hits_total ${cache} type=success`, 2],
      [`coredns_cache_hits_total ${cache} type=denial`, 1],
      [`coredns_cache_misses_total ${cache}`, 1],
      ["coredns_forward_max_concurrent_rejects_total", 1],
      ["coredns_proxy_healthcheck_failures_total proxy_name=forward", 1],
      [`${duration}_bucket proxy_name=forward le=0.00025`, 1],
      [`${duration}_bucket proxy_name=forward le=0.001`, 2],
      [`${duration}_bucket proxy_name=forward le=0.002`, 3],
      [`${duration}_bucket proxy_name=forward le=8.192`, 3],
      [`${duration}_bucket proxy_name=forward le=+Inf`, 4],
      [`${duration}_count proxy_name=forward`, 4],
      ["remora_dns_forwarded_total", 1],
      ["remora_dns_stray_replies_total", 1],
      ["remora_dns_known_replies_total", 1],
      ["remora_dns_limited_total", 1],
      ["remora_dns_dropped_total", 1],
    ] as const) {
      assert.equal(found.get(name), value, name);
    }
    assert.equal(found.has(`coredns_dns_responses_total ${all} rcode=SERVFAIL`), false);
  });

  it("stand in docs/metrics.md, each with its labels", () => {
    const text = readFileSync(new URL("../../../docs/metrics.md", import.meta.url), "utf8");
    const section = text.split("## The name server's figures")[1] ?? "";
    const documented = [...section.matchAll(/^\| `(\w+)` \| (\w+) \| ([^|]+) \| [^|]+ \|$/gm)].map(
      ([, name = "", type = "", labels = ""]) => [
        name,
        type,
        ...[...labels.matchAll(/`(\w+)`/g)].map((match) => match[1] ?? ""),
      ],
    );
    const counts = new SharedCounts();
    const present = [...parsePrometheus(dnsMetrics(counts.read())).values()].map((family) => {
      const labels = Object.keys(family.samples[0]?.labels ?? {}).filter((label) => label !== "le");
      return [family.name, family.type, ...labels.toSorted((a, b) => (a < b ? -1 : 1))];
    });
    assert.deepEqual(
      present.toSorted((a, b) => ((a[0] ?? "") < (b[0] ?? "") ? -1 : 1)),
      documented,
    );
  });
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";

import { ProxyMetrics } from "../../../src/proxy/metrics.ts";
import { TriggerTimes } from "../../../src/proxy/trigger-times.ts";
import { parsePrometheus } from "../../fakes/prometheus-text.ts";

type Row = readonly [name: string, type: string, ...labels: string[]];

/** kube-proxy 1.36's families (pkg/proxy/metrics), without their prefix. */
const ofBoth: readonly Row[] = [
  ["sync_proxy_rules_duration_seconds", "histogram", "ip_family"],
  ["sync_full_proxy_rules_duration_seconds", "histogram", "ip_family"],
  ["sync_partial_proxy_rules_duration_seconds", "histogram", "ip_family"],
  ["sync_proxy_rules_last_timestamp_seconds", "gauge", "ip_family"],
  ["sync_proxy_rules_last_queued_timestamp_seconds", "gauge", "ip_family"],
  ["network_programming_duration_seconds", "histogram", "ip_family"],
  ["sync_proxy_rules_endpoint_changes_pending", "gauge"],
  ["sync_proxy_rules_endpoint_changes_total", "counter"],
  ["sync_proxy_rules_service_changes_pending", "gauge"],
  ["sync_proxy_rules_service_changes_total", "counter"],
  ["sync_proxy_rules_no_local_endpoints_total", "gauge", "ip_family", "traffic_policy"],
  ["conntrack_reconciler_sync_duration_seconds", "histogram", "ip_family"],
  ["conntrack_reconciler_deleted_entries_total", "counter", "ip_family"],
  ["proxy_healthz_total", "counter", "code"],
  ["proxy_livez_total", "counter", "code"],
];
const ofNftables: readonly Row[] = [
  ["sync_proxy_rules_nftables_sync_failures_total", "counter", "ip_family"],
  ["sync_proxy_rules_nftables_cleanup_failures_total", "counter", "ip_family"],
];
const ofIptables: readonly Row[] = [
  ["iptables_ct_state_invalid_dropped_packets_total", "counter"],
  ["iptables_localhost_nodeports_accepted_packets_total", "counter"],
  ["sync_proxy_rules_iptables_restore_failures_total", "counter", "ip_family"],
  ["sync_proxy_rules_iptables_partial_restore_failures_total", "counter", "ip_family"],
  ["sync_proxy_rules_iptables_total", "gauge", "ip_family", "table"],
  ["sync_proxy_rules_iptables_last", "gauge", "ip_family", "table"],
];

/** Everything that can happen, once. */
function everything(metrics: ProxyMetrics): void {
  const record = { family: "IPv4" as const, seconds: 0.003, bytes: 10, changes: 2 };
  metrics.serviceChanged();
  metrics.endpointsChanged();
  metrics.queued(1000, ["IPv4"]);
  metrics.synced({ ...record, full: true }, 5000);
  metrics.synced({ ...record, full: false }, 5000);
  metrics.programmed(0.3, "IPv4");
  metrics.noLocalEndpoints("IPv4", 1, 2);
  metrics.conntrackReconciled("IPv4", 0.1, 3);
  metrics.healthAnswered("/healthz", 200);
  metrics.healthAnswered("/livez", 503);
}

function onlyIptables(metrics: ProxyMetrics): void {
  metrics.packetsCounted({ invalidDropped: 3, localhostNodePorts: 4 });
  const rules = new Map([["nat", { total: 20, written: 3 }]]);
  metrics.synced({ family: "IPv4", seconds: 1, full: true, bytes: 1, changes: 1, rules }, 1000);
}

function byName(a: readonly string[], b: readonly string[]): number {
  return (a[0] ?? "") < (b[0] ?? "") ? -1 : 1;
}

function families(metrics: ProxyMetrics): string[][] {
  return [...parsePrometheus(metrics.render()).values()]
    .filter(({ name }) => name.startsWith("kubeproxy_"))
    .map(({ name, type, samples }) => {
      const labels = Object.keys(samples[0]?.labels ?? {}).filter((label) => label !== "le");
      return [name.replace("kubeproxy_", ""), type, ...labels.toSorted()];
    })
    .toSorted(byName);
}

const sorted = (...rows: readonly Row[]): string[][] =>
  rows.map((row) => [...row]).toSorted(byName);

describe("metrics of the Service proxy", () => {
  it("have kube-proxy's names, types and labels in nftables mode", () => {
    const metrics = new ProxyMetrics();
    metrics.addFamily("IPv4", "nftables");
    everything(metrics);
    assert.deepEqual(families(metrics), sorted(...ofBoth, ...ofNftables));
  });

  it("and in iptables mode, also after a start in the other", () => {
    const metrics = new ProxyMetrics();
    metrics.addFamily("IPv4", "nftables");
    metrics.addFamily("IPv4", "iptables");
    everything(metrics);
    onlyIptables(metrics);
    assert.deepEqual(families(metrics), sorted(...ofBoth, ...ofIptables));
    const parsed = parsePrometheus(metrics.render());
    const value = (name: string): number | undefined =>
      parsed.get(`kubeproxy_${name}`)?.samples[0]?.value;
    assert.equal(value("iptables_ct_state_invalid_dropped_packets_total"), 3);
    assert.equal(value("sync_proxy_rules_iptables_total"), 20);
    assert.equal(value("sync_proxy_rules_iptables_last"), 3);
  });

  it("have kube-proxy's buckets", () => {
    const metrics = new ProxyMetrics();
    metrics.addFamily("IPv4");
    everything(metrics);
    const parsed = parsePrometheus(metrics.render());
    const bounds = (name: string): (string | undefined)[] =>
      (parsed.get(`kubeproxy_${name}`)?.samples ?? [])
        .filter((sample) => sample.name.endsWith("_bucket"))
        .map(({ labels }) => labels["le"]);
    const doubling = [
      ..."0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048".split(" "),
      ..."4.096 8.192 16.384 +Inf".split(" "),
    ];
    assert.deepEqual(bounds("sync_proxy_rules_duration_seconds"), doubling);
    assert.deepEqual(bounds("conntrack_reconciler_sync_duration_seconds"), doubling);
    const range = (from: number, to: number, step: number): string[] =>
      Array.from({ length: (to - from) / step + 1 }, (_, at) => String(from + at * step));
    assert.deepEqual(bounds("network_programming_duration_seconds"), [
      "0.25",
      "0.5",
      ...range(1, 59, 1),
      ...range(60, 115, 5),
      ...range(120, 300, 30),
      "+Inf",
    ]);
  });

  it("count failures under the mode's own names", () => {
    const metrics = new ProxyMetrics();
    metrics.addFamily("IPv4", "iptables");
    metrics.addFamily("IPv6", "nftables");
    metrics.syncFailed("IPv4", "iptables", true);
    metrics.syncFailed("IPv4", "iptables", false);
    metrics.syncFailed("IPv6", "nftables", true);
    const text = metrics.render().split("\n");
    for (const line of [
      'kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv4"} 2',
      'kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family="IPv4"} 1',
      'kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv6"} 1',
    ]) {
      assert.ok(text.includes(line), line);
    }
  });
});

describe("docs/metrics.md", () => {
  it("has the families of both modes", () => {
    const text = readFileSync(new URL("../../../docs/metrics.md", import.meta.url), "utf8");
    const section = text.split("## The Service proxy's page")[1] ?? "";
    const documented = [...section.matchAll(/^\| `(\w+)` \| (\w+) \| ([^|]+) \| (\w+) \|$/gm)].map(
      ([, name = "", type = "", labels = "", mode = ""]) => ({
        name,
        type,
        labels: [...labels.matchAll(/`(\w+)`/g)].map((match) => match[1] ?? ""),
        mode,
      }),
    );
    for (const mode of ["nftables", "iptables"] as const) {
      const metrics = new ProxyMetrics();
      metrics.addFamily("IPv4", mode);
      everything(metrics);
      if (mode === "iptables") onlyIptables(metrics);
      const present = [...parsePrometheus(metrics.render()).values()].map(
        ({ name, type, samples }) => {
          const labels = Object.keys(samples[0]?.labels ?? {}).filter((label) => label !== "le");
          return { name, type, labels: labels.toSorted((a, b) => (a < b ? -1 : 1)) };
        },
      );
      const expected = documented
        .filter((row) => row.mode === "both" || row.mode === mode)
        .map(({ name, type, labels }) => ({ name, type, labels }));
      const sortedByName = present.toSorted((a, b) => (a.name < b.name ? -1 : 1));
      assert.deepEqual(sortedByName, expected);
    }
  });
});

describe("network programming latency", () => {
  it("counts a change with the synchronisation that applies it, not with one that was under way", () => {
    const times = new TriggerTimes();
    times.note("IPv4", "ns/a", 1);
    times.planned();
    times.note("IPv4", "ns/a", 2);
    assert.deepEqual(times.applied("IPv4"), [1]);
    assert.deepEqual(times.applied("IPv4"), []);
    times.planned();
    assert.deepEqual(times.applied("IPv4"), [2]);
  });

  it("keeps what could not be applied, by family", () => {
    const times = new TriggerTimes();
    times.note("IPv4", "ns/a", 1);
    times.note("IPv6", "ns/a", 2);
    times.planned();
    times.planned();
    assert.deepEqual(times.applied("IPv6"), [2]);
    assert.deepEqual(times.applied("IPv4"), [1]);
  });

  it("does not count the deletion of a slice: what it carried was the time of the change before", () => {
    const times = new TriggerTimes();
    times.note("IPv4", "ns/a", 1);
    times.note("IPv4", "ns/b", 2);
    times.forget("IPv4", "ns/a");
    times.planned();
    assert.deepEqual(times.applied("IPv4"), [2]);
  });
});

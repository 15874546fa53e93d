import type { IPFamily } from "../lib/cidr.ts";
import { Histogram, type Labels, type Metric, renderMetrics, Values } from "../lib/metrics-text.ts";
import type { ApplyResult, PacketCounters, ProxyMode } from "./backend.ts";

const syncBounds = Array.from({ length: 15 }, (_, index) => 0.001 * 2 ** index);
const programmingBounds = [
  0.25,
  0.5,
  ...Array.from({ length: 59 }, (_, index) => index + 1),
  ...Array.from({ length: 12 }, (_, index) => 60 + 5 * index),
  ...Array.from({ length: 7 }, (_, index) => 120 + 30 * index),
];

/** What one synchronisation of one family was. */
export interface SyncRecord {
  readonly family: IPFamily;
  readonly seconds: number;
  /** The kernel was read back and compared; otherwise only what changed was sent. */
  readonly full: boolean;
  readonly bytes: number;
  readonly changes: number;
  readonly rules?: ApplyResult["rules"];
}

/**
 * The figures of the Service proxy under kube-proxy's names, and some of our own. What belongs to one mode is absent in
 * the other.
 */
export class ProxyMetrics {
  readonly #all: Metric[] = [];
  readonly #sync = this.#histogram(
    "sync_proxy_rules_duration_seconds",
    "Seconds one synchronisation of the rules took",
    syncBounds,
  );
  readonly #fullSync = this.#histogram(
    "sync_full_proxy_rules_duration_seconds",
    "Seconds a synchronisation with a read-back took",
    syncBounds,
  );
  readonly #partialSync = this.#histogram(
    "sync_partial_proxy_rules_duration_seconds",
    "Seconds a synchronisation of changes alone took",
    syncBounds,
  );
  readonly #programming = this.#histogram(
    "network_programming_duration_seconds",
    "Seconds from a change of pods or their readiness until the rules follow it",
    programmingBounds,
  );
  readonly #lastSync = this.#gauge(
    "sync_proxy_rules_last_timestamp_seconds",
    "When rules were last synchronised with success",
  );
  readonly #lastQueued = this.#gauge(
    "sync_proxy_rules_last_queued_timestamp_seconds",
    "When a synchronisation was last asked for",
  );
  readonly #endpointsPending = this.#gauge(
    "sync_proxy_rules_endpoint_changes_pending",
    "Changes of EndpointSlices that are not in the rules yet",
  );
  readonly #endpointsTotal = this.#counter(
    "sync_proxy_rules_endpoint_changes_total",
    "Changes of EndpointSlices seen",
  );
  readonly #servicesPending = this.#gauge(
    "sync_proxy_rules_service_changes_pending",
    "Changes of Services that are not in the rules yet",
  );
  readonly #servicesTotal = this.#counter(
    "sync_proxy_rules_service_changes_total",
    "Changes of Services seen",
  );
  readonly #noLocal = this.#gauge(
    "sync_proxy_rules_no_local_endpoints_total",
    "Service ports with a Local traffic policy and no endpoint on this node",
  );
  readonly #syncFailures = this.#counter(
    "sync_proxy_rules_nftables_sync_failures_total",
    "Transactions that nftables refused",
  );
  readonly #cleanupFailures = this.#counter(
    "sync_proxy_rules_nftables_cleanup_failures_total",
    "Deletions of unused chains that nftables refused",
  );
  readonly #restoreFailures = this.#counter(
    "sync_proxy_rules_iptables_restore_failures_total",
    "Runs of iptables-restore that failed",
  );
  readonly #partialRestoreFailures = this.#counter(
    "sync_proxy_rules_iptables_partial_restore_failures_total",
    "Runs of iptables-restore with changes alone that failed",
  );
  readonly #rulesTotal = this.#gauge(
    "sync_proxy_rules_iptables_total",
    "Rules of ours in the kernel",
  );
  readonly #rulesLast = this.#gauge(
    "sync_proxy_rules_iptables_last",
    "Rules that the last synchronisation wrote",
  );
  readonly #invalidDropped = this.#counter(
    "iptables_ct_state_invalid_dropped_packets_total",
    "Forwarded packets dropped because connection tracking takes them for invalid",
  );
  readonly #localhostNodePorts = this.#counter(
    "iptables_localhost_nodeports_accepted_packets_total",
    "Flows to node ports on loopback",
  );
  readonly #conntrackSeconds = this.#histogram(
    "conntrack_reconciler_sync_duration_seconds",
    "Seconds one pass over the UDP flows took",
    syncBounds,
  );
  readonly #conntrackDeleted = this.#counter(
    "conntrack_reconciler_deleted_entries_total",
    "Flows deleted because their endpoint is gone",
  );
  readonly #healthz = this.#counter("proxy_healthz_total", "Answers of /healthz by status");
  readonly #livez = this.#counter("proxy_livez_total", "Answers of /livez by status");
  readonly #elements = this.#add(
    new Values("remora_proxy_tx_elements", "gauge", "Things changed by the last transaction"),
  );
  readonly #bytes = this.#add(
    new Values("remora_proxy_tx_bytes", "gauge", "Size of the last transaction as text"),
  );
  readonly #tableLost = this.#add(
    new Values("remora_proxy_table_lost_total", "counter", "Times others deleted the whole table"),
  );
  readonly #drift = this.#add(
    new Values(
      "remora_proxy_drift_repairs_total",
      "counter",
      "Read-backs that found the table changed by others and mended it",
    ),
  );
  #pendingEndpoints = 0;
  #pendingServices = 0;
  #lastChange: { readonly at: number; readonly seconds: number } | undefined;
  #mode: ProxyMode | undefined;

  constructor() {
    for (const metric of [this.#endpointsPending, this.#servicesPending]) metric.set(0);
    for (const metric of [this.#endpointsTotal, this.#servicesTotal]) metric.add(0);
  }

  #add<T extends Metric>(metric: T): T {
    this.#all.push(metric);
    return metric;
  }

  #histogram(name: string, help: string, bounds: readonly number[]): Histogram {
    return this.#add(new Histogram(`kubeproxy_${name}`, help, bounds));
  }

  #counter(name: string, help: string): Values {
    return this.#add(new Values(`kubeproxy_${name}`, "counter", help));
  }

  #gauge(name: string, help: string): Values {
    return this.#add(new Values(`kubeproxy_${name}`, "gauge", help));
  }

  /** A family whose counters are to be seen from the start, at zero. Those of the other mode vanish. */
  addFamily(family: IPFamily, mode: ProxyMode = "nftables"): void {
    this.#mode = mode;
    const labels = byFamily(family);
    const ofNftables = [this.#syncFailures, this.#cleanupFailures, this.#tableLost];
    const ofIptables = [this.#restoreFailures, this.#partialRestoreFailures];
    const [own, other] = mode === "nftables" ? [ofNftables, ofIptables] : [ofIptables, ofNftables];
    for (const metric of other) metric.remove(labels);
    for (const metric of [...own, this.#conntrackDeleted, this.#drift]) metric.add(0, labels);
  }

  /** Undefined before the first family. */
  get mode(): ProxyMode | undefined {
    return this.#mode;
  }

  /** When the kernel got its last change, milliseconds since the epoch, and how long that took. */
  get lastChange(): { readonly at: number; readonly seconds: number } | undefined {
    return this.#lastChange;
  }

  serviceChanged(): void {
    this.#servicesTotal.add(1);
    this.#servicesPending.set((this.#pendingServices += 1));
  }

  endpointsChanged(): void {
    this.#endpointsTotal.add(1);
    this.#endpointsPending.set((this.#pendingEndpoints += 1));
  }

  queued(nowMs: number, families: Iterable<IPFamily>): void {
    for (const family of families) this.#lastQueued.set(nowMs / 1000, byFamily(family));
  }

  /** Changes seen so far are planned and about to be applied. */
  planned(): void {
    this.#servicesPending.set((this.#pendingServices = 0));
    this.#endpointsPending.set((this.#pendingEndpoints = 0));
  }

  synced(record: SyncRecord, nowMs: number): void {
    const labels = byFamily(record.family);
    this.#sync.observe(record.seconds, labels);
    (record.full ? this.#fullSync : this.#partialSync).observe(record.seconds, labels);
    this.#lastSync.set(nowMs / 1000, labels);
    for (const [table, { total, written }] of record.rules ?? []) {
      this.#rulesTotal.set(total, { table, ...labels });
      this.#rulesLast.set(written, { table, ...labels });
    }
    if (record.changes === 0) return;
    this.#lastChange = { at: nowMs, seconds: record.seconds };
    this.#elements.set(record.changes, labels);
    this.#bytes.set(record.bytes, labels);
  }

  /** @param partial Only what changed had been sent. */
  syncFailed(family: IPFamily, mode: ProxyMode = "nftables", partial = false): void {
    const labels = byFamily(family);
    if (mode === "nftables") {
      this.#syncFailures.add(1, labels);
      return;
    }
    this.#restoreFailures.add(1, labels);
    if (partial) this.#partialRestoreFailures.add(1, labels);
  }

  /** What the kernel counted at fixed rules, of all families together. */
  packetsCounted({ invalidDropped, localhostNodePorts }: PacketCounters): void {
    if (invalidDropped !== undefined) this.#invalidDropped.set(invalidDropped);
    if (localhostNodePorts !== undefined) this.#localhostNodePorts.set(localhostNodePorts);
  }

  cleanupFailed(family: IPFamily): void {
    this.#cleanupFailures.add(1, byFamily(family));
  }

  tableLost(family: IPFamily): void {
    this.#tableLost.add(1, byFamily(family));
  }

  driftRepaired(family: IPFamily): void {
    this.#drift.add(1, byFamily(family));
  }

  programmed(seconds: number, family: IPFamily): void {
    this.#programming.observe(seconds, byFamily(family));
  }

  noLocalEndpoints(family: IPFamily, internal: number, external: number): void {
    this.#noLocal.set(internal, { ...byFamily(family), traffic_policy: "internal" });
    this.#noLocal.set(external, { ...byFamily(family), traffic_policy: "external" });
  }

  conntrackReconciled(family: IPFamily, seconds: number, deleted: number): void {
    this.#conntrackSeconds.observe(seconds, byFamily(family));
    this.#conntrackDeleted.add(deleted, byFamily(family));
  }

  healthAnswered(path: "/healthz" | "/livez", status: number): void {
    (path === "/healthz" ? this.#healthz : this.#livez).add(1, { code: String(status) });
  }

  /** Prometheus text format 0.0.4. */
  render(): string {
    return renderMetrics(this.#all);
  }
}

function byFamily(family: IPFamily): Labels {
  return { ip_family: family };
}

import type { MetricType } from "../../lib/metrics-text.ts";
import type { CgroupDetail, CgroupUsage } from "./cgroup.ts";
import type { InterfaceCounters } from "./cgroup-text.ts";

interface Described {
  readonly name: string;
  readonly type: MetricType;
  readonly help: string;
}

/** One figure of a cgroup; undefined leaves the sample out. */
export interface UsageFamily extends Described {
  readonly value: (usage: CgroupUsage) => number | undefined;
}

export interface InterfaceFamily extends Described {
  readonly value: (counters: InterfaceCounters) => number;
}

const nanos = 1e9;

function gauge(name: string, help: string, value: UsageFamily["value"]): UsageFamily {
  return { name: `container_${name}`, type: "gauge", help, value };
}

function counter(name: string, help: string, value: UsageFamily["value"]): UsageFamily {
  return { name: `container_${name}`, type: "counter", help, value };
}

function detail(
  of: (detail: CgroupDetail) => number | undefined,
): (usage: CgroupUsage) => number | undefined {
  return (usage) => (usage.detail === undefined ? undefined : of(usage.detail));
}

/** No limit is shown as zero. */
function limit(
  of: (usage: CgroupUsage) => number | undefined,
): (usage: CgroupUsage) => number | undefined {
  return (usage) => (usage.detail === undefined ? undefined : (of(usage) ?? 0));
}

function stalled(of: (usage: CgroupUsage) => number | undefined): UsageFamily["value"] {
  return (usage) => {
    const totalNs = of(usage);
    return totalNs === undefined ? undefined : totalNs / nanos;
  };
}

/** cAdvisor's names, with its types and texts, for what has one value per cgroup and carries the time of its reading. */
export const usageFamilies: readonly UsageFamily[] = [
  counter(
    "cpu_user_seconds_total",
    "Cumulative user cpu time consumed in seconds.",
    detail(({ cpuUserNs }) => cpuUserNs / nanos),
  ),
  counter(
    "cpu_system_seconds_total",
    "Cumulative system cpu time consumed in seconds.",
    detail(({ cpuSystemNs }) => cpuSystemNs / nanos),
  ),
  counter(
    "cpu_cfs_periods_total",
    "Number of elapsed enforcement period intervals.",
    detail(({ throttling }) => throttling?.periods),
  ),
  counter(
    "cpu_cfs_throttled_periods_total",
    "Number of throttled period intervals.",
    detail(({ throttling }) => throttling?.throttledPeriods),
  ),
  counter(
    "cpu_cfs_throttled_seconds_total",
    "Total time duration the container has been throttled.",
    stalled(detail(({ throttling }) => throttling?.throttledNs)),
  ),
  counter(
    "cpu_cfs_burst_periods_total",
    "Number of periods when burst occurs.",
    detail(({ throttling }) => throttling?.burstPeriods),
  ),
  counter(
    "cpu_cfs_burst_seconds_total",
    "Total time duration the container has been bursted.",
    stalled(detail(({ throttling }) => throttling?.burstNs)),
  ),
  gauge(
    "memory_cache",
    "Number of bytes of page cache memory.",
    detail(({ cacheBytes }) => cacheBytes),
  ),
  gauge("memory_rss", "Size of RSS in bytes.", ({ more }) => more?.rssBytes),
  gauge(
    "memory_kernel_usage",
    "Size of kernel memory allocated in bytes.",
    detail(({ kernelBytes }) => kernelBytes),
  ),
  gauge(
    "memory_mapped_file",
    "Size of memory mapped files in bytes.",
    detail(({ mappedFileBytes }) => mappedFileBytes),
  ),
  gauge("memory_swap", "Container swap usage in bytes.", ({ swapBytes }) => swapBytes),
  counter(
    "memory_failcnt",
    "Number of memory usage hits limits",
    detail(({ limitHits }) => limitHits),
  ),
  gauge(
    "memory_usage_bytes",
    "Current memory usage in bytes, including all memory regardless of when it was accessed",
    ({ memoryBytes }) => memoryBytes,
  ),
  gauge(
    "memory_max_usage_bytes",
    "Maximum memory usage recorded in bytes",
    detail(({ maxMemoryBytes }) => maxMemoryBytes),
  ),
  gauge(
    "memory_working_set_bytes",
    "Current working set in bytes.",
    ({ workingSetBytes }) => workingSetBytes,
  ),
  gauge(
    "memory_total_active_file_bytes",
    "Current total active file in bytes.",
    detail(({ activeFileBytes }) => activeFileBytes),
  ),
  gauge(
    "memory_total_inactive_file_bytes",
    "Current total inactive file in bytes.",
    detail(({ inactiveFileBytes }) => inactiveFileBytes),
  ),
  counter(
    "oom_events_total",
    "Count of out of memory events observed for the container",
    detail(({ oomKills }) => oomKills),
  ),
  gauge(
    "threads",
    "Number of threads running inside the container",
    detail(({ threads }) => threads),
  ),
  gauge(
    "threads_max",
    "Maximum number of threads allowed inside the container, infinity if value is zero",
    limit(({ detail: of }) => of?.maxThreads),
  ),
  counter(
    "pressure_cpu_stalled_seconds_total",
    "Total time duration no tasks in the container could make progress due to CPU congestion.",
    stalled(({ more }) => more?.cpuPressure?.full.totalNs),
  ),
  counter(
    "pressure_cpu_waiting_seconds_total",
    "Total time duration tasks in the container have waited due to CPU congestion.",
    stalled(({ more }) => more?.cpuPressure?.some.totalNs),
  ),
  counter(
    "pressure_memory_stalled_seconds_total",
    "Total time duration no tasks in the container could make progress due to memory congestion.",
    stalled(({ more }) => more?.memoryPressure?.full.totalNs),
  ),
  counter(
    "pressure_memory_waiting_seconds_total",
    "Total time duration tasks in the container have waited due to memory congestion.",
    stalled(({ more }) => more?.memoryPressure?.some.totalNs),
  ),
  counter(
    "pressure_io_stalled_seconds_total",
    "Total time duration no tasks in the container could make progress due to IO congestion.",
    stalled(({ more }) => more?.ioPressure?.full.totalNs),
  ),
  counter(
    "pressure_io_waiting_seconds_total",
    "Total time duration tasks in the container have waited due to IO congestion.",
    stalled(({ more }) => more?.ioPressure?.some.totalNs),
  ),
];

/** The same for what a cgroup is held to; these carry no time. */
export const specFamilies: readonly UsageFamily[] = [
  gauge(
    "spec_cpu_period",
    "CPU period of the container.",
    detail(({ cpuPeriodMicros }) => cpuPeriodMicros),
  ),
  gauge(
    "spec_cpu_quota",
    "CPU quota of the container.",
    detail(({ cpuQuotaMicros }) => cpuQuotaMicros),
  ),
  gauge(
    "spec_cpu_shares",
    "CPU share of the container.",
    detail(({ cpuShares }) => cpuShares),
  ),
  gauge(
    "spec_memory_limit_bytes",
    "Memory limit for the container.",
    limit(({ more }) => more?.memoryLimitBytes),
  ),
  gauge(
    "spec_memory_swap_limit_bytes",
    "Memory swap limit for the container.",
    limit(({ swapLimitBytes }) => swapLimitBytes),
  ),
  gauge(
    "spec_memory_reservation_limit_bytes",
    "Memory reservation limit for the container.",
    limit(({ detail: of }) => of?.memoryReservationBytes),
  ),
];

function network(name: string, help: string, value: InterfaceFamily["value"]): InterfaceFamily {
  return { name: `container_network_${name}_total`, type: "counter", help, value };
}

export const networkFamilies: readonly InterfaceFamily[] = [
  network("receive_bytes", "Cumulative count of bytes received", ({ rxBytes }) => rxBytes),
  network("receive_packets", "Cumulative count of packets received", ({ rxPackets }) => rxPackets),
  network(
    "receive_packets_dropped",
    "Cumulative count of packets dropped while receiving",
    ({ rxDropped }) => rxDropped,
  ),
  network(
    "receive_errors",
    "Cumulative count of errors encountered while receiving",
    ({ rxErrors }) => rxErrors,
  ),
  network("transmit_bytes", "Cumulative count of bytes transmitted", ({ txBytes }) => txBytes),
  network(
    "transmit_packets",
    "Cumulative count of packets transmitted",
    ({ txPackets }) => txPackets,
  ),
  network(
    "transmit_packets_dropped",
    "Cumulative count of packets dropped while transmitting",
    ({ txDropped }) => txDropped,
  ),
  network(
    "transmit_errors",
    "Cumulative count of errors encountered while transmitting",
    ({ txErrors }) => txErrors,
  ),
];

import { performance } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";

import type { KernelFiles } from "./kernel-files.ts";
import { bootTimeMs, readProcess } from "./node-usage.ts";
import type { Page } from "./page.ts";

/** When this process began, seconds since the epoch, as every page of metrics that Go programs serve says. */
export function addProcessStart(page: Page, files: KernelFiles): void {
  const own = readProcess(files, "self", bootTimeMs(files), 0);
  if (own === undefined) return;
  page.single(
    "process_start_time_seconds",
    "gauge",
    "Start time of the process since unix epoch in seconds.",
    own.startedAtMs / 1000,
  );
}

/** This process, under the names of Prometheus clients, and what only its runtime knows. */
export function addProcess(page: Page, files: KernelFiles): void {
  addProcessStart(page, files);
  const own = readProcess(files, "self", 0, 0);
  const status = files.text("/proc/self/status") ?? "";
  const limits = files.text("/proc/self/limits") ?? "";
  const bytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0) * 1024;
  const openFiles = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
  const add = (name: string, type: "counter" | "gauge", help: string, value: number): void =>
    page.single(name, type, help, value);
  add(
    "process_cpu_seconds_total",
    "counter",
    "Total user and system CPU time spent in seconds.",
    (own?.cpuNs ?? 0) / 1e9,
  );
  add(
    "process_open_fds",
    "gauge",
    "Number of open file descriptors.",
    files.names("/proc/self/fd").length,
  );
  add(
    "process_max_fds",
    "gauge",
    "Maximum number of open file descriptors.",
    openFiles === "unlimited" ? Number.POSITIVE_INFINITY : Number(openFiles ?? 0),
  );
  add("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", bytes("VmRSS"));
  add("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", bytes("VmSize"));
  add(
    "remora_threads",
    "gauge",
    "Threads of the agent.",
    Number(/^Threads:\s+(\d+)/m.exec(status)?.[1] ?? 0),
  );
  const loop = performance.eventLoopUtilization();
  add(
    "remora_event_loop_active_seconds_total",
    "counter",
    "Time that the agent's main loop was at work.",
    loop.active / 1000,
  );
  add(
    "remora_event_loop_idle_seconds_total",
    "counter",
    "Time that the agent's main loop waited for something to do.",
    loop.idle / 1000,
  );
  const heap = getHeapStatistics();
  add("remora_heap_used_bytes", "gauge", "Objects on the main heap.", heap.used_heap_size);
  add("remora_heap_bytes", "gauge", "Memory that the main heap has.", heap.total_heap_size);
}

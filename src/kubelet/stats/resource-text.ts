import { labelText } from "../../lib/metrics-text.ts";
import type { CgroupUsage } from "./cgroup.ts";
import { type Family, Page } from "./page.ts";
import type { Sample } from "./sample.ts";

const nanosPerSecond = 1e9;
const scrapeHelp = "1 if there was an error while getting container metrics, 0 otherwise";

interface UsageFamilies {
  readonly cpu: Family;
  readonly memory: Family;
  readonly swap: Family;
}

const linuxOnly = "Reported only on non-windows systems";

function usageFamilies(page: Page, of: "node" | "pod" | "container"): UsageFamilies {
  const swapOf =
    of === "node" ? "Current swap usage of the node" : `Current amount of the ${of} swap usage`;
  return {
    cpu: page.family(
      `${of}_cpu_usage_seconds_total`,
      "counter",
      `Cumulative cpu time consumed by the ${of} in core-seconds`,
    ),
    memory: page.family(
      `${of}_memory_working_set_bytes`,
      "gauge",
      `Current working set of the ${of} in bytes`,
    ),
    swap: page.family(`${of}_swap_usage_bytes`, "gauge", `${swapOf} in bytes. ${linuxOnly}`),
  };
}

function addUsage({ cpu, memory, swap }: UsageFamilies, labels: string, usage: CgroupUsage): void {
  const { cpuNs, swapBytes, timeMs, workingSetBytes } = usage;
  cpu.add(labels, cpuNs / nanosPerSecond, timeMs);
  memory.add(labels, workingSetBytes, timeMs);
  swap.add(labels, swapBytes, timeMs);
}

function addSample(page: Page, { node, pods }: Sample): void {
  addUsage(usageFamilies(page, "node"), "", node);
  const ofPods = usageFamilies(page, "pod");
  const ofContainers = usageFamilies(page, "container");
  const startTime = page.family(
    "container_start_time_seconds",
    "gauge",
    "Start time of the container since unix epoch in seconds",
  );
  const swapLimit = page.family(
    "container_swap_limit_bytes",
    "gauge",
    `Current amount of the container swap limit in bytes. ${linuxOnly}`,
  );
  for (const { containers, own, record } of pods) {
    const { name, namespace } = record;
    for (const { record: of, startedAtMs, usage } of containers) {
      const labels = labelText({ container: of.name, namespace, pod: name });
      addUsage(ofContainers, labels, usage);
      startTime.add(labels, startedAtMs / 1000);
      if (usage.swapLimitBytes !== undefined) {
        swapLimit.add(labels, usage.swapLimitBytes, usage.timeMs);
      }
    }
    if (own !== undefined) addUsage(ofPods, labelText({ namespace, pod: name }), own.usage);
  }
}

/**
 * `/metrics/resource`. Samples carry the time of their measurement: metrics-server computes rates from it. Without a
 * sample the page says that there was an error.
 */
export function resourceText(sample: Sample | undefined): string {
  const page = new Page();
  if (sample !== undefined) addSample(page, sample);
  const failed = sample === undefined ? 1 : 0;
  page.single("resource_scrape_error", "gauge", scrapeHelp, failed);
  page.single("scrape_error", "gauge", `(Deprecated since 1.29.0) ${scrapeHelp}`, failed);
  return page.text();
}

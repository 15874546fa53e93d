import { labelText } from "../../lib/metrics-text.ts";
import type { CgroupUsage } from "./cgroup.ts";
import { type Family, Page } from "./page.ts";
import type { Sample } from "./sample.ts";

const nanosPerSecond = 1e9;
const scrapeHelp = "1 if there was an error while getting container metrics, 0 otherwise";

/** The names that metrics-server and the stability guarantees of Kubernetes know, in three sizes. */
class ResourcePage {
  readonly page = new Page();
  readonly #families = new Map<string, Family>();

  #family(name: string, type: "counter" | "gauge", help: string): Family {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = this.page.family(name, type, help);
      this.#families.set(name, family);
    }
    return family;
  }

  usage(of: "node" | "pod" | "container", labels: string, usage: CgroupUsage): void {
    const { cpuNs, swapBytes, timeMs, workingSetBytes } = usage;
    const article = of === "container" ? "container" : of;
    this.#family(
      `${of}_cpu_usage_seconds_total`,
      "counter",
      `Cumulative cpu time consumed by the ${article} in core-seconds`,
    ).add(labels, cpuNs / nanosPerSecond, timeMs);
    this.#family(
      `${of}_memory_working_set_bytes`,
      "gauge",
      `Current working set of the ${article} in bytes`,
    ).add(labels, workingSetBytes, timeMs);
    this.#family(
      `${of}_swap_usage_bytes`,
      "gauge",
      of === "container"
        ? "Current amount of the container swap usage in bytes. Reported only on non-windows systems"
        : `Current swap usage of the ${article} in bytes. Reported only on non-windows systems`,
    ).add(labels, swapBytes, timeMs);
  }

  container(labels: string, usage: CgroupUsage, startedAtMs: number): void {
    this.usage("container", labels, usage);
    this.#family(
      "container_start_time_seconds",
      "gauge",
      "Start time of the container since unix epoch in seconds",
    ).add(labels, startedAtMs / 1000);
    if (usage.swapLimitBytes === undefined) return;
    this.#family(
      "container_swap_limit_bytes",
      "gauge",
      "Current amount of the container swap limit in bytes. Reported only on non-windows systems",
    ).add(labels, usage.swapLimitBytes, usage.timeMs);
  }
}

/**
 * `/metrics/resource`. Samples carry the time of their measurement: metrics-server computes rates from it. Without a
 * sample the page says that there was an error.
 */
export function resourceText(sample: Sample | undefined): string {
  const resource = new ResourcePage();
  if (sample !== undefined) {
    resource.usage("node", "", sample.node);
    for (const { containers, own, record } of sample.pods) {
      const { name, namespace } = record;
      const rest = labelText({ namespace, pod: name });
      for (const container of containers) {
        const labels = labelText({ container: container.record.name, namespace, pod: name });
        resource.container(labels, container.usage, container.startedAtMs);
      }
      if (own !== undefined) resource.usage("pod", rest, own.usage);
    }
  }
  const failed = sample === undefined ? 1 : 0;
  resource.page.single("resource_scrape_error", "gauge", scrapeHelp, failed);
  resource.page.single("scrape_error", "gauge", `(Deprecated since 1.29.0) ${scrapeHelp}`, failed);
  return resource.page.text();
}

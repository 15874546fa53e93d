import { renderMetrics, Values } from "./metrics-text.ts";

/** What the checks of `/healthz` came to, for /metrics/slis (KEP-3466). */
export class HealthResults {
  readonly #last = new Values(
    "kubernetes_healthcheck",
    "gauge",
    "This metric records the result of a single healthcheck.",
  );
  readonly #total = new Values(
    "kubernetes_healthchecks_total",
    "counter",
    "This metric records the results of all healthcheck.",
  );

  observe(name: string, healthy: boolean): void {
    this.#last.set(healthy ? 1 : 0, { name, type: "healthz" });
    this.#total.add(1, { name, status: healthy ? "success" : "error", type: "healthz" });
  }

  reset(): void {
    this.#last.clear();
    this.#total.clear();
  }

  /** In Prometheus text format. */
  text(): string {
    return renderMetrics([this.#last, this.#total]);
  }
}

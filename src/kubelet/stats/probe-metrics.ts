import {
  defaultBounds,
  Histogram,
  type Labels,
  type Metric,
  Values,
} from "../../lib/metrics-text.ts";

/** Whose probe it is. */
export interface ProbedContainer {
  readonly kind: "Startup" | "Readiness" | "Liveness";
  readonly container: string;
  readonly pod: string;
  readonly namespace: string;
  readonly podUID: string;
}

export type ProbeResult = "successful" | "failed" | "unknown";

/** `/metrics/probes`: how probes went, for as long as they are made. */
export class ProbeMetrics {
  readonly #total = new Values(
    "prober_probe_total",
    "counter",
    "Cumulative number of a liveness, readiness or startup probe for a container by result.",
  );
  readonly #seconds = new Histogram(
    "prober_probe_duration_seconds",
    "Duration in seconds for a probe response.",
    defaultBounds,
  );

  /** One probe has been made. Failed ones are not timed, as upstream does not. */
  probed(of: ProbedContainer, result: ProbeResult, seconds: number): void {
    this.#total.add(1, totalLabels(of, result));
    if (result !== "failed") this.#seconds.observe(seconds, secondsLabels(of));
  }

  /** It is not made any more. */
  ended(of: ProbedContainer): void {
    for (const result of ["successful", "failed", "unknown"] as const) {
      this.#total.remove(totalLabels(of, result));
    }
    this.#seconds.remove(secondsLabels(of));
  }

  metrics(): readonly Metric[] {
    return [this.#seconds, this.#total];
  }
}

function secondsLabels({ container, kind, namespace, pod }: ProbedContainer): Labels {
  return { container, namespace, pod, probe_type: kind };
}

function totalLabels(
  { container, kind, namespace, pod, podUID }: ProbedContainer,
  result: ProbeResult,
): Labels {
  return { container, namespace, pod, pod_uid: podUID, probe_type: kind, result };
}

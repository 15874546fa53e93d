import type { PodMetrics } from "../stats/pod-metrics.ts";
import type { ProbeMetrics } from "../stats/probe-metrics.ts";
import type { RuntimeMetrics } from "../stats/runtime-metrics.ts";

/** Where the work of the pod half is counted. */
export interface PodRecorders {
  readonly pods: PodMetrics;
  readonly probes: ProbeMetrics;
  readonly runtime: Pick<RuntimeMetrics, "pulls">;
}

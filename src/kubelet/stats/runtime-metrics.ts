import {
  defaultBounds,
  exponentialBounds,
  Histogram,
  type Metric,
  Values,
} from "../../lib/metrics-text.ts";
import type { ContainerRecord, PodRecord } from "../../runtime/types.ts";
import type { ContainerRole } from "../spec/containers.ts";

/** What a container is to its pod, in the words of upstream's label `container_type`. */
export type ContainerType = "container" | "init_container" | "ephemeral_container";

export function containerType(role: ContainerRole | undefined): ContainerType {
  switch (role) {
    case "init":
    case "sidecar":
      return "init_container";
    case "ephemeral":
      return "ephemeral_container";
    case "regular":
    case undefined:
      return "container";
  }
}

const pullBounds = [
  1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
];

const mebi = 1024 ** 2;
const gibi = 1024 ** 3;
/** Upper ends of upstream's classes of image sizes. */
const imageSizes: readonly (readonly [below: number, name: string])[] = [
  [10 * mebi, "0-10MB"],
  [100 * mebi, "10MB-100MB"],
  [500 * mebi, "100MB-500MB"],
  [gibi, "500MB-1GB"],
  [5 * gibi, "1GB-5GB"],
  [10 * gibi, "5GB-10GB"],
  [20 * gibi, "10GB-20GB"],
  [30 * gibi, "20GB-30GB"],
  [40 * gibi, "30GB-40GB"],
  [60 * gibi, "40GB-60GB"],
  [100 * gibi, "60GB-100GB"],
];

function imageSize(bytes: number): string {
  return imageSizes.find(([below]) => bytes < below)?.[1] ?? "GT100GB";
}

/** One pull that has ended, for what is counted without the time that images take. */
export interface PullRecord {
  readonly reference: string;
  readonly fromMs: number;
  readonly toMs: number;
}

const maxPulls = 200;

/** What the agent asks of the container engine and what becomes of it, under upstream's names. */
export class RuntimeMetrics {
  readonly #operations = new Values(
    "kubelet_runtime_operations_total",
    "counter",
    "Cumulative number of runtime operations by operation type.",
  );
  readonly #errors = new Values(
    "kubelet_runtime_operations_errors_total",
    "counter",
    "Cumulative number of runtime operation errors by operation type.",
  );
  readonly #seconds = new Histogram(
    "kubelet_runtime_operations_duration_seconds",
    "Duration in seconds of runtime operations. Broken down by operation type.",
    exponentialBounds(0.005, 2.5, 14),
  );
  readonly #relistSeconds = new Histogram(
    "kubelet_pleg_relist_duration_seconds",
    "Duration in seconds for relisting pods in PLEG.",
    defaultBounds,
  );
  readonly #relistInterval = new Histogram(
    "kubelet_pleg_relist_interval_seconds",
    "Interval in seconds between relisting in PLEG.",
    defaultBounds,
  );
  readonly #podRelistSeconds = new Histogram(
    "kubelet_pleg_pod_relist_duration_seconds",
    "Duration in seconds for relisting a single pod in PLEG.",
    defaultBounds,
  );
  readonly #lastSeen = new Values(
    "kubelet_pleg_last_seen_seconds",
    "gauge",
    "Timestamp in seconds when PLEG was last seen active.",
  );
  readonly #sandboxSeconds = new Histogram(
    "kubelet_run_podsandbox_duration_seconds",
    "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
    defaultBounds,
  );
  readonly #sandboxErrors = new Values(
    "kubelet_run_podsandbox_errors_total",
    "counter",
    "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.",
  );
  readonly #startedPods = new Values(
    "kubelet_started_pods_total",
    "counter",
    "Cumulative number of pods started",
  );
  readonly #startedPodsErrors = new Values(
    "kubelet_started_pods_errors_total",
    "counter",
    "Cumulative number of errors when starting pods",
  );
  readonly #started = new Values(
    "kubelet_started_containers_total",
    "counter",
    "Cumulative number of containers started",
  );
  readonly #startErrors = new Values(
    "kubelet_started_containers_errors_total",
    "counter",
    "Cumulative number of errors when starting containers",
  );
  readonly #terminated = new Values(
    "kubelet_terminated_containers_total",
    "counter",
    "Cumulative number of container terminations.",
  );
  readonly #pullSeconds = new Histogram(
    "kubelet_image_pull_duration_seconds",
    "Duration in seconds to pull an image.",
    pullBounds,
  );
  readonly #runningPods = new Values(
    "kubelet_running_pods",
    "gauge",
    "Number of pods that have a running pod sandbox",
  );
  readonly #runningContainers = new Values(
    "kubelet_running_containers",
    "gauge",
    "Number of containers currently running",
  );
  readonly #pulls: PullRecord[] = [];
  #relistedAtMs: number | undefined;

  constructor() {
    for (const metric of [this.#startedPods, this.#startedPodsErrors]) metric.add(0);
  }

  operation(type: string, seconds: number, failed: boolean): void {
    const labels = { operation_type: type };
    this.#operations.add(1, labels);
    this.#seconds.observe(seconds, labels);
    if (failed) this.#errors.add(1, labels);
  }

  /** Everything was listed. */
  relisted(seconds: number, endedAtMs: number): void {
    this.#relistSeconds.observe(seconds);
    if (this.#relistedAtMs !== undefined) {
      this.#relistInterval.observe(Math.max(endedAtMs - this.#relistedAtMs, 0) / 1000);
    }
    this.#relistedAtMs = endedAtMs;
    this.#lastSeen.set(Math.floor(endedAtMs / 1000));
  }

  podRelisted(seconds: number): void {
    this.#podRelistSeconds.observe(seconds);
  }

  sandboxRun(handler: string, seconds: number, failed: boolean): void {
    const labels = { runtime_handler: handler };
    this.#sandboxSeconds.observe(seconds, labels);
    this.#startedPods.add(1);
    if (!failed) return;
    this.#startedPodsErrors.add(1);
    this.#sandboxErrors.add(1, labels);
  }

  /** @param code Why it could not be created or started; undefined when it runs. */
  containerStarted(type: ContainerType, code: string | undefined): void {
    const labels = { container_type: type };
    // Upstream counts attempts here, and there those of them that failed.
    this.#started.add(1, labels);
    if (code !== undefined) this.#startErrors.add(1, { ...labels, code });
  }

  containerEnded(type: ContainerType, { state }: ContainerRecord): void {
    if (state.kind !== "exited") return;
    const { exitCode, oomKilled } = state;
    const reason = oomKilled ? "OOMKilled" : exitCode === 0 ? "Completed" : "Error";
    this.#terminated.add(1, { container_type: type, exit_code: String(exitCode), reason });
  }

  imagePulled(pull: PullRecord, sizeBytes: number): void {
    const labels = { image_size_in_bytes: imageSize(sizeBytes) };
    this.#pullSeconds.observe((pull.toMs - pull.fromMs) / 1000, labels);
    this.#pulls.push(pull);
    if (this.#pulls.length > maxPulls) this.#pulls.shift();
  }

  /** Pulls that ended lately. */
  pulls(): readonly PullRecord[] {
    return this.#pulls;
  }

  /** @param records What the runtime holds now. */
  metrics(records: readonly PodRecord[]): readonly Metric[] {
    this.#count(records);
    return [
      this.#operations,
      this.#errors,
      this.#seconds,
      this.#relistSeconds,
      this.#relistInterval,
      this.#podRelistSeconds,
      this.#lastSeen,
      this.#sandboxSeconds,
      this.#sandboxErrors,
      this.#startedPods,
      this.#startedPodsErrors,
      this.#started,
      this.#startErrors,
      this.#terminated,
      this.#pullSeconds,
      this.#runningPods,
      this.#runningContainers,
    ];
  }

  #count(records: readonly PodRecord[]): void {
    const states = { created: 0, exited: 0, running: 0, unknown: 0 };
    let pods = 0;
    for (const { containers, sandboxes } of records) {
      if (sandboxes.some(({ ready }) => ready)) pods += 1;
      for (const { state } of containers) states[state.kind] += 1;
    }
    this.#runningPods.set(pods);
    for (const [state, count] of Object.entries(states)) {
      this.#runningContainers.set(count, { container_state: state });
    }
  }
}

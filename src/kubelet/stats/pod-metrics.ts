import {
  defaultBounds,
  exponentialBounds,
  Histogram,
  type Metric,
  Values,
} from "../../lib/metrics-text.ts";

const startBounds = [
  0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800,
  2700, 3600,
];

/** How long a pod took until all its containers ran. Seconds. */
export interface PodStart {
  /** From when this agent first saw it. */
  readonly sinceSeen: number;
  /** From when the API server made it. */
  readonly sinceCreated: number;
  /** The same without the time that images and init containers took. */
  readonly withoutPulls: number;
  readonly hostNetwork: boolean;
}

export type PodWork = "create" | "sync" | "kill";

/** What the pod half does, under upstream's names as far as they mean the same here. */
export class PodMetrics {
  readonly #work = new Histogram(
    "kubelet_pod_worker_duration_seconds",
    "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
    defaultBounds,
  );
  readonly #workStart = new Histogram(
    "kubelet_pod_worker_start_duration_seconds",
    "Duration in seconds from kubelet seeing a pod to starting a worker.",
    defaultBounds,
  );
  readonly #start = new Histogram(
    "kubelet_pod_start_duration_seconds",
    "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
    startBounds,
  );
  readonly #startSli = new Histogram(
    "kubelet_pod_start_sli_duration_seconds",
    "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
    startBounds,
  );
  readonly #startTotal = new Histogram(
    "kubelet_pod_start_total_duration_seconds",
    "Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
    startBounds,
  );
  readonly #firstNetworkStart = new Values(
    "kubelet_first_network_pod_start_sli_duration_seconds",
    "gauge",
    "Duration in seconds to start the first network pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
  );
  readonly #statusSync = new Histogram(
    "kubelet_pod_status_sync_duration_seconds",
    "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is successfully updated for that pod, even if multiple intevening changes to pod status occur.",
    [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 20, 30, 45, 60],
  );
  readonly #containers = new Histogram(
    "kubelet_containers_per_pod_count",
    "The number of containers per pod.",
    exponentialBounds(1, 2, 5),
  );
  readonly #rejections = new Values(
    "kubelet_admission_rejections_total",
    "counter",
    "Cumulative number pod admission rejections by the Kubelet.",
  );
  readonly #preemptions = new Values(
    "kubelet_preemptions",
    "counter",
    "Cumulative number of pod preemptions by preemption resource",
  );
  readonly #evictions = new Values(
    "kubelet_evictions",
    "counter",
    "Cumulative number of pod evictions by eviction signal",
  );
  readonly #imageVolumesRequested = new Values(
    "kubelet_image_volume_requested_total",
    "counter",
    "Number of requested image volumes.",
  );
  readonly #imageVolumesMounted = new Values(
    "kubelet_image_volume_mounted_succeed_total",
    "counter",
    "Number of successful image volume mounts.",
  );
  readonly #imageVolumesFailed = new Values(
    "kubelet_image_volume_mounted_errors_total",
    "counter",
    "Number of failed image volume mounts.",
  );
  readonly #cgroups = new Histogram(
    "kubelet_cgroup_manager_duration_seconds",
    "Duration in seconds for cgroup manager operations. Broken down by method.",
    defaultBounds,
  );
  readonly #imagesCollected = new Values(
    "kubelet_image_garbage_collected_total",
    "counter",
    "Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
  );
  readonly #disks = new Histogram(
    "kubelet_volume_metric_collection_duration_seconds",
    "Duration in seconds to calculate volume stats",
    defaultBounds,
  );
  #startedNetworkPod = false;

  /** A pod came to this node. */
  added(containers: number): void {
    this.#containers.observe(containers);
  }

  /** Its first look begins. */
  workBegan(secondsSinceSeen: number): void {
    this.#workStart.observe(secondsSinceSeen);
  }

  /** One look at a pod is through. */
  worked(what: PodWork, seconds: number): void {
    this.#work.observe(seconds, { operation_type: what });
  }

  started({ hostNetwork, sinceCreated, sinceSeen, withoutPulls }: PodStart): void {
    this.#start.observe(sinceSeen);
    this.#startSli.observe(withoutPulls);
    this.#startTotal.observe(sinceCreated);
    if (hostNetwork || this.#startedNetworkPod) return;
    this.#startedNetworkPod = true;
    this.#firstNetworkStart.set(withoutPulls);
  }

  /** The server has taken a status. */
  statusWritten(seconds: number): void {
    this.#statusSync.observe(seconds);
  }

  rejected(reason: string): void {
    this.#rejections.add(1, { reason });
  }

  /** @param resource What there was too little of. */
  preempted(resource: string): void {
    this.#preemptions.add(1, { preemption_signal: resource });
  }

  /** @param signal What there was too little of, or which limit the pod has passed. */
  evicted(signal: string): void {
    this.#evictions.add(1, { eviction_signal: signal });
  }

  cgroupManaged(what: "create" | "destroy" | "update", seconds: number): void {
    this.#cgroups.observe(seconds, { operation_type: what });
  }

  imageCollected(why: "age" | "space"): void {
    this.#imagesCollected.add(1, { reason: why });
  }

  /** A container is shown an image, or should have been. */
  imageVolume(mounted: boolean): void {
    this.#imageVolumesRequested.add(1);
    (mounted ? this.#imageVolumesMounted : this.#imageVolumesFailed).add(1);
  }

  disksMeasured(seconds: number): void {
    this.#disks.observe(seconds, { metric_source: "du" });
  }

  metrics(): readonly Metric[] {
    return [
      this.#work,
      this.#workStart,
      this.#start,
      this.#startSli,
      this.#startTotal,
      this.#firstNetworkStart,
      this.#statusSync,
      this.#containers,
      this.#rejections,
      this.#preemptions,
      this.#evictions,
      this.#cgroups,
      this.#imagesCollected,
      this.#disks,
      this.#imageVolumesRequested,
      this.#imageVolumesMounted,
      this.#imageVolumesFailed,
    ];
  }
}

import { gateEnabled } from "./feature-gates.ts";
import type { Rule } from "./finding.ts";
import { formatGoDuration } from "./go-duration.ts";
import type { KubeletConfiguration } from "./kubelet-configuration.ts";

function quoted(words: readonly string[]): string {
  return words.map((word) => JSON.stringify(word)).join(" ");
}

/** Whether a number is not within its limits. */
export function outside(value: number, min: number, max: number): boolean {
  return value < min || value > max;
}

function ranges(c: KubeletConfiguration): Rule[] {
  return [
    [
      c.nodeLeaseDurationSeconds <= 0,
      "nodeLeaseDurationSeconds",
      "nodeLeaseDurationSeconds must be greater than 0",
    ],
    [
      c.eventBurst < 0,
      "eventBurst",
      `eventBurst (--event-burst) ${c.eventBurst} must not be a negative number`,
    ],
    [
      c.eventRecordQPS < 0,
      "eventRecordQPS",
      `eventRecordQPS (--event-qps) ${c.eventRecordQPS} must not be a negative number`,
    ],
    [
      outside(c.healthzPort, 0, 65_535),
      "healthzPort",
      `healthzPort (--healthz-port) ${c.healthzPort} must be between 1 and 65535, inclusive`,
    ],
    [
      outside(c.iptablesDropBit, 0, 31),
      "iptablesDropBit",
      `iptablesDropBit (--iptables-drop-bit) ${c.iptablesDropBit} must be between 0 and 31, inclusive`,
    ],
    [
      outside(c.iptablesMasqueradeBit, 0, 31),
      "iptablesMasqueradeBit",
      `iptablesMasqueradeBit (--iptables-masquerade-bit) ${c.iptablesMasqueradeBit} must be between 0 and 31, inclusive`,
    ],
    [
      c.kubeAPIBurst < 0,
      "kubeAPIBurst",
      `kubeAPIBurst (--kube-api-burst) ${c.kubeAPIBurst} must not be a negative number`,
    ],
    [
      c.kubeAPIQPS < 0,
      "kubeAPIQPS",
      `kubeAPIQPS (--kube-api-qps) ${c.kubeAPIQPS} must not be a negative number`,
    ],
    [
      c.nodeStatusMaxImages < -1,
      "nodeStatusMaxImages",
      `nodeStatusMaxImages (--node-status-max-images) ${c.nodeStatusMaxImages} must be -1 or greater`,
    ],
    [
      c.maxOpenFiles < 0,
      "maxOpenFiles",
      `maxOpenFiles (--max-open-files) ${c.maxOpenFiles} must not be a negative number`,
    ],
    [c.maxPods < 0, "maxPods", `maxPods (--max-pods) ${c.maxPods} must not be a negative number`],
    [
      outside(c.oomScoreAdj, -1000, 1000),
      "oomScoreAdj",
      `oomScoreAdj (--oom-score-adj) ${c.oomScoreAdj} must be between -1000 and 1000, inclusive`,
    ],
    [
      c.podsPerCore < 0,
      "podsPerCore",
      `podsPerCore (--pods-per-core) ${c.podsPerCore} must not be a negative number`,
    ],
    [
      outside(c.port, 1, 65_535),
      "port",
      `port (--port) ${c.port} must be between 1 and 65535, inclusive`,
    ],
    [
      outside(c.readOnlyPort, 0, 65_535),
      "readOnlyPort",
      `readOnlyPort (--read-only-port) ${c.readOnlyPort} must be between 0 and 65535, inclusive`,
    ],
    [
      outside(c.cpuCFSQuotaPeriod, 1, 1000),
      "cpuCFSQuotaPeriod",
      `cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {${formatGoDuration(c.cpuCFSQuotaPeriod)}} must be between 1ms and 1sec, inclusive`,
    ],
    [
      c.containerLogMaxWorkers < 1,
      "containerLogMaxWorkers",
      "containerLogMaxWorkers must be greater than or equal to 1",
    ],
    [
      c.containerLogMonitorInterval < 3000,
      "containerLogMonitorInterval",
      "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s",
    ],
    [
      c.containerLogMaxFiles <= 1,
      "containerLogMaxFiles",
      "containerLogMaxFiles must be greater than 1",
    ],
  ];
}

function images(c: KubeletConfiguration): Rule[] {
  const { imageGCHighThresholdPercent: high, imageGCLowThresholdPercent: low } = c;
  const {
    imageMinimumGCAge: least,
    imageMaximumGCAge: most,
    maxParallelImagePulls: parallel = 1,
  } = c;
  const allowlist = c.preloadedImagesVerificationAllowlist;
  const policy = c.imagePullCredentialsVerificationPolicy;
  return [
    [
      outside(high, 0, 100),
      "imageGCHighThresholdPercent",
      `imageGCHighThresholdPercent (--image-gc-high-threshold) ${high} must be between 0 and 100, inclusive`,
    ],
    [
      outside(low, 0, 100),
      "imageGCLowThresholdPercent",
      `imageGCLowThresholdPercent (--image-gc-low-threshold) ${low} must be between 0 and 100, inclusive`,
    ],
    [
      low >= high,
      "imageGCLowThresholdPercent",
      `imageGCLowThresholdPercent (--image-gc-low-threshold) ${low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) ${high}`,
    ],
    [
      least < 0,
      "imageMinimumGCAge",
      `imageMinimumGCAge ${formatGoDuration(least)} must not be negative`,
    ],
    [
      most < 0,
      "imageMaximumGCAge",
      `imageMaximumGCAge ${formatGoDuration(most)} must not be negative`,
    ],
    [
      most > 0 && most <= least,
      "imageMaximumGCAge",
      `imageMaximumGCAge ${formatGoDuration(most)} must be greater than imageMinimumGCAge ${formatGoDuration(least)}`,
    ],
    [
      c.registryBurst < 0,
      "registryBurst",
      `registryBurst (--registry-burst) ${c.registryBurst} must not be a negative number`,
    ],
    [
      c.registryPullQPS < 0,
      "registryPullQPS",
      `registryPullQPS (--registry-qps) ${c.registryPullQPS} must not be a negative number`,
    ],
    [
      parallel < 1,
      "maxParallelImagePulls",
      `maxParallelImagePulls ${parallel} must be a positive number`,
    ],
    [
      c.serializeImagePulls && parallel > 1,
      "maxParallelImagePulls",
      "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false",
    ],
    [
      allowlist.length > 0 && policy !== "NeverVerifyAllowlistedImages",
      "preloadedImagesVerificationAllowlist",
      'can\'t set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not "NeverVerifyAllowlistedImages"',
    ],
    ...allowlist.flatMap((pattern): Rule[] => {
      const wrong = patternProblem(pattern);
      const text = `invalid image pattern in \`preloadedImagesVerificationAllowlist\`: ${wrong ?? ""}`;
      return wrong === undefined ? [] : [[true, "preloadedImagesVerificationAllowlist", text]];
    }),
  ];
}

function patternProblem(pattern: string): string | undefined {
  if (pattern !== pattern.trim()) return `leading/trailing spaces are not allowed: ${pattern}`;
  const wildcard = pattern.endsWith("/*");
  const prefix = wildcard ? pattern.slice(0, -1) : pattern;
  if (prefix === "") return `the supplied pattern is too short: ${pattern}`;
  if (prefix.includes("*")) {
    return `not a valid wildcard pattern, only patterns ending with '/*' are allowed: ${pattern}`;
  }
  if (wildcard) return prefix.length === 1 ? "at least registry hostname is required" : undefined;
  const last = pattern.slice(pattern.lastIndexOf("/") + 1);
  return /[:@]/.test(last)
    ? `neither tag nor digest is accepted in an image reference: ${pattern}`
    : undefined;
}

const topologyPolicies = ["none", "best-effort", "restricted", "single-numa-node"];
const hairpinModes = ["none", "hairpin-veth", "promiscuous-bridge"];
const reservations = ["None", "TieredReservation"];

function words(c: KubeletConfiguration): Rule[] {
  const { swapBehavior } = c.memorySwap;
  const reservation = c.memoryReservationPolicy;
  return [
    [
      !topologyPolicies.includes(c.topologyManagerPolicy),
      "topologyManagerPolicy",
      `topologyManagerPolicy (--topology-manager-policy) ${JSON.stringify(c.topologyManagerPolicy)} must be one of: [${quoted(topologyPolicies)}]`,
    ],
    [
      !["container", "pod"].includes(c.topologyManagerScope),
      "topologyManagerScope",
      `topologyManagerScope (--topology-manager-scope) ${JSON.stringify(c.topologyManagerScope)} must be one of: "container", or "pod"`,
    ],
    [
      !hairpinModes.includes(c.hairpinMode),
      "hairpinMode",
      `option ${JSON.stringify(c.hairpinMode)} specified for hairpinMode (--hairpin-mode). Valid options are "none", "hairpin-veth" or "promiscuous-bridge"`,
    ],
    [
      !["", "NoSwap", "LimitedSwap"].includes(swapBehavior),
      "memorySwap.swapBehavior",
      `memorySwap.swapBehavior ${JSON.stringify(swapBehavior)} must be one of: "", "LimitedSwap" or "NoSwap"`,
    ],
    [
      !reservations.includes(reservation),
      "memoryReservationPolicy",
      `option ${JSON.stringify(reservation)} specified for memoryReservationPolicy. Valid options are "None" or "TieredReservation"`,
    ],
    [
      reservation === "TieredReservation" && !gateEnabled("MemoryQoS", c.featureGates),
      "memoryReservationPolicy",
      'memoryReservationPolicy "TieredReservation" requires MemoryQoS feature gate to be enabled',
    ],
    [
      !(c.memoryThrottlingFactor > 0 && c.memoryThrottlingFactor <= 1),
      "memoryThrottlingFactor",
      `memoryThrottlingFactor ${c.memoryThrottlingFactor} must be greater than 0 and less than or equal to 1.0`,
    ],
    [
      c.runOnce,
      "runOnce",
      `runOnce (--runOnce) ${c.runOnce}, Runonce mode has been deprecated and should not be set`,
    ],
    [
      !c.podLogsDir.startsWith("/"),
      "podLogsDir",
      `pod logs path ${JSON.stringify(c.podLogsDir)} must be absolute path`,
    ],
    [
      /\/\/|\/\.\.?(\/|$)|.\/$/.test(c.podLogsDir),
      "podLogsDir",
      `pod logs path ${JSON.stringify(c.podLogsDir)} must be normalized`,
    ],
    // The text is upstream's.
    [
      /\P{ASCII}/u.test(c.podLogsDir),
      "podLogsDir",
      `pod logs path ${JSON.stringify(c.podLogsDir)} mut contains ASCII characters only`,
    ],
  ];
}

/** Upstream's rules about single values, and about the settings of images. */
export function kubeletValues(c: KubeletConfiguration): readonly Rule[] {
  return [...ranges(c), ...images(c), ...words(c)];
}

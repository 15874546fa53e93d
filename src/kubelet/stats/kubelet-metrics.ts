import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { type Metric, renderMetrics, Values } from "../../lib/metrics-text.ts";
import type { RuntimeInfo } from "../../runtime/types.ts";
import type { NodeHeartbeat } from "../node/node.ts";
import { isStatic } from "../pods/preemption.ts";
import { isTerminalPhase } from "../spec/containers.ts";
import type { AssignedPod, NodeView } from "../types.ts";
import { type ClaimFigures, claimMetrics } from "./claim-metrics.ts";
import { ClientMetrics } from "./client-metrics.ts";
import { HttpMetrics } from "./http-metrics.ts";
import type { KernelFiles } from "./kernel-files.ts";
import { Page } from "./page.ts";
import type { PodInventory } from "./pod-inventory.ts";
import { PodMetrics } from "./pod-metrics.ts";
import { ProbeMetrics } from "./probe-metrics.ts";
import { addProcess, addProcessStart } from "./process-metrics.ts";
import { RuntimeMetrics } from "./runtime-metrics.ts";

/** What `/metrics` reads besides the recorders. */
export interface KubeletMetricsSources {
  readonly config: Pick<AgentConfig, "nodeName">;
  readonly inventory: PodInventory;
  readonly pods: () => readonly AssignedPod[];
  readonly node: Pick<NodeView, "node">;
  readonly runtimeInfo: () => Pick<RuntimeInfo, "cgroupVersion">;
  readonly heartbeat: () => NodeHeartbeat;
  readonly files: KernelFiles;
  /** Default: no claims. */
  readonly claims?: () => readonly ClaimFigures[];
  readonly clock: Pick<Clock, "now">;
}

/** The recorders of the node half, each handed to whoever has something to record. */
export class KubeletMetrics {
  readonly runtime = new RuntimeMetrics();
  readonly pods = new PodMetrics();
  readonly probes = new ProbeMetrics();
  readonly http = new HttpMetrics();
  readonly client = new ClientMetrics();

  /** `/metrics`. @param sources Everything that is read at the time. */
  text(sources: KubeletMetricsSources): string {
    const page = new Page();
    addProcess(page, sources.files);
    addBuild(page, sources.node);
    return `${page.text()}${renderMetrics([
      ...counts(sources),
      ...this.pods.metrics(),
      ...this.runtime.metrics(sources.inventory.records()),
      ...this.http.metrics(),
      ...this.client.metrics(),
      ...claimMetrics(sources.claims?.() ?? []),
    ])}`;
  }

  /** What every program says of itself: the Service proxy's page is of the same process, and has a client of its own. */
  programText(
    { files, node }: Pick<KubeletMetricsSources, "files" | "node">,
    client: ClientMetrics,
  ): string {
    const page = new Page();
    addProcess(page, files);
    addBuild(page, node);
    return `${page.text()}${renderMetrics(client.metrics())}`;
  }

  /** `/metrics/probes`. */
  probesText(files: KernelFiles): string {
    const page = new Page();
    addProcessStart(page, files);
    return `${page.text()}${renderMetrics(this.probes.metrics())}`;
  }
}

/** Names that Go programs say about their build; empty where this one has none. */
function addBuild(page: Page, node: KubeletMetricsSources["node"]): void {
  const info = node.node()?.status?.nodeInfo;
  const version = info?.kubeletVersion ?? "";
  const [, major = "", minor = ""] = /^v(\d+)\.(\d+)/.exec(version) ?? [];
  page.single(
    "kubernetes_build_info",
    "gauge",
    "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
    1,
    {
      build_date: "",
      compiler: "",
      git_commit: "",
      git_tree_state: "",
      git_version: version,
      go_version: "",
      major,
      minor,
      platform: `linux/${info?.architecture ?? ""}`,
    },
  );
}

function gauge(name: string, help: string): Values {
  return new Values(name, "gauge", help);
}

function counts({
  config,
  heartbeat,
  node,
  pods,
  runtimeInfo,
}: KubeletMetricsSources): readonly Metric[] {
  const all = pods();
  const nodeName = gauge("kubelet_node_name", "The node's name. The count is always 1.");
  nodeName.set(1, { node: config.nodeName });
  const desired = gauge(
    "kubelet_desired_pods",
    "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
  );
  const active = gauge(
    "kubelet_active_pods",
    "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.",
  );
  for (const fixed of [false, true]) {
    const some = all.filter((pod) => isStatic(pod) === fixed);
    const labels = { static: fixed ? "true" : "" };
    desired.set(some.length, labels);
    active.set(some.filter(({ status }) => !isTerminalPhase(status?.phase)).length, labels);
  }
  const mirrors = gauge(
    "kubelet_mirror_pods",
    "The number of mirror pods the kubelet will try to create (one per admitted static pod)",
  );
  mirrors.set(
    all.filter((pod) => pod.metadata.annotations?.["kubernetes.io/config.mirror"] !== undefined)
      .length,
  );
  const ephemeral = gauge(
    "kubelet_managed_ephemeral_containers",
    "Current number of ephemeral containers in pods managed by this kubelet.",
  );
  ephemeral.set(all.reduce((sum, pod) => sum + (pod.spec?.ephemeralContainers ?? []).length, 0));
  const cgroups = gauge("kubelet_cgroup_version", "cgroup version on the hosts.");
  cgroups.set(runtimeInfo().cgroupVersion);
  const lease = gauge(
    "remora_lease_age_seconds",
    "Seconds since the API server has confirmed the node's lease.",
  );
  const { leaseAgeSeconds, leaseRenewals } = heartbeat();
  if (leaseAgeSeconds !== undefined) lease.set(leaseAgeSeconds);
  const renewals = new Values(
    "remora_lease_renewals_total",
    "counter",
    "Renewals of the node's lease that the API server has confirmed.",
  );
  renewals.set(leaseRenewals);
  const registered = gauge(
    "remora_node_registered",
    "1 once the node's own object has been seen, else 0.",
  );
  registered.set(node.node() === undefined ? 0 : 1);
  return [nodeName, desired, active, mirrors, ephemeral, cgroups, lease, renewals, registered];
}

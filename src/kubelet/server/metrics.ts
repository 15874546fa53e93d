import type { AgentConfig } from "../../config/types.ts";
import type { NodeView, PodView } from "../types.ts";

/** A label value in the text exposition format. */
export function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

export interface MetricsDeps {
  readonly config: Pick<AgentConfig, "nodeName">;
  readonly node: NodeView;
  readonly pods: PodView;
  readonly metrics?: () => string;
}

/** Prometheus text exposition 0.0.4: the figures the node half knows, then whatever others add. */
export function renderMetrics({ config, node, pods, metrics }: MetricsDeps): string {
  const all = pods.pods();
  const running = all.filter((pod) => pod.status?.phase === "Running");
  const name = escapeLabel(config.nodeName);
  const version = escapeLabel(node.node()?.status?.nodeInfo?.kubeletVersion ?? "");
  return [
    "# HELP kubelet_node_name The node's name. The count is always 1.",
    "# TYPE kubelet_node_name gauge",
    `kubelet_node_name{node="${name}"} 1`,
    "# HELP kubelet_desired_pods The number of pods this node has been given, finished ones included.",
    "# TYPE kubelet_desired_pods gauge",
    `kubelet_desired_pods ${all.length}`,
    "# HELP kubelet_running_pods Number of pods that have a running pod sandbox",
    "# TYPE kubelet_running_pods gauge",
    `kubelet_running_pods ${running.length}`,
    "# HELP kubernetes_build_info Build information of this agent.",
    "# TYPE kubernetes_build_info gauge",
    `kubernetes_build_info{git_version="${version}",platform="linux"} 1`,
    "",
  ]
    .join("\n")
    .concat(metrics?.() ?? "");
}

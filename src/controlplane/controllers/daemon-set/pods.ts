import type { Affinity, NodeSelectorTerm, PodSpec, Toleration } from "../../../api/types.gen.ts";
import type { PodTemplateSpec } from "../../../api/types.gen.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodTerminal, isTerminating, timeMs } from "../shared/pod-state.ts";
import type { DaemonSetView } from "./view.ts";

/** Which ControllerRevision a pod is of. */
export const revisionLabel = "controller-revision-hash";
const generationLabel = "pod-template-generation";
const nodeNameField = "metadata.name";

/** A node in trouble keeps its daemons: nothing else could repair it. */
const daemonTolerations: readonly (readonly [string, Toleration["effect"]])[] = [
  ["node.kubernetes.io/not-ready", "NoExecute"],
  ["node.kubernetes.io/unreachable", "NoExecute"],
  ["node.kubernetes.io/disk-pressure", "NoSchedule"],
  ["node.kubernetes.io/memory-pressure", "NoSchedule"],
  ["node.kubernetes.io/pid-pressure", "NoSchedule"],
  ["node.kubernetes.io/unschedulable", "NoSchedule"],
];

/** The tolerations of a daemon's pod: its template's and those that every daemon has. */
export function tolerationsOf(spec: PodSpec | undefined): Toleration[] {
  const tolerations = [...(spec?.tolerations ?? [])];
  const own =
    spec?.hostNetwork === true
      ? [...daemonTolerations, ["node.kubernetes.io/network-unavailable", "NoSchedule"] as const]
      : daemonTolerations;
  for (const [key, effect] of own) {
    const toleration: Toleration = { key, operator: "Exists", effect };
    const same = tolerations.findIndex(
      (each) =>
        each.key === key &&
        each.effect === effect &&
        each.operator === "Exists" &&
        (each.value ?? "") === "",
    );
    if (same < 0) tolerations.push(toleration);
    else tolerations[same] = toleration;
  }
  return tolerations;
}

/** The affinity with the node as its only choice; the scheduler then binds the pod there or nowhere. */
function affinityTo(affinity: Affinity | undefined, node: string): Affinity {
  const term: NodeSelectorTerm = {
    matchFields: [{ key: nodeNameField, operator: "In", values: [node] }],
  };
  return {
    ...affinity,
    nodeAffinity: {
      ...affinity?.nodeAffinity,
      requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [term] },
    },
  };
}

/** The template of the pod for one node. */
export function templateFor(view: DaemonSetView, hash: string, node: string): PodTemplateSpec {
  const { metadata, spec } = view.template;
  const generation =
    view.templateGeneration === undefined ? {} : { [generationLabel]: view.templateGeneration };
  return {
    metadata: {
      ...metadata,
      labels: { ...metadata?.labels, ...generation, [revisionLabel]: hash },
    },
    spec: {
      ...spec,
      containers: spec?.containers ?? [],
      tolerations: tolerationsOf(spec),
      affinity: affinityTo(spec?.affinity, node),
    },
  };
}

/** The node a pod is on, or is meant for while it waits for the scheduler. */
export function targetNode(pod: StoredPod): string | undefined {
  const { nodeName, affinity } = pod.spec ?? {};
  if (nodeName !== undefined && nodeName !== "") return nodeName;
  const terms =
    affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? [];
  for (const { matchFields = [] } of terms) {
    for (const { key, operator, values = [] } of matchFields) {
      if (key === nodeNameField && operator === "In")
        return values.length === 1 ? values[0] : undefined;
    }
  }
  return undefined;
}

/** Whether the pod is of the current template. */
export function isUpdated(view: DaemonSetView, pod: StoredPod, hash: string): boolean {
  const { labels } = pod.metadata;
  if (labels?.[revisionLabel] === hash) return true;
  return (
    view.templateGeneration !== undefined && labels?.[generationLabel] === view.templateGeneration
  );
}

/** Bound pods first, then the oldest. */
export function compareAge(left: StoredPod, right: StoredPod): number {
  const bound = (pod: StoredPod): number => ((pod.spec?.nodeName ?? "") === "" ? 1 : 0);
  const created = (pod: StoredPod): number => timeMs(pod.metadata.creationTimestamp) ?? 0;
  return (
    bound(left) - bound(right) ||
    created(left) - created(right) ||
    (left.metadata.name < right.metadata.name ? -1 : 1)
  );
}

/** Pods by the node they are on or meant for. What has ended and is being deleted counts no more. */
export function podsByNode(pods: readonly StoredPod[]): ReadonlyMap<string, readonly StoredPod[]> {
  const byNode = new Map<string, StoredPod[]>();
  for (const pod of pods) {
    if (isPodTerminal(pod) && isTerminating(pod)) continue;
    const node = targetNode(pod);
    if (node !== undefined) byNode.set(node, [...(byNode.get(node) ?? []), pod]);
  }
  return byNode;
}

import { matchesNodeAffinity } from "../../../api/selectors.ts";
import { tolerates, untoleratedTaint } from "../../../api/tolerations.ts";
import type { Taint } from "../../../api/types.gen.ts";
import type { HostPort } from "../pod-info.ts";
import type { FilterPlugin } from "./plugin.ts";
import { objection } from "./plugin.ts";

const unschedulableTaint: Taint = {
  key: "node.kubernetes.io/unschedulable",
  effect: "NoSchedule",
};

/** Cordoned nodes take only pods that tolerate it. */
export const nodeUnschedulable: FilterPlugin = {
  name: "NodeUnschedulable",
  helpedBy: ["node-taints"],
  prepare: ({ pod }) => {
    const tolerations = pod.spec?.tolerations ?? [];
    if (tolerations.some((each) => tolerates(each, unschedulableTaint))) return undefined;
    const refusal = objection("node(s) were unschedulable", true);
    return { check: ({ node }) => (node.spec?.unschedulable === true ? refusal : undefined) };
  },
};

/** A node that the pod names itself. */
export const nodeName: FilterPlugin = {
  name: "NodeName",
  helpedBy: [],
  prepare: ({ pod }) => {
    const wanted = pod.spec?.nodeName ?? "";
    if (wanted === "") return undefined;
    const refusal = objection("node(s) didn't match the requested node name", true);
    return { check: ({ name }) => (name === wanted ? undefined : refusal) };
  },
};

export const taintToleration: FilterPlugin = {
  name: "TaintToleration",
  helpedBy: ["node-taints"],
  prepare: ({ pod }) => {
    const tolerations = pod.spec?.tolerations ?? [];
    const refusal = objection("node(s) had untolerated taint(s)", true);
    return {
      check: ({ node }) => {
        const { taints = [] } = node.spec ?? {};
        const untolerated = untoleratedTaint(taints, tolerations, ["NoSchedule", "NoExecute"]);
        return untolerated === undefined ? undefined : refusal;
      },
    };
  },
};

/** The names in a term's `matchFields` that all its requirements allow; undefined when it has none. */
function namedNodes(
  fields: readonly { key: string; operator: string; values?: readonly string[] | undefined }[],
): ReadonlySet<string> | undefined {
  return fields
    .filter(({ key, operator }) => key === "metadata.name" && operator === "In")
    .map(({ values = [] }) => new Set(values))
    .reduce<ReadonlySet<string> | undefined>(
      (names, values) => (names === undefined ? values : values.intersection(names)),
      undefined,
    );
}

/** nodeSelector and the required part of node affinity. */
export const nodeAffinity: FilterPlugin = {
  name: "NodeAffinity",
  helpedBy: ["node-labels"],
  rejects: (pod) =>
    nodeAffinity.restricts?.(pod)?.size === 0 ? "pod affinity terms conflict" : undefined,
  restricts: ({ pod }) => {
    const terms =
      pod.spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution
        ?.nodeSelectorTerms ?? [];
    if (terms.length === 0) return undefined;
    let names: ReadonlySet<string> = new Set<string>();
    for (const { matchFields = [] } of terms) {
      const named = namedNodes(matchFields);
      // Terms are alternatives: one that names no node allows all.
      if (named === undefined) return undefined;
      names = named.union(names);
    }
    return names;
  },
  prepare: ({ pod }) => {
    const { affinity, nodeSelector } = pod.spec ?? {};
    const required = affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
    if (required === undefined && nodeSelector === undefined) return undefined;
    const refusal = objection("node(s) didn't match Pod's node affinity/selector", true);
    return {
      check: ({ node }) => (matchesNodeAffinity(pod, node.metadata) ? undefined : refusal),
    };
  },
};

function collide(left: HostPort, right: HostPort): boolean {
  if (left.port !== right.port || left.protocol !== right.protocol) return false;
  return left.ip === right.ip || left.ip === "0.0.0.0" || right.ip === "0.0.0.0";
}

export const nodePorts: FilterPlugin = {
  name: "NodePorts",
  helpedBy: ["pod-left"],
  prepare: ({ hostPorts: wanted }) => {
    if (wanted.length === 0) return undefined;
    const refusal = objection("node(s) didn't have free ports for the requested pod ports", false);
    return {
      check: ({ pods }) => {
        const taken = pods.some(({ hostPorts }) =>
          hostPorts.some((used) => wanted.some((port) => collide(port, used))),
        );
        return taken ? refusal : undefined;
      },
    };
  },
};

/** Room for what the pod asks for: cpu, memory, ephemeral storage, extended resources, and one more pod. */
export const nodeResourcesFit: FilterPlugin = {
  name: "NodeResourcesFit",
  helpedBy: ["node-allocatable", "pod-left", "pod-shrunk"],
  prepare: ({ requests }) => ({
    check: ({ pods, allocatable, requested }) => {
      const reasons: string[] = [];
      let final = false;
      if (pods.length + 1 > (allocatable.get("pods") ?? 0)) reasons.push("Too many pods");
      for (const [name, value] of requests) {
        const capacity = allocatable.get(name) ?? 0;
        if (value <= 0 || value <= capacity - (requested.get(name) ?? 0)) continue;
        reasons.push(`Insufficient ${name}`);
        // Not even the empty node has that much.
        final ||= value > capacity;
      }
      return reasons.length === 0 ? undefined : { reasons, final };
    },
  }),
};

/** Dynamic resource allocation: this server does not serve its kinds, so none of its claims can ever be found. */
export const dynamicResources: FilterPlugin = {
  name: "DynamicResources",
  helpedBy: [],
  rejects: ({ pod }) => {
    const [claim] = pod.spec?.resourceClaims ?? [];
    if (claim === undefined) return undefined;
    return `resourceclaim "${claim.resourceClaimName ?? claim.resourceClaimTemplateName ?? claim.name}" not found`;
  },
  prepare: () => undefined,
};

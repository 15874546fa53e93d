import type { PodAffinityTerm, TopologySpreadConstraint } from "../../../api/types.gen.ts";
import { matchesNodeAffinity, matchesSelector } from "../../../api/selectors.ts";
import { untoleratedTaint } from "../../../api/tolerations.ts";
import type { StoredPod } from "../../controllers/shared/pod-state.ts";
import { isTerminating } from "../../controllers/shared/pod-state.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";
import type { FilterPlugin } from "./plugin.ts";

function domain(info: NodeInfo, topologyKey: string): string | undefined {
  return info.node.metadata.labels?.[topologyKey];
}

/** Whether `term` of `owner` speaks about `pod`. */
function termSelects(
  term: PodAffinityTerm,
  owner: StoredPod,
  pod: StoredPod,
  snapshot: Snapshot,
): boolean {
  const namespace = pod.metadata.namespace ?? "";
  const listed = term.namespaces ?? [];
  const own = listed.length === 0 && term.namespaceSelector === undefined;
  const inNamespace = own
    ? namespace === owner.metadata.namespace
    : listed.includes(namespace) ||
      matchesSelector(term.namespaceSelector, snapshot.namespaceLabels(namespace));
  return inNamespace && matchesSelector(term.labelSelector, pod.metadata.labels);
}

/** The values of `topologyKey` where a pod on the node makes `applies` true. */
function domainsWhere(
  snapshot: Snapshot,
  topologyKey: string,
  applies: (pod: StoredPod) => boolean,
): ReadonlySet<string> {
  const domains = new Set<string>();
  for (const info of snapshot.nodes) {
    const value = domain(info, topologyKey);
    if (value !== undefined && !domains.has(value) && info.pods.some((pod) => applies(pod)))
      domains.add(value);
  }
  return domains;
}

function required(
  pod: StoredPod,
  kind: "podAffinity" | "podAntiAffinity",
): readonly PodAffinityTerm[] {
  return pod.spec?.affinity?.[kind]?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
}

/** Required pod affinity and anti-affinity, of the new pod and of those already there. */
export const interPodAffinity: FilterPlugin = {
  name: "InterPodAffinity",
  prepare: (pod, snapshot) => {
    const attract = required(pod, "podAffinity").map((term) => ({
      key: term.topologyKey,
      domains: domainsWhere(snapshot, term.topologyKey, (each) =>
        termSelects(term, pod, each, snapshot),
      ),
      self: termSelects(term, pod, pod, snapshot),
    }));
    const repel = required(pod, "podAntiAffinity").map((term) => ({
      key: term.topologyKey,
      domains: domainsWhere(snapshot, term.topologyKey, (each) =>
        termSelects(term, pod, each, snapshot),
      ),
    }));
    const closed = closedDomains(pod, snapshot);
    // The first pod of a group that wants to be with itself has nobody to join yet.
    const first = attract.every(({ domains, self }) => domains.size === 0 && self);
    return (info) => {
      const inside = (key: string, domains: ReadonlySet<string>): boolean => {
        const value = domain(info, key);
        return value !== undefined && domains.has(value);
      };
      if (closed.some(([key, value]) => domain(info, key) === value))
        return ["node(s) didn't satisfy existing pods anti-affinity rules"];
      if (repel.some(({ key, domains }) => inside(key, domains)))
        return ["node(s) didn't match pod anti-affinity rules"];
      const joins = attract.every(
        ({ key, domains }) => inside(key, domains) || (first && domain(info, key) !== undefined),
      );
      return joins ? [] : ["node(s) didn't match pod affinity rules"];
    };
  },
};

/** Domains that pods already there keep closed to `pod`. */
function closedDomains(pod: StoredPod, snapshot: Snapshot): readonly (readonly [string, string])[] {
  return snapshot.nodes.flatMap((info) =>
    info.pods.flatMap((other) =>
      required(other, "podAntiAffinity").flatMap((term) => {
        const value = domain(info, term.topologyKey);
        if (value === undefined || !termSelects(term, other, pod, snapshot)) return [];
        return [[term.topologyKey, value] as const];
      }),
    ),
  );
}

const spreadReason = "node(s) didn't match pod topology spread constraints";

/** Whether a node's domain counts for the constraint. */
function eligible(pod: StoredPod, constraint: TopologySpreadConstraint, info: NodeInfo): boolean {
  if (domain(info, constraint.topologyKey) === undefined) return false;
  if (constraint.nodeAffinityPolicy !== "Ignore" && !matchesNodeAffinity(pod, info.node.metadata))
    return false;
  return (
    constraint.nodeTaintsPolicy !== "Honor" ||
    untoleratedTaint(info.node.spec?.taints ?? [], pod.spec?.tolerations ?? [], [
      "NoSchedule",
      "NoExecute",
    ]) === undefined
  );
}

function counts(pod: StoredPod, constraint: TopologySpreadConstraint, other: StoredPod): boolean {
  if (other.metadata.namespace !== pod.metadata.namespace || isTerminating(other)) return false;
  if (!matchesSelector(constraint.labelSelector, other.metadata.labels)) return false;
  return (constraint.matchLabelKeys ?? []).every((key) => {
    const value = pod.metadata.labels?.[key];
    return value === undefined || other.metadata.labels?.[key] === value;
  });
}

/** topologySpreadConstraints with whenUnsatisfiable DoNotSchedule. */
export const podTopologySpread: FilterPlugin = {
  name: "PodTopologySpread",
  prepare: (pod, snapshot) => {
    const constraints = (pod.spec?.topologySpreadConstraints ?? [])
      .filter(({ whenUnsatisfiable }) => whenUnsatisfiable === "DoNotSchedule")
      .map((constraint) => {
        const perDomain = new Map<string, number>();
        for (const info of snapshot.nodes) {
          if (!eligible(pod, constraint, info)) continue;
          const value = domain(info, constraint.topologyKey) ?? "";
          const here = info.pods.filter((other) => counts(pod, constraint, other)).length;
          perDomain.set(value, (perDomain.get(value) ?? 0) + here);
        }
        // With fewer domains than asked for, the missing ones count as empty.
        const least =
          perDomain.size < (constraint.minDomains ?? 1) ? 0 : Math.min(...perDomain.values());
        const self = counts(pod, constraint, pod) ? 1 : 0;
        return { constraint, perDomain, least, self };
      });
    return (info) => {
      for (const { constraint, perDomain, least, self } of constraints) {
        const value = domain(info, constraint.topologyKey);
        if (value === undefined) return [`${spreadReason} (missing required label)`];
        if ((perDomain.get(value) ?? 0) + self - least > constraint.maxSkew) return [spreadReason];
      }
      return [];
    };
  },
};

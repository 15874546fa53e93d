import { podRequests } from "../../api/pod-requests.ts";
import type { Amounts } from "../../api/pod-requests.ts";
import type { Container, PodAffinityTerm } from "../../api/types.gen.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";
import type { LabelMatcher, Labels } from "./label-matcher.ts";
import { labelMatcher, sameValues } from "./label-matcher.ts";

export interface HostPort {
  readonly ip: string;
  readonly protocol: string;
  readonly port: number;
}

/** One term of pod affinity or anti-affinity, made ready for many matches. */
export interface AffinityTerm {
  readonly topologyKey: string;
  /** 1 to 100 for preferred terms, 0 for required ones. */
  readonly weight: number;
  readonly namespaces: readonly string[];
  readonly namespaceSelector: LabelMatcher | undefined;
  readonly selector: LabelMatcher;
}

/** A claim that a pod names. */
export interface PodClaim {
  readonly name: string;
  /** Made for the pod's own generic ephemeral volume. */
  readonly isEphemeral: boolean;
}

/** What counts of cpu (millicores) and memory (bytes) when nodes are compared. */
export interface ScoringRequest {
  readonly cpu: number;
  readonly memory: number;
}

/** A pod with what the scheduling rules read of it, worked out once. */
export interface PodInfo {
  readonly pod: StoredPod;
  readonly uid: string;
  readonly namespace: string;
  readonly priority: number;
  readonly requests: Amounts;
  readonly scoring: ScoringRequest;
  readonly hostPorts: readonly HostPort[];
  readonly claims: readonly PodClaim[];
  readonly affinity: {
    readonly required: readonly AffinityTerm[];
    readonly preferred: readonly AffinityTerm[];
  };
  readonly antiAffinity: {
    readonly required: readonly AffinityTerm[];
    readonly preferred: readonly AffinityTerm[];
  };
}

/** What a container that asks for nothing is counted with, so that such pods spread too. */
const assumedRequests = { cpu: "100m", memory: String(200 * 1024 * 1024) };

function withAssumedRequests(container: Container): Container {
  const { limits, requests } = container.resources ?? {};
  return { ...container, resources: { requests: { ...assumedRequests, ...limits, ...requests } } };
}

function scoringRequest(pod: StoredPod): ScoringRequest {
  const { spec } = pod;
  if (spec === undefined) return { cpu: 0, memory: 0 };
  const filled = podRequests({
    spec: {
      ...spec,
      containers: spec.containers.map((each) => withAssumedRequests(each)),
      initContainers: (spec.initContainers ?? []).map((each) => withAssumedRequests(each)),
    },
  });
  return { cpu: filled.get("cpu") ?? 0, memory: filled.get("memory") ?? 0 };
}

function hostPorts(pod: StoredPod): readonly HostPort[] {
  const containers = [
    ...(pod.spec?.containers ?? []),
    ...(pod.spec?.initContainers ?? []).filter((each) => each.restartPolicy === "Always"),
  ];
  return containers
    .flatMap((container) => container.ports ?? [])
    .filter((port) => (port.hostPort ?? 0) > 0)
    .map((port) => ({
      ip: port.hostIP === undefined || port.hostIP === "" ? "0.0.0.0" : port.hostIP,
      protocol: port.protocol ?? "TCP",
      port: port.hostPort ?? 0,
    }));
}

const noClaims: readonly PodClaim[] = [];

function podClaims({ metadata, spec }: StoredPod): readonly PodClaim[] {
  let claims = noClaims;
  for (const { name, persistentVolumeClaim, ephemeral } of spec?.volumes ?? []) {
    if (persistentVolumeClaim !== undefined)
      claims = [...claims, { name: persistentVolumeClaim.claimName, isEphemeral: false }];
    else if (ephemeral !== undefined)
      claims = [...claims, { name: `${metadata.name}-${name}`, isEphemeral: true }];
  }
  return claims;
}

function affinityTerm(pod: StoredPod, term: PodAffinityTerm, weight: number): AffinityTerm {
  const { labels, namespace = "" } = pod.metadata;
  const listed = term.namespaces ?? [];
  const own = listed.length === 0 && term.namespaceSelector === undefined;
  return {
    topologyKey: term.topologyKey,
    weight,
    namespaces: own ? [namespace] : listed,
    namespaceSelector:
      term.namespaceSelector === undefined ? undefined : labelMatcher(term.namespaceSelector),
    selector: labelMatcher(term.labelSelector, [
      ...sameValues(term.matchLabelKeys, labels, "In"),
      ...sameValues(term.mismatchLabelKeys, labels, "NotIn"),
    ]),
  };
}

function affinityTerms(
  pod: StoredPod,
  kind: "podAffinity" | "podAntiAffinity",
): PodInfo["affinity"] {
  const rules = pod.spec?.affinity?.[kind];
  const required = rules?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  const preferred = rules?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
  return {
    required: required.map((term) => affinityTerm(pod, term, 0)),
    preferred: preferred.map((each) => affinityTerm(pod, each.podAffinityTerm, each.weight)),
  };
}

export function podInfo(pod: StoredPod): PodInfo {
  return {
    pod,
    uid: pod.metadata.uid,
    namespace: pod.metadata.namespace ?? "",
    priority: pod.spec?.priority ?? 0,
    requests: podRequests(pod),
    scoring: scoringRequest(pod),
    hostPorts: hostPorts(pod),
    claims: podClaims(pod),
    affinity: affinityTerms(pod, "podAffinity"),
    antiAffinity: affinityTerms(pod, "podAntiAffinity"),
  };
}

/** Whether the term speaks about `pod`. `namespaceLabels` gives the labels of a namespace. */
export function termSelects(
  term: AffinityTerm,
  pod: PodInfo,
  namespaceLabels: (name: string) => Labels,
): boolean {
  const { namespace } = pod;
  return (
    (term.namespaces.includes(namespace) ||
      term.namespaceSelector?.matches(namespaceLabels(namespace)) === true) &&
    term.selector.matches(pod.pod.metadata.labels)
  );
}

import { podRequests } from "../../api/pod-requests.ts";
import { qosClass } from "../spec/resources.ts";
import type { AssignedPod } from "../types.ts";
import type { Shortage } from "./admission.ts";

/** SystemCriticalPriority: `system-cluster-critical` and above. */
const criticalPriority = 2_000_000_000;

/** Not from the API server but from this machine. */
export function isStatic({ metadata: { annotations } }: AssignedPod): boolean {
  const source = annotations?.["kubernetes.io/config.source"];
  return source !== undefined && source !== "api";
}

/** Whether the node makes room for the pod, and never takes it away for another. */
export function isCritical(pod: AssignedPod): boolean {
  return (
    isStatic(pod) ||
    pod.metadata.annotations?.["kubernetes.io/config.mirror"] !== undefined ||
    (pod.spec?.priority ?? 0) >= criticalPriority
  );
}

function isPreemptable(preemptor: AssignedPod, pod: AssignedPod): boolean {
  if (isCritical(preemptor) && !isCritical(pod)) return true;
  const [mine, its] = [preemptor.spec?.priority, pod.spec?.priority];
  return mine !== undefined && its !== undefined && mine > its;
}

/** Pods have one resource that no container asks for: their number. */
export function requestsOf(pod: AssignedPod): ReadonlyMap<string, number> {
  return new Map([["pods", 1], ...podRequests(pod)]);
}

interface Candidate {
  readonly pod: AssignedPod;
  readonly requests: ReadonlyMap<string, number>;
}

function remaining(
  shortages: readonly Shortage[],
  given: readonly Candidate[],
): readonly Shortage[] {
  return shortages.flatMap(({ amount, resource }) => {
    const left = given.reduce((sum, { requests }) => sum - (requests.get(resource) ?? 0), amount);
    return left > 0 ? [{ resource, amount: left }] : [];
  });
}

/** How far the pod alone is from what is missing; each resource weighs the same, whatever its unit. */
function distance(shortages: readonly Shortage[], { requests }: Candidate): number {
  return shortages.reduce((sum, { amount, resource }) => {
    const left = Math.max(amount - (requests.get(resource) ?? 0), 0);
    return sum + (left / amount) ** 2;
  }, 0);
}

function asksLess(a: Candidate, b: Candidate): boolean {
  for (const resource of ["memory", "cpu"]) {
    const difference = (a.requests.get(resource) ?? 0) - (b.requests.get(resource) ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return true;
}

/** Few pods rather than many: each time the one that comes closest to what is still missing. */
function closest(candidates: readonly Candidate[], shortages: readonly Shortage[]): Candidate[] {
  const left = [...candidates];
  const chosen: Candidate[] = [];
  let missing = shortages;
  while (missing.length > 0 && left.length > 0) {
    const needed = missing;
    const best = left.reduce((winner, candidate) => {
      const difference = distance(needed, candidate) - distance(needed, winner);
      return difference < 0 || (difference === 0 && asksLess(candidate, winner))
        ? candidate
        : winner;
    });
    chosen.push(best);
    left.splice(left.indexOf(best), 1);
    missing = remaining(missing, [best]);
  }
  return chosen;
}

/** Who has to go, or what no set of pods could give. */
export type Preemption =
  | { readonly kind: "victims"; readonly pods: readonly AssignedPod[] }
  | { readonly kind: "impossible"; readonly message: string };

/**
 * The pods that cost least among those whose requests together make up for what is missing: guaranteed pods only as far
 * as all others do not suffice, then burstable, then best effort. Pure.
 */
export function choosePreempted(
  preemptor: AssignedPod,
  running: readonly AssignedPod[],
  shortages: readonly Shortage[],
): Preemption {
  const candidates = running
    .filter((pod) => isPreemptable(preemptor, pod))
    .map((pod) => ({ pod, requests: requestsOf(pod), qos: qosClass(pod) }));
  const unmet = remaining(shortages, candidates);
  if (unmet.length > 0) {
    const list = unmet.map(({ amount, resource }) => `(res: ${resource}, q: ${amount}), `).join("");
    const message = `preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [${list}]`;
    return { kind: "impossible", message };
  }
  const of = (qos: string): Candidate[] => candidates.filter((candidate) => candidate.qos === qos);
  const [bestEffort, burstable] = [of("BestEffort"), of("Burstable")];
  const guaranteed = closest(of("Guaranteed"), remaining(shortages, [...bestEffort, ...burstable]));
  const fromBurstable = closest(burstable, remaining(shortages, [...bestEffort, ...guaranteed]));
  const fromBestEffort = closest(
    bestEffort,
    remaining(shortages, [...fromBurstable, ...guaranteed]),
  );
  const chosen = [...fromBestEffort, ...fromBurstable, ...guaranteed];
  return { kind: "victims", pods: chosen.map(({ pod }) => pod) };
}

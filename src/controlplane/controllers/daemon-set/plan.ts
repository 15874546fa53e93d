import type { Stored } from "../../../api/object.ts";
import type { Node } from "../../../api/types.gen.ts";
import type { StoredPod } from "../shared/pod-state.ts";
import { isPodAvailable, isPodReady, isTerminating } from "../shared/pod-state.ts";
import { eligibility } from "./eligibility.ts";
import { compareAge, isUpdated, podsByNode, revisionLabel } from "./pods.ts";
import type { DaemonSetView } from "./view.ts";
import { allowsSurge, updateLimits } from "./view.ts";

/** What is known of a DaemonSet and of its nodes at one instant. */
export interface Observation {
  readonly view: DaemonSetView;
  readonly nodes: readonly Stored<Node>[];
  readonly byNode: ReadonlyMap<string, readonly StoredPod[]>;
  /** Of the current revision. */
  readonly hash: string;
  readonly now: number;
}

/** A pod that ended on its own, although daemons never end. */
export interface EndedPod {
  readonly pod: StoredPod;
  readonly node: string;
  readonly phase: "Failed" | "Succeeded";
}

export interface Plan {
  /** Names of nodes that need a pod. */
  readonly create: readonly string[];
  readonly remove: readonly StoredPod[];
  /** To be removed too, failed ones only as their back-off allows. */
  readonly ended: readonly EndedPod[];
}

export const emptyPlan: Plan = { create: [], remove: [], ended: [] };

export function observe(
  facts: Omit<Observation, "byNode">,
  pods: readonly StoredPod[],
): Observation {
  return { ...facts, byNode: podsByNode(pods) };
}

/** Of an old and a new pod on one node, which may go; more than one of each always go. */
function surgeSurplus(
  { view, hash, now }: Observation,
  running: readonly StoredPod[],
): readonly StoredPod[] {
  const current = (pod: StoredPod): boolean => pod.metadata.labels?.[revisionLabel] === hash;
  const [fresh, ...extraFresh] = running.filter((pod) => current(pod));
  const [old, ...extraOld] = running.filter((pod) => !current(pod));
  const surplus = [...extraFresh, ...extraOld];
  if (fresh === undefined || old === undefined) return surplus;
  const replaced = !isPodReady(old) || isPodAvailable(fresh, view.minReadySeconds, now);
  return replaced ? [...surplus, old] : surplus;
}

function planNode(observation: Observation, node: Stored<Node>): Plan {
  const { view, byNode } = observation;
  const { name } = node.metadata;
  const { shouldRun, shouldContinue } = eligibility(view, node);
  const pods = byNode.get(name) ?? [];
  if (shouldRun && pods.length === 0) return { ...emptyPlan, create: [name] };
  const live = pods.filter((pod) => !isTerminating(pod));
  if (!shouldContinue) return { ...emptyPlan, remove: live };
  const ended: EndedPod[] = [];
  const running: StoredPod[] = [];
  for (const pod of live) {
    const phase = pod.status?.phase;
    if (phase === "Failed" || phase === "Succeeded") ended.push({ pod, node: name, phase });
    else running.push(pod);
  }
  const ordered = running.toSorted(compareAge);
  if (!allowsSurge(view)) return { create: [], remove: ordered.slice(1), ended };
  return {
    // A pod that is going does not keep its successor waiting.
    create: ordered.length === 0 && shouldRun ? [name] : [],
    remove: surgeSurplus(observation, ordered),
    ended,
  };
}

/** One pod on every node that should have one, none elsewhere. */
export function planNodes(observation: Observation): Plan {
  const plans = observation.nodes.map((node) => planNode(observation, node));
  const known = new Set(observation.nodes.map(({ metadata }) => metadata.name));
  // Nobody else removes a pod that waits for a node which is gone.
  const stranded = [...observation.byNode]
    .filter(([node]) => !known.has(node))
    .flatMap(([, pods]) => pods.filter((pod) => (pod.spec?.nodeName ?? "") === ""));
  return {
    create: plans.flatMap(({ create }) => create),
    remove: [...plans.flatMap(({ remove }) => remove), ...stranded],
    ended: plans.flatMap(({ ended }) => ended),
  };
}

/** The pods of one node as an update sees them; undefined when there are too many, which {@link planNodes} ends. */
interface NodePods {
  readonly node: string;
  readonly fresh: StoredPod | undefined;
  readonly old: StoredPod | undefined;
}

function pairOf(
  { view, hash }: Observation,
  node: string,
  pods: readonly StoredPod[],
): NodePods | undefined {
  const live = pods.filter((pod) => !isTerminating(pod));
  const fresh = live.filter((pod) => isUpdated(view, pod, hash));
  const old = live.filter((pod) => !isUpdated(view, pod, hash));
  if (fresh.length > 1 || old.length > 1) return undefined;
  return { node, fresh: fresh[0], old: old[0] };
}

/** Old pods to delete so that not more nodes than allowed are without an available pod. */
function replaceInPlace(
  { view, now }: Observation,
  pairs: readonly (NodePods | undefined)[],
  maxUnavailable: number,
): readonly StoredPod[] {
  const available = (pod: StoredPod): boolean => isPodAvailable(pod, view.minReadySeconds, now);
  const replace: StoredPod[] = [];
  const candidates: StoredPod[] = [];
  let unavailable = 0;
  for (const pair of pairs) {
    const { fresh, old } = pair ?? {};
    if (old !== undefined && fresh === undefined && available(old)) {
      candidates.push(old);
      continue;
    }
    if (old === undefined && fresh !== undefined && available(fresh)) continue;
    unavailable += 1;
    // It serves nobody: replacing it costs nothing.
    if (old !== undefined && fresh === undefined) replace.push(old);
  }
  return [...replace, ...candidates.slice(0, Math.max(0, maxUnavailable - unavailable))];
}

/** New pods beside old ones, and old ones that are no longer needed. */
function replaceBySurge(
  observation: Observation,
  pairs: readonly (NodePods | undefined)[],
  limits: { readonly maxSurge: number; readonly desired: number },
): Plan {
  const { view, now } = observation;
  const available = (pod: StoredPod): boolean => isPodAvailable(pod, view.minReadySeconds, now);
  const eligible = new Set(eligibleNodes(observation));
  const remove: StoredPod[] = [];
  const misplaced: StoredPod[] = [];
  const replace: string[] = [];
  const candidates: string[] = [];
  let [surging, availableNodes] = [0, 0];
  for (const pair of pairs) {
    if (pair === undefined) {
      surging += 1;
      continue;
    }
    const { node, fresh, old } = pair;
    const shown = old ?? fresh;
    if (shown !== undefined && available(shown)) availableNodes += 1;
    if (old === undefined) continue;
    if (fresh !== undefined) {
      if (available(fresh)) remove.push(old);
      else surging += 1;
    } else if (!eligible.has(node)) {
      if (available(old)) misplaced.push(old);
      else remove.push(old);
    } else if (available(old)) candidates.push(node);
    else replace.push(node);
  }
  // A pod that has to leave its node stays until another node's pod has taken over.
  const spare = Math.max(0, availableNodes - limits.desired);
  return {
    create: [...replace, ...candidates.slice(0, Math.max(0, limits.maxSurge - surging))],
    remove: [...remove, ...misplaced.slice(0, spare)],
    ended: [],
  };
}

/** Names of the nodes that should have a pod. */
export function eligibleNodes({ view, nodes }: Observation): readonly string[] {
  return nodes
    .filter((node) => eligibility(view, node).shouldRun)
    .map(({ metadata }) => metadata.name);
}

/** The next step of a rolling update. */
export function planUpdate(observation: Observation): Plan {
  const { view, byNode } = observation;
  if (view.updateType !== "RollingUpdate") return emptyPlan;
  const desired = eligibleNodes(observation);
  const { maxSurge, maxUnavailable } = updateLimits(view, desired.length);
  const pairs = [...new Set([...byNode.keys(), ...desired])].map((node) =>
    pairOf(observation, node, byNode.get(node) ?? []),
  );
  return maxSurge === 0
    ? { ...emptyPlan, remove: replaceInPlace(observation, pairs, maxUnavailable) }
    : replaceBySurge(observation, pairs, { maxSurge, desired: desired.length });
}

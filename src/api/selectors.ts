import type { LabelSelector, NodeSelectorTerm, Pod } from "./types.gen.ts";

type Labels = Readonly<Record<string, string>> | undefined;

/** Whether every pair of a plain selector map is among the labels. An empty map matches everything. */
export function matchesMap(selector: Readonly<Record<string, string>>, labels: Labels): boolean {
  return Object.entries(selector).every(([key, value]) => labels?.[key] === value);
}

interface Requirement {
  readonly key: string;
  readonly operator: string;
  readonly values?: readonly string[] | undefined;
}

/**
 * One requirement of a label selector or of a node selector term (`Gt` and `Lt` exist only in the latter). An operator
 * nobody knows matches nothing.
 */
export function matchesRequirement(requirement: Requirement, labels: Labels): boolean {
  const { key } = requirement;
  const value = labels !== undefined && Object.hasOwn(labels, key) ? labels[key] : undefined;
  const values = requirement.values ?? [];
  switch (requirement.operator) {
    case "In":
      return value !== undefined && values.includes(value);
    case "NotIn":
      return value === undefined || !values.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
    case "Gt":
    case "Lt":
      return compareIntegers(requirement.operator, value, values[0]);
    default:
      return false;
  }
}

function compareIntegers(
  operator: string,
  left: string | undefined,
  right: string | undefined,
): boolean {
  const integer = /^[+-]?\d+$/;
  if (left === undefined || right === undefined) return false;
  if (!integer.test(left) || !integer.test(right)) return false;
  return operator === "Gt" ? BigInt(left) > BigInt(right) : BigInt(left) < BigInt(right);
}

/** meta/v1 LabelSelector: absent matches nothing, empty matches everything. */
export function matchesSelector(selector: LabelSelector | undefined, labels: Labels): boolean {
  if (selector === undefined) return false;
  return (
    matchesMap(selector.matchLabels ?? {}, labels) &&
    (selector.matchExpressions ?? []).every((expression) => matchesRequirement(expression, labels))
  );
}

/** What of a node its selectors look at. */
export interface SelectableNode {
  readonly name: string;
  readonly labels?: Labels;
}

/** One term of a node selector: its parts are ANDed, an empty one selects nothing. */
export function matchesNodeTerm(term: NodeSelectorTerm, node: SelectableNode): boolean {
  const { matchExpressions = [], matchFields = [] } = term;
  if (matchExpressions.length + matchFields.length === 0) return false;
  return (
    matchExpressions.every((each) => matchesRequirement(each, node.labels)) &&
    matchFields.every((each) => matchesRequirement(each, { "metadata.name": node.name }))
  );
}

/** nodeSelector and the required part of node affinity. */
export function matchesNodeAffinity(pod: Pod, node: SelectableNode): boolean {
  if (!matchesMap(pod.spec?.nodeSelector ?? {}, node.labels)) return false;
  const required = pod.spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  if (required === undefined) return true;
  return required.nodeSelectorTerms.some((term) => matchesNodeTerm(term, node));
}

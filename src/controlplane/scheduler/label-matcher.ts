import { matchesRequirement } from "../../api/selectors.ts";
import type { LabelSelector } from "../../api/types.gen.ts";

export type Labels = Readonly<Record<string, string>> | undefined;

/** A selector made ready for many matches. */
export interface LabelMatcher {
  /** Selects everything. Counting rules treat such a selector as none (countPodsMatchSelector). */
  readonly empty: boolean;
  matches(labels: Labels): boolean;
}

/** One condition on labels. */
export interface Requirement {
  readonly key: string;
  readonly operator: string;
  readonly values?: readonly string[] | undefined;
}

/** A matcher that asks for all of `requirements`. */
export function requirementsMatcher(requirements: readonly Requirement[]): LabelMatcher {
  return {
    empty: requirements.length === 0,
    matches: (labels) => requirements.every((each) => matchesRequirement(each, labels)),
  };
}

/** The requirements of a LabelSelector. */
export function selectorRequirements(selector: LabelSelector): readonly Requirement[] {
  const pairs = Object.entries(selector.matchLabels ?? {});
  return [
    ...pairs.map(([key, value]) => ({ key, operator: "In", values: [value] })),
    ...(selector.matchExpressions ?? []),
  ];
}

/**
 * A matcher for a LabelSelector and `more`; an absent selector matches nothing, whatever `more` says (meta/v1
 * LabelSelectorAsSelector).
 */
export function labelMatcher(
  selector: LabelSelector | undefined,
  more: readonly Requirement[] = [],
): LabelMatcher {
  if (selector === undefined) return { empty: false, matches: () => false };
  return requirementsMatcher([...selectorRequirements(selector), ...more]);
}

/** `key` has the value it has in `labels`; nothing for labels that are not there (matchLabelKeys). */
export function sameValues(
  keys: readonly string[] | undefined,
  labels: Labels,
  operator: "In" | "NotIn",
): readonly Requirement[] {
  return (keys ?? []).flatMap((key) => {
    const value = labels?.[key];
    return value === undefined ? [] : [{ key, operator, values: [value] }];
  });
}

import type { FieldError, JsonObject } from "../types.ts";
import { isEmpty, mapOf, record, records, strings, text } from "./access.ts";
import { immutable } from "./field-error.ts";
import { validateLabelSelector } from "./scheduling-validation.ts";

interface Expression {
  readonly key: string;
  readonly operator: string;
  readonly values: readonly string[];
}

function expressionsOf(selector: Readonly<JsonObject>): Expression[] {
  return records(selector["matchExpressions"]).map((expression) => ({
    key: text(expression["key"]),
    operator: text(expression["operator"]),
    values: strings(expression["values"]),
  }));
}

function expressionText({ key, operator, values }: Expression): string {
  const among = [...new Set(values)].toSorted().join(",");
  switch (operator) {
    case "In":
      return `${key} in (${among})`;
    case "NotIn":
      return `${key} notin (${among})`;
    case "DoesNotExist":
      return `!${key}`;
    default:
      return key;
  }
}

function holds({ key, operator, values }: Expression, labels: Readonly<Record<string, string>>) {
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
  switch (operator) {
    case "In":
      return value !== undefined && values.includes(value);
    case "NotIn":
      return value === undefined || !values.includes(value);
    case "Exists":
      return value !== undefined;
    default:
      return value === undefined;
  }
}

/** Whether a `LabelSelector` (meta/v1) can be used to select: its keys, operators and values are all valid. */
export function isUsableSelector(value: unknown): boolean {
  return validateLabelSelector(value, "").length === 0;
}

/** Whether a usable `LabelSelector` matches: absent matches nothing, empty matches everything. */
export function selectorMatches(value: unknown, labels: unknown): boolean {
  if (value === undefined) return false;
  const selector = record(value);
  const own = mapOf(labels);
  return (
    Object.entries(mapOf(selector["matchLabels"])).every(
      ([key, wanted]) => Object.hasOwn(own, key) && own[key] === wanted,
    ) && expressionsOf(selector).every((expression) => holds(expression, own))
  );
}

/** Whether a selector was given that has no condition. */
export function isEmptySelector(value: unknown): boolean {
  const selector = record(value);
  return isEmpty(selector["matchLabels"]) && isEmpty(selector["matchExpressions"]);
}

/** A `LabelSelector` with its members in the order in which the API shows them in messages. */
export function shownSelector(value: unknown): unknown {
  if (value === undefined) return undefined;
  const { matchLabels, matchExpressions } = record(value);
  return {
    ...(isEmpty(matchLabels) ? {} : { matchLabels }),
    ...(isEmpty(matchExpressions)
      ? {}
      : {
          matchExpressions: records(matchExpressions).map(({ key, operator, values }) => ({
            key,
            operator,
            ...(isEmpty(values) ? {} : { values }),
          })),
        }),
  };
}

/** An error when the selector of an object changes: its pods are found by it. */
export function immutableSelector(
  object: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): FieldError[] {
  const [after, before] = [object, old].map((one) =>
    shownSelector(record(one["spec"])["selector"]),
  );
  return immutable("spec.selector", after, before);
}

/** The text form of a `LabelSelector`, in the order of its keys: `app=web,tier in (a,b),!old`; "" when it has none. */
export function labelSelectorText(value: unknown): string {
  const selector = record(value);
  const fromLabels = Object.entries(mapOf(selector["matchLabels"])).map(([key, wanted]) => ({
    key,
    shown: `${key}=${wanted}`,
  }));
  const fromExpressions = expressionsOf(selector).map((expression) => ({
    key: expression.key,
    shown: expressionText(expression),
  }));
  return [...fromLabels, ...fromExpressions]
    .toSorted((left, right) => (left.key < right.key ? -1 : Number(left.key > right.key)))
    .map(({ shown }) => shown)
    .join(",");
}

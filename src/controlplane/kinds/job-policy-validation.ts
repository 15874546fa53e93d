import type { FieldError, JsonObject } from "../types.ts";
import { int, list, record, records, text } from "./access.ts";
import {
  at,
  duplicate,
  invalidAll,
  invalidValue,
  nonNegative,
  notSupported,
  required,
  tooLong,
  tooMany,
} from "./field-error.ts";
import { checkIndexes } from "./job-indexes.ts";
import { qualifiedName } from "./names.ts";

const limits = {
  failureRules: 20,
  exitCodes: 255,
  podConditions: 20,
  successRules: 20,
  succeededIndexesBytes: 64 * 1024,
} as const;

const actions = ["Count", "FailIndex", "FailJob", "Ignore"];
const exitCodeOperators = ["In", "NotIn"];
const conditionStatuses = ["False", "True", "Unknown"];

/** A list of choices as the API prints it in a message: `["a" "b"]`. */
export function choices(values: readonly string[]): string {
  return `[${values.map((value) => JSON.stringify(value)).join(" ")}]`;
}

/** An error about a value that is too big or too secret to be shown. */
export function invalidUnshown(field: string, detail: string): FieldError {
  return { type: "FieldValueInvalid", field, message: `Invalid value: ${detail}` };
}

/** An error unless `value` is one of `supported`; the choices are named also when it is absent. */
function chosen(field: string, value: unknown, supported: readonly string[]): FieldError[] {
  if (text(value) === "") return [required(field, `valid values: ${choices(supported)}`)];
  return supported.includes(text(value)) ? [] : [notSupported(field, value, supported)];
}

function exitCodeErrors(
  requirement: Readonly<JsonObject>,
  field: string,
  containerNames: ReadonlySet<string>,
): FieldError[] {
  const values = list(requirement["values"]).map((value) => int(value) ?? 0);
  const out = chosen(`${field}.operator`, requirement["operator"], exitCodeOperators);
  const container = requirement["containerName"];
  if (container !== undefined && !containerNames.has(text(container))) {
    out.push(
      invalidValue(
        `${field}.containerName`,
        container,
        "must be one of the container or initContainer names in the pod template",
      ),
    );
  }
  const path = `${field}.values`;
  if (values.length === 0) {
    out.push(invalidValue(path, requirement["values"], "at least one value is required"));
  } else if (values.length > limits.exitCodes) {
    out.push(tooMany(path, values.length, limits.exitCodes));
  }
  const seen = new Set<number>();
  values.forEach((value, index) => {
    if (requirement["operator"] === "In" && value === 0)
      out.push(invalidValue(at(path, index), value, "must not be 0 for the In operator"));
    if (seen.has(value)) out.push(duplicate(at(path, index), value));
    seen.add(value);
  });
  if (values.some((value, index) => (values[index - 1] ?? value) > value))
    out.push(invalidValue(path, values, "must be ordered"));
  return out;
}

function conditionErrors(patterns: readonly JsonObject[], field: string): FieldError[] {
  const out: FieldError[] = [];
  if (patterns.length > limits.podConditions)
    out.push(tooMany(field, patterns.length, limits.podConditions));
  patterns.forEach((pattern, index) => {
    const path = at(field, index);
    const type = text(pattern["type"]);
    out.push(
      ...invalidAll(`${path}.type`, type, qualifiedName(type)),
      ...chosen(`${path}.status`, pattern["status"], conditionStatuses),
    );
  });
  return out;
}

function failureActionErrors(
  spec: Readonly<JsonObject>,
  action: unknown,
  field: string,
): FieldError[] {
  if (action === "FailIndex") {
    return spec["backoffLimitPerIndex"] === undefined
      ? [invalidValue(field, action, "requires the backoffLimitPerIndex to be set")]
      : [];
  }
  return chosen(field, action, actions);
}

/** Rules for `spec.podFailurePolicy`, which is there. */
export function validatePodFailurePolicy(
  spec: Readonly<JsonObject>,
  field: string,
): readonly FieldError[] {
  const rules = records(record(spec["podFailurePolicy"])["rules"]);
  const podSpec = record(record(spec["template"])["spec"]);
  const containerNames = new Set(
    [...records(podSpec["containers"]), ...records(podSpec["initContainers"])].map((container) =>
      text(container["name"]),
    ),
  );
  const out: FieldError[] = [];
  if (rules.length > limits.failureRules)
    out.push(tooMany(`${field}.rules`, rules.length, limits.failureRules));
  rules.forEach((rule, index) => {
    const path = at(`${field}.rules`, index);
    const byCode = rule["onExitCodes"] !== undefined;
    const conditions = records(rule["onPodConditions"]);
    out.push(...failureActionErrors(spec, rule["action"], `${path}.action`));
    if (byCode) {
      const requirement = record(rule["onExitCodes"]);
      out.push(...exitCodeErrors(requirement, `${path}.onExitCodes`, containerNames));
    }
    if (conditions.length > 0) out.push(...conditionErrors(conditions, `${path}.onPodConditions`));
    if (byCode && conditions.length > 0) {
      out.push(
        invalidUnshown(path, "specifying both OnExitCodes and OnPodConditions is not supported"),
      );
    }
    if (!byCode && conditions.length === 0) {
      out.push(
        invalidUnshown(path, "specifying one of OnExitCodes and OnPodConditions is required"),
      );
    }
  });
  return out;
}

function successRuleErrors(
  rule: Readonly<JsonObject>,
  completions: number,
  field: string,
): FieldError[] {
  const count = int(rule["succeededCount"]);
  const indexes =
    rule["succeededIndexes"] === undefined ? undefined : text(rule["succeededIndexes"]);
  const out: FieldError[] = [];
  if (count === undefined && indexes === undefined) {
    out.push(
      required(field, "at least one of succeededCount or succeededIndexes must be specified"),
    );
  }
  let total = 0;
  if (indexes !== undefined) {
    const path = `${field}.succeededIndexes`;
    if (Buffer.byteLength(indexes) > limits.succeededIndexesBytes)
      out.push(tooLong(path, limits.succeededIndexesBytes));
    const checked = checkIndexes(indexes, completions);
    if (checked.kind === "valid") ({ total } = checked);
    else
      out.push(invalidValue(path, indexes, `error parsing succeededIndexes: ${checked.message}`));
  }
  if (count === undefined) return out;
  const path = `${field}.succeededCount`;
  out.push(...nonNegative(path, count));
  if (count > completions) {
    out.push(
      invalidValue(
        path,
        count,
        `must be less than or equal to ${completions} (the number of specified completions)`,
      ),
    );
  }
  if (indexes !== undefined && count > total) {
    out.push(
      invalidValue(
        path,
        count,
        `must be less than or equal to ${total} (the number of indexes in the specified succeededIndexes field)`,
      ),
    );
  }
  return out;
}

/** Rules for `spec.successPolicy`, which is there, of an Indexed Job. */
export function validateSuccessPolicy(
  spec: Readonly<JsonObject>,
  field: string,
): readonly FieldError[] {
  const rules = records(record(spec["successPolicy"])["rules"]);
  const path = `${field}.rules`;
  const out: FieldError[] = [];
  if (rules.length === 0) {
    out.push(
      required(path, "at least one rules must be specified when the successPolicy is specified"),
    );
  }
  if (rules.length > limits.successRules)
    out.push(tooMany(path, rules.length, limits.successRules));
  const completions = int(spec["completions"]) ?? 0;
  rules.forEach((rule, index) => {
    out.push(...successRuleErrors(rule, completions, at(path, index)));
  });
  return out;
}

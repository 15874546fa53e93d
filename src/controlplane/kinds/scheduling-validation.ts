import type { FieldError, JsonObject } from "../types.ts";
import { int, list, record, records, strings, text } from "./access.ts";
import {
  at,
  duplicate,
  forbiddenField,
  invalidAll,
  invalidValue,
  notSupported,
  required,
} from "./field-error.ts";
import {
  dns1123Label,
  labelValueMessages,
  qualifiedName,
  subdomainName,
  validateLabels,
} from "./names.ts";

const taintEffects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

function labelKey(value: unknown, field: string): FieldError[] {
  return invalidAll(field, text(value), qualifiedName(text(value)));
}

/** Rules for a `LabelSelector`. */
export function validateLabelSelector(value: unknown, field: string): FieldError[] {
  const selector = record(value);
  const out = validateLabels(record(selector["matchLabels"]), `${field}.matchLabels`);
  records(selector["matchExpressions"]).forEach((expression, index) => {
    const path = at(`${field}.matchExpressions`, index);
    const operator = text(expression["operator"]);
    const values = strings(expression["values"]);
    if (operator === "In" || operator === "NotIn") {
      if (values.length === 0) {
        out.push(
          required(`${path}.values`, "must be specified when `operator` is 'In' or 'NotIn'"),
        );
      }
    } else if (operator === "Exists" || operator === "DoesNotExist") {
      if (values.length > 0) {
        out.push(
          forbiddenField(
            `${path}.values`,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
          ),
        );
      }
    } else {
      out.push(invalidValue(`${path}.operator`, operator, "not a valid selector operator"));
    }
    out.push(...labelKey(expression["key"], `${path}.key`));
    values.forEach((item, valueIndex) => {
      out.push(...invalidAll(at(`${path}.values`, valueIndex), item, labelValueMessages(item)));
    });
  });
  return out;
}

/** A `spec.taints` list of a Node. Upstream reports it under `metadata.taints`. */
export function validateTaints(value: unknown, field: string): FieldError[] {
  const out: FieldError[] = [];
  const seen = new Set<string>();
  records(value).forEach((taint, index) => {
    const path = at(field, index);
    const value = text(taint["value"]);
    const effect = text(taint["effect"]);
    out.push(...labelKey(taint["key"], `${path}.key`));
    const messages = labelValueMessages(value);
    if (messages.length > 0) out.push(invalidValue(`${path}.value`, value, messages.join(";")));
    if (effect === "") out.push(required(`${path}.effect`));
    else if (!taintEffects.includes(effect)) {
      out.push(notSupported(`${path}.effect`, effect, taintEffects));
    }
    const key = `${text(taint["key"])}:${effect}`;
    if (seen.has(key)) {
      const error = duplicate(path, taint);
      out.push({
        ...error,
        message: `${error.message}: taints must be unique by key and effect pair`,
      });
    }
    seen.add(key);
  });
  return out;
}

/** Rules for `spec.tolerations`. */
export function validateTolerations(value: unknown, field: string): FieldError[] {
  const out: FieldError[] = [];
  records(value).forEach((toleration, index) => {
    const path = at(field, index);
    const key = text(toleration["key"]);
    const operator = text(toleration["operator"]);
    const effect = text(toleration["effect"]);
    const wanted = text(toleration["value"]);
    if (key !== "") out.push(...labelKey(key, `${path}.key`));
    else if (operator !== "Exists") {
      out.push(
        invalidValue(
          `${path}.operator`,
          operator,
          'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        ),
      );
    }
    if (int(toleration["tolerationSeconds"]) !== undefined && effect !== "NoExecute") {
      out.push(
        invalidValue(
          `${path}.effect`,
          effect,
          "effect must be 'NoExecute' when `tolerationSeconds` is set",
        ),
      );
    }
    if (operator === "Equal" || operator === "") {
      const messages = labelValueMessages(wanted);
      if (messages.length > 0) {
        out.push(invalidValue(`${path}.operator`, wanted, messages.join(";")));
      }
    } else if (operator === "Exists") {
      if (wanted !== "") {
        out.push(
          invalidValue(
            `${path}.operator`,
            wanted,
            "value must be empty when `operator` is 'Exists'",
          ),
        );
      }
    } else {
      out.push(notSupported(`${path}.operator`, operator, ["Equal", "Exists"]));
    }
    if (effect !== "" && !taintEffects.includes(effect)) {
      out.push(notSupported(`${path}.effect`, effect, taintEffects));
    }
  });
  return out;
}

interface SelectorRules {
  /** Whether the values of expressions have to be values that labels can have. */
  readonly checkValues: boolean;
}

function valueErrors(item: Readonly<JsonObject>, path: string): FieldError[] {
  return strings(item["values"]).flatMap((value, index) =>
    invalidAll(at(`${path}.values`, index), value, labelValueMessages(value)),
  );
}

/** Whether a NodeSelector asks for values that no label can have: what is stored so may stay so. */
export function hasWrongValues(selector: unknown): boolean {
  return records(record(selector)["nodeSelectorTerms"]).some((term) =>
    records(term["matchExpressions"]).some((item) => valueErrors(item, "").length > 0),
  );
}

function nodeRequirement(
  item: Readonly<JsonObject>,
  path: string,
  { checkValues }: SelectorRules,
): FieldError[] {
  const out: FieldError[] = [];
  const operator = text(item["operator"]);
  const values = strings(item["values"]);
  if (operator === "In" || operator === "NotIn") {
    if (values.length === 0) {
      out.push(required(`${path}.values`, "must be specified when `operator` is 'In' or 'NotIn'"));
    }
  } else if (operator === "Exists" || operator === "DoesNotExist") {
    if (values.length > 0) {
      out.push(
        forbiddenField(
          `${path}.values`,
          "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
      );
    }
  } else if (operator === "Gt" || operator === "Lt") {
    if (values.length !== 1) {
      out.push(
        required(
          `${path}.values`,
          "must be specified single value when `operator` is 'Lt' or 'Gt'",
        ),
      );
    }
  } else out.push(invalidValue(`${path}.operator`, operator, "not a valid selector operator"));
  out.push(...labelKey(item["key"], `${path}.key`));
  return checkValues ? [...out, ...valueErrors(item, path)] : out;
}

function nodeFieldRequirement(item: Readonly<JsonObject>, path: string): FieldError[] {
  const out: FieldError[] = [];
  const operator = text(item["operator"]);
  if (operator !== "In" && operator !== "NotIn") {
    out.push(invalidValue(`${path}.operator`, operator, "not a valid selector operator"));
  } else if (list(item["values"]).length !== 1) {
    out.push(
      required(
        `${path}.values`,
        "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
      ),
    );
  }
  if (item["key"] !== "metadata.name") {
    out.push(invalidValue(`${path}.key`, item["key"], "not a valid field selector key"));
    return out;
  }
  strings(item["values"]).forEach((name, index) => {
    out.push(...invalidAll(at(`${path}.values`, index), name, subdomainName(name, false)));
  });
  return out;
}

function nodeTerm(
  term: Readonly<JsonObject>,
  path: string,
  rules: SelectorRules = { checkValues: false },
): FieldError[] {
  return [
    ...records(term["matchExpressions"]).flatMap((item, index) =>
      nodeRequirement(item, at(`${path}.matchExpressions`, index), rules),
    ),
    ...records(term["matchFields"]).flatMap((item, index) =>
      nodeFieldRequirement(item, at(`${path}.matchFields`, index)),
    ),
  ];
}

function weight(item: Readonly<JsonObject>, path: string): FieldError[] {
  const value = int(item["weight"]) ?? 0;
  return value <= 0 || value > 100
    ? [invalidValue(`${path}.weight`, value, "must be in the range 1-100")]
    : [];
}

const requiredRules = "requiredDuringSchedulingIgnoredDuringExecution";
const preferredRules = "preferredDuringSchedulingIgnoredDuringExecution";

/** Rules for a `NodeSelector`. */
export function validateNodeSelector(
  value: unknown,
  field: string,
  rules: SelectorRules = { checkValues: false },
): FieldError[] {
  const path = `${field}.nodeSelectorTerms`;
  const terms = records(record(value)["nodeSelectorTerms"]);
  if (terms.length === 0) return [required(path, "must have at least one node selector term")];
  return terms.flatMap((term, index) => nodeTerm(term, at(path, index), rules));
}

function nodeAffinity(affinity: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  if (affinity[requiredRules] !== undefined) {
    out.push(...validateNodeSelector(affinity[requiredRules], `${field}.${requiredRules}`));
  }
  records(affinity[preferredRules]).forEach((item, index) => {
    const path = at(`${field}.${preferredRules}`, index);
    out.push(...weight(item, path));
    out.push(...nodeTerm(record(item["preference"]), `${path}.preference`));
  });
  return out;
}

/**
 * Rules for `matchLabelKeys` and `mismatchLabelKeys`, which add to the selector beside them. `owner` is the term or
 * constraint that holds them.
 */
function labelKeys(owner: Readonly<JsonObject>, path: string): FieldError[] {
  const out: FieldError[] = [];
  const selector = owner["labelSelector"];
  for (const member of ["matchLabelKeys", "mismatchLabelKeys"]) {
    const keys = strings(owner[member]);
    if (keys.length > 0 && selector === undefined) {
      const detail = "must not be specified when labelSelector is not set";
      out.push(forbiddenField(`${path}.${member}`, detail));
      continue;
    }
    keys.forEach((key, index) => out.push(...labelKey(key, at(`${path}.${member}`, index))));
  }
  const selected = new Set([
    ...Object.keys(record(record(selector)["matchLabels"])),
    ...records(record(selector)["matchExpressions"]).map((each) => text(each["key"])),
  ]);
  const mismatched = strings(owner["mismatchLabelKeys"]);
  const matched = strings(owner["matchLabelKeys"]);
  matched.forEach((key, index) => {
    // Upstream leaves the member's name out of this path.
    if (selected.has(key)) {
      const detail = "exists in both matchLabelKeys and labelSelector";
      out.push(invalidValue(at(path, index), key, detail));
    }
  });
  matched.forEach((key, index) => {
    if (mismatched.includes(key)) {
      const detail = "exists in both matchLabelKeys and mismatchLabelKeys";
      out.push(invalidValue(at(`${path}.matchLabelKeys`, index), key, detail));
    }
  });
  return out;
}

function podAffinityTerm(term: Readonly<JsonObject>, path: string): FieldError[] {
  const out = validateLabelSelector(term["labelSelector"], `${path}.labelSelector`);
  out.push(...validateLabelSelector(term["namespaceSelector"], `${path}.namespaceSelector`));
  strings(term["namespaces"]).forEach((name) => {
    // Upstream leaves the index out and calls the member by its Go name.
    out.push(...invalidAll(`${path}.namespace`, name, dns1123Label(name)));
  });
  out.push(...labelKeys(term, path));
  const topologyKey = text(term["topologyKey"]);
  if (topologyKey === "") out.push(required(`${path}.topologyKey`, "can not be empty"));
  return [...out, ...invalidAll(`${path}.topologyKey`, topologyKey, qualifiedName(topologyKey))];
}

function podAffinity(affinity: Readonly<JsonObject>, field: string): FieldError[] {
  return [
    ...records(affinity[requiredRules]).flatMap((term, index) =>
      podAffinityTerm(term, at(`${field}.${requiredRules}`, index)),
    ),
    ...records(affinity[preferredRules]).flatMap((item, index) => {
      const path = at(`${field}.${preferredRules}`, index);
      return [
        ...weight(item, path),
        ...podAffinityTerm(record(item["podAffinityTerm"]), `${path}.podAffinityTerm`),
      ];
    }),
  ];
}

/** Rules for `spec.affinity`. */
export function validateAffinity(value: unknown, field: string): FieldError[] {
  const affinity = record(value);
  return [
    ...nodeAffinity(record(affinity["nodeAffinity"]), `${field}.nodeAffinity`),
    ...podAffinity(record(affinity["podAffinity"]), `${field}.podAffinity`),
    ...podAffinity(record(affinity["podAntiAffinity"]), `${field}.podAntiAffinity`),
  ];
}

/** Rules for `spec.topologySpreadConstraints`. */
export function validateSpread(value: unknown, field: string): FieldError[] {
  const out: FieldError[] = [];
  const seen = new Set<string>();
  records(value).forEach((constraint, index) => {
    const path = at(field, index);
    const skew = int(constraint["maxSkew"]) ?? 0;
    const topologyKey = text(constraint["topologyKey"]);
    const action = text(constraint["whenUnsatisfiable"]);
    if (skew <= 0) out.push(invalidValue(`${path}.maxSkew`, skew, "must be greater than zero"));
    if (topologyKey === "") out.push(required(`${path}.topologyKey`, "can not be empty"));
    if (action !== "DoNotSchedule" && action !== "ScheduleAnyway") {
      out.push(
        notSupported(`${path}.whenUnsatisfiable`, action, ["DoNotSchedule", "ScheduleAnyway"]),
      );
    }
    const key = `{${topologyKey}, ${action}}`;
    if (seen.has(key)) out.push(duplicate(`${path}.{topologyKey, whenUnsatisfiable}`, key));
    seen.add(key);
    const domains = int(constraint["minDomains"]);
    if (domains !== undefined && domains <= 0) {
      out.push(invalidValue(`${path}.minDomains`, domains, "must be greater than zero"));
    }
    if (domains !== undefined && action !== "DoNotSchedule") {
      out.push(
        invalidValue(
          `${path}.minDomains`,
          domains,
          `can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ${action}`,
        ),
      );
    }
    for (const name of ["nodeAffinityPolicy", "nodeTaintsPolicy"]) {
      const policy = constraint[name];
      if (policy !== undefined && policy !== "Honor" && policy !== "Ignore") {
        out.push(notSupported(`${path}.${name}`, policy, ["Honor", "Ignore"]));
      }
    }
    out.push(...labelKeys(constraint, path));
    out.push(...validateLabelSelector(constraint["labelSelector"], `${path}.labelSelector`));
  });
  return out;
}

import { formatQuantity } from "../../api/quantity.ts";
import type { FieldError, JsonObject } from "../types.ts";
import { record, records, text } from "./access.ts";
import {
  at,
  duplicate,
  forbiddenField,
  invalidAll,
  invalidValue,
  notFoundValue,
  required,
} from "./field-error.ts";
import { qualifiedName } from "./names.ts";
import { quantityOf } from "./quantity.ts";

const standardResources = new Set(["cpu", "memory", "ephemeral-storage"]);
const nanosPerUnit = 1_000_000_000n;

/** Whether it is one of the `hugepages-SIZE`. */
export function isHugePages(name: string): boolean {
  return name.startsWith("hugepages-");
}

/** cpu, memory and storage may be asked for beyond their limit's equal; devices and huge pages may not. */
export function overcommitAllowed(name: string): boolean {
  const native = !name.includes("/") || name.includes("kubernetes.io/");
  return native && !isHugePages(name);
}

function resourceName(name: string, field: string): FieldError[] {
  const messages = qualifiedName(name);
  if (messages.length > 0) return invalidAll(field, name, messages);
  if (name.includes("/")) {
    // Extended resources: a quota prefix would collide with quota names.
    return name.startsWith("requests.")
      ? [invalidValue(field, name, "doesn't follow extended resource name standard")]
      : [];
  }
  return standardResources.has(name) || isHugePages(name)
    ? []
    : [invalidValue(field, name, "must be a standard resource for containers")];
}

function amount(name: string, value: unknown, field: string): FieldError[] {
  const quantity = quantityOf(value);
  if (quantity === undefined) return [];
  if (quantity.nanos < 0n) {
    return [invalidValue(field, formatQuantity(quantity), "must be greater than or equal to 0")];
  }
  const whole = name.includes("/") || isHugePages(name) || name === "pods";
  return whole && quantity.nanos % nanosPerUnit !== 0n
    ? [invalidValue(field, value, "must be an integer")]
    : [];
}

/** Amounts of a resource list that is not a container's, such as a Node's capacity. */
export function validateResourceList(value: unknown, field: string): FieldError[] {
  return Object.entries(record(value)).flatMap(([name, item]) =>
    amount(name, item, `${field}.${name}`),
  );
}

/**
 * Rules of a container's `resources`.
 *
 * @param nameErrors What is wrong with the name of a resource; default the rules for containers.
 */
export function validateResources(
  resources: Readonly<JsonObject>,
  field: string,
  spec: Readonly<JsonObject>,
  nameErrors: (name: string, field: string) => FieldError[] = resourceName,
): FieldError[] {
  const out: FieldError[] = [];
  const limits = record(resources["limits"]);
  const requests = record(resources["requests"]);
  for (const [name, value] of Object.entries(limits)) {
    const path = `${field}.limits[${name}]`;
    out.push(...nameErrors(name, path), ...amount(name, value, path));
  }
  for (const [name, value] of Object.entries(requests)) {
    const path = `${field}.requests[${name}]`;
    out.push(...nameErrors(name, path), ...amount(name, value, path));
    const request = quantityOf(value);
    const limit = quantityOf(limits[name]);
    if (limit === undefined) {
      if (!overcommitAllowed(name)) {
        out.push(required(`${field}.limits`, "Limit must be set for non overcommitable resources"));
      }
      continue;
    }
    if (request === undefined) continue;
    const shown = formatQuantity(limit);
    if (request.nanos !== limit.nanos && !overcommitAllowed(name)) {
      out.push(
        invalidValue(
          `${field}.requests`,
          formatQuantity(request),
          `must be equal to ${name} limit of ${shown}`,
        ),
      );
    } else if (request.nanos > limit.nanos) {
      out.push(
        invalidValue(
          `${field}.requests`,
          formatQuantity(request),
          `must be less than or equal to ${name} limit of ${shown}`,
        ),
      );
    }
  }
  const names = [...Object.keys(limits), ...Object.keys(requests)];
  if (
    names.some((name) => isHugePages(name)) &&
    !names.some((n) => n === "cpu" || n === "memory")
  ) {
    out.push(forbiddenField(field, "HugePages require cpu or memory"));
  }
  return [...out, ...claimErrors(resources, `${field}.claims`, spec)];
}

function claimErrors(
  resources: Readonly<JsonObject>,
  field: string,
  spec: Readonly<JsonObject>,
): FieldError[] {
  const declared = new Set(records(spec["resourceClaims"]).map((claim) => text(claim["name"])));
  const seen = new Set<string>();
  const out: FieldError[] = [];
  records(resources["claims"]).forEach((claim, index) => {
    const path = at(field, index);
    const name = text(claim["name"]);
    if (name === "") out.push(required(`${path}.name`));
    else if (seen.has(name)) out.push(duplicate(path, name));
    else if (!declared.has(name)) out.push(notFoundValue(path, name));
    seen.add(name);
  });
  return out;
}

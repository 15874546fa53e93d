import {
  addQuantities,
  compareQuantities,
  formatQuantity,
  type Quantity,
} from "../../api/quantity.ts";
import { isRecord } from "../../lib/guard.ts";
import type { FieldError, JsonObject } from "../types.ts";
import { ensureRecord, isEmpty, record, records } from "./access.ts";
import { at, forbiddenField, invalidAll, invalidValue, notSupported } from "./field-error.ts";
import { qualifiedName } from "./names.ts";
import { quantityOf } from "./quantity.ts";
import { isHugePages, overcommitAllowed, validateResources } from "./resource-validation.ts";

type Amounts = Map<string, Quantity>;

/** Whether a pod as a whole can ask for it (KEP-2837). */
function isPodLevel(name: string): boolean {
  return name === "cpu" || name === "memory" || isHugePages(name);
}

function amountsOf(container: Readonly<JsonObject>, list: "limits" | "requests"): Amounts {
  const named = Object.entries(record(record(container["resources"])[list])).flatMap(
    ([name, text]) => {
      const quantity = quantityOf(text);
      return quantity === undefined ? [] : [[name, quantity] as const];
    },
  );
  return new Map(named);
}

function sum(a: Amounts, b: Amounts): Amounts {
  const out = new Map(a);
  for (const [name, quantity] of b) {
    const before = out.get(name);
    out.set(name, before === undefined ? quantity : addQuantities(before, quantity));
  }
  return out;
}

function larger(a: Amounts, b: Amounts): Amounts {
  const out = new Map(a);
  for (const [name, quantity] of b) {
    const before = out.get(name);
    if (before === undefined || compareQuantities(quantity, before) > 0) out.set(name, quantity);
  }
  return out;
}

/** What the containers come to: all that run together, or a step of the initialisation that needs more. */
function aggregate(spec: Readonly<JsonObject>, list: "limits" | "requests"): Amounts {
  let together: Amounts = new Map();
  for (const container of records(spec["containers"])) {
    together = sum(together, amountsOf(container, list));
  }
  let sidecars: Amounts = new Map();
  let peak: Amounts = new Map();
  for (const container of records(spec["initContainers"])) {
    const own = amountsOf(container, list);
    const sidecar = container["restartPolicy"] === "Always";
    if (sidecar) together = sum(together, own);
    const step = sum(sidecars, own);
    if (sidecar) sidecars = step;
    peak = larger(peak, step);
  }
  return larger(together, peak);
}

/** Huge pages of containers are the pod's limit too, unless it says something of its own about them. */
function limitDefaults(spec: JsonObject, resources: JsonObject): void {
  const limits: JsonObject = { ...record(resources["limits"]) };
  for (const [name, quantity] of aggregate(spec, "limits")) {
    if (!isHugePages(name) || name in record(resources["requests"])) continue;
    limits[name] ??= formatQuantity(quantity);
  }
  if (!isEmpty(limits)) resources["limits"] = limits;
}

/** A limit without a request: what containers ask for together, else all of it. */
function requestDefaults(spec: JsonObject, resources: JsonObject): void {
  const limits = record(resources["limits"]);
  if (isEmpty(limits)) return;
  const requests: JsonObject = { ...record(resources["requests"]) };
  for (const [name, quantity] of aggregate(spec, "requests")) {
    if (isPodLevel(name) && overcommitAllowed(name)) requests[name] ??= formatQuantity(quantity);
  }
  for (const [name, limit] of Object.entries(limits)) {
    if (isPodLevel(name)) requests[name] ??= limit;
  }
  if (!isEmpty(requests)) resources["requests"] = requests;
}

/** Fills the resources of a pod as a whole, where it has some; after those of its containers. */
export function podLevelDefaults(spec: JsonObject): void {
  if (!isRecord(spec["resources"])) return;
  const resources = ensureRecord(spec, "resources");
  if (isEmpty(resources["limits"]) && isEmpty(resources["requests"])) return;
  limitDefaults(spec, resources);
  requestDefaults(spec, resources);
}

function podResourceName(name: string, field: string): FieldError[] {
  const messages = qualifiedName(name);
  if (messages.length > 0) return invalidAll(field, name, messages);
  const known = isPodLevel(name) || name.includes("/") || name.endsWith("storage");
  if (!known) {
    return [invalidValue(field, name, "must be a standard resource type or fully qualified")];
  }
  return isPodLevel(name) ? [] : [notSupported(field, name, ["cpu", "hugepages-", "memory"])];
}

/** Whole and containers must fit: upstream's validatePodResourceConsistency. */
function consistencyErrors(
  spec: Readonly<JsonObject>,
  resources: Readonly<JsonObject>,
  field: string,
): FieldError[] {
  const out: FieldError[] = [];
  const own = { requests: record(resources["requests"]), limits: record(resources["limits"]) };
  for (const list of ["requests", "limits"] as const) {
    for (const [name, needed] of aggregate(spec, list)) {
      const given = quantityOf(own[list][name]);
      if (given === undefined || (list === "limits" && !isHugePages(name))) continue;
      if (compareQuantities(needed, given) <= 0) continue;
      out.push(
        invalidValue(
          `${field}.${list}[${name}]`,
          formatQuantity(given),
          `must be greater than or equal to aggregate container ${list} of ${formatQuantity(needed)}`,
        ),
      );
    }
  }
  records(spec["containers"]).forEach((container, index) => {
    for (const [name, limit] of amountsOf(container, "limits")) {
      const given = quantityOf(own.limits[name]);
      if (given === undefined || compareQuantities(limit, given) <= 0) continue;
      out.push(
        invalidValue(
          `${at(`${field}.containers`, index)}[${name}].limits`,
          formatQuantity(limit),
          `must be less than or equal to pod limits of ${formatQuantity(given)}`,
        ),
      );
    }
  });
  return out;
}

/** Rules for the resources of a pod as a whole. */
export function validatePodLevelResources(spec: Readonly<JsonObject>, field: string): FieldError[] {
  if (spec["resources"] === undefined) return [];
  const path = `${field}.resources`;
  if (record(spec["os"])["name"] === "windows") {
    return [forbiddenField(path, "may not be set for a windows pod")];
  }
  const resources = record(spec["resources"]);
  const claims =
    resources["claims"] === undefined
      ? []
      : [forbiddenField(`${path}.claims`, "claims may not be set for Resources at pod-level")];
  return [
    ...claims,
    ...validateResources(resources, path, spec, podResourceName),
    ...consistencyErrors(spec, resources, path),
  ];
}

import {
  matchesFields,
  matchesLabels,
  parseFieldSelector,
  parseLabelSelector,
  SelectorError,
  type FieldRequirement,
} from "../../api/labels.ts";
import { stringMap } from "../../lib/guard.ts";
import { metaText, readMetadata } from "../registry/object-meta.ts";
import { badRequest, invalid } from "../status-error.ts";
import type { FieldError, JsonObject, KindDefinition } from "../types.ts";

/** The query of a list or watch, parsed and checked. */
export interface ListOptions {
  readonly labelSelector: string;
  readonly fieldSelector: string;
  readonly limit: number;
  readonly continueToken: string;
  /** "" = most recent, "0" = any. */
  readonly resourceVersion: string;
  readonly match: "" | "Exact" | "NotOlderThan";
  readonly sendInitialEvents: boolean | undefined;
  readonly allowBookmarks: boolean;
  readonly timeoutSeconds: number | undefined;
}

export type Filter = (object: Readonly<JsonObject>) => boolean;

export interface Selection {
  readonly matches: Filter;
  /** The only name that can match, when the field selector says so. */
  readonly name: string | undefined;
  /** Nothing is filtered out. */
  readonly everything: boolean;
}

function flag(value: string | null): boolean {
  return value === "" || value === "true" || value === "1";
}

function positive(value: string | null, name: string): number | undefined {
  if (value === null || value === "") return undefined;
  const number = Number(value);
  if (!Number.isInteger(number) || number < 0)
    throw badRequest(`unable to decode query parameter ${name}: ${JSON.stringify(value)}`);
  return number;
}

function forbiddenField(field: string, message: string): FieldError {
  return { type: "FieldValueForbidden", field, message: `Forbidden: ${message}` };
}

const target = { plural: "", kind: "ListOptions", group: "meta.k8s.io" };

function checkMatch(query: URLSearchParams, watch: boolean, options: ListOptions): FieldError[] {
  const raw = query.get("resourceVersionMatch") ?? "";
  const errors: FieldError[] = [];
  if (raw !== "" && raw !== "Exact" && raw !== "NotOlderThan") {
    const supported = watch ? '"NotOlderThan"' : '"Exact", "NotOlderThan"';
    errors.push({
      type: "FieldValueNotSupported",
      field: "resourceVersionMatch",
      message: `Unsupported value: ${JSON.stringify(raw)}: supported values: ${supported}`,
    });
    return errors;
  }
  if (watch) {
    if (options.sendInitialEvents !== undefined && raw !== "NotOlderThan") {
      const message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
      errors.push(forbiddenField("resourceVersionMatch", message));
    }
    if (raw !== "" && options.sendInitialEvents === undefined) {
      const message =
        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
      errors.push(forbiddenField("resourceVersionMatch", message));
    }
    return errors;
  }
  if (options.sendInitialEvents !== undefined)
    errors.push(forbiddenField("sendInitialEvents", "sendInitialEvents is forbidden for list"));
  if (raw === "") return errors;
  if (options.resourceVersion === "") {
    const message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
    errors.push(forbiddenField("resourceVersionMatch", message));
  }
  if (options.continueToken !== "") {
    const message = "resourceVersionMatch is forbidden when continue is provided";
    errors.push(forbiddenField("resourceVersionMatch", message));
  }
  if (raw === "Exact" && options.resourceVersion === "0") {
    const message = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"';
    errors.push(forbiddenField("resourceVersionMatch", message));
  }
  return errors;
}

/** Whether a collection GET is a watch. */
export function isWatch(query: URLSearchParams): boolean {
  return query.has("watch") && flag(query.get("watch"));
}

/** @throws {StatusError} 400 or 422. */
export function parseListOptions(query: URLSearchParams, watch: boolean): ListOptions {
  const resourceVersion = query.get("resourceVersion") ?? "";
  if (!/^\d*$/.test(resourceVersion)) {
    throw badRequest(
      `invalid resource version: resourceVersion: Invalid value: ${JSON.stringify(resourceVersion)}: strconv.ParseUint: parsing ${JSON.stringify(resourceVersion)}: invalid syntax`,
    );
  }
  const initial = query.get("sendInitialEvents");
  const match = query.get("resourceVersionMatch");
  const options: ListOptions = {
    labelSelector: query.get("labelSelector") ?? "",
    fieldSelector: query.get("fieldSelector") ?? "",
    limit: positive(query.get("limit"), "limit") ?? 0,
    continueToken: query.get("continue") ?? "",
    resourceVersion,
    match: match === "Exact" || match === "NotOlderThan" ? match : "",
    sendInitialEvents: initial === null ? undefined : flag(initial),
    allowBookmarks: query.has("allowWatchBookmarks") && flag(query.get("allowWatchBookmarks")),
    timeoutSeconds: positive(query.get("timeoutSeconds"), "timeoutSeconds"),
  };
  const errors = checkMatch(query, watch, options);
  if (errors.length > 0) throw invalid(target, "", errors);
  return options;
}

function fieldValue(kind: KindDefinition, object: Readonly<JsonObject>, field: string): string {
  if (field === "metadata.name") return metaText(object, "name");
  if (field === "metadata.namespace") return metaText(object, "namespace");
  return kind.fieldSelectors[field]?.(object) ?? "";
}

function parseFields(kind: KindDefinition, text: string): readonly FieldRequirement[] {
  const requirements = parseFieldSelector(text);
  for (const { field } of requirements) {
    const isKnown =
      field === "metadata.name" ||
      (field === "metadata.namespace" && kind.namespaced) ||
      Object.hasOwn(kind.fieldSelectors, field);
    if (isKnown) continue;
    if (Object.keys(kind.fieldSelectors).length > 0)
      throw badRequest(`field label not supported: ${field}`);
    const names = ["metadata.name", ...(kind.namespaced ? ["metadata.namespace"] : [])];
    const known = names.map((name) => JSON.stringify(name)).join(", ");
    throw badRequest(`"${field}" is not a known field selector: only ${known}`);
  }
  return requirements;
}

/**
 * The filter that a request's selectors make for a kind.
 *
 * @throws {StatusError} 400 for malformed selectors and unknown fields.
 */
export function parseSelection(
  kind: KindDefinition,
  options: { readonly labelSelector: string; readonly fieldSelector: string },
): Selection {
  try {
    const labels = parseLabelSelector(options.labelSelector);
    const fields = parseFields(kind, options.fieldSelector);
    const name = fields.find((one) => one.field === "metadata.name" && one.operator === "=")?.value;
    const matches: Filter = (object) =>
      matchesLabels(labels, stringMap(readMetadata(object)["labels"])) &&
      matchesFields(fields, (field) => fieldValue(kind, object, field));
    return { matches, name, everything: labels.length === 0 && fields.length === 0 };
  } catch (error) {
    if (error instanceof SelectorError) throw badRequest(error.message);
    throw error;
  }
}

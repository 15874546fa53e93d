import { isDeepStrictEqual } from "node:util";

import { isRecord, optionalString } from "../../lib/guard.ts";
import { DecodeError, decodeObject } from "../schema/decode.ts";
import { badRequest, StatusError } from "../status-error.ts";
import type { JsonObject, KindDefinition, RequestContext } from "../types.ts";
import { formatTime } from "./deletion.ts";
import {
  appliedFields,
  changedFields,
  difference,
  fieldsOf,
  intersection,
  leavesOf,
  pathsOf,
  toFieldsV1,
  union,
  withStructures,
  type FieldSet,
} from "./field-set.ts";
import {
  formatManagedFields,
  ownable,
  parseManagedFields,
  removedFields,
  sameWriter,
  type Entry,
  type Writer,
} from "./managed-fields.ts";
import { metadataOf, metaText, readMetadata } from "./object-meta.ts";
import { configurationFaults, mergeValues, removeFields } from "./structured-merge.ts";
import { apiVersionOf, writableFields } from "./write-rules.ts";

const LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration";
/** The manager whose applies take over what client-side apply owned. */
const KUBECTL = "kubectl";
const BEFORE_FIRST_APPLY = "before-first-apply";

export interface ApplyRequest {
  /** The stored object; undefined creates one. */
  readonly live: Readonly<JsonObject> | undefined;
  /** As it was sent, not decoded: zero values and nulls count. */
  readonly configuration: Readonly<JsonObject>;
  /** Name in the schema table. */
  readonly schema: string;
  readonly writer: Writer;
  readonly force: boolean;
  /** Top-level fields that this endpoint writes; the others are nobody's by this apply. */
  readonly writes: (field: string) => boolean;
  /** API version of the form of a part (scale) that is applied, which conflicts name; undefined for a whole object. */
  readonly viewVersion?: string;
}

interface Conflict {
  readonly owner: Entry;
  readonly fields: FieldSet;
}

function ownerText({ manager, subresource, operation, apiVersion }: Writer): string {
  const within =
    subresource === undefined ? "" : ` with subresource ${JSON.stringify(subresource)}`;
  const using = operation === "Update" ? ` using ${apiVersion}` : "";
  return `${JSON.stringify(manager)}${within}${using}`;
}

function conflictError(conflicts: readonly Conflict[]): StatusError {
  const sorted = conflicts.toSorted((left, right) =>
    left.owner.manager < right.owner.manager ? -1 : 1,
  );
  const causes = sorted.flatMap(({ owner, fields }) =>
    pathsOf(fields).map((field) => ({
      reason: "FieldManagerConflict",
      message: `conflict with ${ownerText(owner)}`,
      field,
    })),
  );
  const [only] = causes;
  const message =
    causes.length === 1 && only !== undefined
      ? `Apply failed with 1 conflict: ${only.message}: ${only.field}`
      : `Apply failed with ${causes.length} conflicts: ${sorted
          .flatMap(({ owner, fields }) => [
            `conflicts with ${ownerText(owner)}:`,
            ...pathsOf(fields).map((path) => `- ${path}`),
          ])
          .join("\n")}`;
  return new StatusError(409, "Conflict", message, { causes });
}

function withoutManagedFields(object: Readonly<JsonObject>): JsonObject {
  const { managedFields: _, ...metadata } = readMetadata(object);
  return { ...object, metadata };
}

/** The entries of the live object; one that nobody was tracked of belongs to those before the first apply. */
function liveEntries(request: ApplyRequest): Entry[] {
  const { live, schema, writer } = request;
  if (live === undefined) return [];
  const entries = parseManagedFields(readMetadata(live)["managedFields"]);
  if (entries.length > 0) return entries;
  const fields = ownable(fieldsOf(withoutManagedFields(live), { ref: schema }));
  return [{ ...writer, manager: BEFORE_FIRST_APPLY, operation: "Update", fields }];
}

/**
 * Takes out of `merged` what the applier owned and no longer names, unless somebody else owns it too. What stands inside
 * of such a field and was never the applier's stays.
 */
function prune(
  merged: unknown,
  last: FieldSet,
  owned: readonly FieldSet[],
  schema: string,
): unknown {
  if (last.size === 0) return merged;
  const reference = { ref: schema };
  const full = (set: FieldSet): FieldSet => withStructures(set, reference);
  const fieldsIn = (value: unknown): FieldSet => full(appliedFields(value, reference));
  const all = fieldsIn(merged);
  const without = removeFields(merged, full(last), reference);
  const managed = full(owned.reduce(union, new Map()));
  const kept = union(fieldsIn(without), managed);
  const withOwned = removeFields(merged, difference(all, kept), reference);
  const gone = intersection(difference(all, fieldsIn(withOwned)), full(last));
  return removeFields(merged, gone, reference);
}

/** Fields that client-side apply set and nobody has changed since: an apply by kubectl may take them over. */
function lastAppliedFields(live: Readonly<JsonObject>, schema: string): FieldSet {
  const annotations = readMetadata(live)["annotations"];
  const text = isRecord(annotations) ? optionalString(annotations[LAST_APPLIED]) : undefined;
  let last: unknown;
  try {
    last = text === undefined ? undefined : JSON.parse(text);
  } catch {
    // A damaged annotation entitles nobody to anything.
  }
  if (!isRecord(last) || last["apiVersion"] !== live["apiVersion"]) return new Map();
  const reference = { ref: schema };
  const stale = union(changedFields(last, live, reference), removedFields(last, live, schema));
  return difference(appliedFields(last, reference), stale);
}

function checkConfiguration(
  configuration: Readonly<JsonObject>,
  schema: string,
  apiVersion: string,
): void {
  if (readMetadata(configuration)["managedFields"] !== undefined)
    throw badRequest("metadata.managedFields must be nil");
  const kind = String(configuration["kind"]);
  const namespace = metaText(configuration, "namespace");
  const name = metaText(configuration, "name");
  const object = `${namespace}/${name}; ${apiVersion}, Kind=${kind}`;
  const refuse = (text: string): StatusError =>
    badRequest(`failed to create typed patch object (${object}): ${text}`);
  const faults = configurationFaults(configuration, { ref: schema });
  if (faults.length > 0)
    throw refuse(faults.length === 1 ? (faults[0] ?? "") : `errors:\n  ${faults.join("\n  ")}`);
  try {
    decodeObject(schema, configuration);
  } catch (error) {
    if (error instanceof DecodeError) throw refuse(error.message);
    throw error;
  }
}

function decoded(value: unknown, request: ApplyRequest): JsonObject {
  const { object } = decodeObject(request.schema, value);
  return {
    ...object,
    apiVersion: request.configuration["apiVersion"],
    kind: request.configuration["kind"],
  };
}

/** Keeps the annotation of client-side apply true for those who go back to it. */
function refreshLastApplied(object: JsonObject, configuration: Readonly<JsonObject>): void {
  const annotations = metadataOf(object)["annotations"];
  if (!isRecord(annotations) || (optionalString(annotations[LAST_APPLIED]) ?? "") === "") return;
  const config = structuredClone(configuration);
  const own = readMetadata(config)["annotations"];
  if (isRecord(own)) delete own[LAST_APPLIED];
  annotations[LAST_APPLIED] = `${JSON.stringify(config)}\n`;
}

/** Who loses fields to the values that this apply sets. */
function conflictsOf(
  request: ApplyRequest,
  others: readonly Entry[],
  changed: FieldSet,
): readonly Conflict[] {
  const conflicts = others
    .map((owner) => ({ owner, fields: intersection(owner.fields, changed) }))
    .filter(({ fields }) => fields.size > 0);
  if (request.force || conflicts.length === 0) return conflicts;
  const { live, writer, schema, viewVersion } = request;
  const free =
    live !== undefined && writer.manager === KUBECTL && viewVersion === undefined
      ? lastAppliedFields(live, schema)
      : new Map();
  const refused = conflicts
    .map(({ owner, fields }) => ({
      owner: viewVersion === undefined ? owner : { ...owner, apiVersion: viewVersion },
      fields: difference(fields, free),
    }))
    .filter(({ fields }) => fields.size > 0);
  if (refused.length > 0) throw conflictError(refused);
  return conflicts;
}

/**
 * Server-side apply: what the live object becomes when `writer` applies its configuration, `metadata.managedFields`
 * included. Defaults, admission and validation come after it, as for any update.
 *
 * @throws {StatusError} 400 for a configuration that cannot be merged; 409 with a FieldManagerConflict per field that
 *   another manager owns with another value, unless forced.
 */
export function applyConfiguration(request: ApplyRequest): JsonObject {
  const { configuration, schema, writer, writes } = request;
  checkConfiguration(configuration, schema, writer.apiVersion);
  const reference = { ref: schema };
  const live = withoutManagedFields(request.live ?? {});
  const entries = liveEntries(request);
  const mine = entries.find((entry) => sameWriter(entry, writer));
  const others = entries.filter((entry) => entry !== mine);
  const claimed: FieldSet = new Map(
    [...appliedFields(configuration, reference)].filter(([element]) => writes(element.slice(2))),
  );
  const merged = prune(
    mergeValues(live, configuration, reference),
    mine?.fields ?? new Map(),
    [claimed, ...others.map(({ fields }) => fields)],
    schema,
  );
  const object = decoded(merged, request);
  const removed = removedFields(live, object, schema);
  // Another spelling of the same quantity, or a zero value that is not stored, takes nothing from anybody.
  const effective = union(changedFields(live, object, reference), removed);
  const changed = intersection(leavesOf(changedFields(live, merged, reference)), effective);
  const conflicts = conflictsOf(request, others, changed);
  const kept = others.map((entry) => {
    const lost = conflicts.find(({ owner }) => owner === entry)?.fields ?? new Map();
    return { ...entry, fields: difference(difference(entry.fields, lost), removed) };
  });
  const fields = ownable(claimed);
  const unmoved =
    mine !== undefined &&
    isDeepStrictEqual(toFieldsV1(mine.fields), toFieldsV1(fields)) &&
    isDeepStrictEqual(object, live);
  const own: Entry = { ...writer, time: unmoved ? mine.time : writer.time, fields };
  if (writer.manager === KUBECTL && request.viewVersion === undefined)
    refreshLastApplied(object, configuration);
  const managed = formatManagedFields([own, ...kept]);
  if (managed.length > 0) metadataOf(object)["managedFields"] = managed;
  return object;
}

/** The change that applying `configuration` makes to an object of this kind, or to none. */
export function configurationApplier(
  kind: KindDefinition,
  configuration: Readonly<JsonObject>,
  options: {
    readonly context: RequestContext;
    readonly manager: string;
    readonly force: boolean;
    readonly subresource?: string;
  },
): (live: Readonly<JsonObject> | undefined) => JsonObject {
  const { context, manager, force, subresource } = options;
  const writer: Writer = {
    manager,
    operation: "Apply",
    apiVersion: apiVersionOf(kind),
    subresource,
    time: formatTime(context.now),
  };
  const writes = writableFields(kind, subresource);
  const { schema } = kind;
  const custom = subresource === undefined ? undefined : kind.subresources[subresource];
  if (custom?.kind !== "custom" || custom.view === undefined)
    return (live) => applyConfiguration({ live, configuration, schema, writer, force, writes });
  const { view, gvk } = custom;
  const viewVersion = apiVersionOf(gvk);
  checkConfiguration(configuration, view.schema, viewVersion);
  const part = view.configurationOf(configuration);
  return (live) => {
    const request = { live, configuration: part, schema, writer, force, writes, viewVersion };
    const object = applyConfiguration(request);
    view.complete(object);
    return object;
  };
}

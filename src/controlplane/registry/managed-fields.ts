import { isDeepStrictEqual } from "node:util";

import { isRecord, optionalString } from "../../lib/guard.ts";
import type { JsonObject } from "../types.ts";
import {
  changedFields,
  difference,
  fieldsOf,
  fromFieldsV1,
  toFieldsV1,
  union,
  type FieldSet,
} from "./field-set.ts";

/** More Update entries than this are folded into one named `ancient-changes`. */
const MAX_UPDATE_ENTRIES = 10;
const ANCIENT = "ancient-changes";

/** Fields that belong to nobody. */
const unowned = {
  top: new Set(["f:apiVersion", "f:kind"]),
  metadata: new Set(
    [
      "name",
      "namespace",
      "uid",
      "resourceVersion",
      "creationTimestamp",
      "generation",
      "selfLink",
      "managedFields",
    ].map((field) => `f:${field}`),
  ),
};

export interface Writer {
  readonly manager: string;
  readonly operation: "Update" | "Apply";
  /** `v1`, `apps/v1`. */
  readonly apiVersion: string;
  readonly subresource: string | undefined;
  /** RFC 3339, whole seconds. */
  readonly time: string;
}

export interface Entry extends Writer {
  readonly fields: FieldSet;
}

/** Whether two entries are the same writer's: an applier stays itself across API versions. */
export function sameWriter(left: Writer, right: Writer): boolean {
  return (
    left.manager === right.manager &&
    left.operation === right.operation &&
    (left.operation === "Apply" || left.apiVersion === right.apiVersion) &&
    (left.subresource ?? "") === (right.subresource ?? "")
  );
}

/** Takes the fields out that nobody owns. */
export function ownable(set: FieldSet): FieldSet {
  const out: FieldSet = new Map();
  for (const [element, node] of set) {
    if (unowned.top.has(element)) continue;
    if (element !== "f:metadata") {
      out.set(element, node);
      continue;
    }
    const children = new Map([...node.children].filter(([name]) => !unowned.metadata.has(name)));
    if (children.size > 0) out.set(element, { owned: false, children });
  }
  return out;
}

/** Reads `metadata.managedFields`; entries that are no such are left out. */
export function parseManagedFields(value: unknown): Entry[] {
  if (!Array.isArray(value)) return [];
  return value.filter(isRecord).flatMap((entry) => {
    const manager = optionalString(entry["manager"]) ?? "";
    const operation = entry["operation"];
    if (operation !== "Update" && operation !== "Apply") return [];
    return [
      {
        manager,
        operation,
        apiVersion: optionalString(entry["apiVersion"]) ?? "",
        subresource: optionalString(entry["subresource"]),
        time: optionalString(entry["time"]) ?? "",
        fields: fromFieldsV1(entry["fieldsV1"]),
      },
    ];
  });
}

/** The value of `metadata.managedFields`: in order, without empty entries, the oldest ones folded into one. */
export function formatManagedFields(entries: readonly Entry[]): JsonObject[] {
  const owners = entries.filter((entry) => entry.fields.size > 0);
  return capped(inOrder(owners)).map((entry) => ({
    manager: entry.manager,
    operation: entry.operation,
    apiVersion: entry.apiVersion,
    time: entry.time,
    fieldsType: "FieldsV1",
    fieldsV1: toFieldsV1(entry.fields),
    ...(entry.subresource === undefined ? {} : { subresource: entry.subresource }),
  }));
}

function inOrder(entries: readonly Entry[]): Entry[] {
  return entries.toSorted((left, right) => {
    if (left.operation !== right.operation) return left.operation === "Apply" ? -1 : 1;
    if (left.time !== right.time) return left.time < right.time ? -1 : 1;
    if (left.manager !== right.manager) return left.manager < right.manager ? -1 : 1;
    return (left.subresource ?? "") < (right.subresource ?? "") ? -1 : 1;
  });
}

function capped(entries: readonly Entry[]): Entry[] {
  const updates = entries.filter((entry) => entry.operation === "Update");
  if (updates.length <= MAX_UPDATE_ENTRIES) return [...entries];
  const [oldest, next] = updates;
  if (oldest === undefined || next === undefined) return [...entries];
  const fields = union(oldest.fields, next.fields);
  const ancient: Entry = { ...next, manager: ANCIENT, subresource: undefined, fields };
  return capped(inOrder([ancient, ...entries.filter((one) => one !== oldest && one !== next)]));
}

function metadataOf(object: Readonly<JsonObject>): JsonObject {
  return isRecord(object["metadata"]) ? object["metadata"] : {};
}

/** The entries that hold before a write: those of the stored object, unless the client sent others or reset them. */
function baseEntries(before: Readonly<JsonObject>, after: JsonObject, writer: Writer): Entry[] {
  const stored = metadataOf(before)["managedFields"];
  const sent = metadataOf(after)["managedFields"];
  const silent = !Array.isArray(sent) || sent.length === 0;
  return parseManagedFields(silent || writer.subresource !== undefined ? stored : sent);
}

/** Fields that `before` has and `after` has not. */
export function removedFields(before: unknown, after: unknown, schema: string): FieldSet {
  const reference = { ref: schema };
  return difference(fieldsOf(before, reference), fieldsOf(after, reference));
}

/**
 * What `metadata.managedFields` becomes when `writer` turns `before` into `after` by create or update: the changed
 * fields are the writer's, removed fields are nobody's. `writes` tells which top-level fields the writer can own.
 */
export function fieldsAfterUpdate(
  before: Readonly<JsonObject> | undefined,
  after: JsonObject,
  schema: string,
  writer: Writer,
  writes: (field: string) => boolean = () => true,
): JsonObject[] {
  const reference = { ref: schema };
  const touched =
    before === undefined ? fieldsOf(after, reference) : changedFields(before, after, reference);
  const changed = ownable(new Map([...touched].filter(([element]) => writes(element.slice(2)))));
  const base = before === undefined ? [] : baseEntries(before, after, writer);
  // Somebody reset the list: nothing is tracked until the next apply.
  if (before !== undefined && base.length === 0) return [];
  const removed = before === undefined ? new Map() : removedFields(before, after, schema);
  const kept = base.map((entry) => {
    const mine = sameWriter(entry, writer);
    const fields = difference(entry.fields, removed);
    return { ...entry, fields: mine ? fields : difference(fields, changed) };
  });
  const own = kept.find((entry) => sameWriter(entry, writer));
  if (changed.size > 0) {
    if (own === undefined) kept.push({ ...writer, fields: changed });
    else {
      const fields = union(own.fields, changed);
      const moved = !isDeepStrictEqual(toFieldsV1(fields), toFieldsV1(own.fields));
      kept[kept.indexOf(own)] = { ...own, fields, time: moved ? writer.time : own.time };
    }
  }
  return formatManagedFields(kept);
}

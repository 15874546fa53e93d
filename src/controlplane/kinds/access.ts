import { isRecord } from "../../lib/guard.ts";
import type { JsonObject } from "../types.ts";

/** `value` when it is a JSON object, else an empty one that nobody else sees. For reading only. */
export function record(value: unknown): Readonly<JsonObject> {
  return isRecord(value) ? value : {};
}

/** The member `key` of `parent`, created as an empty object when it is absent. For writing. */
export function ensureRecord(parent: JsonObject, key: string): JsonObject {
  const present = parent[key];
  if (isRecord(present)) return present;
  const created: JsonObject = {};
  parent[key] = created;
  return created;
}

/** `value` when it is an array, else empty. */
export function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** The JSON objects in an array; other members are left out. */
export function records(value: unknown): JsonObject[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

/** The strings in an array. */
export function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

/** `value` when it is a string, else "" (the API's unset). */
export function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** `value` when it is a number, else undefined. */
export function int(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}

/** The value at a path of members, or undefined. */
export function dig(value: unknown, ...path: readonly string[]): unknown {
  let current = value;
  for (const key of path) {
    if (!isRecord(current)) return undefined;
    current = current[key];
  }
  return current;
}

/** Sets `object[key]` when it is absent, null or the empty string: the API's rule for "unset". */
export function defaultTo(object: JsonObject, key: string, value: unknown): void {
  const present = object[key];
  if (present === undefined || present === null || present === "") object[key] = value;
}

/** `{}`-like: absent, null, or an object or array without members. */
export function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  if (Array.isArray(value)) return value.length === 0;
  return isRecord(value) && Object.keys(value).length === 0;
}

/** Deep equality in the API's sense: absent, null and empty containers are the same. */
export function semanticEqual(left: unknown, right: unknown): boolean {
  if (left === right) return true;
  if (isEmpty(left) && isEmpty(right)) return true;
  if (Array.isArray(left) && Array.isArray(right)) {
    return (
      left.length === right.length && left.every((item, index) => semanticEqual(item, right[index]))
    );
  }
  if (isRecord(left) && isRecord(right)) {
    const keys = new Set([...Object.keys(left), ...Object.keys(right)]);
    return [...keys].every((key) => semanticEqual(left[key], right[key]));
  }
  return false;
}

/** `metadata` of an object, for reading. */
export function metadataOf(object: Readonly<JsonObject>): Readonly<JsonObject> {
  return record(object["metadata"]);
}

/** `metadata.name`. */
export function nameOf(object: Readonly<JsonObject>): string {
  return text(metadataOf(object)["name"]);
}

/** `metadata.namespace`, "" when cluster-scoped. */
export function namespaceOf(object: Readonly<JsonObject>): string {
  return text(metadataOf(object)["namespace"]);
}

/** A string map such as labels, annotations or a selector. */
export function mapOf(value: unknown): Readonly<Record<string, string>> {
  const out: Record<string, string> = {};
  for (const [key, member] of Object.entries(record(value)))
    if (typeof member === "string") out[key] = member;
  return out;
}

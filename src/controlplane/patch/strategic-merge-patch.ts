import { isDeepStrictEqual } from "node:util";

import { isRecord, type JsonRecord } from "../../lib/guard.ts";
import { definitionOf, memberSchema, type FieldSchema } from "../schema/schema-table.ts";
import { PatchError } from "./patch-error.ts";

const DIRECTIVE = "$patch";
const RETAIN_KEYS = "$retainKeys";
const ELEMENT_ORDER = "$setElementOrder/";
const DELETE_PRIMITIVES = "$deleteFromPrimitiveList/";

function isDirective(key: string): boolean {
  return (
    key === DIRECTIVE ||
    key === RETAIN_KEYS ||
    key.startsWith(ELEMENT_ORDER) ||
    key.startsWith(DELETE_PRIMITIVES)
  );
}

function merges(schema: FieldSchema | undefined): boolean {
  return schema?.patchStrategy?.split(",").includes("merge") ?? false;
}

/** What is left of a patch value that has nothing to merge into: nulls and directives are instructions, not data. */
function withoutInstructions(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value
      .filter((item) => !(isRecord(item) && item[DIRECTIVE] === "delete"))
      .filter(
        (item) =>
          !(isRecord(item) && item[DIRECTIVE] === "replace" && Object.keys(item).length === 1),
      )
      .map(withoutInstructions);
  }
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key, member]) => member !== null && !isDirective(key))
      .map(([key, member]) => [key, withoutInstructions(member)]),
  );
}

function asList(value: unknown, what: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw new PatchError(400, `invalid strategic merge patch: ${what} must be a list`);
}

function asItem(value: unknown, mergeKey: string): JsonRecord {
  if (!isRecord(value))
    throw new PatchError(
      400,
      `invalid strategic merge patch: items merged by ${mergeKey} must be objects`,
    );
  return value;
}

function keyValue(item: JsonRecord, mergeKey: string): unknown {
  const value = item[mergeKey];
  if (value === undefined) {
    throw new PatchError(
      400,
      `map: ${JSON.stringify(item)} does not contain declared merge key: ${mergeKey}`,
    );
  }
  return value;
}

/**
 * The items in the order of `order`; items that it does not name keep their place relative to the item before them in
 * the live list.
 */
function inOrder(
  items: readonly unknown[],
  order: readonly unknown[],
  live: readonly unknown[],
  same: (left: unknown, right: unknown) => boolean,
): unknown[] {
  const position = (list: readonly unknown[], item: unknown): number =>
    list.findIndex((other) => same(other, item));
  const named = order.flatMap((wanted) => items.filter((item) => same(item, wanted)));
  let rest = items
    .filter((item) => position(order, item) < 0)
    .toSorted((left, right) => position(live, left) - position(live, right));
  const out: unknown[] = [];
  for (const item of named) {
    const at = position(live, item);
    // An unnamed item that the server already had before this one stays before it.
    const before = rest.filter((other) => position(live, other) < at);
    out.push(...before);
    rest = rest.slice(before.length);
    out.push(item);
  }
  return [...out, ...rest];
}

function replacement(patch: readonly unknown[], mergeKey: string): unknown[] {
  return patch
    .map((item) => asItem(item, mergeKey))
    .filter((item) => item[DIRECTIVE] !== "replace" || Object.keys(item).length > 1)
    .map(withoutInstructions);
}

function mergeObjects(
  live: readonly unknown[],
  patch: readonly unknown[],
  mergeKey: string,
  itemSchema: FieldSchema | undefined,
): unknown[] {
  let out = [...live];
  for (const item of patch.map((each) => asItem(each, mergeKey))) {
    const key = keyValue(item, mergeKey);
    const matches = (other: unknown): boolean =>
      isRecord(other) && isDeepStrictEqual(other[mergeKey], key);
    if (item[DIRECTIVE] === "delete") {
      out = out.filter((other) => !matches(other));
      continue;
    }
    checkDirective(item[DIRECTIVE]);
    const at = out.findIndex(matches);
    if (at < 0) out.push(withoutInstructions(item));
    else out[at] = mergeMaps(out[at], item, itemSchema);
  }
  return out;
}

function checkDirective(directive: unknown): void {
  if (directive === undefined || directive === "merge" || directive === "delete") return;
  if (directive === "replace") return;
  throw new PatchError(400, `Unknown patch type found: ${JSON.stringify(directive)}`);
}

function mergeList(
  liveValue: unknown,
  patchValue: unknown,
  schema: FieldSchema | undefined,
  extra: { readonly order: unknown; readonly remove: unknown },
): unknown {
  const live: readonly unknown[] = Array.isArray(liveValue) ? liveValue : [];
  const patch = patchValue === undefined ? [] : asList(patchValue, "a list field");
  if (!merges(schema)) return withoutInstructions(patch);
  const mergeKey = schema?.mergeKey;
  // Without a directive the patch itself says the order: what it adds comes before what it does not name.
  const order = extra.order === undefined ? patch : asList(extra.order, "$setElementOrder");
  if (mergeKey !== undefined) {
    // As it stands: the key of such a list may not be unique (`status.addresses` of a Node with two families).
    const replaces = patch.some((item) => isRecord(item) && item[DIRECTIVE] === "replace");
    if (replaces) return replacement(patch, mergeKey);
    const merged = mergeObjects(live, patch, mergeKey, schema?.items);
    const same = (left: unknown, right: unknown): boolean =>
      isRecord(left) && isRecord(right) && isDeepStrictEqual(left[mergeKey], right[mergeKey]);
    return inOrder(merged, order, live, same);
  }
  const remove = extra.remove === undefined ? [] : asList(extra.remove, "$deleteFromPrimitiveList");
  const merged = [...new Set([...live, ...patch])].filter((item) => !remove.includes(item));
  return inOrder(merged, order, live, Object.is);
}

function retainOnly(out: Map<string, unknown>, retain: unknown): void {
  const keys = asList(retain, RETAIN_KEYS);
  for (const key of out.keys()) if (!keys.includes(key)) out.delete(key);
}

/** Names of list fields that the patch mentions only through a directive. */
function directedFields(patch: JsonRecord): string[] {
  return Object.keys(patch)
    .filter((key) => key.startsWith(ELEMENT_ORDER) || key.startsWith(DELETE_PRIMITIVES))
    .map((key) => key.slice(key.indexOf("/") + 1))
    .filter((name) => !Object.hasOwn(patch, name));
}

function isListField(schema: FieldSchema | undefined, value: unknown): boolean {
  return schema?.type === "array" || Array.isArray(value);
}

function mergeMaps(
  target: unknown,
  patch: JsonRecord,
  schema: FieldSchema | undefined,
): JsonRecord {
  checkDirective(patch[DIRECTIVE]);
  if (patch[DIRECTIVE] === "delete") return {};
  const replaces = patch[DIRECTIVE] === "replace";
  const out = new Map(Object.entries(isRecord(target) && !replaces ? target : {}));
  if (patch[RETAIN_KEYS] !== undefined) retainOnly(out, patch[RETAIN_KEYS]);
  for (const key of [...Object.keys(patch), ...directedFields(patch)]) {
    if (isDirective(key)) continue;
    const value = patch[key];
    const member = memberSchema(schema, key);
    if (value === null) out.delete(key);
    else if (isListField(member, value ?? out.get(key))) {
      out.set(
        key,
        mergeList(out.get(key), value, member, {
          order: patch[`${ELEMENT_ORDER}${key}`],
          remove: patch[`${DELETE_PRIMITIVES}${key}`],
        }),
      );
    } else if (isRecord(value) && member?.patchStrategy !== "replace") {
      if (value[DIRECTIVE] === "delete") out.delete(key);
      else if (isRecord(out.get(key))) out.set(key, mergeMaps(out.get(key), value, member));
      else out.set(key, withoutInstructions(value));
    } else out.set(key, withoutInstructions(value));
  }
  return Object.fromEntries(out);
}

/**
 * Applies a strategic merge patch to an object of the type `schema` (a name of the schema table). The inputs are not
 * changed; the result may share parts with them.
 *
 * @throws {PatchError}
 */
export function applyStrategicMergePatch(
  target: JsonRecord,
  patch: unknown,
  schema: string,
): JsonRecord {
  if (definitionOf(schema) === undefined) throw new PatchError(422, `no schema for ${schema}`);
  if (!isRecord(patch))
    throw new PatchError(400, "error decoding patch: a strategic merge patch must be an object");
  return mergeMaps(target, patch, { ref: schema });
}

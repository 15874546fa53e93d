import { isDeepStrictEqual } from "node:util";

import { isRecord, type JsonRecord } from "../../lib/guard.ts";
import { definitionOf, isPresent, memberSchema, type FieldSchema } from "../schema/schema-table.ts";

/**
 * A set of field paths (meta/v1 FieldsV1). Keys are path elements: `f:name`, `k:{"name":"c"}` for items of associative
 * lists, `v:"x"` for items of sets.
 */
export type FieldSet = Map<string, FieldNode>;

export interface FieldNode {
  /** The path itself is in the set, not only paths below it. */
  owned: boolean;
  readonly children: FieldSet;
}

/** What a value is to its fields: indivisible, a structure or map of members, a set of scalars, a list of keyed items. */
export type Shape =
  | { readonly kind: "leaf" }
  | { readonly kind: "struct" | "map" }
  | { readonly kind: "set" }
  | { readonly kind: "list"; readonly keys: readonly string[] };

export function shapeOf(value: unknown, schema: FieldSchema | undefined): Shape {
  const definition = schema?.ref === undefined ? undefined : definitionOf(schema.ref);
  const atomic = schema?.mapType === "atomic" || definition?.mapType === "atomic";
  if (isRecord(value)) {
    if (atomic) return { kind: "leaf" };
    if (definition?.fields !== undefined) return { kind: "struct" };
    return { kind: schema?.map === undefined ? "leaf" : "map" };
  }
  if (Array.isArray(value)) {
    if (schema?.listType === "set") return { kind: "set" };
    if (schema?.listType === "map") return { kind: "list", keys: schema.listMapKeys ?? [] };
  }
  return { kind: "leaf" };
}

function itemDefault(schema: FieldSchema | undefined, key: string): unknown {
  return memberSchema(schema?.items, key)?.default;
}

/** The path element of an item of an associative list. Keys that the item leaves out have their default. */
export function itemKey(
  item: unknown,
  keys: readonly string[],
  schema: FieldSchema | undefined,
): string {
  const record = isRecord(item) ? item : {};
  const pairs = keys
    .toSorted()
    .map((key) => [key, record[key] ?? itemDefault(schema, key)] as const)
    .filter(([, value]) => value !== undefined);
  return `k:${JSON.stringify(Object.fromEntries(pairs))}`;
}

export interface Member {
  readonly element: string;
  readonly value: unknown;
  readonly schema: FieldSchema | undefined;
}

/** The members of a value one level down, in its order; items with equal keys come as often as they are there. */
export function memberList(value: unknown, schema: FieldSchema | undefined): readonly Member[] {
  const shape = shapeOf(value, schema);
  if (isRecord(value) && (shape.kind === "struct" || shape.kind === "map")) {
    return Object.entries(value).map(([key, member]) => ({
      element: `f:${key}`,
      value: member,
      schema: memberSchema(schema, key),
    }));
  }
  if (!Array.isArray(value)) return [];
  if (shape.kind === "list") {
    return value.map((item: unknown) => ({
      element: itemKey(item, shape.keys, schema),
      value: item,
      schema: schema?.items,
    }));
  }
  if (shape.kind !== "set") return [];
  return value.map((item: unknown) => ({
    element: `v:${JSON.stringify(item)}`,
    value: item,
    schema: undefined,
  }));
}

/** The members of a value one level down, by path element, with their schemas. */
function members(value: unknown, schema: FieldSchema | undefined): Map<string, Member> {
  return new Map(memberList(value, schema).map((member) => [member.element, member]));
}

/** What is in the list more than once. */
function repeated(elements: readonly string[]): string[] {
  const seen = new Set<string>();
  return elements.filter((element) => seen.size === seen.add(element).size);
}

function isItem(element: string): boolean {
  return element.startsWith("k:");
}

function isRequired(parent: FieldSchema | undefined, element: string): boolean {
  const required = parent?.ref === undefined ? [] : (definitionOf(parent.ref)?.required ?? []);
  return required.includes(element.slice(2));
}

/** Whether the empty value of the parent has the member already: then only what is in it is new. */
function wasThere(parent: FieldSchema | undefined, { element, value }: Member): boolean {
  if (Array.isArray(value)) return isRequired(parent, element);
  return parent?.ref !== undefined && isPresent(parent.ref, element.slice(2));
}

function wholeNode(member: Member, parent: FieldSchema | undefined, isNew: boolean): FieldNode {
  const { value, schema } = member;
  if (shapeOf(value, schema).kind === "leaf") return { owned: true, children: new Map() };
  const fresh = isNew || isItem(member.element) || !wasThere(parent, member);
  const children = fieldsOf(value, schema, fresh);
  return { owned: fresh || children.size === 0, children };
}

/**
 * All fields of a value. A new structure, map or list is itself a field, one that the type's empty value has is not.
 *
 * @param isNew The value as a whole was absent, not empty.
 */
export function fieldsOf(value: unknown, schema: FieldSchema | undefined, isNew = false): FieldSet {
  const out: FieldSet = new Map();
  const list = memberList(value, schema);
  const twice = new Set(repeated(list.map(({ element }) => element)));
  for (const [element, member] of members(value, schema)) {
    // Items with the same key are one field together.
    if (twice.has(element)) {
      out.set(element, { owned: true, children: new Map() });
      continue;
    }
    out.set(element, wholeNode(member, schema, isNew));
  }
  return out;
}

/**
 * The fields that a configuration claims (server-side apply): its leaves, its list items and its map entries, but not
 * the structures, maps and lists around them, which live as long as something in them does.
 */
export function appliedFields(value: unknown, schema: FieldSchema | undefined): FieldSet {
  const out: FieldSet = new Map();
  const declared = schema?.ref === undefined ? undefined : definitionOf(schema.ref)?.fields;
  for (const { element, value: member, schema: below } of memberList(value, schema)) {
    const leaf = shapeOf(member, below).kind === "leaf";
    const emptyMap = isRecord(member) && Object.keys(member).length === 0;
    const named = element.startsWith("f:") && declared !== undefined;
    const owned = leaf || emptyMap || !named;
    const children = leaf ? new Map<string, FieldNode>() : appliedFields(member, below);
    if (owned || children.size > 0) out.set(element, { owned, children });
  }
  return out;
}

/** Fields of `after` that `before` lacks or has with another value. */
export function changedFields(
  before: unknown,
  after: unknown,
  schema: FieldSchema | undefined,
): FieldSet {
  const out: FieldSet = new Map();
  const old = members(before, schema);
  const whole = fieldsOf(after, schema);
  for (const [element, member] of members(after, schema)) {
    const was = old.get(element);
    if (was === undefined) {
      const node = whole.get(element);
      if (node !== undefined) out.set(element, node);
    } else if (!isDeepStrictEqual(was.value, member.value)) {
      const { kind } = shapeOf(member.value, member.schema);
      const children =
        kind === "leaf" ? new Map() : changedFields(was.value, member.value, member.schema);
      if (kind === "leaf" || children.size > 0)
        out.set(element, { owned: kind === "leaf", children });
    }
  }
  return out;
}

export function union(left: FieldSet, right: FieldSet): FieldSet {
  const out: FieldSet = new Map(left);
  for (const [element, node] of right) {
    const other = out.get(element);
    out.set(
      element,
      other === undefined
        ? node
        : { owned: node.owned || other.owned, children: union(other.children, node.children) },
    );
  }
  return out;
}

/** Paths of `left` that are not in `right`. */
export function difference(left: FieldSet, right: FieldSet): FieldSet {
  const out: FieldSet = new Map();
  for (const [element, node] of left) {
    const other = right.get(element);
    if (other === undefined) {
      out.set(element, node);
      continue;
    }
    const children = difference(node.children, other.children);
    const owned = node.owned && !other.owned;
    if (owned || children.size > 0) out.set(element, { owned, children });
  }
  return out;
}

/** The set without structures, maps, lists and items that have members in it: values, not what holds them. */
export function leavesOf(set: FieldSet): FieldSet {
  return new Map(
    [...set].map(([element, { owned, children }]) => [
      element,
      { owned: owned && children.size === 0, children: leavesOf(children) },
    ]),
  );
}

/** Paths that are in both. */
export function intersection(left: FieldSet, right: FieldSet): FieldSet {
  const out: FieldSet = new Map();
  for (const [element, node] of left) {
    const other = right.get(element);
    if (other === undefined) continue;
    const children = intersection(node.children, other.children);
    const owned = node.owned && other.owned;
    if (owned || children.size > 0) out.set(element, { owned, children });
  }
  return out;
}

/** The set with every structure that has a member in it; maps, lists and items are added to no set by this. */
export function withStructures(set: FieldSet, schema: FieldSchema | undefined): FieldSet {
  const declared = schema?.ref === undefined ? undefined : definitionOf(schema.ref)?.fields;
  return new Map(
    [...set].map(([element, node]) => {
      const name = element.slice(2);
      const isField = element.startsWith("f:");
      const named = isField && declared !== undefined && Object.hasOwn(declared, name);
      const below = isField ? memberSchema(schema, name) : schema?.items;
      const children = withStructures(node.children, below);
      return [element, { owned: node.owned || named, children }];
    }),
  );
}

/** One path element as conflicts name it. */
export function elementText(element: string): string {
  const rest = element.slice(2);
  if (element.startsWith("f:")) return `.${rest}`;
  if (element.startsWith("v:")) return `[=${rest}]`;
  const key: unknown = JSON.parse(rest);
  const pairs = Object.entries(isRecord(key) ? key : {});
  return `[${pairs.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(",")}]`;
}

/** Every path of the set as conflicts name it: `.spec.containers[name="c"].image`. */
export function pathsOf(set: FieldSet, prefix = ""): readonly string[] {
  return [...set]
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .flatMap(([element, node]) => {
      const path = prefix + elementText(element);
      return [...(node.owned ? [path] : []), ...pathsOf(node.children, path)];
    });
}

/** Paths of `set` that exist in `value`. */
export function existing(set: FieldSet, value: unknown, schema: FieldSchema | undefined): FieldSet {
  const out: FieldSet = new Map();
  const present = members(value, schema);
  for (const [element, node] of set) {
    const member = present.get(element);
    if (member === undefined) continue;
    const children = existing(node.children, member.value, member.schema);
    if (node.owned || children.size > 0) out.set(element, { owned: node.owned, children });
  }
  return out;
}

/** The JSON form. */
export function toFieldsV1(set: FieldSet): JsonRecord {
  const out: JsonRecord = {};
  for (const [element, node] of [...set].toSorted(([left], [right]) => (left < right ? -1 : 1))) {
    const children = toFieldsV1(node.children);
    out[element] = node.owned && node.children.size > 0 ? { ".": {}, ...children } : children;
  }
  return out;
}

/** Reads the JSON form; anything that does not fit is left out. */
export function fromFieldsV1(value: unknown): FieldSet {
  const out: FieldSet = new Map();
  if (!isRecord(value)) return out;
  for (const [element, below] of Object.entries(value)) {
    if (element === "." || !isRecord(below)) continue;
    const children = fromFieldsV1(below);
    out.set(element, { owned: children.size === 0 || Object.hasOwn(below, "."), children });
  }
  return out;
}

import { isRecord } from "../../lib/guard.ts";
import type { FieldSchema } from "../schema/schema-table.ts";
import { elementText, memberList, shapeOf, type FieldSet, type Member } from "./field-set.ts";

function isEmpty(value: unknown): boolean {
  return Array.isArray(value) && value.length === 0;
}

/**
 * The items of both lists. Items of the configuration are in its order; an item that only the live list has keeps its
 * place behind the shared item that was before it.
 */
function mergeItems(live: readonly Member[], config: readonly Member[]): unknown[] {
  const configured = new Map(config.map((item) => [item.element, item]));
  const counts = new Map<string, number>();
  for (const { element } of live) counts.set(element, (counts.get(element) ?? 0) + 1);
  // Which of several live items with one key is meant cannot be told: the configured one replaces them.
  const known = new Map(
    live.filter(({ element }) => counts.get(element) === 1).map((item) => [item.element, item]),
  );
  const shared = config.filter(({ element }) => counts.has(element));
  const out: unknown[] = [];
  let next = 0;
  let nextShared = 0;
  const takeUpTo = (end: number): void => {
    for (const item of config.slice(next, end))
      out.push(mergeValues(known.get(item.element)?.value, item.value, item.schema));
    next = end;
  };
  for (const item of live) {
    if (!configured.has(item.element)) out.push(item.value);
    else if (shared[nextShared]?.element === item.element) {
      const at = config.findIndex(({ element }) => element === item.element);
      takeUpTo(at + 1);
      nextShared += 1;
    }
  }
  takeUpTo(config.length);
  return out;
}

/**
 * Lays a configuration over a live value as the schema says: structures and maps member by member, associative lists
 * item by item by their keys, sets as unions, everything else whole. Neither input is changed; parts are shared.
 */
export function mergeValues(
  live: unknown,
  config: unknown,
  schema: FieldSchema | undefined,
): unknown {
  if (config === undefined) return live;
  const shape = shapeOf(config, schema);
  if (shape.kind === "leaf" || live === undefined || shapeOf(live, schema).kind !== shape.kind)
    return config;
  if (isRecord(live) && isRecord(config)) {
    const merged = new Map(Object.entries(live));
    for (const { element, value, schema: below } of memberList(config, schema)) {
      const key = element.slice(2);
      merged.set(key, mergeValues(merged.get(key), value, below));
    }
    return Object.fromEntries(merged);
  }
  if (isEmpty(live) && isEmpty(config)) return config;
  return mergeItems(memberList(live, schema), memberList(config, schema));
}

/**
 * The value without the paths of `set`. A structure, map or list that loses its last member stays, empty.
 */
export function removeFields(
  value: unknown,
  set: FieldSet,
  schema: FieldSchema | undefined,
): unknown {
  const kept = memberList(value, schema)
    .filter(({ element }) => set.get(element)?.owned !== true)
    .map((member) => {
      const below = set.get(member.element)?.children;
      const rest =
        below === undefined || below.size === 0
          ? member.value
          : removeFields(member.value, below, member.schema);
      return [member.element.slice(2), rest] as const;
    });
  if (shapeOf(value, schema).kind === "leaf") return value;
  return Array.isArray(value) ? kept.map(([, item]) => item) : Object.fromEntries(kept);
}

/** What makes a configuration one that cannot be merged, as the API words it; empty when all is well. */
export function configurationFaults(
  value: unknown,
  schema: FieldSchema | undefined,
  path = "",
): readonly string[] {
  const isStruct = shapeOf(value, schema).kind === "struct";
  const seen = new Set<string>();
  return memberList(value, schema).flatMap((member) => {
    const { element } = member;
    const place = path + elementText(element);
    if (isStruct && member.schema === undefined) return [`${place}: field not declared in schema`];
    if (element === "k:{}")
      return [`${path}: associative list with keys has an element that omits all key fields`];
    if (seen.has(element)) return [`${path}: duplicate entries for key ${elementText(element)}`];
    seen.add(element);
    return configurationFaults(member.value, member.schema, place);
  });
}

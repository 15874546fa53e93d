import kubernetes from "./kubernetes-1.36.json" with { type: "json" };
import presentStructs from "./present-structs-1.36.json" with { type: "json" };
import zeroValues from "./zero-values-1.36.json" with { type: "json" };

/** One field, list item or map value. Exactly one of `type` and `ref` is there, or neither for free-form JSON. */
export interface FieldSchema {
  readonly type?: string;
  readonly format?: string;
  readonly ref?: string;
  readonly items?: FieldSchema;
  readonly map?: FieldSchema;
  readonly enum?: readonly string[];
  readonly default?: unknown;
  readonly listType?: string;
  readonly listMapKeys?: readonly string[];
  readonly mapType?: string;
  readonly mergeKey?: string;
  readonly patchStrategy?: string;
}

export interface Definition extends FieldSchema {
  readonly fields?: Readonly<Record<string, FieldSchema>>;
  readonly required?: readonly string[];
  readonly gvk?: readonly string[];
}

export const QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity";
export const INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
export const RAW_EXTENSION = "io.k8s.apimachinery.pkg.runtime.RawExtension";
export const TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
export const MICRO_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";

// The compiler's inferred type of a table of this size is of no use; its shape is pinned by the unit test.
const definitions = new Map(
  Object.entries(kubernetes.definitions as Readonly<Record<string, Definition>>),
);
const dropped = new Map(
  Object.entries(zeroValues as Readonly<Record<string, readonly string[]>>).map(
    ([name, fields]) => [name, new Set(fields)] as const,
  ),
);

const present = new Map(
  Object.entries(presentStructs as Readonly<Record<string, readonly string[]>>).map(
    ([name, fields]) => [name, new Set(fields)] as const,
  ),
);
/** What an object that has metadata has as well, as empty as it may be. */
const objectParts = new Set(["metadata", "spec", "status"]);

/** The definition of a type of the published API, such as `io.k8s.api.core.v1.Pod`. */
export function definitionOf(name: string): Definition | undefined {
  return definitions.get(name);
}

/** All definitions by name. */
export function allDefinitions(): ReadonlyMap<string, Definition> {
  return definitions;
}

/** Whether the API leaves this field out of a reply when it holds "", 0, false, [] or {}. */
export function dropsZero(definition: string, field: string): boolean {
  return dropped.get(definition)?.has(field) ?? false;
}

/** Whether a structure is there in the type's empty value: one that the API never leaves out. */
export function isPresent(definition: string, field: string): boolean {
  if (objectParts.has(field))
    return definitions.get(definition)?.fields?.["metadata"] !== undefined;
  return present.get(definition)?.has(field) ?? false;
}

/** The schema of a member of a value with schema `schema`: a struct field or a map value. */
export function memberSchema(
  schema: FieldSchema | undefined,
  member: string,
): FieldSchema | undefined {
  if (schema === undefined) return undefined;
  const struct = schema.ref === undefined ? schema : definitions.get(schema.ref);
  if (struct?.map !== undefined) return struct.map;
  const fields: Readonly<Record<string, FieldSchema>> | undefined =
    struct === undefined ? undefined : (struct as Definition).fields;
  return fields !== undefined && Object.hasOwn(fields, member) ? fields[member] : undefined;
}

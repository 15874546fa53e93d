import { createHash } from "node:crypto";

import { allDefinitions, type Definition, type FieldSchema } from "../schema/schema-table.ts";
import type { JsonObject, KindDefinition } from "../types.ts";
import { pathsOf } from "./paths.ts";

/** The published OpenAPI v3 documents: one per group version, made when first asked for. */
export interface OpenApi {
  /** `/openapi/v3`. */
  readonly index: JsonObject;
  /** SHA-512 of a document (`api/v1`, `apis/apps/v1`); undefined when there is none. */
  hash(name: string): string | undefined;
  /** The document as JSON text. */
  document(name: string): string | undefined;
}

const prefix = "#/components/schemas/";

function fieldSchema(field: FieldSchema): JsonObject {
  const extensions = {
    ...(field.listType === undefined ? {} : { "x-kubernetes-list-type": field.listType }),
    ...(field.listMapKeys === undefined ? {} : { "x-kubernetes-list-map-keys": field.listMapKeys }),
    ...(field.mapType === undefined ? {} : { "x-kubernetes-map-type": field.mapType }),
    ...(field.mergeKey === undefined ? {} : { "x-kubernetes-patch-merge-key": field.mergeKey }),
    ...(field.patchStrategy === undefined
      ? {}
      : { "x-kubernetes-patch-strategy": field.patchStrategy }),
  };
  if (field.ref !== undefined) return { allOf: [{ $ref: `${prefix}${field.ref}` }], ...extensions };
  return {
    ...(field.type === undefined ? {} : { type: field.type }),
    ...(field.format === undefined ? {} : { format: field.format }),
    ...(field.enum === undefined ? {} : { enum: field.enum }),
    ...(field.default === undefined ? {} : { default: field.default }),
    ...(field.items === undefined ? {} : { items: fieldSchema(field.items) }),
    ...(field.map === undefined ? {} : { additionalProperties: fieldSchema(field.map) }),
    ...extensions,
  };
}

function definitionSchema(definition: Definition): JsonObject {
  if (definition.fields === undefined) {
    if (definition.format === "int-or-string")
      return { format: "int-or-string", oneOf: [{ type: "integer" }, { type: "string" }] };
    if (definition.type === "any") return { oneOf: [{ type: "string" }, { type: "number" }] };
    const { type, format } = definition;
    return {
      ...(type === undefined ? {} : { type }),
      ...(format === undefined ? {} : { format }),
    };
  }
  const [group, version, kind] = definition.gvk ?? [];
  const properties = Object.entries(definition.fields).map(
    ([name, field]) => [name, fieldSchema(field)] as const,
  );
  return {
    type: "object",
    properties: Object.fromEntries(properties),
    ...(definition.required === undefined ? {} : { required: definition.required }),
    ...(definition.mapType === undefined ? {} : { "x-kubernetes-map-type": definition.mapType }),
    ...(kind === undefined
      ? {}
      : { "x-kubernetes-group-version-kind": [{ group, version, kind }] }),
  };
}

function referenced(field: FieldSchema): string[] {
  return [
    ...(field.ref === undefined ? [] : [field.ref]),
    ...(field.items === undefined ? [] : referenced(field.items)),
    ...(field.map === undefined ? [] : referenced(field.map)),
  ];
}

/** The definitions that some names need, themselves included. */
function closure(names: readonly string[]): JsonObject {
  const out: JsonObject = {};
  const waiting = [...names];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    const definition = allDefinitions().get(name);
    if (definition === undefined || Object.hasOwn(out, name)) continue;
    out[name] = definitionSchema(definition);
    for (const field of Object.values(definition.fields ?? {})) waiting.push(...referenced(field));
  }
  return Object.fromEntries(Object.entries(out).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function documentName(kind: { readonly group: string; readonly version: string }): string {
  return kind.group === "" ? `api/${kind.version}` : `apis/${kind.group}/${kind.version}`;
}

const META = "io.k8s.apimachinery.pkg.apis.meta.v1";

function build(kinds: readonly KindDefinition[]): string {
  const names = [`${META}.DeleteOptions`, `${META}.Patch`, `${META}.Status`];
  const bodies = kinds.flatMap((kind) =>
    Object.values(kind.subresources).flatMap((one) => (one.kind === "custom" ? [one.gvk] : [])),
  );
  for (const [name, { gvk }] of allDefinitions()) {
    const used = bodies.some(
      (one) => one.group === gvk?.[0] && one.version === gvk[1] && one.kind === gvk[2],
    );
    if (used) names.push(name);
  }
  names.push(...kinds.flatMap((kind) => [kind.schema, `${kind.schema}List`]));
  return JSON.stringify({
    openapi: "3.0.0",
    info: { title: "Kubernetes", version: "1.36" },
    paths: Object.fromEntries(kinds.flatMap((kind) => Object.entries(pathsOf(kind)))),
    components: { schemas: closure(names) },
  });
}

/** Builds documents lazily: nobody who does not validate pays for them. */
export function createOpenApi(kinds: readonly KindDefinition[]): OpenApi {
  const groups = new Map<string, KindDefinition[]>();
  for (const kind of kinds) {
    const name = documentName(kind);
    groups.set(name, [...(groups.get(name) ?? []), kind]);
  }
  const texts = new Map<string, string>();
  const hashes = new Map<string, string>();
  const textOf = (name: string): string | undefined => {
    const members = groups.get(name);
    if (members === undefined) return undefined;
    const built = texts.get(name) ?? build(members);
    texts.set(name, built);
    return built;
  };
  const hash = (name: string): string | undefined => {
    const known = hashes.get(name);
    const text = known === undefined ? textOf(name) : undefined;
    if (text === undefined) return known;
    const value = createHash("sha512").update(text).digest("hex").toUpperCase();
    hashes.set(name, value);
    return value;
  };
  return {
    get index() {
      const paths: JsonObject = {};
      for (const name of groups.keys())
        paths[name] = { serverRelativeURL: `/openapi/v3/${name}?hash=${hash(name) ?? ""}` };
      return { paths };
    },
    hash,
    document: textOf,
  };
}

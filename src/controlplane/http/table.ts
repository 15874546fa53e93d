import { readMetadata } from "../registry/object-meta.ts";
import type { JsonObject, TableDefinition } from "../types.ts";

/** What a row carries of its object: `?includeObject=`. */
export type IncludeObject = "None" | "Metadata" | "Object";

export function parseIncludeObject(value: string | null): IncludeObject {
  return value === "None" || value === "Object" ? value : "Metadata";
}

/** meta/v1 PartialObjectMetadata of an object. */
export function partialObject(object: Readonly<JsonObject>): JsonObject {
  return {
    kind: "PartialObjectMetadata",
    apiVersion: "meta.k8s.io/v1",
    metadata: readMetadata(object),
  };
}

/** meta/v1 Table of some objects. Only the first Table of a watch carries the column definitions. */
export function tableOf(
  definition: TableDefinition,
  objects: readonly Readonly<JsonObject>[],
  options: {
    readonly metadata: Readonly<JsonObject>;
    readonly include: IncludeObject;
    readonly now: number;
    readonly withColumns: boolean;
    /** Form in which whole objects are carried. */
    readonly served: (object: Readonly<JsonObject>) => Readonly<JsonObject>;
  },
): JsonObject {
  const columns = definition.columns.map(({ name, type, format, description, priority }) => ({
    name,
    type,
    format: format ?? "",
    description,
    priority,
  }));
  const carried = (object: Readonly<JsonObject>): JsonObject => {
    if (options.include === "None") return {};
    return {
      object: options.include === "Object" ? options.served(object) : partialObject(object),
    };
  };
  return {
    kind: "Table",
    apiVersion: "meta.k8s.io/v1",
    metadata: options.metadata,
    columnDefinitions: options.withColumns ? columns : null,
    rows: objects.map((object) => ({
      cells: definition.row(object, options.now),
      ...carried(object),
    })),
  };
}

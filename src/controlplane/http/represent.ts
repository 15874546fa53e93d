import { readMetadata } from "../registry/object-meta.ts";
import type { JsonObject, KindDefinition, TableDefinition } from "../types.ts";
import { listObject, type Listed } from "./list.ts";
import type { Representation } from "./negotiate.ts";
import { parseIncludeObject, partialObject, tableOf } from "./table.ts";
import type { WatchEvent } from "./watch-stream.ts";

interface Options {
  readonly query: URLSearchParams;
  readonly now: number;
}

function isKind(object: Readonly<JsonObject>, kind: KindDefinition): boolean {
  return object["kind"] === kind.kind;
}

/** The Table of an object of the kind, or of a view of one. */
function tableFor(kind: KindDefinition, object: Readonly<JsonObject>): TableDefinition | undefined {
  if (isKind(object, kind)) return kind.table;
  for (const subresource of Object.values(kind.subresources))
    if (subresource.kind === "custom" && subresource.gvk.kind === object["kind"])
      return subresource.view?.table;
  return undefined;
}

function servedBy(kind: KindDefinition): (object: Readonly<JsonObject>) => Readonly<JsonObject> {
  return (object) =>
    kind.servedFrom === undefined || !isKind(object, kind)
      ? object
      : kind.servedFrom.fromStored(object);
}

/** One object in the wanted form; a Status or a subresource's own kind stays as it is. */
export function representObject(
  kind: KindDefinition,
  object: Readonly<JsonObject>,
  representation: Representation,
  options: Options,
): Readonly<JsonObject> {
  const table = tableFor(kind, object);
  if (representation === "object" || table === undefined) return servedBy(kind)(object);
  if (representation === "partial") return partialObject(object);
  if (representation === "partial-list") return object;
  return tableOf(table, [object], {
    metadata: { resourceVersion: readMetadata(object)["resourceVersion"] },
    include: parseIncludeObject(options.query.get("includeObject")),
    now: options.now,
    withColumns: true,
    served: servedBy(kind),
  });
}

/** A page of a collection in the wanted form. */
export function representList(
  kind: KindDefinition,
  listed: Listed,
  representation: Representation,
  options: Options,
): JsonObject {
  if (representation === "table") {
    return tableOf(kind.table, listed.items, {
      metadata: listed.metadata,
      include: parseIncludeObject(options.query.get("includeObject")),
      now: options.now,
      withColumns: true,
      served: servedBy(kind),
    });
  }
  if (representation === "partial" || representation === "partial-list") {
    return {
      kind: "PartialObjectMetadataList",
      apiVersion: "meta.k8s.io/v1",
      metadata: listed.metadata,
      items: listed.items.map((item) => partialObject(item)),
    };
  }
  return listObject(kind, listed);
}

/** A function that turns the events of one watch into the wanted form, in order. */
export function representWatch(
  kind: KindDefinition,
  representation: Representation,
  options: { readonly query: URLSearchParams; readonly now: () => number },
): (event: WatchEvent) => WatchEvent {
  if (representation === "object") {
    if (kind.servedFrom === undefined) return (event) => event;
    return ({ type, object }) => ({ type, object: servedBy(kind)(object) });
  }
  let first = true;
  return (event) => {
    if (event.type === "ERROR") return event;
    if (representation !== "table")
      return { type: event.type, object: partialObject(event.object) };
    const withColumns = first;
    first = false;
    const metadata = readMetadata(event.object);
    const object = tableOf(kind.table, event.type === "BOOKMARK" ? [] : [event.object], {
      metadata:
        event.type === "BOOKMARK" ? metadata : { resourceVersion: metadata["resourceVersion"] },
      include: parseIncludeObject(options.query.get("includeObject")),
      now: options.now(),
      withColumns,
      served: servedBy(kind),
    });
    return { type: event.type, object };
  };
}

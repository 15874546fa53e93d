import { isRecord } from "../../lib/guard.ts";
import { metaText } from "../registry/object-meta.ts";
import { apiVersionOf, resourceOf } from "../registry/write-rules.ts";
import { badRequest, StatusError } from "../status-error.ts";
import type { Store } from "../store/store.ts";
import type { JsonObject, KindDefinition } from "../types.ts";
import type { ListOptions, Selection } from "./list-options.ts";

export interface Listed {
  readonly items: readonly Readonly<JsonObject>[];
  readonly metadata: JsonObject;
}

interface Cursor {
  readonly revision: number;
  /** Key (`namespace/name`) after which the next page starts. */
  readonly after: string;
}

function keyOf(object: Readonly<JsonObject>): string {
  const namespace = metaText(object, "namespace");
  const name = metaText(object, "name");
  return namespace === "" ? name : `${namespace}/${name}`;
}

function encodeCursor(cursor: Cursor): string {
  const token = { v: "meta.k8s.io/v1", rv: cursor.revision, start: cursor.after };
  return Buffer.from(JSON.stringify(token)).toString("base64url");
}

function decodeCursor(token: string): Cursor {
  try {
    const value: unknown = JSON.parse(Buffer.from(token, "base64url").toString());
    if (isRecord(value) && typeof value["rv"] === "number" && typeof value["start"] === "string")
      return { revision: value["rv"], after: value["start"] };
  } catch {
    // Falls through to the refusal below.
  }
  throw badRequest(
    "continue key is not valid: the continue token is not one that this server gave out",
  );
}

function expired(message: string): StatusError {
  return new StatusError(410, "Expired", message);
}

/** @throws {StatusError} 504 when a client asks for a revision that does not exist yet. */
export function checkNotFuture(store: Store, resourceVersion: string): void {
  const wanted = Number(resourceVersion === "" ? "0" : resourceVersion);
  if (wanted <= store.currentRevision) return;
  throw new StatusError(
    504,
    "Timeout",
    `Too large resource version: ${wanted}, current: ${store.currentRevision}`,
    {
      causes: [{ reason: "ResourceVersionTooLarge", message: "Too large resource version" }],
      retryAfterSeconds: 1,
    },
  );
}

/** A collection as it was at `revision`: the present one with later changes undone. */
function collectionAt(
  store: Store,
  resource: string,
  namespace: string | undefined,
  revision: number,
): readonly Readonly<JsonObject>[] | undefined {
  const changes = store.changesSince(revision);
  if (changes === undefined) return undefined;
  const items = new Map([...store.list(resource, namespace)].map((one) => [keyOf(one), one]));
  for (const change of changes.toReversed()) {
    if (change.resource !== resource) continue;
    if (namespace !== undefined && change.namespace !== namespace) continue;
    const key = change.namespace === "" ? change.name : `${change.namespace}/${change.name}`;
    if (change.previous === undefined) items.delete(key);
    else items.set(key, change.previous);
  }
  return [...items].toSorted(([left], [right]) => (left < right ? -1 : 1)).map(([, one]) => one);
}

function candidates(
  store: Store,
  kind: KindDefinition,
  namespace: string | undefined,
  selection: Selection,
): Iterable<Readonly<JsonObject>> {
  const resource = resourceOf(kind);
  if (selection.name === undefined || (kind.namespaced && namespace === undefined))
    return store.list(resource, namespace);
  const one = store.get(resource, namespace ?? "", selection.name);
  return one === undefined ? [] : [one];
}

function page(
  all: readonly Readonly<JsonObject>[],
  revision: number,
  options: ListOptions,
  everything: boolean,
): Listed {
  const metadata: JsonObject = { resourceVersion: String(revision) };
  if (options.limit === 0 || all.length <= options.limit) return { items: all, metadata };
  const items = all.slice(0, options.limit);
  const last = items.at(-1);
  metadata["continue"] = encodeCursor({ revision, after: last === undefined ? "" : keyOf(last) });
  // With selectors the API does not know how many of the rest would match.
  if (everything) metadata["remainingItemCount"] = all.length - items.length;
  return { items, metadata };
}

/**
 * One page of a collection.
 *
 * @throws {StatusError} 400 bad token; 410 the revision is no longer kept; 504 it does not exist yet.
 */
export function listObjects(
  store: Store,
  kind: KindDefinition,
  namespace: string | undefined,
  options: ListOptions,
  selection: Selection,
): Listed {
  const resource = resourceOf(kind);
  if (options.continueToken !== "") {
    const cursor = decodeCursor(options.continueToken);
    const all = collectionAt(store, resource, namespace, cursor.revision);
    if (all === undefined) {
      throw expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
      );
    }
    const rest = all.filter((one) => keyOf(one) > cursor.after).filter(selection.matches);
    return page(rest, cursor.revision, options, selection.everything);
  }
  checkNotFuture(store, options.resourceVersion);
  const wanted = Number(options.resourceVersion === "" ? "0" : options.resourceVersion);
  const legacyExact = options.match === "" && options.limit > 0;
  const exact = wanted > 0 && (options.match === "Exact" || legacyExact);
  const revision = exact ? wanted : store.currentRevision;
  const source = exact
    ? collectionAt(store, resource, namespace, wanted)
    : candidates(store, kind, namespace, selection);
  if (source === undefined)
    throw expired(`The resourceVersion for the provided list is too old: ${wanted}`);
  return page([...source].filter(selection.matches), revision, options, selection.everything);
}

/** The list object of a kind; items lose kind and apiVersion, as the API sends them. */
export function listObject(kind: KindDefinition, listed: Listed): JsonObject {
  const { servedFrom } = kind;
  const served =
    servedFrom === undefined ? listed.items : listed.items.map((one) => servedFrom.fromStored(one));
  return {
    kind: `${kind.kind}List`,
    apiVersion: apiVersionOf(kind),
    metadata: listed.metadata,
    items: served.map(({ kind: _kind, apiVersion: _apiVersion, ...rest }) => rest),
  };
}

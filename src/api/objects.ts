import type { ApiClient, PatchType } from "./client.ts";
import { isNotFound } from "./errors.ts";
import { listPages } from "./list-pages.ts";
import { parseStored, type Stored } from "./object.ts";
import { apiVersion, collectionPath, objectPath, type Resource } from "./resource.ts";
import type { ObjectMeta } from "./types.gen.ts";

/** Which object. `namespace` is ignored for cluster-scoped kinds. */
export interface ObjectName {
  readonly namespace?: string | undefined;
  readonly name: string;
}

/** Members that every call takes. */
export interface CallOptions {
  readonly signal: AbortSignal;
  /** Milliseconds; the client's default when absent. */
  readonly deadlineMs?: number;
}

/** Members of calls that write. */
export interface WriteOptions extends CallOptions {
  /** For example `status`. */
  readonly subresource?: string;
  /** Owner of the written fields in managedFields. */
  readonly fieldManager?: string;
}

function deadline(options: CallOptions): { signal: AbortSignal; deadlineMs?: number } {
  const { signal, deadlineMs } = options;
  return deadlineMs === undefined ? { signal } : { signal, deadlineMs };
}

/** @throws as {@link ApiClient.request}; {@link ParseError} when the answer is not an object. */
export async function getObject<T>(
  client: ApiClient,
  resource: Resource<T>,
  at: ObjectName,
  options: CallOptions,
): Promise<Stored<T>> {
  const path = objectPath(resource, at);
  return parseStored<T>(await client.request({ method: "GET", path, ...deadline(options) }));
}

/**
 * Creates an object; `apiVersion` and `kind` are filled in, the namespace is that of its metadata.
 *
 * @throws as {@link getObject}; 409 AlreadyExists.
 */
export async function createObject<T extends { metadata?: ObjectMeta | undefined }>(
  client: ApiClient,
  resource: Resource<T>,
  object: T,
  options: WriteOptions,
): Promise<Stored<T>> {
  const { subresource, fieldManager } = options;
  const { namespace, name = "" } = object.metadata ?? {};
  const path =
    subresource === undefined
      ? collectionPath(resource, namespace)
      : objectPath(resource, { namespace, name }, subresource);
  const body = await client.request({
    method: "POST",
    path,
    query: { fieldManager },
    body: { apiVersion: apiVersion(resource), kind: resource.kind, ...object },
    ...deadline(options),
  });
  return parseStored<T>(body);
}

/**
 * Replaces an object (PUT). With `metadata.resourceVersion` it is a compare-and-swap.
 *
 * @throws as {@link getObject}; 409 Conflict when the object changed since it was read.
 */
export async function updateObject<T>(
  client: ApiClient,
  resource: Resource<T>,
  object: Stored<T>,
  options: WriteOptions,
): Promise<Stored<T>> {
  const { subresource, fieldManager } = options;
  const body = await client.request({
    method: "PUT",
    path: objectPath(resource, object.metadata, subresource),
    query: { fieldManager },
    body: { ...object, apiVersion: apiVersion(resource), kind: resource.kind },
    ...deadline(options),
  });
  return parseStored<T>(body);
}

export interface PatchOptions extends WriteOptions {
  /** Default: strategic merge. */
  readonly type?: PatchType;
  /** Server-side apply only: take over fields of other managers. */
  readonly force?: boolean;
}

/** @throws as {@link getObject}; 409 Conflict when the patch names another resourceVersion or uid. */
export async function patchObject<T>(
  client: ApiClient,
  resource: Resource<T>,
  at: ObjectName & { readonly patch: unknown },
  options: PatchOptions,
): Promise<Stored<T>> {
  const { subresource, fieldManager, force, type } = options;
  const body = await client.request({
    method: "PATCH",
    path: objectPath(resource, at, subresource),
    query: { fieldManager, force },
    body: at.patch,
    contentType: type ?? "application/strategic-merge-patch+json",
    ...deadline(options),
  });
  return parseStored<T>(body);
}

export interface DeleteOptions extends CallOptions {
  /** 0 = at once; absent = the object's own. */
  readonly gracePeriodSeconds?: number;
  /** Only this incarnation of the name. */
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly propagationPolicy?: "Orphan" | "Background" | "Foreground";
}

/**
 * Asks for the deletion of an object. Idempotent: an object that is already gone is no error.
 *
 * @returns false when there was no such object.
 * @throws as {@link ApiClient.request}; 409 Conflict when `uid` or `resourceVersion` are another's.
 */
export async function deleteObject(
  client: ApiClient,
  resource: Resource<unknown>,
  at: ObjectName,
  options: DeleteOptions,
): Promise<boolean> {
  const { gracePeriodSeconds, uid, resourceVersion, propagationPolicy } = options;
  const preconditions = { uid, resourceVersion };
  try {
    await client.request({
      method: "DELETE",
      path: objectPath(resource, at),
      body: {
        apiVersion: "v1",
        kind: "DeleteOptions",
        gracePeriodSeconds,
        propagationPolicy,
        ...(uid === undefined && resourceVersion === undefined ? {} : { preconditions }),
      },
      ...deadline(options),
    });
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

export interface ListOptions {
  readonly namespace?: string;
  readonly fieldSelector?: string;
  readonly labelSelector?: string;
  readonly signal: AbortSignal;
}

export interface StoredList<T> {
  readonly items: readonly Stored<T>[];
  /** Of the collection: where a watch may start. */
  readonly resourceVersion: string;
}

/** The whole collection, read page by page. For big ones use an informer, which keeps projections only. */
export async function listObjects<T>(
  client: ApiClient,
  resource: Resource<T>,
  options: ListOptions,
): Promise<StoredList<T>> {
  const { namespace, fieldSelector, labelSelector, signal } = options;
  const path = collectionPath(resource, namespace);
  const items: Stored<T>[] = [];
  let resourceVersion = "";
  for await (const page of listPages(client, path, { fieldSelector, labelSelector }, signal)) {
    if (page.restart) items.length = 0;
    for (const item of page.items) items.push(parseStored<T>(item, `$.items[${items.length}]`));
    ({ resourceVersion } = page);
  }
  return { items, resourceVersion };
}

import type { ApiClient, PatchType } from "../../../api/client.ts";
import { isNotFound } from "../../../api/errors.ts";
import type { Stored } from "../../../api/object.ts";
import { parseStored } from "../../../api/object.ts";
import type { Resource } from "../../../api/resource.ts";
import { apiVersion, collectionPath, objectPath } from "../../../api/resource.ts";
import type { ObjectMeta } from "../../../api/types.gen.ts";

/** One object, or one subresource of it. */
export interface Target<T> {
  readonly resource: Resource<T>;
  readonly namespace?: string | undefined;
  readonly name: string;
  readonly subresource?: string;
}

export interface DeleteRequest {
  readonly gracePeriodSeconds?: number | undefined;
  readonly propagationPolicy?: "Background" | "Foreground" | "Orphan" | undefined;
  /** Preconditions: the delete fails with a Conflict when they do not hold. */
  readonly uid?: string | undefined;
  readonly resourceVersion?: string | undefined;
}

type WithMeta = { readonly metadata?: ObjectMeta | undefined };

function targetPath(target: Target<unknown>): string {
  return objectPath(target.resource, target, target.subresource);
}

/** @throws {ApiError} 404 when it does not exist. */
export async function getObject<T>(
  client: ApiClient,
  target: Target<T>,
  signal: AbortSignal,
): Promise<Stored<T>> {
  const body = await client.request({ method: "GET", path: targetPath(target), signal });
  return parseStored<T>(body);
}

/** As {@link getObject}, but undefined when it does not exist. */
export async function findObject<T>(
  client: ApiClient,
  target: Target<T>,
  signal: AbortSignal,
): Promise<Stored<T> | undefined> {
  try {
    return await getObject(client, target, signal);
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** Creates `object` in the namespace its metadata names. */
export async function createObject<T extends WithMeta>(
  client: ApiClient,
  resource: Resource<T>,
  object: T,
  signal: AbortSignal,
): Promise<Stored<T>> {
  const body = await client.request({
    method: "POST",
    path: collectionPath(resource, object.metadata?.namespace),
    body: { ...object, apiVersion: apiVersion(resource), kind: resource.kind },
    signal,
  });
  return parseStored<T>(body);
}

/** PUT of the whole object; its resourceVersion is the optimistic lock. */
export async function replaceObject<T>(
  client: ApiClient,
  target: Target<T>,
  object: unknown,
  signal: AbortSignal,
): Promise<Stored<T>> {
  const body = await client.request({
    method: "PUT",
    path: targetPath(target),
    body: object,
    signal,
  });
  return parseStored<T>(body);
}

/** Strategic merge patch unless `type` says otherwise. */
export async function patchObject<T>(
  client: ApiClient,
  target: Target<T>,
  patch: unknown,
  signal: AbortSignal,
  type: PatchType = "application/strategic-merge-patch+json",
): Promise<Stored<T>> {
  const body = await client.request({
    method: "PATCH",
    path: targetPath(target),
    body: patch,
    contentType: type,
    signal,
  });
  return parseStored<T>(body);
}

/** Deletes; an object that is already gone is a success. */
export async function deleteObject(
  client: ApiClient,
  target: Target<unknown>,
  options: DeleteRequest,
  signal: AbortSignal,
): Promise<void> {
  const preconditions = { uid: options.uid, resourceVersion: options.resourceVersion };
  const body = {
    kind: "DeleteOptions",
    apiVersion: "v1",
    gracePeriodSeconds: options.gracePeriodSeconds,
    propagationPolicy: options.propagationPolicy,
    ...(options.uid === undefined && options.resourceVersion === undefined
      ? {}
      : { preconditions }),
  };
  try {
    await client.request({ method: "DELETE", path: targetPath(target), body, signal });
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

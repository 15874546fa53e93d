import type { ApiClient, PatchType } from "../../../api/client.ts";
import { isConflict, isNotFound } from "../../../api/errors.ts";
import type { Stored } from "../../../api/object.ts";
import * as objects from "../../../api/objects.ts";
import type { Resource } from "../../../api/resource.ts";
import { apiVersion, objectPath } from "../../../api/resource.ts";
import { parseStored } from "../../../api/object.ts";

/** One object, or one subresource of it. */
export interface Target<T> {
  readonly resource: Resource<T>;
  readonly namespace?: string | undefined;
  readonly name: string;
  readonly subresource?: string;
}

/** Options of an object call, without the members that are undefined. */
function options(target: Target<unknown>, signal: AbortSignal): objects.WriteOptions {
  return target.subresource === undefined
    ? { signal }
    : { signal, subresource: target.subresource };
}

/** @throws {ApiError} 404 when it does not exist. */
export async function getObject<T>(
  client: ApiClient,
  target: Target<T>,
  signal: AbortSignal,
): Promise<Stored<T>> {
  return objects.getObject(client, target.resource, target, { signal });
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

/**
 * PUT of the whole object or one subresource of it; its resourceVersion is the optimistic lock. `apiVersion` and `kind`
 * are filled in.
 */
export async function replaceObject<T>(
  client: ApiClient,
  target: Target<T>,
  object: object,
  signal: AbortSignal,
): Promise<Stored<T>> {
  const { resource } = target;
  const body = await client.request({
    method: "PUT",
    path: objectPath(resource, target, target.subresource),
    body: { ...object, apiVersion: apiVersion(resource), kind: resource.kind },
    signal,
  });
  return parseStored<T>(body);
}

/**
 * As {@link replaceObject}, unless somebody else changed or removed the object meanwhile: its next state wakes whoever
 * watches it.
 *
 * @returns Whether it was written.
 */
export async function replaceIfCurrent<T>(
  client: ApiClient,
  target: Target<T>,
  object: object,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await replaceObject(client, target, object, signal);
    return true;
  } catch (error) {
    if (isConflict(error) || isNotFound(error)) return false;
    throw error;
  }
}

/** Strategic merge patch unless `type` says otherwise. */
export async function patchObject<T>(
  client: ApiClient,
  target: Target<T>,
  patch: unknown,
  signal: AbortSignal,
  type: PatchType = "application/strategic-merge-patch+json",
): Promise<Stored<T>> {
  const { resource, namespace, name } = target;
  return objects.patchObject(
    client,
    resource,
    { namespace, name, patch },
    { ...options(target, signal), type },
  );
}

import type { ApiClient } from "../../../api/client.ts";
import { ApiError, isNotFound } from "../../../api/errors.ts";
import type { Informer } from "../../../api/informer-types.ts";
import type { Stored, StoredMeta } from "../../../api/object.ts";
import { controllerOf, keyOf, objectKey } from "../../../api/object.ts";
import type { Resource } from "../../../api/resource.ts";
import { apiVersion } from "../../../api/resource.ts";
import type { OwnerReference } from "../../../api/types.gen.ts";
import { findObject, patchObject } from "./calls.ts";

/** Who may own objects that its selector matches. */
export interface Claimant {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** Being deleted: it neither takes nor gives anything away any more. */
  readonly deleting: boolean;
  selects(labels: Readonly<Record<string, string>> | undefined): boolean;
}

export interface Claims<T> {
  /** Ours already. */
  readonly owned: readonly T[];
  /** Without an owner and selected: to be adopted. */
  readonly adopt: readonly T[];
  /** Ours but no longer selected: to be released. */
  readonly release: readonly T[];
}

/** Sorts objects of the claimant's namespace by what ownership needs (ControllerRefManager). */
export function sortClaims<T extends { readonly metadata: StoredMeta }>(
  claimant: Claimant,
  objects: Iterable<T>,
): Claims<T> {
  const owned: T[] = [];
  const adopt: T[] = [];
  const release: T[] = [];
  for (const object of objects) {
    const { metadata } = object;
    const owner = controllerOf(metadata);
    const selected = claimant.selects(metadata.labels);
    if (owner !== undefined) {
      if (owner.uid !== claimant.uid) continue;
      if (selected) owned.push(object);
      else if (!claimant.deleting) release.push(object);
    } else if (selected && !claimant.deleting && metadata.deletionTimestamp === undefined) {
      adopt.push(object);
    }
  }
  return { owned, adopt, release };
}

/** The reference that makes `owner` the controller of an object. */
export function controllerReference(
  resource: Resource<unknown>,
  owner: { readonly name: string; readonly uid: string },
): OwnerReference {
  return {
    apiVersion: apiVersion(resource),
    kind: resource.kind,
    name: owner.name,
    uid: owner.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
}

export interface ClaimOptions<T> {
  readonly client: ApiClient;
  readonly claimant: Claimant;
  /** The claimant's kind. */
  readonly ownerResource: Resource<unknown>;
  /** The kind of what is claimed. */
  readonly resource: Resource<T>;
  readonly objects: Iterable<Stored<T>>;
  /** Added to what is adopted, taken from what is released. */
  readonly finalizer?: string;
}

/**
 * Adopts and releases by labels and returns what is the claimant's then.
 *
 * @throws {ApiError} other than that an object is gone or somebody else's by now.
 */
export async function claimObjects<T>(
  options: ClaimOptions<T>,
  signal: AbortSignal,
): Promise<readonly Stored<T>[]> {
  const { client, claimant, ownerResource } = options;
  const claims = sortClaims(claimant, options.objects);
  const { finalizer } = options;
  for (const object of claims.release) {
    const reference = { $patch: "delete", uid: claimant.uid };
    const rest =
      finalizer === undefined ? {} : { "$deleteFromPrimitiveList/finalizers": [finalizer] };
    await patchOwner(options, object, { ownerReferences: [reference], ...rest }, signal);
  }
  if (claims.adopt.length === 0) return claims.owned;
  // Asked live: a cached claimant may have been deleted and made anew under the same name.
  const { namespace, name } = claimant;
  const live = await findObject(client, { resource: ownerResource, namespace, name }, signal);
  if (live?.metadata.uid !== claimant.uid || live.metadata.deletionTimestamp !== undefined)
    return claims.owned;
  const adopted: Stored<T>[] = [];
  for (const object of claims.adopt) {
    const ownerReferences = [controllerReference(ownerResource, claimant)];
    const rest = finalizer === undefined ? {} : { finalizers: [finalizer] };
    const patched = await patchOwner(options, object, { ownerReferences, ...rest }, signal);
    if (patched !== undefined) adopted.push(patched);
  }
  return [...claims.owned, ...adopted];
}

/** Merges metadata into the object; undefined when it is gone or no longer the same. */
async function patchOwner<T>(
  options: Pick<ClaimOptions<T>, "client" | "resource">,
  object: Stored<T>,
  metadata: object,
  signal: AbortSignal,
): Promise<Stored<T> | undefined> {
  const { namespace, name, uid } = object.metadata;
  try {
    return await patchObject(
      options.client,
      { resource: options.resource, namespace, name },
      { metadata: { uid, ...metadata } },
      signal,
    );
  } catch (error) {
    // 409 and 422: another object has the name by now, or another controller was faster.
    if (isNotFound(error)) return undefined;
    if (error instanceof ApiError && (error.status === 409 || error.status === 422))
      return undefined;
    throw error;
  }
}

/** Creation fails for every object of a namespace that is going away; nobody needs to be told. */
export function isNamespaceTerminating(error: unknown): boolean {
  return (
    error instanceof ApiError &&
    error.status === 403 &&
    error.message.includes("because it is being terminated")
  );
}

/**
 * Keys of the workloads that a change of an object may concern: its controller's, where that is one of these and still
 * the same, or, for an object without one, of all in its namespace that would adopt it.
 */
export function ownerKeys<T>(
  metadata: StoredMeta,
  workloads: {
    readonly kind: string;
    readonly informer: Pick<Informer<Stored<T>>, "get" | "values">;
    readonly selects: (workload: Stored<T>, labels: StoredMeta["labels"]) => boolean;
  },
): readonly string[] {
  const { informer, kind, selects } = workloads;
  const owner = controllerOf(metadata);
  if (owner !== undefined) {
    if (owner.kind !== kind) return [];
    const key = objectKey(metadata.namespace, owner.name);
    return informer.get(key)?.metadata.uid === owner.uid ? [key] : [];
  }
  return [...informer.values()]
    .filter(
      (workload) =>
        workload.metadata.namespace === metadata.namespace && selects(workload, metadata.labels),
    )
    .map(keyOf);
}

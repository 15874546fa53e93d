import { asRecord, asString, isRecord } from "../lib/guard.ts";
import type { ObjectMeta } from "./types.gen.ts";

/** Metadata of an object that the server has stored: the fields that then always exist are required. */
export interface StoredMeta extends ObjectMeta {
  name: string;
  uid: string;
  resourceVersion: string;
}

/** An API object as the server returned it. `T` is a generated type such as `Pod`. */
export type Stored<T> = Omit<T, "metadata"> & { metadata: StoredMeta };

interface MadeKey {
  readonly namespace: string;
  readonly name: string;
  readonly key: string;
}

/** The keys that were made last. Several who parse one object keep its key and another: these shall be the same texts. */
let lastKey: MadeKey = { namespace: "", name: "", key: "" };
let keyBefore = lastKey;

/** `namespace/name`, or `name` for cluster-scoped objects: the key of informers and work queues. */
export function objectKey(namespace: string | undefined, name: string): string {
  if (namespace === undefined || namespace === "") return name;
  for (const made of [lastKey, keyBefore]) {
    if (made.name === name && made.namespace === namespace) return made.key;
  }
  keyBefore = lastKey;
  lastKey = { namespace, name, key: `${namespace}/${name}` };
  return lastKey.key;
}

/** The {@link objectKey} of a stored object. */
export function keyOf(object: { readonly metadata: StoredMeta }): string {
  return objectKey(object.metadata.namespace, object.metadata.name);
}

/**
 * Checks that `value` is a stored API object and gives it the caller's type; `managedFields` is dropped, because it is
 * often half of an object and nobody here reads it.
 *
 * The body is trusted to follow the API's own schema: the server validated it. Code that reads a field still has to
 * treat it as optional where the type says so.
 *
 * @throws {ParseError} when metadata lacks name, uid or resourceVersion.
 */
export function parseStored<T>(value: unknown, path = "$"): Stored<T> {
  const object = asRecord(value, path);
  const metadata = asRecord(object["metadata"], `${path}.metadata`);
  asString(metadata["name"], `${path}.metadata.name`);
  asString(metadata["uid"], `${path}.metadata.uid`);
  asString(metadata["resourceVersion"], `${path}.metadata.resourceVersion`);
  const { managedFields: _managedFields, ...rest } = metadata;
  // The one cast from the wire to a generated type; see the docstring.
  return { ...object, metadata: rest } as unknown as Stored<T>;
}

/** The owner that manages the object (`controller: true`), if any. */
export function controllerOf(
  metadata: ObjectMeta,
): { kind: string; name: string; uid: string } | undefined {
  const owner = metadata.ownerReferences?.find((reference) => reference.controller === true);
  return isRecord(owner) ? { kind: owner.kind, name: owner.name, uid: owner.uid } : undefined;
}

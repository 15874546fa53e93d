import { conflict, invalid } from "../status-error.ts";
import type {
  DeleteOptions,
  JsonObject,
  KindDefinition,
  RequestContext,
  Strategy,
} from "../types.ts";
import { formatTime } from "./deletion.ts";
import { metadataOf, metaText, readMetadata } from "./object-meta.ts";

/** How long a generated suffix is, and of which letters: no vowels, so that no words come out. */
const SUFFIX_LENGTH = 5;
const SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789";
const MAX_NAME = 63;

const MODIFIED =
  "the object has been modified; please apply your changes to the latest version and try again";

/** Where the objects of a kind are stored: `plural.group`. */
export function resourceOf(kind: {
  readonly plural: string;
  readonly group: string;
  readonly servedFrom?: KindDefinition["servedFrom"];
}): string {
  if (kind.servedFrom !== undefined) return kind.servedFrom.resource;
  return kind.group === "" ? kind.plural : `${kind.plural}.${kind.group}`;
}

export function apiVersionOf(kind: { readonly group: string; readonly version: string }): string {
  return kind.group === "" ? kind.version : `${kind.group}/${kind.version}`;
}

function suffix(random: () => number): string {
  let text = "";
  for (let index = 0; index < SUFFIX_LENGTH; index += 1) {
    const at = Math.floor(random() * SUFFIX_LETTERS.length);
    text += SUFFIX_LETTERS.charAt(at);
  }
  return text;
}

/** Gives a new object its identity: type, namespace, name, uid, creation time. `object` is changed. */
export function fillNewMetadata(
  kind: KindDefinition,
  namespace: string,
  object: JsonObject,
  context: RequestContext,
  source: { readonly uuid: () => string; readonly random: () => number },
): void {
  object["kind"] = kind.kind;
  object["apiVersion"] = apiVersionOf(kind);
  const metadata = metadataOf(object);
  if (kind.namespaced) metadata["namespace"] = namespace;
  else delete metadata["namespace"];
  if (metaText(object, "name") === "" && metaText(object, "generateName") !== "") {
    const base = metaText(object, "generateName").slice(0, MAX_NAME - SUFFIX_LENGTH);
    metadata["name"] = base + suffix(source.random);
  }
  for (const field of ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"])
    delete metadata[field];
  metadata["uid"] = source.uuid();
  metadata["creationTimestamp"] = formatTime(context.now);
}

/** Optimistic lock: a resourceVersion in the wanted object must be the current one. */
export function checkVersion(
  object: JsonObject,
  old: Readonly<JsonObject>,
  kind: KindDefinition,
  strategy: Strategy | undefined,
): void {
  const name = metaText(old, "name");
  const uid = metaText(object, "uid");
  if (uid !== "" && uid !== metaText(old, "uid")) {
    throw conflict(
      kind,
      name,
      `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${metaText(old, "uid")}`,
    );
  }
  const version = metaText(object, "resourceVersion");
  if (version !== "" && version !== metaText(old, "resourceVersion"))
    throw conflict(kind, name, MODIFIED);
  if (version === "" && strategy !== undefined && !strategy.allowUnconditionalUpdate) {
    throw invalid(kind, name, [
      {
        type: "FieldValueInvalid",
        field: "metadata.resourceVersion",
        message: 'Invalid value: "": must be specified for an update',
      },
    ]);
  }
}

/** A configuration that names a uid or a resourceVersion is meant for an object that is there. */
export function checkAbsent(
  object: Readonly<JsonObject>,
  kind: KindDefinition,
  name: string,
): void {
  const uid = metaText(object, "uid");
  if (uid !== "") {
    const message = `Precondition failed: UID in precondition: ${uid}, UID in object meta: `;
    throw conflict(kind, name, message);
  }
  if (metaText(object, "resourceVersion") !== "") throw conflict(kind, name, MODIFIED);
}

/** Which top-level fields a server-side apply on this endpoint can own: the others are put back by the strategy. */
export function writableFields(
  kind: KindDefinition,
  subresource: string | undefined,
): (field: string) => boolean {
  const hasStatus = kind.subresources["status"]?.kind === "stored";
  if (subresource === undefined) return (field) => !(hasStatus && field === "status");
  const own = subresource === "status" ? "status" : "spec";
  return (field) => ["apiVersion", "kind", "metadata", own].includes(field);
}

/** What no update may change is taken from the stored object when the client left it out. */
export function inheritMetadata(object: JsonObject, old: Readonly<JsonObject>): void {
  const metadata = metadataOf(object);
  const before = readMetadata(old);
  object["kind"] = old["kind"];
  object["apiVersion"] = old["apiVersion"];
  for (const field of ["uid", "creationTimestamp", "name", "namespace"])
    if (metaText(object, field) === "" && before[field] !== undefined)
      metadata[field] = before[field];
  for (const field of ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"]) {
    if (before[field] === undefined) delete metadata[field];
    else metadata[field] = before[field];
  }
  delete metadata["selfLink"];
  metadata["resourceVersion"] = before["resourceVersion"];
}

/** UID and resourceVersion preconditions of a DELETE. */
export function checkPreconditions(
  kind: KindDefinition,
  object: Readonly<JsonObject>,
  options: DeleteOptions,
): void {
  // The API server names the kind, not the resource, in this one refusal.
  const target = { plural: kind.kind, kind: kind.kind, group: kind.group };
  const name = metaText(object, "name");
  const uid = metaText(object, "uid");
  const version = metaText(object, "resourceVersion");
  if (options.uid !== undefined && options.uid !== uid) {
    throw conflict(
      target,
      name,
      `the UID in the precondition (${options.uid}) does not match the UID in record (${uid}). The object might have been deleted and then recreated`,
    );
  }
  if (options.resourceVersion !== undefined && options.resourceVersion !== version) {
    throw conflict(
      target,
      name,
      `the ResourceVersion in the precondition (${options.resourceVersion}) does not match the ResourceVersion in record (${version}). The object might have been modified`,
    );
  }
}

import { isDeepStrictEqual } from "node:util";

import { validateLabelValue, validateQualifiedName } from "../../api/names.ts";
import { isRecord, optionalNumber, optionalString } from "../../lib/guard.ts";
import type { FieldError, JsonObject, KindDefinition } from "../types.ts";

const MAX_ANNOTATION_BYTES = 256 * 1024;
const IMMUTABLE = "field is immutable";

/** `object.metadata`, created when it is missing. */
export function metadataOf(object: JsonObject): JsonObject {
  const metadata = object["metadata"];
  if (isRecord(metadata)) return metadata;
  const created: JsonObject = {};
  Object.assign(object, { metadata: created });
  return created;
}

/** `object.metadata` for reading. */
export function readMetadata(object: Readonly<JsonObject>): Readonly<JsonObject> {
  return isRecord(object["metadata"]) ? object["metadata"] : {};
}

/** A string member of metadata; empty when absent. */
export function metaText(object: Readonly<JsonObject>, field: string): string {
  return optionalString(readMetadata(object)[field]) ?? "";
}

export function finalizersOf(object: Readonly<JsonObject>): readonly string[] {
  const value = readMetadata(object)["finalizers"];
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

/** Sets or, when empty, removes `metadata.finalizers`. */
export function setFinalizers(object: JsonObject, finalizers: readonly string[]): void {
  const metadata = metadataOf(object);
  if (finalizers.length === 0) delete metadata["finalizers"];
  else metadata["finalizers"] = [...finalizers];
}

function invalidValue(field: string, value: unknown, message: string): FieldError {
  const text = value === undefined ? "null" : JSON.stringify(value);
  return { type: "FieldValueInvalid", field, message: `Invalid value: ${text}: ${message}` };
}

function validateLabels(labels: unknown): FieldError[] {
  const field = "metadata.labels";
  return Object.entries(isRecord(labels) ? labels : {}).flatMap(([key, value]) => [
    ...validateQualifiedName(key).map((message) => invalidValue(field, key, message)),
    ...validateLabelValue(String(value)).map((message) => invalidValue(field, value, message)),
  ]);
}

function validateAnnotations(annotations: unknown): FieldError[] {
  const field = "metadata.annotations";
  const entries = Object.entries(isRecord(annotations) ? annotations : {});
  const errors = entries.flatMap(([key]) =>
    // Annotation keys may hold capitals in the prefix too.
    validateQualifiedName(key.toLowerCase()).map((message) => invalidValue(field, key, message)),
  );
  const bytes = entries.reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(String(value)),
    0,
  );
  if (bytes > MAX_ANNOTATION_BYTES) {
    errors.push({
      type: "FieldValueTooLong",
      field,
      message: `Too long: may not be more than ${MAX_ANNOTATION_BYTES} bytes`,
    });
  }
  return errors;
}

function validateOwners(value: unknown): FieldError[] {
  const field = "metadata.ownerReferences";
  const owners = Array.isArray(value) ? value.filter(isRecord) : [];
  const errors: FieldError[] = [];
  for (const owner of owners) {
    if (!/\S/.test(optionalString(owner["apiVersion"]) ?? "")) {
      const message = "version must not be empty";
      errors.push(invalidValue(`${field}.apiVersion`, owner["apiVersion"] ?? "", message));
    }
    for (const name of ["kind", "name", "uid"]) {
      if ((optionalString(owner[name]) ?? "") === "")
        errors.push(invalidValue(`${field}.${name}`, "", "must not be empty"));
    }
    if (
      owner["kind"] === "Event" &&
      ["v1", "events.k8s.io/v1"].includes(String(owner["apiVersion"]))
    )
      errors.push(invalidValue(field, owner, "/v1, Kind=Event is disallowed from being an owner"));
  }
  const controllers = owners.filter((owner) => owner["controller"] === true);
  const [first, second] = controllers.map(
    (owner) => `${optionalString(owner["kind"]) ?? ""}/${optionalString(owner["name"]) ?? ""}`,
  );
  if (first !== undefined && second !== undefined) {
    const message = `Only one reference can have Controller set to true. Found "true" in references for ${first} and ${second}`;
    errors.push(invalidValue(field, owners, message));
  }
  return errors;
}

function validateFinalizers(finalizers: readonly string[]): FieldError[] {
  const field = "metadata.finalizers";
  const errors = finalizers.flatMap((one) =>
    validateQualifiedName(one).map((message) => invalidValue(field, one, message)),
  );
  if (finalizers.includes("orphan") && finalizers.includes("foregroundDeletion")) {
    const message = "finalizer orphan and foregroundDeletion cannot be both set";
    errors.push(invalidValue(field, finalizers, message));
  }
  return errors;
}

/** What is wrong with the metadata of a new object (ValidateObjectMeta). */
export function validateMetaForCreate(
  object: Readonly<JsonObject>,
  kind: KindDefinition,
): FieldError[] {
  const metadata = readMetadata(object);
  const name = metaText(object, "name");
  const generateName = metaText(object, "generateName");
  const errors = kind.strategy
    .validateName(generateName === "" ? "x" : generateName, true)
    .map((message) => invalidValue("metadata.generateName", generateName, message));
  if (name === "") {
    errors.push({
      type: "FieldValueRequired",
      field: "metadata.name",
      message: "Required value: name or generateName is required",
    });
  } else {
    for (const message of kind.strategy.validateName(name, false))
      errors.push(invalidValue("metadata.name", name, message));
  }
  return [
    ...(generateName === ""
      ? errors.filter((one) => one.field !== "metadata.generateName")
      : errors),
    ...validateFinalizers(finalizersOf(object)),
    ...validateLabels(metadata["labels"]),
    ...validateAnnotations(metadata["annotations"]),
    ...validateOwners(metadata["ownerReferences"]),
  ];
}

/** What is wrong with the metadata of a changed object (ValidateObjectMetaUpdate). */
export function validateMetaForUpdate(
  object: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): FieldError[] {
  const metadata = readMetadata(object);
  const before = readMetadata(old);
  const errors: FieldError[] = [];
  if (before["deletionTimestamp"] !== undefined) {
    const known = finalizersOf(old);
    const extra = finalizersOf(object).filter((one) => !known.includes(one));
    if (extra.length > 0) {
      const list = extra.map((one) => JSON.stringify(one)).join(", ");
      errors.push({
        type: "FieldValueForbidden",
        field: "metadata.finalizers",
        message: `Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{${list}}`,
      });
    }
  }
  if ((optionalNumber(metadata["generation"]) ?? 0) < (optionalNumber(before["generation"]) ?? 0))
    errors.push(
      invalidValue("metadata.generation", metadata["generation"] ?? 0, "must not be decremented"),
    );
  for (const field of [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
  ]) {
    if (!isDeepStrictEqual(metadata[field], before[field]))
      errors.push(invalidValue(`metadata.${field}`, metadata[field], IMMUTABLE));
  }
  return [
    ...errors,
    ...validateFinalizers(finalizersOf(object)),
    ...validateLabels(metadata["labels"]),
    ...validateAnnotations(metadata["annotations"]),
    ...validateOwners(metadata["ownerReferences"]),
  ];
}

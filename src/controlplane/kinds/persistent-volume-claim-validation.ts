import type { FieldError, JsonObject } from "../types.ts";
import { dig, mapOf, metadataOf, record, semanticEqual, strings, text } from "./access.ts";
import { validateClaimSpec } from "./claim-spec-validation.ts";
import {
  forbiddenField,
  immutable,
  invalidAll,
  invalidValue,
  notSupported,
  required,
} from "./field-error.ts";
import { qualifiedName } from "./names.ts";
import { quantityOf } from "./quantity.ts";
import { betaClassAnnotation } from "./storage-table.ts";
import { unifiedDiff } from "./unified-diff.ts";

const nanosPerUnit = 1_000_000_000n;
const resizeStatuses = [
  "ControllerResizeInProgress",
  "ControllerResizeInfeasible",
  "NodeResizeInProgress",
  "NodeResizeInfeasible",
  "NodeResizePending",
].toSorted();

function nanosOf(value: unknown): bigint {
  return quantityOf(value)?.nanos ?? 0n;
}

function betaClass(claim: Readonly<JsonObject>): string | undefined {
  return mapOf(metadataOf(claim)["annotations"])[betaClassAnnotation];
}

/** Whether the class moves from the annotation of old to the field, or is given to a claim that had none (KEP-3333). */
function classMayBeSet(
  claim: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): { readonly byAnnotation: boolean; readonly fromNothing: boolean } {
  const [annotation, oldAnnotation] = [betaClass(claim), betaClass(old)];
  const name = record(claim["spec"])["storageClassName"];
  const added = name !== undefined && record(old["spec"])["storageClassName"] === undefined;
  return {
    byAnnotation:
      added &&
      oldAnnotation !== undefined &&
      name === oldAnnotation &&
      (annotation === undefined || annotation === oldAnnotation),
    fromNothing: added && (oldAnnotation === undefined || name === oldAnnotation),
  };
}

/** The spec as it would be if what this update may change had not changed. */
function maskChanges(
  claim: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): { readonly spec: JsonObject; readonly before: JsonObject } {
  const spec = structuredClone(record(claim["spec"])) as JsonObject;
  const before = structuredClone(record(old["spec"])) as JsonObject;
  const take = (key: string): void => {
    if (before[key] === undefined) delete spec[key];
    else spec[key] = before[key];
  };
  if (text(before["volumeName"]) === "" && spec["volumeName"] !== undefined) {
    before["volumeName"] = spec["volumeName"];
  }
  const { byAnnotation, fromNothing } = classMayBeSet(claim, old);
  if (byAnnotation || fromNothing) take("storageClassName");
  if (record(claim["status"])["phase"] !== "Bound") return { spec, before };
  take("volumeAttributesClassName");
  const requests = record(record(spec["resources"])["requests"]) as JsonObject;
  const size = dig(before, "resources", "requests", "storage");
  if (requests["storage"] !== undefined && size !== undefined) requests["storage"] = size;
  return { spec, before };
}

function attributesClassErrors(
  claim: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): FieldError[] {
  const after = record(claim["spec"])["volumeAttributesClassName"];
  const before = record(old["spec"])["volumeAttributesClassName"];
  const current = record(old["status"])["currentVolumeAttributesClassName"];
  if (after === before || current === undefined) return [];
  const since = "is forbidden when status.currentVolumeAttributesClassName is not nil";
  const field = "spec.volumeAttributesClassName";
  if (after === undefined) return [forbiddenField(field, `update to nil ${since}`)];
  return after === "" ? [forbiddenField(field, `update to empty string ${since}`)] : [];
}

/** What an update may not do. */
function changeErrors(claim: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const out: FieldError[] = [];
  const [annotation = "", oldAnnotation = ""] = [betaClass(claim), betaClass(old)];
  if (!classMayBeSet(claim, old).byAnnotation && annotation !== oldAnnotation) {
    const field = `metadata.annotations.${betaClassAnnotation}`;
    out.push(invalidValue(field, annotation, "field is immutable"));
  }
  const { spec, before } = maskChanges(claim, old);
  if (!semanticEqual(spec, before)) {
    out.push(
      forbiddenField(
        "spec",
        `spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n${unifiedDiff(before, spec)}`,
      ),
    );
  }
  const sizeOf = (object: Readonly<JsonObject>): bigint =>
    nanosOf(dig(object, "spec", "resources", "requests", "storage"));
  const capacity = nanosOf(dig(old, "status", "capacity", "storage"));
  // A claim may shrink again to what a failed expansion left it with, but not below.
  if (sizeOf(claim) < sizeOf(old) && sizeOf(claim) <= capacity) {
    const detail = "field can not be less than status.capacity";
    out.push(forbiddenField("spec.resources.requests.storage", detail));
  }
  const [mode, oldMode] = [claim, old].map((one) => record(one["spec"])["volumeMode"]);
  return [...out, ...immutable("volumeMode", mode, oldMode), ...attributesClassErrors(claim, old)];
}

/** Rules for a PersistentVolumeClaim; `old` is the stored one at an update. */
export function validateClaim(
  claim: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  if (old === undefined) return validateClaimSpec(record(claim["spec"]), "spec");
  return [
    ...validateClaimSpec(record(claim["spec"]), "spec", record(old["spec"])),
    ...changeErrors(claim, old),
  ];
}

function negativeAmount(value: unknown, field: string): FieldError[] {
  const nanos = nanosOf(value);
  return nanos < 0n
    ? [invalidValue(field, Number(nanos / nanosPerUnit), "must be a valid resource quantity")]
    : [];
}

/** Resources of a claim's status: `storage`, or one of somebody's own domain. */
function resourceKeyErrors(key: string, field: string): FieldError[] {
  const messages = qualifiedName(key);
  if (messages.length > 0) return invalidAll(field, key, messages);
  const native = !key.includes("/") || key.includes("kubernetes.io/");
  return native && key !== "storage" ? [notSupported(field, key, ["storage"])] : [];
}

/** Rules for the status of a PersistentVolumeClaim. */
export function validateClaimStatus(claim: Readonly<JsonObject>): FieldError[] {
  const status = record(claim["status"]);
  const out: FieldError[] = [];
  if (strings(record(claim["spec"])["accessModes"]).length === 0) {
    out.push(required("Spec.accessModes"));
  }
  for (const [name, amount] of Object.entries(record(status["capacity"]))) {
    out.push(...negativeAmount(amount, `status.capacity[${name}]`));
  }
  const statuses = "status.allocatedResourceStatuses";
  for (const [name, state] of Object.entries(record(status["allocatedResourceStatuses"]))) {
    out.push(...resourceKeyErrors(name, statuses));
    // Upstream shows the key where the state is wrong.
    if (!resizeStatuses.includes(text(state))) {
      out.push(notSupported(statuses, name, resizeStatuses));
    }
  }
  const allocated = "status.allocatedResources";
  for (const [name, amount] of Object.entries(record(status["allocatedResources"]))) {
    const wrongKey = resourceKeyErrors(name, allocated);
    out.push(...(wrongKey.length > 0 ? wrongKey : negativeAmount(amount, `${allocated}[${name}]`)));
  }
  return out;
}

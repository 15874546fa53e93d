import { formatQuantity } from "../../api/quantity.ts";
import type { FieldError, JsonObject } from "../types.ts";
import { dig, mapOf, record, strings, text } from "./access.ts";
import { forbiddenField, invalidAll, invalidValue, notSupported, required } from "./field-error.ts";
import { dns1123Label, dns1123Subdomain, subdomainName, validateLabels } from "./names.ts";
import { validateAnnotations } from "./object-meta.ts";
import { quantityOf } from "./quantity.ts";
import { validateLabelSelector } from "./scheduling-validation.ts";

const accessModes = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const volumeModes = ["Block", "Filesystem"];

/** Rules for `accessModes` of claims and volumes; whether one is required is the owner's to say. */
export function validateAccessModes(value: unknown, field: string): FieldError[] {
  const modes = strings(value);
  const out = modes
    .filter((mode) => !accessModes.includes(mode))
    .map((mode) => notSupported(field, mode, accessModes));
  const others = modes.some((mode) => mode !== "ReadWriteOncePod" && accessModes.includes(mode));
  if (others && modes.includes("ReadWriteOncePod")) {
    out.push(forbiddenField(field, "may not use ReadWriteOncePod with other access modes"));
  }
  return out;
}

/** Rules for `volumeMode`. */
export function validateVolumeMode(value: unknown, field: string): FieldError[] {
  return value === undefined || volumeModes.includes(text(value))
    ? []
    : [notSupported(field, value, volumeModes)];
}

/** The name of a StorageClass or VolumeAttributesClass, when there is one. */
export function validateClassName(value: unknown, field: string): FieldError[] {
  const name = text(value);
  return name === "" ? [] : invalidAll(field, name, subdomainName(name, false));
}

/** An amount of storage: above zero. A fraction of a byte is only warned of. */
export function validateStorageAmount(value: unknown, field: string): FieldError[] {
  const quantity = quantityOf(value);
  return quantity !== undefined && quantity.nanos <= 0n
    ? [invalidValue(field, formatQuantity(quantity), "must be greater than zero")]
    : [];
}

/** @param allowAnyGroup The stored claim names an API group, which is then not looked at again. */
function dataSourceErrors(
  source: Readonly<JsonObject>,
  field: string,
  allowAnyGroup: boolean,
): FieldError[] {
  const kind = text(source["kind"]);
  const group = text(source["apiGroup"]);
  const out: FieldError[] = [];
  if (text(source["name"]) === "") out.push(required(`${field}.name`));
  if (kind === "") out.push(required(`${field}.kind`));
  if (group === "" && kind !== "PersistentVolumeClaim") {
    const detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
    out.push(invalidValue(field, kind, detail));
  }
  if (group !== "" && !allowAnyGroup) {
    out.push(...invalidAll(`${field}.apiGroup`, group, dns1123Subdomain(group)));
  }
  const namespace = text(source["namespace"]);
  if (namespace !== "") {
    out.push(...invalidAll(`${field}.namespace`, namespace, dns1123Label(namespace)));
  }
  return out;
}

function namesGroup(spec: Readonly<JsonObject> | undefined): boolean {
  return (
    typeof dig(spec, "dataSource", "apiGroup") === "string" ||
    typeof dig(spec, "dataSourceRef", "apiGroup") === "string"
  );
}

function dataSourcesErrors(
  spec: Readonly<JsonObject>,
  field: string,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const { dataSource, dataSourceRef } = spec;
  const allowAnyGroup = namesGroup(old);
  const out: FieldError[] = [];
  if (dataSource !== undefined) {
    out.push(...dataSourceErrors(record(dataSource), `${field}.dataSource`, allowAnyGroup));
  }
  if (dataSourceRef === undefined) return out;
  const reference = record(dataSourceRef);
  out.push(...dataSourceErrors(reference, `${field}.dataSourceRef`, allowAnyGroup));
  if (dataSource === undefined) return out;
  const same = ["apiGroup", "kind", "name"].every(
    (key) => text(record(dataSource)[key]) === text(reference[key]),
  );
  // Upstream shows a path here, which prints as nothing.
  const shown = {};
  if (text(reference["namespace"]) !== "") {
    const detail = "may not be specified when dataSourceRef.namespace is specified";
    out.push(invalidValue(field, shown, detail));
  } else if (!same) out.push(invalidValue(field, shown, "must match dataSourceRef"));
  return out;
}

/**
 * Rules for the spec of a PersistentVolumeClaim, or of a template of one. `old` is the stored spec at an update: what was
 * wrong in it already is let through where upstream does so.
 */
export function validateClaimSpec(
  spec: Readonly<JsonObject>,
  field: string,
  old?: Readonly<JsonObject>,
): FieldError[] {
  const out: FieldError[] = [];
  const modes = `${field}.accessModes`;
  if (strings(spec["accessModes"]).length === 0) {
    out.push(required(modes, "at least 1 access mode is required"));
  }
  const selector = spec["selector"];
  const storedIsWrong =
    old?.["selector"] !== undefined && validateLabelSelector(old["selector"], "").length > 0;
  if (selector !== undefined && !storedIsWrong) {
    out.push(...validateLabelSelector(selector, `${field}.selector`));
  }
  out.push(...validateAccessModes(spec["accessModes"], modes));
  const size = `${field}.resources[storage]`;
  const storage = dig(spec, "resources", "requests", "storage");
  if (storage === undefined) out.push(required(size));
  else out.push(...validateStorageAmount(storage, size));
  out.push(
    ...validateClassName(spec["storageClassName"], `${field}.storageClassName`),
    ...validateVolumeMode(spec["volumeMode"], `${field}.volumeMode`),
    ...dataSourcesErrors(spec, field, old),
    ...validateClassName(spec["volumeAttributesClassName"], `${field}.volumeAttributesClassName`),
  );
  return out;
}

const templateMembers = new Set(["annotations", "labels"]);

/** Rules for `volumeClaimTemplate` of a generic ephemeral volume: only labels, annotations and the spec may be given. */
export function validateClaimTemplate(value: unknown, field: string): FieldError[] {
  const template = record(value);
  const metadata = record(template["metadata"]);
  const path = `${field}.metadata`;
  return [
    ...validateAnnotations(metadata["annotations"], `${path}.annotations`),
    ...validateLabels(mapOf(metadata["labels"]), `${path}.labels`),
    ...Object.keys(metadata)
      .filter((key) => !templateMembers.has(key))
      .map((key) => forbiddenField(`${path}.${key}`, "cannot be set")),
    ...validateClaimSpec(record(template["spec"]), `${field}.spec`),
  ];
}

import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import {
  mapOf,
  metadataOf,
  nameOf,
  record,
  records,
  semanticEqual,
  strings,
  text,
} from "./access.ts";
import {
  at,
  duplicate,
  forbiddenField,
  immutable,
  invalidAll,
  invalidValue,
  notSupported,
  required,
  tooLong,
} from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { qualifiedName } from "./names.ts";
import { deprecatedLabelMessage } from "./placement-warnings.ts";
import { defineStrategy } from "./strategy.ts";
import { age, ageColumn, column, nameColumn } from "./table.ts";

const group = "storage.k8s.io";
const maxParameterBytes = 256 * 1024;
const maxParameters = 512;
const reclaimPolicies = ["Delete", "Retain"];
const bindingModes = ["Immediate", "WaitForFirstConsumer"];
const defaultAnnotations = [
  "storageclass.kubernetes.io/is-default-class",
  "storageclass.beta.kubernetes.io/is-default-class",
];

/** Whether claims without a class get this one. */
export function isDefaultClass(storageClass: Readonly<JsonObject>): boolean {
  const annotations = mapOf(metadataOf(storageClass)["annotations"]);
  return defaultAnnotations.some((key) => annotations[key] === "true");
}

function provisionerErrors(value: unknown, field: string): FieldError[] {
  const name = text(value).toLowerCase();
  return name === "" ? [required(field)] : invalidAll(field, name, qualifiedName(name));
}

function parameterErrors(value: unknown, mayBeEmpty: boolean): FieldError[] {
  const field = "parameters";
  const entries = Object.entries(mapOf(value));
  if (entries.length > maxParameters) return [tooLong(field, maxParameters)];
  const out = entries
    .filter(([key]) => key === "")
    .map(([key]) => invalidValue(field, key, "field can not be empty."));
  const size = entries.reduce(
    (sum, [key, member]) => sum + Buffer.byteLength(key) + Buffer.byteLength(member),
    0,
  );
  if (size > maxParameterBytes) out.push(tooLong(field, maxParameterBytes));
  if (!mayBeEmpty && entries.length === 0) {
    out.push(required(field, "must contain at least one key/value pair"));
  }
  return out;
}

function topologyTerm(term: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  const seen = new Set<string>();
  records(term["matchLabelExpressions"]).forEach((expression, index) => {
    const path = at(`${field}.matchLabelExpressions`, index);
    const key = text(expression["key"]);
    const values = strings(expression["values"]);
    if (values.length === 0) out.push(required(`${path}.values`));
    values.forEach((value, place) => {
      if (values.indexOf(value) < place) out.push(duplicate(at(`${path}.values`, place), value));
    });
    out.push(...invalidAll(`${path}.key`, key, qualifiedName(key)));
    if (seen.has(key)) out.push(duplicate(`${path}.key`, key));
    seen.add(key);
  });
  return out;
}

/** What a term asks for, however it is written. */
function canonicalTerm(term: Readonly<JsonObject>): string {
  const pairs = records(term["matchLabelExpressions"]).map(
    (expression) => [text(expression["key"]), strings(expression["values"]).toSorted()] as const,
  );
  return JSON.stringify(pairs.toSorted(([left], [right]) => (left < right ? -1 : 1)));
}

function topologyErrors(value: unknown): FieldError[] {
  const field = "allowedTopologies";
  const seen = new Set<string>();
  return records(value).flatMap((term, index) => {
    const path = at(field, index);
    const out = topologyTerm(term, path);
    const canonical = canonicalTerm(term);
    if (seen.has(canonical)) out.push(duplicate(`${path}.matchLabelExpressions`, ""));
    seen.add(canonical);
    return out;
  });
}

function storageClassErrors(
  storageClass: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const { provisioner, parameters, reclaimPolicy, volumeBindingMode } = storageClass;
  const out = [
    ...provisionerErrors(provisioner, "provisioner"),
    ...parameterErrors(parameters, true),
  ];
  if (text(reclaimPolicy) !== "" && !reclaimPolicies.includes(text(reclaimPolicy))) {
    out.push(notSupported("reclaimPolicy", reclaimPolicy, reclaimPolicies));
  }
  if (!bindingModes.includes(text(volumeBindingMode))) {
    out.push(notSupported("volumeBindingMode", volumeBindingMode, bindingModes));
  }
  out.push(...topologyErrors(storageClass["allowedTopologies"]));
  if (old === undefined) return out;
  if (!semanticEqual(mapOf(parameters), mapOf(old["parameters"]))) {
    out.push(invalidValue("parameters", parameters, "field is immutable"));
  }
  for (const key of ["provisioner", "reclaimPolicy", "volumeBindingMode"]) {
    out.push(...immutable(key, storageClass[key], old[key]));
  }
  return out;
}

function warnings(storageClass: Readonly<JsonObject>): string[] {
  return records(storageClass["allowedTopologies"]).flatMap((term, index) =>
    records(term["matchLabelExpressions"]).flatMap((expression, place) => {
      const message = deprecatedLabelMessage(text(expression["key"]));
      const path = at(`${at("allowedTopologies", index)}.matchLabelExpressions`, place);
      return message === undefined ? [] : [`${path}.key: ${message}`];
    }),
  );
}

export const storageClassKind: KindDefinition = defineKind({
  group,
  kind: "StorageClass",
  plural: "storageclasses",
  shortNames: ["sc"],
  namespaced: false,
  schema: "io.k8s.api.storage.v1.StorageClass",
  strategy: {
    ...defineStrategy({
      applyDefaults(storageClass) {
        storageClass["reclaimPolicy"] ??= "Delete";
        storageClass["volumeBindingMode"] ??= "Immediate";
      },
      validate: storageClassErrors,
      warnings,
    }),
    returnsDeletedObject: true,
  },
  table: {
    columns: [
      nameColumn,
      column("Provisioner", "Who makes the volumes."),
      column("ReclaimPolicy", "What becomes of a volume when its claim is gone."),
      column("VolumeBindingMode", "Whether volumes wait for the first pod that uses them."),
      column("AllowVolumeExpansion", "Whether claims may grow."),
      ageColumn,
    ],
    row: (storageClass, now) => [
      isDefaultClass(storageClass) ? `${nameOf(storageClass)} (default)` : nameOf(storageClass),
      text(storageClass["provisioner"]),
      text(storageClass["reclaimPolicy"]) || "Delete",
      text(storageClass["volumeBindingMode"]) || "Immediate",
      storageClass["allowVolumeExpansion"] === true,
      age(storageClass, now),
    ],
  },
});

export const volumeAttributesClassKind: KindDefinition = defineKind({
  group,
  kind: "VolumeAttributesClass",
  plural: "volumeattributesclasses",
  shortNames: ["vac"],
  namespaced: false,
  schema: "io.k8s.api.storage.v1.VolumeAttributesClass",
  strategy: {
    ...defineStrategy({
      validate(attributesClass, old) {
        const { driverName, parameters } = attributesClass;
        const out: FieldError[] = [];
        if (old !== undefined && text(driverName) !== text(old["driverName"])) {
          out.push(forbiddenField("driverName", "updates to driverName are forbidden."));
        }
        if (old !== undefined && !semanticEqual(record(parameters), record(old["parameters"]))) {
          out.push(forbiddenField("parameters", "updates to parameters are forbidden."));
        }
        return [
          ...out,
          ...provisionerErrors(driverName, "driverName"),
          ...parameterErrors(parameters, false),
        ];
      },
    }),
    returnsDeletedObject: true,
  },
  table: {
    columns: [nameColumn, column("DriverName", "CSI driver that applies it."), ageColumn],
    row: (attributesClass, now) => [
      nameOf(attributesClass),
      text(attributesClass["driverName"]),
      age(attributesClass, now),
    ],
  },
});

import { posix } from "node:path";

import type { FieldError, JsonObject } from "../types.ts";
import {
  isEmpty,
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
  validateAccessModes,
  validateClassName,
  validateStorageAmount,
  validateVolumeMode,
} from "./claim-spec-validation.ts";
import { forbiddenField, immutable, invalidValue, notSupported, required } from "./field-error.ts";
import { iscsiPersistentCheck } from "./iscsi-validation.ts";
import { noBacksteps } from "./path-validation.ts";
import { quantityOf } from "./quantity.ts";
import { hasWrongValues, validateNodeSelector } from "./scheduling-validation.ts";
import { unifiedDiff } from "./unified-diff.ts";
import type { SourceRule } from "./volume-source-members.ts";
import { persistentSources, validateSourceUnion } from "./volume-source-validation.ts";

const reclaimPolicies = ["Delete", "Recycle", "Retain"];
export const mountOptionsAnnotation = "volume.beta.kubernetes.io/mount-options";

/** Types of volumes that take mount options from the annotation of old. */
const mountable = [
  "gcePersistentDisk",
  "awsElasticBlockStore",
  "glusterfs",
  "nfs",
  "rbd",
  "quobyte",
  "iscsi",
  "cinder",
  "cephfs",
  "azureFile",
  "vsphereVolume",
  "azureDisk",
  "photonPersistentDisk",
];

function sourceRules(spec: Readonly<JsonObject>, field: string, name: string): SourceRule[] {
  return [
    ...persistentSources.beforeISCSI,
    { key: "iscsi", check: iscsiPersistentCheck(name) },
    ...persistentSources.beforeLocal,
    {
      key: "local",
      check(source, path) {
        const target = text(source["path"]);
        return [
          ...(target === "" ? [required(`${path}.path`)] : noBacksteps(target, `${path}.path`)),
          ...(spec["nodeAffinity"] === undefined
            ? [required(`${field}.nodeAffinity`, "Local volume requires node affinity")]
            : []),
        ];
      },
    },
    ...persistentSources.afterLocal,
  ];
}

const sourceKeys = sourceRules({}, "", "").map(({ key }) => key);

/** The members of a PersistentVolume's spec that say what it is. */
export function volumeSourceOf(spec: Readonly<JsonObject>): JsonObject {
  return Object.fromEntries(
    sourceKeys.flatMap((key) => (spec[key] === undefined ? [] : [[key, spec[key]]])),
  );
}

function capacityErrors(capacity: unknown, field: string): FieldError[] {
  const amounts = record(capacity);
  const names = Object.keys(amounts);
  const out: FieldError[] = names.length === 0 ? [required(field)] : [];
  if (amounts["storage"] === undefined || names.length > 1) {
    const sorted = Object.fromEntries(names.toSorted().map((name) => [name, amounts[name]]));
    out.push(notSupported(field, names.length === 0 ? null : sorted, ["storage"]));
  }
  for (const name of names) {
    const path = `${field}[${name}]`;
    const quantity = quantityOf(amounts[name]);
    if (quantity !== undefined && quantity.nanos < 0n) {
      // Upstream shows a negative amount as a number of whole units.
      const whole = Number(quantity.nanos / 1_000_000_000n);
      out.push(invalidValue(path, whole, "must be a valid resource quantity"));
    }
    out.push(...validateStorageAmount(amounts[name], path));
  }
  return out;
}

/** `oldSelector` is stored: when it has label values that are none, so may the new one. */
function nodeAffinityErrors(affinity: unknown, field: string, oldSelector: unknown): FieldError[] {
  if (affinity === undefined) return [];
  const selector = record(affinity)["required"];
  const path = `${field}.required`;
  if (selector === undefined) return [required(path, "must specify required node constraints")];
  return validateNodeSelector(selector, path, { checkValues: !hasWrongValues(oldSelector) });
}

function attributesClassErrors(spec: Readonly<JsonObject>, field: string): FieldError[] {
  const className = spec["volumeAttributesClassName"];
  if (className === undefined) return [];
  const path = `${field}.volumeAttributesClassName`;
  const out =
    className === ""
      ? [required(path, "an empty string is disallowed")]
      : validateClassName(className, path);
  if (spec["csi"] === undefined) {
    const detail = "has to be specified when using volumeAttributesClassName";
    out.push(required(`${field}.csi`, detail));
  }
  return out;
}

function recycledRoot(spec: Readonly<JsonObject>, field: string): FieldError[] {
  const path = text(record(spec["hostPath"])["path"]);
  return path !== "" &&
    posix.normalize(path) === "/" &&
    spec["persistentVolumeReclaimPolicy"] === "Recycle"
    ? [
        forbiddenField(
          `${field}.persistentVolumeReclaimPolicy`,
          "may not be 'recycle' for a hostPath mount of '/'",
        ),
      ]
    : [];
}

function specErrors(
  volume: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const spec = record(volume["spec"]);
  const field = "spec";
  const out: FieldError[] =
    strings(spec["accessModes"]).length === 0 ? [required(`${field}.accessModes`)] : [];
  out.push(
    ...validateAccessModes(spec["accessModes"], `${field}.accessModes`),
    ...capacityErrors(spec["capacity"], `${field}.capacity`),
  );
  const policy = text(spec["persistentVolumeReclaimPolicy"]);
  if (!reclaimPolicies.includes(policy)) {
    out.push(notSupported(`${field}.persistentVolumeReclaimPolicy`, policy, reclaimPolicies));
  }
  const stored = record(record(record(old?.["spec"])["nodeAffinity"])["required"]);
  out.push(
    ...nodeAffinityErrors(spec["nodeAffinity"], `${field}.nodeAffinity`, stored),
    ...validateSourceUnion(spec, field, sourceRules(spec, field, nameOf(volume))),
    ...recycledRoot(spec, field),
    ...validateClassName(spec["storageClassName"], `${field}.storageClassName`),
    ...validateVolumeMode(spec["volumeMode"], `${field}.volumeMode`),
    ...attributesClassErrors(spec, field),
  );
  return out;
}

/** Rules for a PersistentVolume spec inside a VolumeAttachment: a CSI volume and nothing that binds it. */
export function validateInlineVolumeSpec(value: unknown, field: string): FieldError[] {
  const spec = record(value);
  const out: FieldError[] = [];
  const never = (key: string): void => {
    const detail = "may not be specified in the context of inline volumes";
    out.push(forbiddenField(`${field}.${key}`, detail));
  };
  if (spec["claimRef"] !== undefined) never("claimRef");
  if (!isEmpty(spec["capacity"])) never("capacity");
  if (spec["csi"] === undefined) {
    const detail = "has to be specified in the context of inline volumes";
    out.push(required(`${field}.csi`, detail));
  }
  if (strings(spec["accessModes"]).length === 0) out.push(required(`${field}.accessModes`));
  out.push(...validateAccessModes(spec["accessModes"], `${field}.accessModes`));
  const policy = text(spec["persistentVolumeReclaimPolicy"]);
  if (policy !== "" && policy !== "Retain") {
    const detail = "may only be Retain in the context of inline volumes";
    out.push(forbiddenField(`${field}.persistentVolumeReclaimPolicy`, detail));
  }
  if (spec["nodeAffinity"] !== undefined) never("nodeAffinity");
  out.push(...validateSourceUnion(spec, field, sourceRules(spec, field, "")));
  out.push(...recycledRoot(spec, field));
  if (text(spec["storageClassName"]) !== "") never("storageClassName");
  const mode = spec["volumeMode"];
  if (mode !== undefined && mode !== "Filesystem") {
    const detail =
      "may not specify volumeMode other than Filesystem in the context of inline volumes";
    out.push(forbiddenField(`${field}.volumeMode`, detail));
  }
  return out;
}

function mountOptionErrors(volume: Readonly<JsonObject>): FieldError[] {
  const spec = record(volume["spec"]);
  if (mapOf(metadataOf(volume)["annotations"])[mountOptionsAnnotation] === undefined) return [];
  return mountable.some((key) => spec[key] !== undefined)
    ? []
    : [
        forbiddenField(
          `metadata.annotations.${mountOptionsAnnotation}`,
          "may not specify mount options for this volume type",
        ),
      ];
}

/** Labels of nodes that have another name since they left beta; a volume may follow. */
const renamedLabels: Readonly<Record<string, string>> = {
  "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
  "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
  "beta.kubernetes.io/os": "kubernetes.io/os",
  "beta.kubernetes.io/arch": "kubernetes.io/arch",
  "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
};

/** A node affinity under the names of `like`, where those are the newer ones. */
function withRenamedLabels(affinity: unknown, like: unknown): unknown {
  const copy: unknown = structuredClone(affinity);
  const terms = records(record(record(copy)["required"])["nodeSelectorTerms"]);
  const wanted = records(record(record(like)["required"])["nodeSelectorTerms"]);
  terms.forEach((term, index) => {
    for (const list of ["matchExpressions", "matchFields"]) {
      const next = records(wanted[index]?.[list]);
      records(term[list]).forEach((requirement, place) => {
        const renamed = renamedLabels[text(requirement["key"])];
        if (renamed !== undefined && next[place]?.["key"] === renamed) requirement["key"] = renamed;
      });
    }
  });
  return copy;
}

/** What an update may not do. */
function changeErrors(volume: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const [spec, before] = [record(volume["spec"]), record(old["spec"])];
  const [source, oldSource] = [volumeSourceOf(spec), volumeSourceOf(before)];
  const out: FieldError[] = [];
  const [csi, oldCSI] = [record(source["csi"]), record(oldSource["csi"])];
  if (oldSource["csi"] !== undefined && oldCSI["controllerExpandSecretRef"] === undefined) {
    const { controllerExpandSecretRef: _added, ...rest } = csi;
    if (source["csi"] !== undefined) source["csi"] = rest;
  }
  if (!semanticEqual(source, oldSource)) {
    const detail = `spec.persistentvolumesource is immutable after creation\n${unifiedDiff(oldSource, source)}`;
    out.push(forbiddenField("spec.persistentvolumesource", detail));
  }
  out.push(...immutable("volumeMode", spec["volumeMode"], before["volumeMode"]));
  const [affinity, oldAffinity] = [spec["nodeAffinity"], before["nodeAffinity"]];
  if (
    oldAffinity !== undefined &&
    !semanticEqual(affinity, withRenamedLabels(oldAffinity, affinity))
  ) {
    out.push(
      invalidValue(
        "nodeAffinity",
        affinity,
        "field is immutable, except for updating from beta label to GA",
      ),
    );
  }
  if (
    before["volumeAttributesClassName"] !== undefined &&
    spec["volumeAttributesClassName"] === undefined
  ) {
    const detail = "update from non-nil value to nil is forbidden";
    out.push(forbiddenField("spec.volumeAttributesClassName", detail));
  }
  return out;
}

/** Rules for a PersistentVolume; `old` is the stored one at an update. */
export function validatePersistentVolume(
  volume: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  return [
    ...specErrors(volume, old),
    ...mountOptionErrors(volume),
    ...(old === undefined ? [] : changeErrors(volume, old)),
  ];
}

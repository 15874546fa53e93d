import { isRecord } from "../../lib/guard.ts";
import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import { defaultTo, ensureRecord, mapOf, metadataOf, nameOf, record, text } from "./access.ts";
import { required } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import {
  mountOptionsAnnotation,
  validatePersistentVolume,
} from "./persistent-volume-validation.ts";
import { nodeSelectorTermWarnings } from "./placement-warnings.ts";
import { canonicalizeResources, volumeFallbacks } from "./pod-defaults.ts";
import {
  betaClassAnnotation,
  classOf,
  shownAccessModes,
  shownOrUnset,
  shownPhase,
} from "./storage-table.ts";
import { defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, nameColumn } from "./table.ts";

/** RFC 3339, whole seconds. */
function timestamp(now: number): string {
  return new Date(now).toISOString().replace(/\.\d+Z$/, "Z");
}

/** Sources of volumes that have defaults of their own, in a PersistentVolume. */
const sourcesWithDefaults = ["rbd", "iscsi", "azureDisk", "scaleIO"];

/** Fills what belongs to the source of a volume, and its capacity. */
export function volumeSourceDefaults(spec: JsonObject): void {
  canonicalizeResources(spec, "capacity");
  if (isRecord(spec["hostPath"]) && typeof spec["hostPath"]["type"] !== "string") {
    spec["hostPath"]["type"] = "";
  }
  for (const name of sourcesWithDefaults) {
    const source = spec[name];
    if (!isRecord(source)) continue;
    for (const [key, value] of Object.entries(volumeFallbacks[name] ?? {})) source[key] ??= value;
  }
  // The API prints this one although it is not there.
  if (isRecord(spec["azureFile"])) spec["azureFile"]["secretNamespace"] ??= null;
}

function applyDefaults(volume: JsonObject): void {
  defaultTo(ensureRecord(volume, "status"), "phase", "Pending");
  const spec = ensureRecord(volume, "spec");
  defaultTo(spec, "persistentVolumeReclaimPolicy", "Retain");
  spec["volumeMode"] ??= "Filesystem";
  volumeSourceDefaults(spec);
}

const deprecatedAnnotations: Readonly<Record<string, string>> = {
  [betaClassAnnotation]: 'deprecated since v1.8; use "storageClassName" attribute instead',
  [mountOptionsAnnotation]: 'deprecated since v1.31; use "mountOptions" attribute instead',
};

/** Sources that no kubelet mounts any more: field, name in the message, since when. */
const deprecatedSources: readonly (readonly [string, string, string])[] = [
  ["cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"],
  ["photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"],
  ["scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"],
  ["storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"],
  ["glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"],
  ["rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"],
];

function warnings(volume: Readonly<JsonObject>): string[] {
  const spec = record(volume["spec"]);
  const annotations = mapOf(metadataOf(volume)["annotations"]);
  const out = Object.entries(deprecatedAnnotations)
    .filter(([key]) => annotations[key] !== undefined)
    .map(([key, message]) => `metadata.annotations[${key}]: ${message}`);
  if (spec["persistentVolumeReclaimPolicy"] === "Recycle") {
    out.push(
      "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
    );
  }
  const selector = record(record(spec["nodeAffinity"])["required"])["nodeSelectorTerms"];
  out.push(...nodeSelectorTermWarnings(selector, "spec.nodeAffinity.required.nodeSelectorTerms"));
  for (const [key, shown, message] of deprecatedSources) {
    if (spec[key] !== undefined) out.push(`spec.${shown}: ${message}`);
  }
  return out;
}

const strategy = defineStrategy({
  hasStatus: true,
  applyDefaults,
  prepareForCreate(volume, { now }) {
    volume["status"] = { phase: "Pending", lastPhaseTransitionTime: timestamp(now) };
  },
  validate: validatePersistentVolume,
  warnings,
});

/** Why a status cannot be written without a resourceVersion. */
export function statusVersionErrors(object: Readonly<JsonObject>): FieldError[] {
  return text(metadataOf(object)["resourceVersion"]) === "" ? [required("resourceVersion")] : [];
}

const statusStrategy = defineStatusStrategy(strategy, {
  prepareForUpdate(volume, old, { now }) {
    const status = ensureRecord(volume, "status");
    const before = record(old["status"]);
    const [time, oldTime] = [status["lastPhaseTransitionTime"], before["lastPhaseTransitionTime"]];
    if (status["phase"] === before["phase"]) {
      if (time === undefined && oldTime !== undefined) status["lastPhaseTransitionTime"] = oldTime;
    } else if (time === undefined || time === oldTime) {
      status["lastPhaseTransitionTime"] = timestamp(now);
    }
  },
  validate: statusVersionErrors,
});

function claimText(spec: Readonly<JsonObject>): string {
  const claim = spec["claimRef"];
  return isRecord(claim) ? `${text(claim["namespace"])}/${text(claim["name"])}` : "";
}

export const persistentVolumeKind: KindDefinition = defineKind({
  kind: "PersistentVolume",
  plural: "persistentvolumes",
  shortNames: ["pv"],
  namespaced: false,
  schema: "io.k8s.api.core.v1.PersistentVolume",
  strategy: { ...strategy, returnsDeletedObject: true },
  subresources: {
    status: { kind: "stored", verbs: subresourceVerbs, strategy: statusStrategy },
  },
  fieldSelectors: { name: nameOf },
  table: {
    columns: [
      nameColumn,
      column("Capacity", "Size of the volume."),
      column("Access Modes", "Ways in which the volume can be mounted."),
      column("Reclaim Policy", "What becomes of the volume when its claim is gone."),
      column("Status", "Whether it is free, bound, released or failed."),
      column("Claim", "The claim it is bound to, or kept for."),
      column("StorageClass", "StorageClass of the volume."),
      column("VolumeAttributesClass", "VolumeAttributesClass of the volume."),
      column("Reason", "Why it is in its state, in one word."),
      ageColumn,
      column("VolumeMode", "Filesystem or Block.", true),
    ],
    row(volume, now) {
      const spec = record(volume["spec"]);
      return [
        nameOf(volume),
        text(record(spec["capacity"])["storage"]) || "0",
        shownAccessModes(spec["accessModes"]),
        text(spec["persistentVolumeReclaimPolicy"]),
        shownPhase(volume),
        claimText(spec),
        classOf(volume),
        shownOrUnset(spec["volumeAttributesClassName"]),
        text(record(volume["status"])["reason"]),
        age(volume, now),
        shownOrUnset(spec["volumeMode"]),
      ];
    },
  },
});

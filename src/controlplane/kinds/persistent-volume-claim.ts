import { isRecord } from "../../lib/guard.ts";
import type { JsonObject, KindDefinition } from "../types.ts";
import {
  defaultTo,
  ensureRecord,
  mapOf,
  metadataOf,
  nameOf,
  record,
  records,
  text,
} from "./access.ts";
import { defineKind } from "./kind-builder.ts";
import { validateClaim, validateClaimStatus } from "./persistent-volume-claim-validation.ts";
import { statusVersionErrors } from "./persistent-volume.ts";
import { canonicalizeResources, claimSpecDefaults } from "./pod-defaults.ts";
import {
  betaClassAnnotation,
  classOf,
  shownAccessModes,
  shownOrUnset,
  shownPhase,
} from "./storage-table.ts";
import { defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, nameColumn } from "./table.ts";
import { claimSizeWarnings } from "./volume-warnings.ts";

function applyDefaults(claim: JsonObject): void {
  claimSpecDefaults(ensureRecord(claim, "spec"));
  const status = ensureRecord(claim, "status");
  defaultTo(status, "phase", "Pending");
  canonicalizeResources(status, "capacity");
  canonicalizeResources(status, "allocatedResources");
  for (const condition of records(status["conditions"])) {
    condition["lastProbeTime"] ??= null;
    condition["lastTransitionTime"] ??= null;
  }
}

/** Whether a data source is one that claims have always known. */
function isClassicSource(source: unknown): boolean {
  const { kind, apiGroup } = record(source);
  return (
    (kind === "PersistentVolumeClaim" && text(apiGroup) === "") ||
    (kind === "VolumeSnapshot" && apiGroup === "snapshot.storage.k8s.io")
  );
}

/** Drops a data source that was never honoured, and keeps `dataSource` and `dataSourceRef` the same (KEP-1495). */
function normalizeDataSources(spec: JsonObject, before: Readonly<JsonObject> | undefined): void {
  const isAcrossNamespaces = text(record(spec["dataSourceRef"])["namespace"]) !== "";
  // Across namespaces is a feature that is off by default; upstream then drops the whole reference.
  if (isAcrossNamespaces && before?.["dataSourceRef"] === undefined) delete spec["dataSourceRef"];
  const wasUsed = before?.["dataSource"] !== undefined || before?.["dataSourceRef"] !== undefined;
  if (!wasUsed && spec["dataSourceRef"] === undefined && !isClassicSource(spec["dataSource"])) {
    delete spec["dataSource"];
  }
  const { dataSource, dataSourceRef } = spec;
  if (isRecord(dataSource) && dataSourceRef === undefined) {
    spec["dataSourceRef"] = structuredClone(dataSource);
  } else if (isRecord(dataSourceRef) && dataSource === undefined) {
    if (text(dataSourceRef["namespace"]) !== "") return;
    const { namespace: _none, ...local } = structuredClone(dataSourceRef);
    spec["dataSource"] = local;
  }
  // The API prints a group that is not there.
  for (const key of ["dataSource", "dataSourceRef"]) {
    const source = spec[key];
    if (isRecord(source)) source["apiGroup"] ??= null;
  }
}

function warnings(claim: Readonly<JsonObject>): string[] {
  const out: string[] = [];
  if (mapOf(metadataOf(claim)["annotations"])[betaClassAnnotation] !== undefined) {
    out.push(
      `metadata.annotations[${betaClassAnnotation}]: deprecated since v1.8; use "storageClassName" attribute instead`,
    );
  }
  return [...out, ...claimSizeWarnings(claim["spec"], "spec")];
}

const strategy = defineStrategy({
  hasStatus: true,
  applyDefaults,
  prepareForCreate(claim) {
    claim["status"] = { phase: "Pending" };
    normalizeDataSources(ensureRecord(claim, "spec"), undefined);
  },
  prepareForUpdate(claim, old) {
    normalizeDataSources(ensureRecord(claim, "spec"), record(old["spec"]));
  },
  validate: validateClaim,
  warnings,
});

export const persistentVolumeClaimKind: KindDefinition = defineKind({
  kind: "PersistentVolumeClaim",
  plural: "persistentvolumeclaims",
  shortNames: ["pvc"],
  schema: "io.k8s.api.core.v1.PersistentVolumeClaim",
  strategy: { ...strategy, returnsDeletedObject: true },
  subresources: {
    status: {
      kind: "stored",
      verbs: subresourceVerbs,
      strategy: defineStatusStrategy(strategy, {
        validate: (claim) => [...statusVersionErrors(claim), ...validateClaimStatus(claim)],
      }),
    },
  },
  fieldSelectors: { name: nameOf },
  table: {
    columns: [
      nameColumn,
      column("Status", "Whether it is bound, waits, or lost its volume."),
      column("Volume", "The volume it is bound to."),
      column("Capacity", "Size of the volume."),
      column("Access Modes", "Ways in which the volume can be mounted."),
      column("StorageClass", "StorageClass of the claim."),
      column("VolumeAttributesClass", "VolumeAttributesClass of the claim."),
      ageColumn,
      column("VolumeMode", "Filesystem or Block.", true),
    ],
    row(claim, now) {
      const spec = record(claim["spec"]);
      const status = record(claim["status"]);
      const isBound = text(spec["volumeName"]) !== "";
      return [
        nameOf(claim),
        shownPhase(claim),
        text(spec["volumeName"]),
        isBound ? text(record(status["capacity"])["storage"]) || "0" : "",
        isBound ? shownAccessModes(status["accessModes"]) : "",
        classOf(claim),
        shownOrUnset(spec["volumeAttributesClassName"]),
        age(claim, now),
        shownOrUnset(spec["volumeMode"]),
      ];
    },
  },
});

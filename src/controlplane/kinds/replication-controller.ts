import type { FieldError, JsonObject, KindDefinition, Strategy } from "../types.ts";
import { formatLabels as formatSelector } from "../../api/labels.ts";
import { ensureRecord, int, isEmpty, mapOf, metadataOf, record } from "./access.ts";
import { invalidValue, nonNegative, required } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { podTemplateDefaults } from "./pod-defaults.ts";
import { replicaTable } from "./replica-table.ts";
import { scaleSubresource } from "./scale.ts";
import { defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import { formatLabels } from "./table.ts";
import {
  nonNegativeStatus,
  templateWarnings,
  validateLastingTemplate,
  validateReplicaCounts,
} from "./workload.ts";

function templateErrors(spec: Readonly<JsonObject>): FieldError[] {
  const field = "spec.template";
  if (spec["template"] === undefined) return [required(field)];
  const template = record(spec["template"]);
  const selector = Object.entries(mapOf(spec["selector"]));
  const labels = mapOf(metadataOf(template)["labels"]);
  const out: FieldError[] = [];
  if (selector.some(([key, value]) => labels[key] !== value)) {
    out.push(
      invalidValue(
        `${field}.metadata.labels`,
        metadataOf(template)["labels"],
        "`selector` does not match template `labels`",
      ),
    );
  }
  return [...out, ...validateLastingTemplate(template, field, "ReplicationController")];
}

function specErrors(controller: Readonly<JsonObject>): FieldError[] {
  const spec = record(controller["spec"]);
  return [
    ...nonNegative("spec.minReadySeconds", spec["minReadySeconds"]),
    ...(isEmpty(spec["selector"]) ? [required("spec.selector")] : []),
    ...nonNegative("spec.replicas", spec["replicas"]),
    ...templateErrors(spec),
  ];
}

const parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

function statusErrors(controller: Readonly<JsonObject>): FieldError[] {
  const status = record(controller["status"]);
  return [
    ...nonNegativeStatus(status, ["replicas", ...parts, "observedGeneration"]),
    ...validateReplicaCounts(status, parts),
  ];
}

const strategy: Strategy = {
  ...defineStrategy({
    hasStatus: true,
    hasGeneration: true,
    applyDefaults(controller) {
      const spec = ensureRecord(controller, "spec");
      if (int(spec["replicas"]) === undefined) spec["replicas"] = 1;
      if (spec["template"] === undefined) return;
      const template = ensureRecord(spec, "template");
      podTemplateDefaults(template);
      const labels = mapOf(metadataOf(template)["labels"]);
      if (Object.keys(labels).length === 0) return;
      if (isEmpty(spec["selector"])) spec["selector"] = { ...labels };
      const metadata = ensureRecord(controller, "metadata");
      if (isEmpty(metadata["labels"])) metadata["labels"] = { ...labels };
    },
    prepareForCreate(controller) {
      controller["status"] = { replicas: 0 };
    },
    validate: (controller) => specErrors(controller),
    warnings: templateWarnings,
  }),
  // The v1 API orphans pods unless the client says otherwise.
  defaultPropagationPolicy: "Orphan",
};

export const replicationControllerKind: KindDefinition = defineKind({
  kind: "ReplicationController",
  plural: "replicationcontrollers",
  shortNames: ["rc"],
  categories: ["all"],
  schema: "io.k8s.api.core.v1.ReplicationController",
  strategy,
  subresources: {
    status: {
      kind: "stored",
      verbs: subresourceVerbs,
      strategy: defineStatusStrategy(strategy, { validate: (object) => statusErrors(object) }),
    },
    scale: scaleSubresource({
      plural: "replicationcontrollers",
      kind: "ReplicationController",
      group: "",
      selectorText: (selector) => formatSelector(mapOf(selector)),
    }),
  },
  fieldSelectors: {
    "status.replicas": (object) => String(int(record(object["status"])["replicas"]) ?? 0),
  },
  table: replicaTable(formatLabels),
});

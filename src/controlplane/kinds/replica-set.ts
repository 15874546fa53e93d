import type { FieldError, JsonObject, KindDefinition, Strategy } from "../types.ts";
import { ensureRecord, record } from "./access.ts";
import { nonNegative } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { immutableSelector, labelSelectorText } from "./label-selector.ts";
import { podTemplateDefaults } from "./pod-defaults.ts";
import { replicaTable } from "./replica-table.ts";
import { scaleSubresource } from "./scale.ts";
import { defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import {
  conditionDefaults,
  nonNegativeStatus,
  podNameWarnings,
  templateWarnings,
  validateReplicaCounts,
  validateReplicaTemplate,
} from "./workload.ts";

function specErrors(
  replicaSet: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const spec = record(replicaSet["spec"]);
  const out = [
    ...nonNegative("spec.replicas", spec["replicas"]),
    ...nonNegative("spec.minReadySeconds", spec["minReadySeconds"]),
    ...validateReplicaTemplate(spec),
  ];
  return old === undefined ? out : [...out, ...immutableSelector(replicaSet, old)];
}

const parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

function statusErrors(replicaSet: Readonly<JsonObject>): FieldError[] {
  const status = record(replicaSet["status"]);
  return [
    ...nonNegativeStatus(status, [
      "replicas",
      ...parts,
      "observedGeneration",
      "terminatingReplicas",
    ]),
    ...validateReplicaCounts(status, parts),
  ];
}

const strategy: Strategy = defineStrategy({
  hasStatus: true,
  hasGeneration: true,
  applyDefaults(replicaSet) {
    const spec = ensureRecord(replicaSet, "spec");
    spec["replicas"] ??= 1;
    podTemplateDefaults(ensureRecord(spec, "template"));
    const status = ensureRecord(replicaSet, "status");
    status["replicas"] ??= 0;
    conditionDefaults(status, ["lastTransitionTime"]);
  },
  prepareForCreate(replicaSet) {
    replicaSet["status"] = { replicas: 0 };
  },
  validate: specErrors,
  warnings: (replicaSet, old) => [
    ...podNameWarnings(replicaSet, old),
    ...templateWarnings(replicaSet, old),
  ],
});

export const replicaSetKind: KindDefinition = defineKind({
  group: "apps",
  kind: "ReplicaSet",
  plural: "replicasets",
  shortNames: ["rs"],
  categories: ["all"],
  schema: "io.k8s.api.apps.v1.ReplicaSet",
  strategy,
  subresources: {
    status: {
      kind: "stored",
      verbs: subresourceVerbs,
      strategy: defineStatusStrategy(strategy, { validate: (object) => statusErrors(object) }),
    },
    scale: scaleSubresource({
      plural: "replicasets",
      kind: "ReplicaSet",
      group: "apps",
      selectorText: labelSelectorText,
    }),
  },
  table: replicaTable((selector) => labelSelectorText(selector) || "<none>"),
});

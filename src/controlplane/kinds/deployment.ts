import type { FieldError, JsonObject, KindDefinition, Strategy } from "../types.ts";
import { defaultTo, ensureRecord, int, metadataOf, nameOf, record } from "./access.ts";
import {
  forbiddenField,
  invalidValue,
  nonNegative,
  notSupported,
  required,
} from "./field-error.ts";
import {
  isZeroIntOrPercent,
  validateAtMost100Percent,
  validateIntOrPercent,
} from "./int-or-percent.ts";
import { defineKind } from "./kind-builder.ts";
import { immutableSelector, labelSelectorText } from "./label-selector.ts";
import { podTemplateDefaults } from "./pod-defaults.ts";
import { scaleSubresource } from "./scale.ts";
import { defineStatusStrategy, defineStrategy, restore, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, nameColumn } from "./table.ts";
import {
  collisionCountErrors,
  conditionDefaults,
  containerCells,
  internalStrategy,
  nonNegativeStatus,
  podNameWarnings,
  templateColumns,
  templateWarnings,
  validateReplicaCounts,
  validateReplicaTemplate,
} from "./workload.ts";

const strategyTypes = ["Recreate", "RollingUpdate"];

function strategyDefaults(spec: JsonObject): void {
  const strategy = ensureRecord(spec, "strategy");
  defaultTo(strategy, "type", "RollingUpdate");
  if (strategy["type"] !== "RollingUpdate") return;
  const rolling = ensureRecord(strategy, "rollingUpdate");
  rolling["maxUnavailable"] ??= "25%";
  rolling["maxSurge"] ??= "25%";
}

function rollingUpdateErrors(rolling: Readonly<JsonObject>, field: string): FieldError[] {
  const { maxUnavailable, maxSurge } = rolling;
  const out = [
    ...validateIntOrPercent(maxUnavailable, `${field}.maxUnavailable`),
    ...validateIntOrPercent(maxSurge, `${field}.maxSurge`),
  ];
  if (isZeroIntOrPercent(maxUnavailable) && isZeroIntOrPercent(maxSurge)) {
    out.push(
      invalidValue(`${field}.maxUnavailable`, maxUnavailable, "may not be 0 when `maxSurge` is 0"),
    );
  }
  return [...out, ...validateAtMost100Percent(maxUnavailable, `${field}.maxUnavailable`)];
}

function strategyErrors(strategy: Readonly<JsonObject>, field: string): FieldError[] {
  const rolling = strategy["rollingUpdate"];
  switch (strategy["type"]) {
    case "Recreate":
      return rolling === undefined
        ? []
        : [
            forbiddenField(
              `${field}.rollingUpdate`,
              "may not be specified when strategy `type` is 'Recreate'",
            ),
          ];
    case "RollingUpdate":
      return rolling === undefined
        ? [required(`${field}.rollingUpdate`, "this should be defaulted and never be nil")]
        : rollingUpdateErrors(record(rolling), `${field}.rollingUpdate`);
    default: {
      return [notSupported(field, internalStrategy(strategy), strategyTypes)];
    }
  }
}

function specErrors(
  deployment: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const spec = record(deployment["spec"]);
  const deadline = int(spec["progressDeadlineSeconds"]);
  const out = [
    ...nonNegative("spec.replicas", spec["replicas"]),
    ...validateReplicaTemplate(spec),
    ...strategyErrors(record(spec["strategy"]), "spec.strategy"),
    ...nonNegative("spec.minReadySeconds", spec["minReadySeconds"]),
    ...nonNegative("spec.revisionHistoryLimit", spec["revisionHistoryLimit"]),
    ...nonNegative("spec.progressDeadlineSeconds", deadline),
  ];
  if (deadline !== undefined && deadline <= (int(spec["minReadySeconds"]) ?? 0)) {
    out.push(
      invalidValue(
        "spec.progressDeadlineSeconds",
        deadline,
        "must be greater than minReadySeconds",
      ),
    );
  }
  return old === undefined ? out : [...out, ...immutableSelector(deployment, old)];
}

const counts = [
  "observedGeneration",
  "replicas",
  "updatedReplicas",
  "readyReplicas",
  "availableReplicas",
  "unavailableReplicas",
  "terminatingReplicas",
  "collisionCount",
];

function statusErrors(
  deployment: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const status = record(deployment["status"]);
  return [
    ...nonNegativeStatus(status, counts),
    ...validateReplicaCounts(status, ["updatedReplicas", "readyReplicas", "availableReplicas"]),
    ...collisionCountErrors(deployment, old),
  ];
}

const strategy: Strategy = defineStrategy({
  hasStatus: true,
  hasGeneration: true,
  // Annotations are copied to the ReplicaSets: the controller has to see them change.
  alsoGenerates: (deployment) => metadataOf(deployment)["annotations"],
  applyDefaults(deployment) {
    const spec = ensureRecord(deployment, "spec");
    spec["replicas"] ??= 1;
    podTemplateDefaults(ensureRecord(spec, "template"));
    strategyDefaults(spec);
    spec["revisionHistoryLimit"] ??= 10;
    spec["progressDeadlineSeconds"] ??= 600;
    conditionDefaults(ensureRecord(deployment, "status"), ["lastUpdateTime", "lastTransitionTime"]);
  },
  prepareForCreate(deployment) {
    deployment["status"] = {};
  },
  validate: specErrors,
  warnings: (deployment, old) => [
    ...podNameWarnings(deployment, old),
    ...templateWarnings(deployment, old),
  ],
});

export const deploymentKind: KindDefinition = defineKind({
  group: "apps",
  kind: "Deployment",
  plural: "deployments",
  shortNames: ["deploy"],
  categories: ["all"],
  schema: "io.k8s.api.apps.v1.Deployment",
  strategy,
  subresources: {
    status: {
      kind: "stored",
      verbs: subresourceVerbs,
      strategy: defineStatusStrategy(strategy, {
        prepareForUpdate(deployment, old) {
          restore(ensureRecord(deployment, "metadata"), metadataOf(old), "labels");
        },
        validate: statusErrors,
      }),
    },
    scale: scaleSubresource({
      plural: "deployments",
      kind: "Deployment",
      group: "apps",
      selectorText: labelSelectorText,
    }),
  },
  table: {
    columns: [
      nameColumn,
      column("Ready", "Pods that are ready, of those wanted."),
      column("Up-to-date", "Pods of the newest template."),
      column("Available", "Pods that have been ready for long enough."),
      ageColumn,
      ...templateColumns,
    ],
    row(deployment, now) {
      const spec = record(deployment["spec"]);
      const status = record(deployment["status"]);
      const count = (key: string): number => int(status[key]) ?? 0;
      return [
        nameOf(deployment),
        `${count("readyReplicas")}/${int(spec["replicas"]) ?? 0}`,
        count("updatedReplicas"),
        count("availableReplicas"),
        age(deployment, now),
        ...containerCells(deployment),
        labelSelectorText(spec["selector"]),
      ];
    },
  },
});

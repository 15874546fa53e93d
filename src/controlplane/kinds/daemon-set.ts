import { badRequest } from "../status-error.ts";
import type { FieldError, JsonObject, KindDefinition, Strategy } from "../types.ts";
import {
  defaultTo,
  ensureRecord,
  int,
  metadataOf,
  nameOf,
  record,
  semanticEqual,
  text,
} from "./access.ts";
import { invalidValue, nonNegative, notSupported, required } from "./field-error.ts";
import {
  isZeroIntOrPercent,
  validateAtMost100Percent,
  validateIntOrPercent,
} from "./int-or-percent.ts";
import { defineKind } from "./kind-builder.ts";
import {
  immutableSelector,
  isEmptySelector,
  isUsableSelector,
  labelSelectorText,
  shownSelector,
} from "./label-selector.ts";
import { podTemplateDefaults } from "./pod-defaults.ts";
import { validateLabelSelector } from "./scheduling-validation.ts";
import { defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, formatLabels, nameColumn, numberColumn } from "./table.ts";
import {
  collisionCountErrors,
  conditionDefaults,
  containerCells,
  internalStrategy,
  nonNegativeStatus,
  templateColumns,
  templateMismatch,
  templateWarnings,
  validateLastingTemplate,
} from "./workload.ts";

/** Counts the changes of the template. Clients of old versions read it; the API keeps it, whatever a client sends. */
const templateGeneration = "deprecated.daemonset.template.generation";

const updateTypes = ["RollingUpdate", "OnDelete"];

const alwaysCounted = [
  "currentNumberScheduled",
  "numberMisscheduled",
  "desiredNumberScheduled",
  "numberReady",
];

function templateGenerationOf(object: Readonly<JsonObject>): number {
  const value = text(record(metadataOf(object)["annotations"])[templateGeneration]);
  if (value === "") return 0;
  if (!/^[+-]?\d+$/.test(value)) {
    throw badRequest(
      `DaemonSet in version "v1" cannot be handled as a DaemonSet: strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`,
    );
  }
  return Number(value);
}

function setTemplateGeneration(object: JsonObject, value: number): void {
  const annotations = ensureRecord(ensureRecord(object, "metadata"), "annotations");
  annotations[templateGeneration] = String(value);
}

function updateStrategyDefaults(spec: JsonObject): void {
  const strategy = ensureRecord(spec, "updateStrategy");
  defaultTo(strategy, "type", "RollingUpdate");
  const isRolling = strategy["type"] === "RollingUpdate";
  if (!isRolling && strategy["rollingUpdate"] === undefined) return;
  const rolling = ensureRecord(strategy, "rollingUpdate");
  rolling["maxUnavailable"] ??= isRolling ? 1 : 0;
  rolling["maxSurge"] ??= 0;
}

function rollingUpdateErrors(rolling: Readonly<JsonObject>, field: string): FieldError[] {
  const { maxUnavailable, maxSurge } = rolling;
  const out = [
    ...validateIntOrPercent(maxUnavailable, `${field}.maxUnavailable`),
    ...validateIntOrPercent(maxSurge, `${field}.maxSurge`),
    ...validateAtMost100Percent(maxUnavailable, `${field}.maxUnavailable`),
    ...validateAtMost100Percent(maxSurge, `${field}.maxSurge`),
  ];
  const unavailable = !isZeroIntOrPercent(maxUnavailable);
  const surge = !isZeroIntOrPercent(maxSurge);
  if (unavailable && surge) {
    out.push(
      invalidValue(`${field}.maxSurge`, maxSurge, "may not be set when maxUnavailable is non-zero"),
    );
  } else if (!unavailable && !surge) {
    out.push(required(`${field}.maxUnavailable`, "cannot be 0 when maxSurge is 0"));
  }
  return out;
}

function updateStrategyErrors(strategy: Readonly<JsonObject>, field: string): FieldError[] {
  const rolling = strategy["rollingUpdate"];
  switch (strategy["type"]) {
    case "OnDelete":
      return [];
    case "RollingUpdate":
      return rolling === undefined
        ? [required(`${field}.rollingUpdate`)]
        : rollingUpdateErrors(record(rolling), `${field}.rollingUpdate`);
    default: {
      return [notSupported(field, internalStrategy(strategy), updateTypes)];
    }
  }
}

function specErrors(
  daemonSet: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const spec = record(daemonSet["spec"]);
  const selector = spec["selector"];
  const out: FieldError[] = [];
  if (old !== undefined) {
    out.push(...immutableSelector(daemonSet, old));
  }
  out.push(...validateLabelSelector(selector, "spec.selector"));
  if (isUsableSelector(selector)) out.push(...templateMismatch(spec));
  if (selector !== undefined && isEmptySelector(selector)) {
    out.push(
      invalidValue(
        "spec.selector",
        shownSelector(selector),
        "empty selector is invalid for daemonset",
      ),
    );
  }
  return [
    ...out,
    ...validateLastingTemplate(spec["template"], "spec.template", "DaemonSet"),
    ...nonNegative("spec.minReadySeconds", spec["minReadySeconds"]),
    ...updateStrategyErrors(record(spec["updateStrategy"]), "spec.updateStrategy"),
    ...nonNegative("spec.revisionHistoryLimit", spec["revisionHistoryLimit"]),
  ];
}

function statusErrors(
  daemonSet: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  return [
    ...nonNegativeStatus(record(daemonSet["status"]), [
      ...alwaysCounted,
      "observedGeneration",
      "updatedNumberScheduled",
      "numberAvailable",
      "numberUnavailable",
      "collisionCount",
    ]),
    ...collisionCountErrors(daemonSet, old),
  ];
}

function zeroStatus(): JsonObject {
  return Object.fromEntries(alwaysCounted.map((field) => [field, 0]));
}

const strategy: Strategy = defineStrategy({
  hasStatus: true,
  hasGeneration: true,
  applyDefaults(daemonSet) {
    const spec = ensureRecord(daemonSet, "spec");
    podTemplateDefaults(ensureRecord(spec, "template"));
    updateStrategyDefaults(spec);
    spec["revisionHistoryLimit"] ??= 10;
    const status = { ...zeroStatus(), ...record(daemonSet["status"]) };
    conditionDefaults(status, ["lastTransitionTime"]);
    daemonSet["status"] = status;
    const annotations = ensureRecord(ensureRecord(daemonSet, "metadata"), "annotations");
    annotations[templateGeneration] ??= "0";
  },
  prepareForCreate(daemonSet) {
    daemonSet["status"] = zeroStatus();
    setTemplateGeneration(daemonSet, Math.max(templateGenerationOf(daemonSet), 1));
  },
  prepareForUpdate(daemonSet, old) {
    templateGenerationOf(daemonSet);
    const changed = !semanticEqual(
      record(daemonSet["spec"])["template"],
      record(old["spec"])["template"],
    );
    setTemplateGeneration(daemonSet, templateGenerationOf(old) + (changed ? 1 : 0));
  },
  validate: specErrors,
  warnings: templateWarnings,
});

export const daemonSetKind: KindDefinition = defineKind({
  group: "apps",
  kind: "DaemonSet",
  plural: "daemonsets",
  shortNames: ["ds"],
  categories: ["all"],
  schema: "io.k8s.api.apps.v1.DaemonSet",
  strategy,
  subresources: {
    status: {
      kind: "stored",
      verbs: subresourceVerbs,
      strategy: defineStatusStrategy(strategy, {
        prepareForUpdate(daemonSet, old) {
          setTemplateGeneration(daemonSet, templateGenerationOf(old));
        },
        validate: statusErrors,
      }),
    },
  },
  table: {
    columns: [
      nameColumn,
      numberColumn("Desired", "Nodes that should run its pod."),
      numberColumn("Current", "Nodes that have its pod."),
      numberColumn("Ready", "Nodes whose pod is ready."),
      numberColumn("Up-to-date", "Nodes whose pod is of the newest template."),
      numberColumn("Available", "Nodes whose pod has been ready for long enough."),
      column("Node Selector", "Labels of the nodes it runs on."),
      ageColumn,
      ...templateColumns,
    ],
    row(daemonSet, now) {
      const spec = record(daemonSet["spec"]);
      const status = record(daemonSet["status"]);
      const count = (key: string): number => int(status[key]) ?? 0;
      return [
        nameOf(daemonSet),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        formatLabels(record(record(spec["template"])["spec"])["nodeSelector"]),
        age(daemonSet, now),
        ...containerCells(daemonSet),
        labelSelectorText(spec["selector"]) || "<none>",
      ];
    },
  },
});

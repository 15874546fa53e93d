import type {
  FieldError,
  JsonObject,
  KindDefinition,
  Strategy,
  SubresourceRequest,
} from "../types.ts";
import { badRequest, invalid, notFound } from "../status-error.ts";
import {
  dig,
  ensureRecord,
  int,
  isEmpty,
  mapOf,
  metadataOf,
  nameOf,
  record,
  records,
  semanticEqual,
  text,
} from "./access.ts";
import {
  forbiddenField,
  invalidValue,
  nonNegative,
  notSupported,
  required,
} from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { podTemplateDefaults } from "./pod-defaults.ts";
import { validatePodTemplate } from "./pod-validation.ts";
import { podSpecWarnings } from "./pod-warnings.ts";
import { defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, formatLabels, nameColumn, numberColumn } from "./table.ts";

const target = { plural: "replicationcontrollers", kind: "ReplicationController", group: "" };

function templateErrors(spec: Readonly<JsonObject>): FieldError[] {
  const field = "spec.template";
  if (spec["template"] === undefined) return [required(field)];
  const template = record(spec["template"]);
  const podSpec = record(template["spec"]);
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
  out.push(...validatePodTemplate(template, field));
  if (podSpec["restartPolicy"] !== "Always") {
    out.push(notSupported(`${field}.spec.restartPolicy`, podSpec["restartPolicy"], ["Always"]));
  }
  if (podSpec["activeDeadlineSeconds"] !== undefined) {
    out.push(
      forbiddenField(
        `${field}.spec.activeDeadlineSeconds`,
        "activeDeadlineSeconds in ReplicationController is not Supported",
      ),
    );
  }
  return out;
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

function statusErrors(controller: Readonly<JsonObject>): FieldError[] {
  const status = record(controller["status"]);
  const number = (key: string): number => int(status[key]) ?? 0;
  const out: FieldError[] = [];
  for (const key of [
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "observedGeneration",
  ]) {
    out.push(...nonNegative(`status.${key}`, status[key]));
  }
  for (const key of ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"]) {
    if (number(key) > number("replicas")) {
      out.push(
        invalidValue(`status.${key}`, number(key), "cannot be greater than status.replicas"),
      );
    }
  }
  if (number("availableReplicas") > number("readyReplicas")) {
    out.push(
      invalidValue(
        "status.availableReplicas",
        number("availableReplicas"),
        "cannot be greater than readyReplicas",
      ),
    );
  }
  return out;
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
    warnings(controller, old) {
      const template = dig(controller, "spec", "template", "spec");
      if (old !== undefined && semanticEqual(template, dig(old, "spec", "template", "spec")))
        return [];
      return podSpecWarnings(template, "spec.template.spec");
    },
  }),
  // The v1 API orphans pods unless the client says otherwise.
  defaultPropagationPolicy: "Orphan",
};

function scaleOf(controller: Readonly<JsonObject>): JsonObject {
  const metadata = metadataOf(controller);
  const spec = record(controller["spec"]);
  const selector = Object.entries(mapOf(spec["selector"]))
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
  const replicas = int(spec["replicas"]) ?? 0;
  return {
    kind: "Scale",
    apiVersion: "autoscaling/v1",
    metadata: {
      name: metadata["name"],
      namespace: metadata["namespace"],
      uid: metadata["uid"],
      resourceVersion: metadata["resourceVersion"],
      creationTimestamp: metadata["creationTimestamp"],
    },
    spec: replicas === 0 ? {} : { replicas },
    status: {
      replicas: int(record(controller["status"])["replicas"]) ?? 0,
      ...(selector === "" ? {} : { selector }),
    },
  };
}

function scale(request: SubresourceRequest): JsonObject {
  const current = request.registry.get(target.plural, request.namespace, request.name);
  if (current === undefined) throw notFound(target, request.name);
  if (request.verb === "get") return scaleOf(current);
  const body = request.body;
  if (body === undefined) throw badRequest("a Scale object is needed");
  const wanted = int(record(body["spec"])["replicas"]) ?? 0;
  const errors = nonNegative("spec.replicas", wanted);
  if (errors.length > 0) {
    throw invalid({ plural: "scales", kind: "Scale", group: "autoscaling" }, request.name, errors);
  }
  const version = text(metadataOf(body)["resourceVersion"]);
  const updated = request.registry.update(
    target.plural,
    { namespace: request.namespace, name: request.name },
    (controller) => {
      if (version !== "") ensureRecord(controller, "metadata")["resourceVersion"] = version;
      ensureRecord(controller, "spec")["replicas"] = wanted;
      return controller;
    },
    { context: request.context },
  );
  return scaleOf(updated);
}

function containerTexts(controller: Readonly<JsonObject>, key: "name" | "image"): string {
  const template = record(record(controller["spec"])["template"]);
  return records(record(template["spec"])["containers"])
    .map((container) => text(container[key]))
    .join(",");
}

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
    scale: {
      kind: "custom",
      verbs: subresourceVerbs,
      gvk: { group: "autoscaling", version: "v1", kind: "Scale" },
      handle: scale,
    },
  },
  fieldSelectors: {
    "status.replicas": (object) => String(int(record(object["status"])["replicas"]) ?? 0),
  },
  table: {
    columns: [
      nameColumn,
      numberColumn("Desired", "Pods wanted."),
      numberColumn("Current", "Pods that exist."),
      numberColumn("Ready", "Pods that are ready."),
      ageColumn,
      column("Containers", "Names of the containers in each pod.", true),
      column("Images", "Their images.", true),
      column("Selector", "Labels of the pods it owns.", true),
    ],
    row(controller, now) {
      const spec = record(controller["spec"]);
      const status = record(controller["status"]);
      return [
        nameOf(controller),
        int(spec["replicas"]) ?? 0,
        int(status["replicas"]) ?? 0,
        int(status["readyReplicas"]) ?? 0,
        age(controller, now),
        containerTexts(controller, "name"),
        containerTexts(controller, "image"),
        formatLabels(spec["selector"]),
      ];
    },
  },
});

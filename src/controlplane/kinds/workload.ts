import type { FieldError, JsonObject } from "../types.ts";
import { templateAnnotationWarnings } from "./annotation-warnings.ts";
import { dig, int, metadataOf, nameOf, record, records, semanticEqual, text } from "./access.ts";
import {
  forbiddenField,
  invalidValue,
  nonNegative,
  notSupported,
  required,
} from "./field-error.ts";
import {
  isEmptySelector,
  isUsableSelector,
  selectorMatches,
  shownSelector,
} from "./label-selector.ts";
import { dns1123Label, dns1123Subdomain } from "./names.ts";
import { validatePodTemplate } from "./pod-validation.ts";
import { podSpecWarnings } from "./pod-warnings.ts";
import { validateLabelSelector } from "./scheduling-validation.ts";
import { column } from "./table.ts";

/** Rules for the template of pods that run for ever; `kind` names the owner in the text of one refusal. */
export function validateLastingTemplate(
  template: unknown,
  field: string,
  kind: string,
): FieldError[] {
  const podSpec = record(record(template)["spec"]);
  const out = validatePodTemplate(record(template), field);
  if (podSpec["restartPolicy"] !== "Always") {
    out.push(notSupported(`${field}.spec.restartPolicy`, podSpec["restartPolicy"], ["Always"]));
  }
  if (podSpec["activeDeadlineSeconds"] !== undefined) {
    out.push(
      forbiddenField(
        `${field}.spec.activeDeadlineSeconds`,
        `activeDeadlineSeconds in ${kind} is not Supported`,
      ),
    );
  }
  return out;
}

/** An error when the labels of `spec.template` are not those that `spec.selector` asks for. */
export function templateMismatch(spec: Readonly<JsonObject>): FieldError[] {
  const labels = metadataOf(record(spec["template"]))["labels"];
  return selectorMatches(spec["selector"], labels)
    ? []
    : [
        invalidValue(
          "spec.template.metadata.labels",
          labels,
          "`selector` does not match template `labels`",
        ),
      ];
}

/** Rules for the selector and the template of a ReplicaSet, and of a Deployment, which makes ReplicaSets. */
export function validateReplicaTemplate(spec: Readonly<JsonObject>): FieldError[] {
  const selector = spec["selector"];
  const out: FieldError[] = [];
  if (selector === undefined) out.push(required("spec.selector"));
  else {
    out.push(...validateLabelSelector(selector, "spec.selector"));
    if (isEmptySelector(selector)) {
      out.push(
        invalidValue(
          "spec.selector",
          shownSelector(selector),
          "empty selector is invalid for deployment",
        ),
      );
    }
  }
  if (!isUsableSelector(selector)) {
    return [
      ...out,
      invalidValue("spec.selector", shownSelector(selector), "invalid label selector"),
    ];
  }
  const isEmpty = selector !== undefined && isEmptySelector(selector);
  return [
    ...out,
    ...(isEmpty ? [] : templateMismatch(spec)),
    ...validateLastingTemplate(spec["template"], "spec.template", "ReplicaSet"),
  ];
}

/** The form in which the API shows an update strategy that it refuses: its own, not the client's. */
export function internalStrategy(strategy: Readonly<JsonObject>): JsonObject {
  const { type, rollingUpdate } = strategy;
  const { maxUnavailable = 0, maxSurge = 0 } = record(rollingUpdate);
  const shown = { MaxUnavailable: maxUnavailable, MaxSurge: maxSurge };
  return { Type: text(type), RollingUpdate: rollingUpdate === undefined ? null : shown };
}

/** The API always prints these times of a condition, null when they are unknown. */
export function conditionDefaults(status: JsonObject, times: readonly string[]): void {
  for (const condition of records(status["conditions"]))
    for (const time of times) condition[time] ??= null;
}

/** An error per field of `status` that is below zero. */
export function nonNegativeStatus(
  status: Readonly<JsonObject>,
  fields: readonly string[],
): FieldError[] {
  return fields.flatMap((field) => nonNegative(`status.${field}`, status[field]));
}

/** Errors when a part of the replicas in `status` is more than all of them. */
export function validateReplicaCounts(
  status: Readonly<JsonObject>,
  parts: readonly string[],
): FieldError[] {
  const count = (field: string): number => int(status[field]) ?? 0;
  const out = parts
    .filter((field) => count(field) > count("replicas"))
    .map((field) =>
      invalidValue(`status.${field}`, count(field), "cannot be greater than status.replicas"),
    );
  if (count("availableReplicas") > count("readyReplicas")) {
    out.push(
      invalidValue(
        "status.availableReplicas",
        count("availableReplicas"),
        "cannot be greater than readyReplicas",
      ),
    );
  }
  return out;
}

/** An error when `status.collisionCount`, which makes names of children unique, goes back. */
export function collisionCountErrors(
  object: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const count = int(dig(object, "status", "collisionCount"));
  const before = int(dig(old, "status", "collisionCount"));
  if (before === undefined || (count !== undefined && count >= before)) return [];
  return [invalidValue("status.collisionCount", count ?? 0, "cannot be decremented")];
}

/** Warns of a new object whose name cannot be a host name. */
export function podNameWarnings(
  object: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): string[] {
  const name = nameOf(object);
  // A name that is no subdomain either is refused.
  if (old !== undefined || dns1123Subdomain(name).length > 0) return [];
  const messages = dns1123Label(name);
  return messages.length === 0
    ? []
    : [
        `metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [${messages.join(" ")}]`,
      ];
}

/** Warns of `spec.template`, at an update only when that has changed. */
export function templateWarnings(
  object: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): string[] {
  const template = record(dig(object, "spec", "template"));
  if (old !== undefined && semanticEqual(template, dig(old, "spec", "template"))) return [];
  return [
    ...templateAnnotationWarnings(template, "spec.template"),
    ...podSpecWarnings(template["spec"], "spec.template.spec"),
  ];
}

/** The wide columns that every workload's Table ends with: {@link containerCells} and its selector fill them. */
export const templateColumns = [
  column("Containers", "Names of the containers in each pod.", true),
  column("Images", "Their images.", true),
  column("Selector", "Labels of the pods it owns.", true),
] as const;

/** Cells for the wide columns Containers and Images: what is in each pod of the template. */
export function containerCells(object: Readonly<JsonObject>): readonly [string, string] {
  const containers = records(dig(object, "spec", "template", "spec", "containers"));
  const joined = (key: string): string => containers.map((one) => text(one[key])).join(",");
  return [joined("name"), joined("image")];
}

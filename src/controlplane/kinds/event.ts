import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import { ensureRecord, int, nameOf, namespaceOf, record, text } from "./access.ts";
import { invalidAll, invalidValue, required } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { dns1123Subdomain, qualifiedName } from "./names.ts";
import { defineStrategy } from "./strategy.ts";
import { column, nameColumn, since } from "./table.ts";

/** How long events are kept (kube-apiserver --event-ttl). */
const eventTtlSeconds = 3600;

function isSet(value: unknown): boolean {
  return typeof value === "string" && value !== "";
}

function namespaceError(event: Readonly<JsonObject>): FieldError[] {
  const wanted = text(record(event["involvedObject"])["namespace"]);
  const namespace = namespaceOf(event);
  const matches = isSet(event["eventTime"])
    ? wanted !== "" || ["default", "kube-system"].includes(namespace)
    : wanted === namespace || (wanted === "" && ["", "default"].includes(namespace));
  return matches
    ? []
    : [invalidValue("involvedObject.namespace", wanted, "does not match event.namespace")];
}

/** What new-style events (those with eventTime) must say. */
function reporterErrors(event: Readonly<JsonObject>): FieldError[] {
  if (!isSet(event["eventTime"])) return [];
  const out: FieldError[] = [];
  const reporter = text(event["reportingComponent"]);
  if (reporter === "") out.push(required("reportingComponent"));
  out.push(...invalidAll("reportingComponent", reporter, qualifiedName(reporter)));
  for (const key of ["reportingInstance", "action", "reason"]) {
    const value = text(event[key]);
    if (value === "") out.push(required(key));
    if (value.length > 128) {
      out.push(invalidValue(key, "", "can have at most 128 characters"));
    }
  }
  if (text(event["message"]).length > 1024) {
    out.push(invalidValue("message", "", "can have at most 1024 characters"));
  }
  return out;
}

function eventErrors(event: Readonly<JsonObject>): FieldError[] {
  const namespace = namespaceOf(event);
  return [
    ...namespaceError(event),
    ...reporterErrors(event),
    ...invalidAll("namespace", namespace, dns1123Subdomain(namespace)),
  ];
}

function sourceText(event: Readonly<JsonObject>): string {
  const source = record(event["source"]);
  const component = text(source["component"]) || text(event["reportingComponent"]);
  const host = text(source["host"]) || text(event["reportingInstance"]);
  return host === "" ? component : `${component}, ${host}`;
}

function objectText(event: Readonly<JsonObject>): string {
  const about = record(event["involvedObject"]);
  const kind = text(about["kind"]).toLowerCase();
  const name = text(about["name"]);
  return name === "" ? kind : `${kind}/${name}`;
}

function firstOf(...values: readonly unknown[]): unknown {
  return values.find((value) => isSet(value));
}

export const eventKind: KindDefinition = defineKind({
  kind: "Event",
  plural: "events",
  shortNames: ["ev"],
  schema: "io.k8s.api.core.v1.Event",
  durability: "ephemeral",
  ttlSeconds: eventTtlSeconds,
  strategy: defineStrategy({
    allowCreateOnUpdate: true,
    applyDefaults(event) {
      ensureRecord(event, "source");
      for (const key of ["firstTimestamp", "lastTimestamp", "eventTime"]) {
        if (event[key] === undefined) event[key] = null;
      }
      for (const key of ["reportingComponent", "reportingInstance"]) {
        if (event[key] === undefined) event[key] = "";
      }
    },
    validate: (event) => eventErrors(event),
  }),
  fieldSelectors: {
    "involvedObject.kind": (event) => text(record(event["involvedObject"])["kind"]),
    "involvedObject.namespace": (event) => text(record(event["involvedObject"])["namespace"]),
    "involvedObject.name": (event) => text(record(event["involvedObject"])["name"]),
    "involvedObject.uid": (event) => text(record(event["involvedObject"])["uid"]),
    "involvedObject.apiVersion": (event) => text(record(event["involvedObject"])["apiVersion"]),
    "involvedObject.resourceVersion": (event) =>
      text(record(event["involvedObject"])["resourceVersion"]),
    "involvedObject.fieldPath": (event) => text(record(event["involvedObject"])["fieldPath"]),
    reason: (event) => text(event["reason"]),
    reportingComponent: (event) => text(event["reportingComponent"]),
    source: (event) =>
      text(record(event["source"])["component"]) || text(event["reportingComponent"]),
    type: (event) => text(event["type"]),
  },
  table: {
    columns: [
      column("Last Seen", "Time since it last happened."),
      column("Type", "Normal or Warning."),
      column("Reason", "Short machine-readable cause."),
      column("Object", "What it is about."),
      column("Subobject", "The part of the object it is about.", true),
      column("Source", "Who reported it.", true),
      column("Message", "What happened."),
      column("First Seen", "Time since it first happened.", true),
      column("Count", "How often it happened.", true),
      { ...nameColumn, priority: 1 },
    ],
    row(event, now) {
      const series = record(event["series"]);
      const first = firstOf(event["firstTimestamp"], event["eventTime"]);
      const last = firstOf(series["lastObservedTime"], event["lastTimestamp"], first);
      const count = int(series["count"]) ?? int(event["count"]) ?? 0;
      return [
        since(last, now),
        text(event["type"]),
        text(event["reason"]),
        objectText(event),
        text(record(event["involvedObject"])["fieldPath"]),
        sourceText(event),
        text(event["message"]).trim(),
        since(first, now),
        count === 0 ? 1 : count,
        nameOf(event),
      ];
    },
  },
});

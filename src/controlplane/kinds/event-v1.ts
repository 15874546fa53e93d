import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import { int, record, semanticEqual, text } from "./access.ts";
import { invalidValue, required } from "./field-error.ts";
import { eventKind } from "./event.ts";
import { defineStrategy } from "./strategy.ts";

/** Names of the same members in events.k8s.io/v1 and in the stored v1 form. */
const names = [
  ["regarding", "involvedObject"],
  ["note", "message"],
  ["reportingController", "reportingComponent"],
  ["deprecatedSource", "source"],
  ["deprecatedFirstTimestamp", "firstTimestamp"],
  ["deprecatedLastTimestamp", "lastTimestamp"],
  ["deprecatedCount", "count"],
] as const;
const toCore = new Map<string, string>(names);
const toEvents = new Map<string, string>(names.map(([event, core]) => [core, event]));

function renamed(
  object: Readonly<JsonObject>,
  map: ReadonlyMap<string, string>,
  apiVersion: string,
): JsonObject {
  const out: JsonObject = {};
  for (const [key, value] of Object.entries(object)) out[map.get(key) ?? key] = value;
  return { ...out, apiVersion };
}

function toStored(event: Readonly<JsonObject>): JsonObject {
  return renamed(event, toCore, "v1");
}

function fromStored(event: Readonly<JsonObject>): JsonObject {
  const out = renamed(event, toEvents, "events.k8s.io/v1");
  // The v1 form prints these two empty, this one leaves them out.
  for (const key of ["reportingController", "reportingInstance"])
    if (out[key] === "") delete out[key];
  return out;
}

function isSet(value: unknown): boolean {
  return typeof value === "string" && value !== "";
}

function seriesErrors(event: Readonly<JsonObject>): FieldError[] {
  if (event["series"] === undefined) return [];
  const series = record(event["series"]);
  return [
    ...((int(series["count"]) ?? 0) < 2
      ? [invalidValue("series.count", "", "should be at least 2")]
      : []),
    ...(isSet(series["lastObservedTime"]) ? [] : [required("series.lastObservedTime")]),
  ];
}

/** What a new-style event may not be without, and may not say in the old style; the stored form is looked at. */
function createErrors(event: Readonly<JsonObject>): FieldError[] {
  const type = text(event["type"]);
  const source = record(event["source"]);
  const unset: readonly (readonly [string, boolean])[] = [
    ["firstTimestamp", isSet(event["firstTimestamp"])],
    ["lastTimestamp", isSet(event["lastTimestamp"])],
    ["count", (int(event["count"]) ?? 0) !== 0],
    ["source", isSet(source["component"]) || isSet(source["host"])],
  ];
  return [
    ...seriesErrors(event),
    ...(isSet(event["eventTime"]) ? [] : [required("eventTime")]),
    ...(type === "Normal" || type === "Warning"
      ? []
      : [invalidValue("type", "", `has invalid value: ${type}`)]),
    ...unset
      .filter(([, set]) => set)
      .map(([field]) => invalidValue(field, "", "needs to be unset")),
  ];
}

const immutable = [
  "involvedObject",
  "reason",
  "message",
  "source",
  "firstTimestamp",
  "lastTimestamp",
  "count",
  "type",
  "eventTime",
  "action",
  "related",
  "reportingComponent",
  "reportingInstance",
];

/** Absent, null and zero are one and the same to the API's types. */
function present(value: unknown): unknown {
  return value === null || value === "" || value === 0 || semanticEqual(value, {})
    ? undefined
    : value;
}

function updateErrors(event: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const changed = immutable.filter((key) => !semanticEqual(present(event[key]), present(old[key])));
  return [
    ...(semanticEqual(event["series"], old["series"]) ? [] : seriesErrors(event)),
    ...changed.map((key) =>
      invalidValue(
        key === "reportingComponent" ? "reportingController" : key,
        event[key] ?? null,
        "field is immutable",
      ),
    ),
  ];
}

function selectors(): KindDefinition["fieldSelectors"] {
  const served = Object.entries(eventKind.fieldSelectors).flatMap(([label, read]) => {
    if (label === "source") return [];
    const name = label.replace(/^involvedObject\./, "regarding.");
    return [[name === "reportingComponent" ? "reportingController" : name, read] as const];
  });
  return Object.fromEntries(served);
}

/** events.k8s.io/v1 Events: the same objects as v1 Events, under other names and with stricter rules. */
export const eventV1Kind: KindDefinition = {
  ...eventKind,
  group: "events.k8s.io",
  schema: "io.k8s.api.events.v1.Event",
  fieldSelectors: selectors(),
  strategy: {
    ...defineStrategy({ allowCreateOnUpdate: true }),
    validateCreate: createErrors,
    validateUpdate: updateErrors,
  },
  servedFrom: { resource: "events", toStored, fromStored },
};

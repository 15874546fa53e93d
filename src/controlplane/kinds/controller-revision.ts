import { isRecord } from "../../lib/guard.ts";
import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import { int, metadataOf, nameOf, records, text } from "./access.ts";
import { immutable, nonNegative, required } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { defineStrategy } from "./strategy.ts";
import { age, ageColumn, column, nameColumn } from "./table.ts";

function revisionErrors(
  revision: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const data = revision["data"];
  const out = nonNegative("revision", revision["revision"]);
  if (old === undefined && data === undefined) out.push(required("data", "data is mandatory"));
  else if (old === undefined && !isRecord(data))
    out.push(required("data", "data must be a valid JSON object"));
  return [...out, ...(old === undefined ? [] : immutable("data", data, old["data"]))];
}

/** The owner that controls an object, as `daemonset.apps/web`; `<none>` when there is none. */
function controllerCell(object: Readonly<JsonObject>): string {
  const owner = records(metadataOf(object)["ownerReferences"]).find(
    (reference) => reference["controller"] === true,
  );
  if (owner === undefined) return "<none>";
  const [group, version] = text(owner["apiVersion"]).split("/");
  const suffix = version === undefined ? "" : `.${group}`;
  return `${text(owner["kind"])}${suffix}/`.toLowerCase() + text(owner["name"]);
}

export const controllerRevisionKind: KindDefinition = defineKind({
  group: "apps",
  kind: "ControllerRevision",
  plural: "controllerrevisions",
  schema: "io.k8s.api.apps.v1.ControllerRevision",
  strategy: defineStrategy({
    applyDefaults(revision) {
      revision["revision"] ??= 0;
    },
    validate: revisionErrors,
  }),
  table: {
    columns: [
      nameColumn,
      column("Controller", "What the revision is of."),
      column("Revision", "Its number; the newest is the highest."),
      ageColumn,
    ],
    row: (revision, now) => [
      nameOf(revision),
      controllerCell(revision),
      int(revision["revision"]) ?? 0,
      age(revision, now),
    ],
  },
});

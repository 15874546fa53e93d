import type { FieldError, JsonObject } from "../types.ts";
import { ensureRecord, int, metadataOf, record, records, semanticEqual } from "./access.ts";
import { invalidValue } from "./field-error.ts";

/** What an update may not change is compared as the API does: nothing and empty are the same. */
function unchanged(field: string, after: unknown, before: unknown): FieldError[] {
  return semanticEqual(after, before) ? [] : [invalidValue(field, after, "field is immutable")];
}

/** Suspended, without a pod, and either never started or known to be suspended: its template may still change. */
function templateIsOpen(old: Readonly<JsonObject>): boolean {
  const status = record(old["status"]);
  const suspended = records(status["conditions"]).some(
    ({ type, status: state }) => type === "Suspended" && state === "True",
  );
  return (
    record(old["spec"])["suspend"] === true &&
    (status["startTime"] === undefined || suspended) &&
    (int(status["active"]) ?? 0) === 0
  );
}

function take(target: JsonObject, source: Readonly<JsonObject>, keys: readonly string[]): void {
  for (const key of keys) {
    if (source[key] === undefined) delete target[key];
    else target[key] = source[key];
  }
}

/** The old template with the parts of the new one that a suspended Job may change (KEP-2926). */
function withSchedulingDirectives(
  before: Readonly<JsonObject>,
  after: Readonly<JsonObject>,
): JsonObject {
  const copy = structuredClone(before);
  const [spec, wanted] = [ensureRecord(copy, "spec"), record(after["spec"])];
  take(spec, wanted, ["nodeSelector", "tolerations", "schedulingGates"]);
  take(ensureRecord(copy, "metadata"), metadataOf(after), ["annotations", "labels"]);
  take(ensureRecord(spec, "affinity"), record(wanted["affinity"]), ["nodeAffinity"]);
  return copy;
}

/** The old pod spec with the resources of the new one's containers (KEP-5440). */
function withResources(before: Readonly<JsonObject>, after: Readonly<JsonObject>): JsonObject {
  const copy = structuredClone(before);
  for (const key of ["containers", "initContainers"]) {
    const [mine, theirs] = [records(copy[key]), records(after[key])];
    if (mine.length !== theirs.length) continue;
    mine.forEach((container, index) => {
      const wanted = theirs[index];
      if (wanted !== undefined && wanted["name"] === container["name"])
        take(container, wanted, ["resources"]);
    });
  }
  return copy;
}

function templateUpdateErrors(spec: Readonly<JsonObject>, old: Readonly<JsonObject>): FieldError[] {
  const oldSpec = record(old["spec"]);
  const [after, before] = [record(spec["template"]), record(oldSpec["template"])];
  if (!templateIsOpen(old)) return unchanged("spec.template", after, before);
  const allowed = withSchedulingDirectives(before, after);
  const podSpec = record(after["spec"]);
  return unchanged("spec.template.spec", podSpec, withResources(record(allowed["spec"]), podSpec));
}

function completionsUpdateErrors(
  spec: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): FieldError[] {
  const field = "spec.completions";
  const [after, before] = [spec["completions"], old["completions"]];
  if (spec["completionMode"] !== "Indexed") return unchanged(field, after, before);
  // That an Indexed Job has completions at all is a rule of its own.
  if (after === undefined || semanticEqual(after, before)) return [];
  // KEP-3715: an elastic Indexed Job changes both together.
  return int(spec["parallelism"]) === int(after)
    ? []
    : [invalidValue(field, after, "can only be modified in tandem with spec.parallelism")];
}

/** What an update of a Job may not change. */
export function validateJobUpdate(
  job: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): FieldError[] {
  const [spec, oldSpec] = [record(job["spec"]), record(old["spec"])];
  const fixed = (key: string): FieldError[] => unchanged(`spec.${key}`, spec[key], oldSpec[key]);
  return [
    ...completionsUpdateErrors(spec, oldSpec),
    ...fixed("selector"),
    ...templateUpdateErrors(spec, old),
    ...fixed("completionMode"),
    ...fixed("podFailurePolicy"),
    ...fixed("backoffLimitPerIndex"),
    ...fixed("managedBy"),
    ...fixed("successPolicy"),
  ];
}

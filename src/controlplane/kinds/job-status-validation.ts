import type { FieldError, JsonObject } from "../types.ts";
import { int, list, record, records, semanticEqual, text } from "./access.ts";
import { at, duplicate, invalidValue, nonNegative, required } from "./field-error.ts";
import { checkIndexes, overlappingIndex } from "./job-indexes.ts";
import { invalidUnshown } from "./job-policy-validation.ts";

/** What of a Job the rules for its status look at, before and after. */
interface View {
  readonly spec: Readonly<JsonObject>;
  readonly status: Readonly<JsonObject>;
  readonly complete: boolean;
  readonly failed: boolean;
  readonly finished: boolean;
  readonly failureTarget: boolean;
  readonly successCriteriaMet: boolean;
  readonly active: number;
}

function condition(status: Readonly<JsonObject>, type: string, state = "True"): boolean {
  return records(status["conditions"]).some(
    (each) => each["type"] === type && each["status"] === state,
  );
}

function view(job: Readonly<JsonObject>): View {
  const status = record(job["status"]);
  const [complete, failed] = [condition(status, "Complete"), condition(status, "Failed")];
  return {
    spec: record(job["spec"]),
    status,
    complete,
    failed,
    finished: complete || failed,
    failureTarget: condition(status, "FailureTarget"),
    successCriteriaMet: condition(status, "SuccessCriteriaMet"),
    active: int(status["active"]) ?? 0,
  };
}

interface Change {
  readonly after: View;
  readonly before: View;
  /** Whether this member of the status differs. Rules whose facts did not change are not asked again. */
  readonly differs: (key: string) => boolean;
}

const conditions = "status.conditions";

function uncountedErrors(status: Readonly<JsonObject>): FieldError[] {
  const uncounted = record(status["uncountedTerminatedPods"]);
  const seen = new Set<string>();
  return ["succeeded", "failed"].flatMap((key) =>
    list(uncounted[key]).flatMap((value, index) => {
      const uid = text(value);
      const field = at(`status.uncountedTerminatedPods.${key}`, index);
      if (uid === "") return [invalidValue(field, uid, "must not be empty")];
      if (seen.has(uid)) return [duplicate(field, uid)];
      seen.add(uid);
      return [];
    }),
  );
}

/** Which conditions go together. */
function conditionErrors({ after, before, differs }: Change): FieldError[] {
  const changed = (key: "complete" | "failed" | "failureTarget" | "successCriteriaMet"): boolean =>
    after[key] !== before[key];
  const out: FieldError[] = [];
  const refuse = (when: boolean, detail: string): void => {
    if (when) out.push(invalidUnshown(conditions, detail));
  };
  refuse(
    (changed("complete") || changed("failed")) && after.complete && after.failed,
    "cannot set Complete=True and Failed=true conditions",
  );
  refuse(
    (changed("complete") || changed("failureTarget")) && after.complete && after.failureTarget,
    "cannot set Complete=True and FailureTarget=true conditions",
  );
  refuse(
    (changed("failed") || differs("failedIndexes")) && after.failed && !after.failureTarget,
    "cannot set Failed=True condition without the FailureTarget=true condition",
  );
  refuse(
    (changed("complete") || changed("successCriteriaMet")) &&
      after.complete &&
      !after.successCriteriaMet,
    "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
  );
  refuse(
    after.successCriteriaMet && after.failed,
    "cannot set SuccessCriteriaMet=True and Failed=true conditions",
  );
  refuse(
    after.successCriteriaMet && after.failureTarget,
    "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
  );
  refuse(
    after.spec["successPolicy"] !== undefined && !after.successCriteriaMet && after.complete,
    "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
  );
  return out;
}

/** Conditions that end a Job stay. */
function reversalErrors({ after, before }: Change): FieldError[] {
  const out: FieldError[] = [];
  const refuse = (when: boolean, detail: string): void => {
    if (when) out.push(invalidUnshown(conditions, detail));
  };
  for (const type of ["Failed", "Complete", "FailureTarget"]) {
    refuse(
      condition(before.status, type) && !condition(after.status, type),
      `cannot disable the terminal ${type}=True condition`,
    );
  }
  refuse(
    before.successCriteriaMet && !after.successCriteriaMet,
    "cannot disable the SuccessCriteriaMet=True condition",
  );
  refuse(
    before.complete && !before.successCriteriaMet && after.successCriteriaMet,
    "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
  );
  return out;
}

function completionTimeErrors({ after, before, differs }: Change): FieldError[] {
  const field = "status.completionTime";
  const completed = after.status["completionTime"];
  const out: FieldError[] = [];
  if (after.complete !== before.complete || differs("completionTime")) {
    if (completed !== undefined && !after.complete) {
      const detail = "cannot set completionTime when there is no Complete=True condition";
      out.push(invalidValue(field, completed, detail));
    }
    if (completed === undefined && after.complete)
      out.push(required(field, "completionTime is required for Complete jobs"));
  }
  // An absent time is not a number, and no number is less than that.
  const early = Date.parse(text(completed)) < Date.parse(text(after.status["startTime"]));
  if (early && (differs("startTime") || differs("completionTime")))
    out.push(invalidValue(field, completed, "must be equal to or after `startTime`"));
  const set = completed !== undefined && before.status["completionTime"] !== undefined;
  if (set && differs("completionTime"))
    out.push(invalidValue(field, completed, "field is immutable"));
  return out;
}

function startTimeErrors({ after, before, differs }: Change): FieldError[] {
  const { spec, status } = after;
  const field = "status.startTime";
  const started = status["startTime"];
  const neverRan = spec["suspend"] === true && spec["completions"] === 0;
  const asked = after.finished !== before.finished || differs("startTime");
  const out: FieldError[] = [];
  if (asked && !neverRan && started === undefined && after.finished)
    out.push(required(field, "startTime is required for finished job"));
  const resuming = condition(before.status, "Suspended") && condition(status, "Suspended", "False");
  const fixed = before.status["startTime"] !== undefined && spec["suspend"] !== true;
  if (differs("startTime") && fixed && !resuming) {
    out.push(invalidValue(field, started, "field is immutable for unsuspended job once set"));
  }
  return out;
}

/** What a finished Job may not have any more. */
function remainderErrors({ after, before, differs }: Change): FieldError[] {
  const { status, active } = after;
  const ended = after.finished !== before.finished;
  const out: FieldError[] = [];
  if ((ended || differs("active")) && active > 0 && after.finished)
    out.push(invalidValue("status.active", active, "active>0 is invalid for finished job"));
  const uncounted = record(status["uncountedTerminatedPods"]);
  const count = list(uncounted["failed"]).length + list(uncounted["succeeded"]).length;
  if ((ended || differs("uncountedTerminatedPods")) && after.finished && count > 0) {
    out.push(
      invalidValue("status.uncountedTerminatedPods", uncounted, "must be empty for finished job"),
    );
  }
  const terminating = int(status["terminating"]) ?? 0;
  if ((ended || differs("terminating")) && after.finished && terminating > 0) {
    out.push(
      invalidValue("status.terminating", terminating, "terminating>0 is invalid for finished job"),
    );
  }
  const ready = int(status["ready"]);
  if ((differs("ready") || differs("active")) && ready !== undefined && ready > active)
    out.push(invalidValue("status.ready", ready, "cannot set more ready pods than active"));
  return out;
}

function indexErrors({ after, differs }: Change): FieldError[] {
  const { spec, status } = after;
  const completions = int(spec["completions"]);
  const completed = text(status["completedIndexes"]);
  const failed = status["failedIndexes"];
  const perIndex = spec["backoffLimitPerIndex"] !== undefined;
  const out: FieldError[] = [];
  const check = (key: "completedIndexes" | "failedIndexes", value: string): void => {
    if (completions === undefined || !differs(key)) return;
    const checked = checkIndexes(value, completions);
    if (checked.kind === "invalid")
      out.push(invalidValue(`status.${key}`, value, `error parsing ${key}: ${checked.message}`));
  };
  check("completedIndexes", completed);
  if (perIndex && failed !== undefined) check("failedIndexes", text(failed));
  if (differs("completedIndexes") && completed !== "" && spec["completionMode"] !== "Indexed") {
    out.push(
      invalidValue(
        "status.completedIndexes",
        completed,
        "cannot set non-empty completedIndexes when non-indexed completion mode",
      ),
    );
  }
  if (failed === undefined) return out;
  if (differs("failedIndexes") && !perIndex) {
    out.push(
      invalidValue(
        "status.failedIndexes",
        failed,
        "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
      ),
    );
  }
  if (completions === undefined || !(differs("failedIndexes") || differs("completedIndexes")))
    return out;
  const both = overlappingIndex(completed, text(failed), completions);
  if (both !== undefined) {
    out.push(
      invalidValue(
        "status.failedIndexes",
        failed,
        `failedIndexes and completedIndexes overlap at index: ${both}`,
      ),
    );
  }
  return out;
}

/** Counters only rise, but for succeeded ones of an elastic Indexed Job. */
function counterErrors({ after, before }: Change): FieldError[] {
  const { spec } = after;
  const elastic =
    spec["completionMode"] === "Indexed" && spec["completions"] === spec["parallelism"];
  return (elastic ? ["failed"] : ["failed", "succeeded"]).flatMap((key) => {
    const [now, then] = [int(after.status[key]) ?? 0, int(before.status[key]) ?? 0];
    return now < then
      ? [invalidValue(`status.${key}`, now, `cannot decrease the ${key} counter`)]
      : [];
  });
}

/** Rules for a write of a Job's status: they also bind controllers of `spec.managedBy`. */
export function validateJobStatus(
  job: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): FieldError[] {
  const [after, before] = [view(job), view(old)];
  const change: Change = {
    after,
    before,
    differs: (key) => !semanticEqual(after.status[key], before.status[key]),
  };
  return [
    ...["active", "succeeded", "failed", "ready", "terminating"].flatMap((key) =>
      nonNegative(`status.${key}`, after.status[key]),
    ),
    ...uncountedErrors(after.status),
    ...conditionErrors(change),
    ...reversalErrors(change),
    ...completionTimeErrors(change),
    ...startTimeErrors(change),
    ...remainderErrors(change),
    ...indexErrors(change),
    ...counterErrors(change),
  ];
}

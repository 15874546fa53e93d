import type { JsonObject, KindDefinition, Strategy } from "../types.ts";
import {
  ensureRecord,
  int,
  metadataOf,
  nameOf,
  record,
  records,
  semanticEqual,
  text,
} from "./access.ts";
import { generateSelector, labelsFromTemplate } from "./job-labels.ts";
import { validateJobStatus } from "./job-status-validation.ts";
import { validateJobUpdate } from "./job-update.ts";
import { validateJob } from "./job-validation.ts";
import { defineKind } from "./kind-builder.ts";
import { labelSelectorText } from "./label-selector.ts";
import { dns1123Label } from "./names.ts";
import { podTemplateDefaults } from "./pod-defaults.ts";
import { defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, humanDuration, nameColumn, since } from "./table.ts";
import { containerCells, templateWarnings, templateColumns } from "./workload.ts";

/** `backoffLimit` where `backoffLimitPerIndex` limits: none. */
const noLimit = 2_147_483_647;

function applyDefaults(job: JsonObject): void {
  const spec = ensureRecord(job, "spec");
  if (spec["completions"] === undefined && spec["parallelism"] === undefined)
    spec["completions"] = 1;
  spec["parallelism"] ??= 1;
  spec["backoffLimit"] ??= spec["backoffLimitPerIndex"] === undefined ? 6 : noLimit;
  spec["completionMode"] ??= "NonIndexed";
  spec["suspend"] ??= false;
  const policy = spec["podFailurePolicy"];
  spec["podReplacementPolicy"] ??= policy === undefined ? "TerminatingOrFailed" : "Failed";
  spec["manualSelector"] ??= false;
  for (const rule of records(record(policy)["rules"])) {
    for (const pattern of records(rule["onPodConditions"])) {
      if (text(pattern["status"]) === "") pattern["status"] = "True";
    }
  }
  if (spec["template"] !== undefined) podTemplateDefaults(ensureRecord(spec, "template"));
  labelsFromTemplate(job);
}

function warnings(
  job: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): readonly string[] {
  const spec = record(job["spec"]);
  const out: string[] = [];
  if (old === undefined) {
    const messages = dns1123Label(nameOf(job));
    if (messages.length > 0) {
      out.push(
        `metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [${messages.join(" ")}]`,
      );
    }
  } else if (semanticEqual(spec, old["spec"])) return [];
  const [completions, parallelism] = [int(spec["completions"]) ?? 0, int(spec["parallelism"]) ?? 0];
  if (spec["completionMode"] === "Indexed" && completions > 100_000 && parallelism > 10_000) {
    out.push(
      "spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
    );
  }
  return [...out, ...templateWarnings(job, old)];
}

const strategy: Strategy = {
  ...defineStrategy({
    hasStatus: true,
    hasGeneration: true,
    applyDefaults,
    prepareForCreate(job) {
      generateSelector(job);
      labelsFromTemplate(job);
      job["status"] = {};
    },
    validate: (job, old) => [
      ...validateJob(job, old),
      ...(old === undefined ? [] : validateJobUpdate(job, old)),
    ],
    warnings,
  }),
  // The v1 API orphans pods unless the client says otherwise.
  defaultPropagationPolicy: "Orphan",
};

function hasCondition(status: Readonly<JsonObject>, type: string): boolean {
  return records(status["conditions"]).some(
    (condition) => condition["type"] === type && condition["status"] === "True",
  );
}

function statusText(job: Readonly<JsonObject>): string {
  const status = record(job["status"]);
  const finished = ["Complete", "Failed"].find((type) => hasCondition(status, type));
  if (finished !== undefined) return finished;
  if (metadataOf(job)["deletionTimestamp"] !== undefined) return "Terminating";
  const state = ["Suspended", "FailureTarget", "SuccessCriteriaMet"].find((type) =>
    hasCondition(status, type),
  );
  return state ?? "Running";
}

function completionsText(job: Readonly<JsonObject>): string {
  const spec = record(job["spec"]);
  const succeeded = int(record(job["status"])["succeeded"]) ?? 0;
  const completions = int(spec["completions"]);
  if (completions !== undefined) return `${succeeded}/${completions}`;
  const parallelism = int(spec["parallelism"]) ?? 0;
  return parallelism > 1 ? `${succeeded}/1 of ${parallelism}` : `${succeeded}/1`;
}

function durationText(job: Readonly<JsonObject>, now: number): string {
  const { startTime, completionTime } = record(job["status"]);
  if (startTime === undefined) return "";
  if (completionTime === undefined) return since(startTime, now);
  return humanDuration(Date.parse(text(completionTime)) - Date.parse(text(startTime)));
}

export const jobKind: KindDefinition = defineKind({
  group: "batch",
  kind: "Job",
  plural: "jobs",
  categories: ["all"],
  schema: "io.k8s.api.batch.v1.Job",
  strategy,
  subresources: {
    status: {
      kind: "stored",
      verbs: subresourceVerbs,
      strategy: defineStatusStrategy(strategy, {
        validate: (job, old) => (old === undefined ? [] : validateJobStatus(job, old)),
      }),
    },
  },
  fieldSelectors: {
    "status.successful": (object) => String(int(record(object["status"])["succeeded"]) ?? 0),
  },
  table: {
    columns: [
      nameColumn,
      column("Status", "Whether it runs, is suspended, or how it ended."),
      column("Completions", "Pods that succeeded, of those wanted."),
      column("Duration", "Time from start to completion, or until now."),
      ageColumn,
      ...templateColumns,
    ],
    row: (job, now) => [
      nameOf(job),
      statusText(job),
      completionsText(job),
      durationText(job, now),
      age(job, now),
      ...containerCells(job),
      labelSelectorText(record(job["spec"])["selector"]) || "<none>",
    ],
  },
});

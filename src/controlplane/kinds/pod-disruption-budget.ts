import type { FieldError, JsonObject, KindDefinition, Strategy } from "../types.ts";
import { int, nameOf, record, text } from "./access.ts";
import { invalidValue, nonNegative, notSupported } from "./field-error.ts";
import { validateAtMost100Percent, validateIntOrPercent } from "./int-or-percent.ts";
import { defineKind } from "./kind-builder.ts";
import { validateLabelSelector } from "./scheduling-validation.ts";
import { defineStatusStrategy, defineStrategy, subresourceVerbs } from "./strategy.ts";
import { age, ageColumn, column, nameColumn, numberColumn } from "./table.ts";

const evictionPolicies = ["AlwaysAllow", "IfHealthyBudget"];

function specErrors(budget: Readonly<JsonObject>): FieldError[] {
  const spec = record(budget["spec"]);
  const out: FieldError[] = [];
  if (spec["minAvailable"] !== undefined && spec["maxUnavailable"] !== undefined)
    out.push(invalidValue("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
  for (const member of ["minAvailable", "maxUnavailable"]) {
    if (spec[member] === undefined) continue;
    out.push(...validateIntOrPercent(spec[member], `spec.${member}`));
    out.push(...validateAtMost100Percent(spec[member], `spec.${member}`));
  }
  out.push(...validateLabelSelector(spec["selector"], "spec.selector"));
  const policy = spec["unhealthyPodEvictionPolicy"];
  if (policy !== undefined && !evictionPolicies.includes(text(policy)))
    out.push(notSupported("spec.unhealthyPodEvictionPolicy", policy, evictionPolicies));
  return out;
}

const counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];

function statusErrors(budget: Readonly<JsonObject>): FieldError[] {
  const status = record(budget["status"]);
  return counts.flatMap((name) => nonNegative(`status.${name}`, status[name]));
}

const strategy: Strategy = defineStrategy({
  hasStatus: true,
  hasGeneration: true,
  prepareForCreate(budget) {
    budget["status"] = Object.fromEntries(counts.map((name) => [name, 0]));
  },
  validate: specErrors,
  allowUnconditionalUpdate: false,
});

/** How many pods of an application may be evicted at once. */
export const podDisruptionBudgetKind: KindDefinition = defineKind({
  group: "policy",
  kind: "PodDisruptionBudget",
  plural: "poddisruptionbudgets",
  shortNames: ["pdb"],
  schema: "io.k8s.api.policy.v1.PodDisruptionBudget",
  strategy,
  subresources: {
    status: {
      kind: "stored",
      verbs: subresourceVerbs,
      strategy: defineStatusStrategy(strategy, { validate: (object) => statusErrors(object) }),
    },
  },
  table: {
    columns: [
      nameColumn,
      column("Min Available", "Pods that must be available."),
      column("Max Unavailable", "Pods that may be unavailable."),
      numberColumn("Allowed Disruptions", "Pods that may be evicted now."),
      ageColumn,
    ],
    row(budget, now) {
      const spec = record(budget["spec"]);
      const shown = (value: unknown): string =>
        typeof value === "number" || typeof value === "string" ? String(value) : "N/A";
      return [
        nameOf(budget),
        shown(spec["minAvailable"]),
        shown(spec["maxUnavailable"]),
        int(record(budget["status"])["disruptionsAllowed"]) ?? 0,
        age(budget, now),
      ];
    },
  },
});

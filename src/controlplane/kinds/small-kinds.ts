import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import { defaultTo, int, nameOf, record, text } from "./access.ts";
import { enumeration, forbiddenField, invalidAll, invalidValue } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { dns1123Label } from "./names.ts";
import { canonicalizeResources } from "./pod-defaults.ts";
import { defineStrategy } from "./strategy.ts";
import { age, ageColumn, column, nameColumn, numberColumn } from "./table.ts";

function leaseErrors(lease: Readonly<JsonObject>): FieldError[] {
  const spec = record(lease["spec"]);
  const duration = int(spec["leaseDurationSeconds"]);
  const transitions = int(spec["leaseTransitions"]);
  const out: FieldError[] = [];
  if (duration !== undefined && duration <= 0) {
    out.push(invalidValue("spec.leaseDurationSeconds", duration, "must be greater than 0"));
  }
  if (transitions !== undefined && transitions < 0) {
    out.push(
      invalidValue("spec.leaseTransitions", transitions, "must be greater than or equal to 0"),
    );
  }
  return out;
}

export const leaseKind: KindDefinition = defineKind({
  group: "coordination.k8s.io",
  kind: "Lease",
  plural: "leases",
  schema: "io.k8s.api.coordination.v1.Lease",
  durability: "ephemeral",
  strategy: defineStrategy({
    allowCreateOnUpdate: true,
    allowUnconditionalUpdate: false,
    validate: leaseErrors,
  }),
  table: {
    columns: [nameColumn, column("Holder", "Who holds the lease."), ageColumn],
    row: (lease, now) => [
      nameOf(lease),
      text(record(lease["spec"])["holderIdentity"]),
      age(lease, now),
    ],
  },
});

/** The two classes every cluster has; their values lie above what users may choose. */
export const systemPriorities: Readonly<Record<string, number>> = {
  "system-cluster-critical": 2_000_000_000,
  "system-node-critical": 2_000_001_000,
};
const highestUserPriority = 1_000_000_000;

function priorityErrors(
  priority: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
): FieldError[] {
  const name = nameOf(priority);
  const value = int(priority["value"]) ?? 0;
  const out: FieldError[] = [];
  if (name.startsWith("system-")) {
    if (systemPriorities[name] !== value || priority["globalDefault"] === true) {
      out.push(
        forbiddenField(
          "metadata.name",
          "priority class names with 'system-' prefix are reserved for system use only. error: " +
            `${name} is not a known system priority class`,
        ),
      );
    }
  } else if (value > highestUserPriority) {
    out.push(
      forbiddenField(
        "value",
        `maximum allowed value of a user defined priority is ${highestUserPriority}`,
      ),
    );
  }
  out.push(
    ...enumeration("preemptionPolicy", priority["preemptionPolicy"], [
      "PreemptLowerPriority",
      "Never",
    ]),
  );
  if (old === undefined) return out;
  if (value !== (int(old["value"]) ?? 0)) {
    out.push(forbiddenField("value", "may not be changed in an update."));
  }
  if (priority["preemptionPolicy"] !== old["preemptionPolicy"]) {
    out.push(invalidValue("preemptionPolicy", priority["preemptionPolicy"], "field is immutable"));
  }
  return out;
}

export const priorityClassKind: KindDefinition = defineKind({
  group: "scheduling.k8s.io",
  kind: "PriorityClass",
  plural: "priorityclasses",
  shortNames: ["pc"],
  namespaced: false,
  schema: "io.k8s.api.scheduling.v1.PriorityClass",
  strategy: defineStrategy({
    hasGeneration: true,
    applyDefaults: (priority) => defaultTo(priority, "preemptionPolicy", "PreemptLowerPriority"),
    validate: priorityErrors,
  }),
  table: {
    columns: [
      nameColumn,
      numberColumn("Value", "Priority of the pods of this class."),
      { ...column("Global-Default", "Whether pods without a class get it."), type: "boolean" },
      ageColumn,
      column("PreemptionPolicy", "Whether its pods may displace others."),
    ],
    row: (priority, now) => [
      nameOf(priority),
      int(priority["value"]) ?? 0,
      priority["globalDefault"] === true,
      age(priority, now),
      text(priority["preemptionPolicy"]),
    ],
  },
});

export const runtimeClassKind: KindDefinition = defineKind({
  group: "node.k8s.io",
  kind: "RuntimeClass",
  plural: "runtimeclasses",
  namespaced: false,
  schema: "io.k8s.api.node.v1.RuntimeClass",
  strategy: defineStrategy({
    applyDefaults(object) {
      const overhead = object["overhead"];
      if (overhead !== undefined) canonicalizeResources(record(overhead), "podFixed");
    },
    validate(object, old) {
      const handler = text(object["handler"]);
      const out = invalidAll("handler", handler, dns1123Label(handler));
      if (old !== undefined && old["handler"] !== object["handler"]) {
        out.push(invalidValue("handler", handler, "field is immutable"));
      }
      return out;
    },
  }),
  table: {
    columns: [nameColumn, column("Handler", "Runtime configuration on the node."), ageColumn],
    row: (object, now) => [nameOf(object), text(object["handler"]), age(object, now)],
  },
});

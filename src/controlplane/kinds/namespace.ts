import type { FieldError, JsonObject, KindDefinition, Strategy } from "../types.ts";
import { ensureRecord, list, metadataOf, nameOf, record, strings, text } from "./access.ts";
import { at, invalidAll, invalidValue } from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { labelName, qualifiedName } from "./names.ts";
import {
  allVerbs,
  defineStatusStrategy,
  defineStrategy,
  restore,
  subresourceVerbs,
} from "./strategy.ts";
import { age, ageColumn, column, nameColumn } from "./table.ts";

function finalizerErrors(object: Readonly<JsonObject>): FieldError[] {
  return strings(record(object["spec"])["finalizers"]).flatMap((finalizer, index) => {
    const path = at("spec.finalizers", index);
    const messages = invalidAll(path, finalizer, qualifiedName(finalizer));
    const known = ["kubernetes", "orphan", "foregroundDeletion"].includes(finalizer);
    return known || finalizer.includes("/")
      ? messages
      : [
          ...messages,
          invalidValue(
            path,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
          ),
        ];
  });
}

const strategy: Strategy = {
  ...defineStrategy({
    validateName: labelName,
    applyDefaults(object) {
      const name = nameOf(object);
      if (name !== "") {
        const metadata = ensureRecord(object, "metadata");
        ensureRecord(metadata, "labels")["kubernetes.io/metadata.name"] = name;
      }
      const status = ensureRecord(object, "status");
      if (text(status["phase"]) === "") status["phase"] = "Active";
    },
    prepareForCreate(object) {
      object["status"] = { phase: "Active" };
      const spec = ensureRecord(object, "spec");
      const finalizers = strings(spec["finalizers"]);
      // Keeps the namespace until the namespace controller has emptied it.
      if (!finalizers.includes("kubernetes")) spec["finalizers"] = [...finalizers, "kubernetes"];
    },
    prepareForUpdate(object, old) {
      const before = record(old["spec"])["finalizers"];
      const spec = ensureRecord(object, "spec");
      if (before === undefined) delete spec["finalizers"];
      else spec["finalizers"] = structuredClone(before);
      restore(object, old, "status");
    },
    validate: (object, old) => (old === undefined ? finalizerErrors(object) : []),
  }),
  holdsDeletion: (object) => list(record(object["spec"])["finalizers"]).length > 0,
};

const statusStrategy = defineStatusStrategy(strategy, {
  validate(object) {
    const phase = record(object["status"])["phase"];
    const deleting = metadataOf(object)["deletionTimestamp"] !== undefined;
    if (!deleting && phase !== "Active") {
      return [
        invalidValue("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty"),
      ];
    }
    return deleting && phase !== "Terminating"
      ? [
          invalidValue(
            "status.Phase",
            phase,
            "may only be 'Terminating' if `deletionTimestamp` is not empty",
          ),
        ]
      : [];
  },
});

const finalizeStrategy: Strategy = {
  ...strategy,
  prepareForUpdate: (object, old) => restore(object, old, "status"),
  validateCreate: () => [],
  validateUpdate: (object) => finalizerErrors(object),
};

export const namespaceKind: KindDefinition = defineKind({
  kind: "Namespace",
  plural: "namespaces",
  shortNames: ["ns"],
  namespaced: false,
  verbs: allVerbs.filter((verb) => verb !== "deletecollection"),
  schema: "io.k8s.api.core.v1.Namespace",
  strategy,
  subresources: {
    status: { kind: "stored", verbs: subresourceVerbs, strategy: statusStrategy },
    finalize: { kind: "stored", verbs: ["update"], strategy: finalizeStrategy },
  },
  fieldSelectors: { "status.phase": (object) => text(record(object["status"])["phase"]) },
  table: {
    columns: [
      nameColumn,
      column("Status", "Active, or Terminating while it is emptied."),
      ageColumn,
    ],
    row: (object, now) => [
      nameOf(object),
      text(record(object["status"])["phase"]),
      age(object, now),
    ],
  },
});

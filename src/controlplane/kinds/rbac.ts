import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import { defaultTo, isEmpty, nameOf, record, records, semanticEqual, text } from "./access.ts";
import {
  at,
  enumeration,
  invalidAll,
  invalidValue,
  notSupported,
  required,
} from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { dns1123Subdomain, pathSegmentMessages } from "./names.ts";
import { validateLabelSelector } from "./scheduling-validation.ts";
import { defineStrategy } from "./strategy.ts";
import { age, ageColumn, column, createdAtColumns, createdAtRow, nameColumn } from "./table.ts";

const group = "rbac.authorization.k8s.io";

function ruleErrors(role: Readonly<JsonObject>, namespaced: boolean): FieldError[] {
  const out: FieldError[] = [];
  records(role["rules"]).forEach((rule, index) => {
    const path = at("rules", index);
    if (isEmpty(rule["verbs"])) {
      out.push(required(`${path}.verbs`, "verbs must contain at least one value"));
    }
    if (!isEmpty(rule["nonResourceURLs"])) {
      if (namespaced) {
        out.push(
          invalidValue(
            `${path}.nonResourceURLs`,
            rule["nonResourceURLs"],
            "namespaced rules cannot apply to non-resource URLs",
          ),
        );
      }
      const resourceMembers = ["apiGroups", "resources", "resourceNames"];
      if (resourceMembers.some((key) => !isEmpty(rule[key]))) {
        out.push(
          invalidValue(
            `${path}.nonResourceURLs`,
            rule["nonResourceURLs"],
            "rules cannot apply to both regular resources and non-resource URLs",
          ),
        );
      }
      return;
    }
    if (isEmpty(rule["apiGroups"])) {
      out.push(required(`${path}.apiGroups`, "resource rules must supply at least one api group"));
    }
    if (isEmpty(rule["resources"])) {
      out.push(required(`${path}.resources`, "resource rules must supply at least one resource"));
    }
  });
  return out;
}

function subjectErrors(binding: Readonly<JsonObject>, namespaced: boolean): FieldError[] {
  const out: FieldError[] = [];
  records(binding["subjects"]).forEach((subject, index) => {
    const path = at("subjects", index);
    const name = text(subject["name"]);
    const apiGroup = text(subject["apiGroup"]);
    const kind = text(subject["kind"]);
    if (name === "") out.push(required(`${path}.name`));
    if (kind === "ServiceAccount") {
      if (name !== "") out.push(...invalidAll(`${path}.name`, name, dns1123Subdomain(name)));
      if (apiGroup !== "") out.push(notSupported(`${path}.apiGroup`, apiGroup, [""]));
      if (!namespaced && text(subject["namespace"]) === "") out.push(required(`${path}.namespace`));
    } else if (kind === "User" || kind === "Group") {
      if (apiGroup !== group) out.push(notSupported(`${path}.apiGroup`, apiGroup, [group]));
    } else {
      out.push(notSupported(`${path}.kind`, kind, ["ServiceAccount", "User", "Group"]));
    }
  });
  return out;
}

function bindingErrors(
  binding: Readonly<JsonObject>,
  old: Readonly<JsonObject> | undefined,
  namespaced: boolean,
): FieldError[] {
  const reference = record(binding["roleRef"]);
  const out: FieldError[] = [];
  if (reference["apiGroup"] !== group) {
    out.push(notSupported("roleRef.apiGroup", reference["apiGroup"], [group]));
  }
  out.push(
    ...enumeration(
      "roleRef.kind",
      reference["kind"],
      namespaced ? ["Role", "ClusterRole"] : ["ClusterRole"],
    ),
  );
  const name = text(reference["name"]);
  if (name === "") out.push(required("roleRef.name"));
  else out.push(...invalidAll("roleRef.name", name, pathSegmentMessages(name)));
  out.push(...subjectErrors(binding, namespaced));
  if (old !== undefined && !semanticEqual(old["roleRef"], binding["roleRef"])) {
    out.push(invalidValue("roleRef", reference, "cannot change roleRef"));
  }
  return out;
}

function bindingDefaults(binding: JsonObject): void {
  const reference = binding["roleRef"];
  if (typeof reference === "object" && reference !== null) {
    defaultTo(record(reference), "apiGroup", group);
  }
  for (const subject of records(binding["subjects"])) {
    if (subject["kind"] === "User" || subject["kind"] === "Group") {
      defaultTo(subject, "apiGroup", group);
    }
    if (subject["kind"] === "ServiceAccount" && subject["apiGroup"] === "") {
      delete subject["apiGroup"];
    }
  }
}

function subjectsText(binding: Readonly<JsonObject>, kind: string): string {
  return records(binding["subjects"])
    .filter((subject) => subject["kind"] === kind)
    .map((subject) =>
      kind === "ServiceAccount"
        ? `${text(subject["namespace"])}/${text(subject["name"])}`
        : text(subject["name"]),
    )
    .join(", ");
}

function roleKind(kind: "Role" | "ClusterRole"): KindDefinition {
  const namespaced = kind === "Role";
  return defineKind({
    group,
    kind,
    plural: `${kind.toLowerCase()}s`,
    namespaced,
    schema: `io.k8s.api.rbac.v1.${kind}`,
    strategy: defineStrategy({
      allowCreateOnUpdate: true,
      validateName: pathSegmentMessages,
      applyDefaults(role) {
        // The one RBAC list that is written as null when it is empty.
        if (role["rules"] === undefined) role["rules"] = null;
      },
      validate(role) {
        const out = ruleErrors(role, namespaced);
        const rule = role["aggregationRule"];
        if (rule === undefined) return out;
        const field = "aggregationRule.clusterRoleSelectors";
        const selectors = records(record(rule)["clusterRoleSelectors"]);
        if (selectors.length === 0) {
          out.push(
            required(
              field,
              "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ),
          );
        }
        selectors.forEach((selector, index) => {
          out.push(...validateLabelSelector(selector, at(field, index)));
        });
        return out;
      },
    }),
    table: { columns: createdAtColumns, row: createdAtRow },
  });
}

function bindingKind(kind: "RoleBinding" | "ClusterRoleBinding"): KindDefinition {
  const namespaced = kind === "RoleBinding";
  return defineKind({
    group,
    kind,
    plural: `${kind.toLowerCase()}s`,
    namespaced,
    schema: `io.k8s.api.rbac.v1.${kind}`,
    strategy: defineStrategy({
      allowCreateOnUpdate: true,
      validateName: pathSegmentMessages,
      applyDefaults: bindingDefaults,
      validate: (binding, old) => bindingErrors(binding, old, namespaced),
    }),
    table: {
      columns: [
        nameColumn,
        column("Role", "The role that is granted."),
        ageColumn,
        column("Users", "Users it is granted to.", true),
        column("Groups", "Groups it is granted to.", true),
        column("ServiceAccounts", "Service accounts it is granted to.", true),
      ],
      row(binding, now) {
        const reference = record(binding["roleRef"]);
        return [
          nameOf(binding),
          `${text(reference["kind"])}/${text(reference["name"])}`,
          age(binding, now),
          subjectsText(binding, "User"),
          subjectsText(binding, "Group"),
          subjectsText(binding, "ServiceAccount"),
        ];
      },
    },
  });
}

/** Role, RoleBinding, ClusterRole, ClusterRoleBinding. */
export const rbacKinds: readonly KindDefinition[] = [
  roleKind("Role"),
  bindingKind("RoleBinding"),
  roleKind("ClusterRole"),
  bindingKind("ClusterRoleBinding"),
];

import type { JsonObject } from "../types.ts";
import table from "./bootstrap-rbac.json" with { type: "json" };
import { parseRule, type PolicyRule } from "./rules.ts";

const group = "rbac.authorization.k8s.io";
const apiVersion = `${group}/v1`;

/** An object that must exist when the control plane runs. */
export interface BootstrapObject {
  /** `plural.group` */
  readonly resource: string;
  readonly namespace: string;
  readonly object: JsonObject;
}

function metadata(
  name: string,
  extra: {
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>> | undefined;
  },
): JsonObject {
  return {
    name,
    ...(extra.namespace === undefined ? {} : { namespace: extra.namespace }),
    labels: { "kubernetes.io/bootstrapping": "rbac-defaults", ...extra.labels },
    annotations: { "rbac.authorization.kubernetes.io/autoupdate": "true" },
  };
}

/** The table writes subjects as [kind, name] or [kind, namespace/name]. */
function subject([kind = "", name = ""]: readonly string[]): JsonObject {
  const [namespace, account] = name.split("/");
  if (kind === "ServiceAccount") return { kind, name: account ?? "", namespace };
  return { kind, apiGroup: group, name };
}

function roleRef(kind: "Role" | "ClusterRole", name: string): JsonObject {
  return { apiGroup: group, kind, name };
}

function labelsOf(role: object): Readonly<Record<string, string>> | undefined {
  return "labels" in role ? (role.labels as Readonly<Record<string, string>>) : undefined;
}

function clusterRole(role: (typeof table.clusterRoles)[number]): JsonObject {
  const aggregate = "aggregate" in role ? role.aggregate : undefined;
  return {
    apiVersion,
    kind: "ClusterRole",
    metadata: metadata(role.name, { labels: labelsOf(role) }),
    ...(aggregate === undefined
      ? { rules: role.rules ?? [] }
      : {
          aggregationRule: { clusterRoleSelectors: [{ matchLabels: { [aggregate]: "true" } }] },
          rules: null,
        }),
  };
}

/** Rules of one of the bootstrap ClusterRoles. */
export function bootstrapRules(name: string): readonly PolicyRule[] {
  return (table.clusterRoles.find((role) => role.name === name)?.rules ?? []).map(parseRule);
}

/** Roles and bindings of a 1.36 API server at its first start. */
export function bootstrapRbacObjects(): BootstrapObject[] {
  return [
    ...table.clusterRoles.map((role) => ({
      resource: `clusterroles.${group}`,
      namespace: "",
      object: clusterRole(role),
    })),
    ...table.clusterRoleBindings.map((binding) => ({
      resource: `clusterrolebindings.${group}`,
      namespace: "",
      object: {
        apiVersion,
        kind: "ClusterRoleBinding",
        metadata: metadata(binding.name, {}),
        roleRef: roleRef("ClusterRole", binding.role),
        ...(binding.subjects.length === 0 ? {} : { subjects: binding.subjects.map(subject) }),
      },
    })),
    ...table.roles.map((role) => ({
      resource: `roles.${group}`,
      namespace: role.namespace,
      object: {
        apiVersion,
        kind: "Role",
        metadata: metadata(role.name, { namespace: role.namespace }),
        rules: role.rules,
      },
    })),
    ...table.roleBindings.map((binding) => ({
      resource: `rolebindings.${group}`,
      namespace: binding.namespace,
      object: {
        apiVersion,
        kind: "RoleBinding",
        metadata: metadata(binding.name, { namespace: binding.namespace }),
        roleRef: roleRef("Role", binding.role),
        subjects: binding.subjects.map(subject),
      },
    })),
  ];
}

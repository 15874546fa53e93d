import type { ControlPlaneAuthorizer } from "../auth/authorizer.ts";
import { clusterRoleRules } from "../auth/rbac-authorizer.ts";
import { parseRule, ruleAllows, type PolicyRule } from "../auth/rules.ts";
import { list, nameOf, record, semanticEqual, text } from "../kinds/access.ts";
import { forbidden } from "../status-error.ts";
import type {
  AdmissionAttributes,
  AdmissionPlugin,
  AuthorizationAttributes,
  JsonObject,
} from "../types.ts";

const group = "rbac.authorization.k8s.io";
const superusers = "system:masters";
const everything: readonly PolicyRule[] = [
  { verbs: ["*"], apiGroups: ["*"], resources: ["*"], resourceNames: [], nonResourceURLs: [] },
  { verbs: ["*"], apiGroups: [], resources: [], resourceNames: [], nonResourceURLs: ["*"] },
];

/**
 * The single permissions of a rule; `*` is one of its own, which only `*` covers.
 *
 * @yields One permission as the authorizer would be asked for it.
 */
function* permissions(
  rule: PolicyRule,
  user: AdmissionAttributes["context"]["user"],
): Iterable<AuthorizationAttributes> {
  const base = { user, version: "*", namespace: "", fieldSelector: "" };
  for (const verb of rule.verbs) {
    for (const path of rule.nonResourceURLs) {
      yield { ...base, verb, path, group: "", resource: "", subresource: "", name: "" };
    }
    for (const apiGroup of rule.apiGroups) {
      for (const combined of rule.resources) {
        const [resource = "", subresource = ""] = combined.split("/");
        for (const name of rule.resourceNames.length === 0 ? [""] : rule.resourceNames) {
          yield { ...base, verb, path: "", group: apiGroup, resource, subresource, name };
        }
      }
    }
  }
}

/** Whether `held` allows everything that `wanted` does. */
export function covers(
  held: readonly PolicyRule[],
  wanted: PolicyRule,
  user: AdmissionAttributes["context"]["user"],
): boolean {
  for (const permission of permissions(wanted, user)) {
    if (!held.some((rule) => ruleAllows(rule, permission))) return false;
  }
  return true;
}

function ruleText(rule: PolicyRule): string {
  const members = [
    ["APIGroups", rule.apiGroups],
    ["Resources", rule.resources],
    ["ResourceNames", rule.resourceNames],
    ["NonResourceURLs", rule.nonResourceURLs],
    ["Verbs", rule.verbs],
  ] as const;
  const shown = members
    .filter(([, values]) => values.length > 0)
    .map(([name, values]) => `${name}:${JSON.stringify(values)}`);
  return `{${shown.join(", ")}}`;
}

function roleRules(attributes: AdmissionAttributes, reference: Readonly<JsonObject>): PolicyRule[] {
  const { objects, namespace } = attributes;
  const name = text(reference["name"]);
  if (reference["kind"] === "Role") {
    const role = objects.get(`roles.${group}`, namespace, name);
    return list(role?.["rules"]).map((rule) => parseRule(rule));
  }
  const roles = new Map(
    [...objects.list(`clusterroles.${group}`)].map((role) => [nameOf(role), role]),
  );
  return clusterRoleRules(name, roles, new Set());
}

/**
 * Nobody hands out rights that they do not have themselves, unless they hold the `escalate` verb on the role or `bind`
 * on the role that a binding names.
 */
export function createEscalationCheck(authorizer: ControlPlaneAuthorizer): AdmissionPlugin {
  const mayUse = (attributes: AdmissionAttributes, verb: string, resource: string, name: string) =>
    authorizer.authorize({
      user: attributes.context.user,
      verb,
      group,
      version: "v1",
      resource,
      subresource: "",
      namespace: attributes.namespace,
      name,
      path: "",
      fieldSelector: "",
    }).allowed;

  function requireHeld(attributes: AdmissionAttributes, wanted: readonly PolicyRule[]): void {
    const { user } = attributes.context;
    const held = authorizer.rulesFor(user, attributes.namespace);
    const missing = wanted.filter((rule) => !covers(held, rule, user));
    if (missing.length === 0) return;
    throw forbidden(
      attributes.kind,
      attributes.name,
      `user "${user.name}" (groups=${JSON.stringify(user.groups)}) is attempting to grant RBAC permissions not currently held:\n${missing
        .map((rule) => ruleText(rule))
        .join("\n")}`,
    );
  }

  function checkRole(attributes: AdmissionAttributes, role: Readonly<JsonObject>): void {
    const { kind, name, oldObject } = attributes;
    const same = (key: string): boolean => semanticEqual(role[key], oldObject?.[key]);
    if (same("rules") && same("aggregationRule")) return;
    if (mayUse(attributes, "escalate", kind.plural, name)) return;
    const aggregates = role["aggregationRule"] !== undefined && !same("aggregationRule");
    const rules = list(role["rules"]).map((rule) => parseRule(rule));
    requireHeld(attributes, aggregates ? everything : rules);
  }

  function checkBinding(attributes: AdmissionAttributes, binding: Readonly<JsonObject>): void {
    const { oldObject } = attributes;
    const same = (key: string): boolean => semanticEqual(binding[key], oldObject?.[key]);
    if (oldObject !== undefined && same("roleRef") && same("subjects")) return;
    const reference = record(binding["roleRef"]);
    const plural = reference["kind"] === "Role" ? "roles" : "clusterroles";
    if (mayUse(attributes, "bind", plural, text(reference["name"]))) return;
    requireHeld(attributes, roleRules(attributes, reference));
  }

  return {
    name: "RBACEscalation",
    validate(attributes) {
      const { kind, object, operation, context } = attributes;
      if (kind.group !== group || object === undefined) return;
      if (operation !== "CREATE" && operation !== "UPDATE") return;
      if (context.user.groups.includes(superusers)) return;
      if (kind.kind.endsWith("Binding")) checkBinding(attributes, object);
      else checkRole(attributes, object);
    },
  };
}

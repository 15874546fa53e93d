import { isRecord } from "../../lib/guard.ts";
import type { AuthorizationAttributes } from "../types.ts";

/** rbac.authorization.k8s.io/v1 PolicyRule, lists never absent. */
export interface PolicyRule {
  readonly verbs: readonly string[];
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames: readonly string[];
  readonly nonResourceURLs: readonly string[];
}

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

/** Reads a stored rule; what is not a list of strings counts as empty and so allows nothing. */
export function parseRule(value: unknown): PolicyRule {
  const rule = isRecord(value) ? value : {};
  return {
    verbs: strings(rule["verbs"]),
    apiGroups: strings(rule["apiGroups"]),
    resources: strings(rule["resources"]),
    resourceNames: strings(rule["resourceNames"]),
    nonResourceURLs: strings(rule["nonResourceURLs"]),
  };
}

function has(list: readonly string[], value: string): boolean {
  return list.includes("*") || list.includes(value);
}

// A rule names `pods`, `pods/log`, everything, or one subresource of everything.
function matchesResource(rule: PolicyRule, resource: string, subresource: string): boolean {
  const combined = subresource === "" ? resource : `${resource}/${subresource}`;
  return (
    has(rule.resources, combined) ||
    (subresource !== "" && rule.resources.includes(`*/${subresource}`))
  );
}

function matchesURL(rule: PolicyRule, path: string): boolean {
  return rule.nonResourceURLs.some(
    (pattern) =>
      pattern === "*" ||
      pattern === path ||
      (pattern.endsWith("*") && path.startsWith(pattern.slice(0, -1))),
  );
}

/** Whether one rule allows the request (RBAC's RuleAllows). */
export function ruleAllows(rule: PolicyRule, request: AuthorizationAttributes): boolean {
  if (!has(rule.verbs, request.verb)) return false;
  if (request.resource === "") return matchesURL(rule, request.path);
  return (
    has(rule.apiGroups, request.group) &&
    matchesResource(rule, request.resource, request.subresource) &&
    (rule.resourceNames.length === 0 || rule.resourceNames.includes(request.name))
  );
}

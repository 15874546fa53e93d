import { asRecord, isRecord } from "../../lib/guard.ts";
import type { AuthorizationAttributes, Authorizer, JsonObject, UserInfo } from "../types.ts";
import type { ObservedObjects } from "./node-graph.ts";
import { parseRule, type PolicyRule, ruleAllows } from "./rules.ts";

const group = "rbac.authorization.k8s.io";

interface Subject {
  readonly kind: string;
  readonly name: string;
  readonly namespace: string;
}

interface Grant {
  readonly subjects: readonly Subject[];
  readonly rules: readonly PolicyRule[];
}

interface Policy {
  readonly clusterWide: readonly Grant[];
  readonly byNamespace: ReadonlyMap<string, readonly Grant[]>;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function parseSubjects(value: unknown): Subject[] {
  if (!Array.isArray(value)) return [];
  return value.filter(isRecord).map((subject) => ({
    kind: text(subject["kind"]),
    name: text(subject["name"]),
    namespace: text(subject["namespace"]),
  }));
}

function rulesOf(role: Readonly<JsonObject> | undefined): PolicyRule[] {
  const rules = role?.["rules"];
  return Array.isArray(rules) ? rules.map(parseRule) : [];
}

function matchesSelector(role: Readonly<JsonObject>, selector: unknown): boolean {
  const wanted =
    isRecord(selector) && isRecord(selector["matchLabels"]) ? selector["matchLabels"] : {};
  const metadata = asRecord(role["metadata"], "$.metadata");
  const labels = isRecord(metadata["labels"]) ? metadata["labels"] : {};
  const entries = Object.entries(wanted);
  return entries.length > 0 && entries.every(([key, value]) => labels[key] === value);
}

/** Rules of a ClusterRole; an aggregated one has those of all roles its selectors find, aggregated ones included. */
export function clusterRoleRules(
  name: string,
  roles: ReadonlyMap<string, Readonly<JsonObject>>,
  visiting: ReadonlySet<string>,
): PolicyRule[] {
  const role = roles.get(name);
  const aggregation = role?.["aggregationRule"];
  if (role === undefined || !isRecord(aggregation) || visiting.has(name)) return rulesOf(role);
  const selectors = Array.isArray(aggregation["clusterRoleSelectors"])
    ? aggregation["clusterRoleSelectors"]
    : [];
  const inner = new Set([...visiting, name]);
  return [...roles]
    .filter(
      ([other, candidate]) =>
        other !== name && selectors.some((selector) => matchesSelector(candidate, selector)),
    )
    .flatMap(([other]) => clusterRoleRules(other, roles, inner));
}

function metadataText(object: Readonly<JsonObject>, field: string): string {
  return text(asRecord(object["metadata"], "$.metadata")[field]);
}

function buildPolicy({ objects }: ObservedObjects): Policy {
  const clusterRoles = new Map(
    [...objects.list(`clusterroles.${group}`)].map((role) => [metadataText(role, "name"), role]),
  );
  const grantOf = (binding: Readonly<JsonObject>, namespace: string): Grant => {
    const ref = isRecord(binding["roleRef"]) ? binding["roleRef"] : {};
    const name = text(ref["name"]);
    const rules =
      ref["kind"] === "Role"
        ? rulesOf(objects.get(`roles.${group}`, namespace, name))
        : clusterRoleRules(name, clusterRoles, new Set());
    return { subjects: parseSubjects(binding["subjects"]), rules };
  };
  const byNamespace = new Map<string, Grant[]>();
  for (const binding of objects.list(`rolebindings.${group}`)) {
    const namespace = metadataText(binding, "namespace");
    const grants = byNamespace.get(namespace) ?? [];
    grants.push(grantOf(binding, namespace));
    byNamespace.set(namespace, grants);
  }
  const clusterWide = [...objects.list(`clusterrolebindings.${group}`)].map((binding) =>
    grantOf(binding, ""),
  );
  return { clusterWide, byNamespace };
}

function appliesTo(subject: Subject, user: UserInfo, bindingNamespace: string): boolean {
  switch (subject.kind) {
    case "User":
      return subject.name === "*" || subject.name === user.name;
    case "Group":
      return user.groups.includes(subject.name);
    case "ServiceAccount": {
      const namespace = subject.namespace === "" ? bindingNamespace : subject.namespace;
      return namespace !== "" && user.name === `system:serviceaccount:${namespace}:${subject.name}`;
    }
    default:
      return false;
  }
}

/** RBAC over the stored roles and bindings. The policy is compiled once per change of any of them. */
export class RbacAuthorizer implements Authorizer {
  readonly #source: ObservedObjects;
  #policy: Policy | undefined;

  constructor(source: ObservedObjects) {
    this.#source = source;
    source.subscribe(({ resource }) => {
      if (resource.endsWith(`.${group}`)) this.#policy = undefined;
    });
  }

  authorize(request: AuthorizationAttributes): {
    readonly allowed: boolean;
    readonly reason: string;
  } {
    const allowed = this.#grants(request.user, request.namespace).some(({ rules }) =>
      rules.some((rule) => ruleAllows(rule, request)),
    );
    return { allowed, reason: "" };
  }

  /** All rules that apply to `user` in `namespace` (SelfSubjectRulesReview). */
  rulesFor(user: UserInfo, namespace: string): PolicyRule[] {
    return this.#grants(user, namespace).flatMap(({ rules }) => rules);
  }

  #grants(user: UserInfo, namespace: string): Grant[] {
    this.#policy ??= buildPolicy(this.#source);
    const { clusterWide, byNamespace } = this.#policy;
    const local = namespace === "" ? [] : (byNamespace.get(namespace) ?? []);
    return [
      ...clusterWide.filter(({ subjects }) =>
        subjects.some((subject) => appliesTo(subject, user, "")),
      ),
      ...local.filter(({ subjects }) =>
        subjects.some((subject) => appliesTo(subject, user, namespace)),
      ),
    ];
  }
}

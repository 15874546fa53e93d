import type { Authorizer } from "../types.ts";
import { bootstrapRules } from "./bootstrap-rbac.ts";
import { NodeAuthorizer } from "./node-authorizer.ts";
import { NodeGraph, type ObservedObjects } from "./node-graph.ts";
import { RbacAuthorizer } from "./rbac-authorizer.ts";
import type { PolicyRule } from "./rules.ts";
import type { UserInfo } from "../types.ts";

/** Members of this group may do everything, so that a broken RBAC object can be mended. */
const superusers = "system:masters";

export interface ControlPlaneAuthorizer extends Authorizer {
  /** All RBAC rules that apply to a user in a namespace, for SelfSubjectRulesReview. */
  rulesFor(user: UserInfo, namespace: string): readonly PolicyRule[];
}

/** `--authorization-mode=Node,RBAC`: the first that allows wins; the reasons of the others are joined. */
export function createAuthorizer(source: ObservedObjects): ControlPlaneAuthorizer {
  const node = new NodeAuthorizer(new NodeGraph(source), bootstrapRules("system:node"));
  const rbac = new RbacAuthorizer(source);
  return {
    authorize(request) {
      if (request.user.groups.includes(superusers)) return { allowed: true, reason: "" };
      const byNode = node.authorize(request);
      if (byNode.allowed) return byNode;
      const byRbac = rbac.authorize(request);
      if (byRbac.allowed) return byRbac;
      return { allowed: false, reason: byNode.reason };
    },
    rulesFor: (user, namespace) => rbac.rulesFor(user, namespace),
  };
}

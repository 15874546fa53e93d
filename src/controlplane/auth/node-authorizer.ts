import type { AuthorizationAttributes, Authorizer, UserInfo } from "../types.ts";
import type { NodeGraph } from "./node-graph.ts";
import type { ReferenceKind } from "./node-references.ts";
import { type PolicyRule, ruleAllows } from "./rules.ts";

type Decision = { readonly allowed: boolean; readonly reason: string };

const allow: Decision = { allowed: true, reason: "" };
const noOpinion = (reason: string): Decision => ({ allowed: false, reason });

/** Name of the node behind a user of group system:nodes; undefined for everybody else, "" when it has no name. */
export function nodeIdentity(user: UserInfo): string | undefined {
  if (!user.groups.includes("system:nodes") || !user.name.startsWith("system:node:"))
    return undefined;
  return user.name.slice("system:node:".length);
}

/** Values of `field=value` (or ==) in a field selector. */
export function selectedValue(fieldSelector: string, field: string): string | undefined {
  for (const term of fieldSelector.split(",")) {
    const match = /^([^=!]+)==?(.*)$/.exec(term.trim());
    if (match?.[1] === field) return match[2];
  }
  return undefined;
}

type Handler = (node: string, request: AuthorizationAttributes, graph: NodeGraph) => Decision;

function related(
  kind: ReferenceKind,
  node: string,
  request: AuthorizationAttributes,
  graph: NodeGraph,
): Decision {
  // list and watch of one object carry its name as a field selector.
  const name =
    request.name === ""
      ? (selectedValue(request.fieldSelector, "metadata.name") ?? "")
      : request.name;
  if (name === "") return noOpinion("No Object name found");
  return graph.allows(node, { kind, namespace: request.namespace, name })
    ? allow
    : noOpinion(`no relationship found between node '${node}' and this object`);
}

function readNamespaced(kind: ReferenceKind): Handler {
  return (node, request, graph) => {
    if (!["get", "list", "watch"].includes(request.verb))
      return noOpinion("can only read resources of this type");
    if (request.subresource !== "") return noOpinion("cannot read subresource");
    if (request.namespace === "") return noOpinion("can only read namespaced object of this type");
    return related(kind, node, request, graph);
  };
}

function readOne(kind: ReferenceKind): Handler {
  return (node, request, graph) => {
    if (request.verb !== "get") return noOpinion("can only get individual resources of this type");
    if (request.subresource !== "") return noOpinion("cannot get subresource");
    return related(kind, node, request, graph);
  };
}

const claims: Handler = (node, request, graph) => {
  if (request.subresource !== "status")
    return readOne("persistentvolumeclaims")(node, request, graph);
  return ["update", "patch"].includes(request.verb)
    ? related("persistentvolumeclaims", node, request, graph)
    : noOpinion("can only get/update/patch this type");
};

const serviceAccounts: Handler = (node, request, graph) => {
  if (request.verb === "get" && request.subresource === "")
    return readNamespaced("serviceaccounts")(node, request, graph);
  if (request.verb !== "create" || request.name === "") {
    return noOpinion("can only create tokens for individual service accounts");
  }
  if (request.subresource !== "token")
    return noOpinion("can only create token subresource of serviceaccount");
  return related("serviceaccounts", node, request, graph);
};

const ownVerbs = ["get", "create", "update", "patch", "delete"];

const leases: Handler = (node, request) => {
  if (!ownVerbs.includes(request.verb)) {
    return noOpinion("can only get, create, update, patch, or delete a node lease");
  }
  if (request.namespace !== "kube-node-lease") {
    return noOpinion('can only access leases in the "kube-node-lease" system namespace');
  }
  // The name is not known at create; NodeRestriction checks it there.
  if (request.verb !== "create" && request.name !== node) {
    return noOpinion("can only access node lease with the same name as the requesting node");
  }
  return allow;
};

const csiNodes: Handler = (node, request) => {
  if (!ownVerbs.includes(request.verb))
    return noOpinion("can only get, create, update, patch, or delete a CSINode");
  if (request.subresource !== "") return noOpinion("cannot authorize CSINode subresources");
  if (request.verb !== "create" && request.name !== node) {
    return noOpinion("can only access CSINode with the same name as the requesting node");
  }
  return allow;
};

const nodes: Handler = (node, request) => {
  if (request.subresource === "status") {
    // NodeRestriction checks that it is the node's own.
    return ["update", "patch"].includes(request.verb)
      ? allow
      : noOpinion(`nodes may not ${request.verb} nodes/status`);
  }
  if (request.subresource !== "")
    return noOpinion(`nodes may not access subresource "${request.subresource}" of nodes`);
  if (["create", "update", "patch"].includes(request.verb)) return allow;
  if (["get", "list", "watch"].includes(request.verb)) {
    const name =
      request.name === "" ? selectedValue(request.fieldSelector, "metadata.name") : request.name;
    return name === node
      ? allow
      : noOpinion(`node '${node}' cannot read '${name ?? ""}', only its own Node object`);
  }
  return noOpinion(`nodes may not ${request.verb} nodes`);
};

const pods: Handler = (node, request) => {
  switch (request.subresource) {
    case "": {
      // Which pods: NodeRestriction.
      if (["get", "create", "delete"].includes(request.verb)) return allow;
      if (["list", "watch"].includes(request.verb)) {
        return selectedValue(request.fieldSelector, "spec.nodeName") === node
          ? allow
          : noOpinion("can only list/watch pods with spec.nodeName field selector");
      }
      return noOpinion(`nodes may not ${request.verb} pods`);
    }
    case "status":
      return ["update", "patch"].includes(request.verb)
        ? allow
        : noOpinion(`nodes may not ${request.verb} pods/status`);
    case "eviction":
      return request.verb === "create"
        ? allow
        : noOpinion(`nodes may not ${request.verb} pods/eviction`);
    default:
      return noOpinion(`nodes may not access pods/${request.subresource}`);
  }
};

const handlers: Readonly<Record<string, Handler>> = {
  "/secrets": readNamespaced("secrets"),
  "/configmaps": readNamespaced("configmaps"),
  "/persistentvolumeclaims": claims,
  "/persistentvolumes": readOne("persistentvolumes"),
  "/serviceaccounts": serviceAccounts,
  "/nodes": nodes,
  "/pods": pods,
  "coordination.k8s.io/leases": leases,
  "storage.k8s.io/csinodes": csiNodes,
  "storage.k8s.io/volumeattachments": readOne("volumeattachments"),
};

/**
 * The Node authorizer (KEP-1513, with AuthorizeNodeWithSelectors of 1.34): a node reads what its pods reference, and
 * otherwise only what the fixed rules of role system:node allow.
 */
export class NodeAuthorizer implements Authorizer {
  readonly #graph: NodeGraph;
  readonly #rules: readonly PolicyRule[];

  constructor(graph: NodeGraph, systemNodeRules: readonly PolicyRule[]) {
    this.#graph = graph;
    this.#rules = systemNodeRules;
  }

  authorize(request: AuthorizationAttributes): Decision {
    const node = nodeIdentity(request.user);
    if (node === undefined) return noOpinion("");
    if (node === "") return noOpinion(`unknown node for user "${request.user.name}"`);
    const handler = handlers[`${request.group}/${request.resource}`];
    if (handler !== undefined) return handler(node, request, this.#graph);
    return this.#rules.some((rule) => ruleAllows(rule, request)) ? allow : noOpinion("");
  }
}

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createAuthorizer } from "../../../src/controlplane/auth/authorizer.ts";
import type { ObservedChange } from "../../../src/controlplane/auth/node-graph.ts";
import { bootstrapRbacObjects } from "../../../src/controlplane/auth/bootstrap-rbac.ts";
import type {
  AuthorizationAttributes,
  JsonObject,
  UserInfo,
} from "../../../src/controlplane/types.ts";

/** Objects in memory that announce their changes as the store does. */
class Objects {
  readonly #objects = new Map<
    string,
    { resource: string; namespace: string; object: JsonObject }
  >();
  readonly #listeners: ((change: ObservedChange) => void)[] = [];

  readonly objects = {
    get: (resource: string, namespace: string, name: string) =>
      this.#objects.get(`${resource}/${namespace}/${name}`)?.object,
    list: (resource: string, namespace?: string) =>
      [...this.#objects.values()]
        .filter(
          (entry) =>
            entry.resource === resource &&
            (namespace === undefined || entry.namespace === namespace),
        )
        .map(({ object }) => object),
  };

  subscribe(listener: (change: ObservedChange) => void): () => void {
    this.#listeners.push(listener);
    return () => undefined;
  }

  put(resource: string, namespace: string, object: JsonObject): void {
    const name = (object["metadata"] as { name: string }).name;
    const key = `${resource}/${namespace}/${name}`;
    const previous = this.#objects.get(key)?.object;
    this.#objects.set(key, { resource, namespace, object });
    const type = previous === undefined ? "ADDED" : "MODIFIED";
    for (const listener of this.#listeners) listener({ resource, type, object, previous });
  }

  remove(resource: string, namespace: string, name: string): void {
    const key = `${resource}/${namespace}/${name}`;
    const previous = this.#objects.get(key)?.object;
    if (previous === undefined) return;
    this.#objects.delete(key);
    for (const listener of this.#listeners)
      listener({ resource, type: "DELETED", object: previous, previous });
  }
}

function user(name: string, ...groups: readonly string[]): UserInfo {
  return { name, uid: "", groups: [...groups, "system:authenticated"], extra: {} };
}

const n1 = user("system:node:n1", "system:nodes");
const proxy = user("system:kube-proxy");

function ask(
  who: UserInfo,
  verb: string,
  resource: string,
  more: Partial<AuthorizationAttributes> = {},
): AuthorizationAttributes {
  const [plural = "", subresource = ""] = resource.split("/");
  return {
    user: who,
    verb,
    group: "",
    version: "v1",
    resource: plural,
    subresource,
    namespace: "",
    name: "",
    path: "",
    fieldSelector: "",
    ...more,
  };
}

function cluster(): { objects: Objects; allowed: (request: AuthorizationAttributes) => boolean } {
  const objects = new Objects();
  for (const { resource, namespace, object } of bootstrapRbacObjects())
    objects.put(resource, namespace, object);
  const authorizer = createAuthorizer(objects);
  return { objects, allowed: (request) => authorizer.authorize(request).allowed };
}

function pod(name: string, nodeName: string, spec: JsonObject = {}): JsonObject {
  return {
    metadata: { name, namespace: "default" },
    spec: { nodeName, serviceAccountName: "default", ...spec },
  };
}

describe("authorization with the bootstrap policy", () => {
  const slices = { group: "discovery.k8s.io" };
  const cases: readonly (readonly [string, AuthorizationAttributes, boolean])[] = [
    [
      "a node lists its own pods",
      ask(n1, "list", "pods", { fieldSelector: "spec.nodeName=n1" }),
      true,
    ],
    [
      "a node lists the pods of another",
      ask(n1, "list", "pods", { fieldSelector: "spec.nodeName=n2" }),
      false,
    ],
    ["a node watches all pods", ask(n1, "watch", "pods"), false],
    ["a node reads its own Node", ask(n1, "get", "nodes", { name: "n1" }), true],
    [
      "a node watches its own Node by selector",
      ask(n1, "watch", "nodes", { fieldSelector: "metadata.name=n1" }),
      true,
    ],
    ["a node reads another Node", ask(n1, "get", "nodes", { name: "n2" }), false],
    ["a node patches its status", ask(n1, "patch", "nodes/status", { name: "n1" }), true],
    [
      "a node reads a Secret nobody gave it",
      ask(n1, "get", "secrets", { namespace: "default", name: "s" }),
      false,
    ],
    ["a node lists Secrets", ask(n1, "list", "secrets", { namespace: "default" }), false],
    ["a node lists Services", ask(n1, "list", "services"), true],
    ["a node lists EndpointSlices", ask(n1, "list", "endpointslices", slices), false],
    ["the proxy lists EndpointSlices", ask(proxy, "list", "endpointslices", slices), true],
    [
      "the proxy reads Secrets",
      ask(proxy, "get", "secrets", { namespace: "default", name: "s" }),
      false,
    ],
    [
      "a node renews its lease",
      ask(n1, "update", "leases", {
        group: "coordination.k8s.io",
        namespace: "kube-node-lease",
        name: "n1",
      }),
      true,
    ],
    [
      "a node takes another's lease",
      ask(n1, "update", "leases", {
        group: "coordination.k8s.io",
        namespace: "kube-node-lease",
        name: "n2",
      }),
      false,
    ],
    ["a node writes events", ask(n1, "create", "events", { namespace: "default" }), true],
    [
      "a user in system:nodes with another name is no node",
      ask(user("mallory", "system:nodes"), "list", "services"),
      false,
    ],
    [
      "a superuser deletes a node",
      ask(user("admin", "system:masters"), "delete", "nodes", { name: "n1" }),
      true,
    ],
    [
      "anybody who is known asks what they may do",
      ask(user("jane"), "create", "selfsubjectaccessreviews", { group: "authorization.k8s.io" }),
      true,
    ],
    ["a stranger lists pods", ask(user("jane"), "list", "pods", { namespace: "default" }), false],
    [
      "the anonymous user reads /version",
      ask({ ...user("system:anonymous"), groups: ["system:unauthenticated"] }, "get", "", {
        path: "/version",
      }),
      true,
    ],
    [
      "the anonymous user reads /metrics",
      ask({ ...user("system:anonymous"), groups: ["system:unauthenticated"] }, "get", "", {
        path: "/metrics",
      }),
      false,
    ],
  ];
  for (const [what, request, expected] of cases) {
    test(`${what}: ${expected ? "yes" : "no"}`, () => {
      assert.equal(cluster().allowed(request), expected);
    });
  }

  test("a node may read a Secret exactly as long as one of its pods names it", () => {
    const { objects, allowed } = cluster();
    const request = ask(n1, "get", "secrets", { namespace: "default", name: "s" });
    const volumes = [{ name: "v", secret: { secretName: "s" } }];
    objects.put("pods", "default", pod("a", "n1", { volumes }));
    objects.put("pods", "default", pod("b", "n1", { imagePullSecrets: [{ name: "s" }] }));
    assert.equal(allowed(request), true);
    assert.equal(allowed({ ...request, user: user("system:node:n2", "system:nodes") }), false);
    objects.remove("pods", "default", "a");
    assert.equal(allowed(request), true, "the other pod still names it");
    objects.put("pods", "default", pod("b", "n1"));
    assert.equal(allowed(request), false);
  });

  test("a mirror pod, which the node itself creates, widens nothing", () => {
    const { objects, allowed } = cluster();
    const mirror = pod("m", "n1", { volumes: [{ name: "v", secret: { secretName: "s" } }] });
    objects.put("pods", "default", {
      ...mirror,
      metadata: {
        name: "m",
        namespace: "default",
        annotations: { "kubernetes.io/config.mirror": "x" },
      },
    });
    assert.equal(allowed(ask(n1, "get", "secrets", { namespace: "default", name: "s" })), false);
  });

  test("a RoleBinding takes effect at once, in its namespace only, and goes with its deletion", () => {
    const { objects, allowed } = cluster();
    const group = "rbac.authorization.k8s.io";
    const request = ask(user("jane"), "list", "pods", { namespace: "team" });
    objects.put(`rolebindings.${group}`, "team", {
      metadata: { name: "view", namespace: "team" },
      roleRef: { apiGroup: group, kind: "ClusterRole", name: "view" },
      subjects: [{ kind: "User", apiGroup: group, name: "jane" }],
    });
    assert.equal(allowed(request), true, "view is aggregated from system:aggregate-to-view");
    assert.equal(allowed({ ...request, verb: "delete" }), false);
    assert.equal(allowed({ ...request, namespace: "other" }), false);
    objects.remove(`rolebindings.${group}`, "team", "view");
    assert.equal(allowed(request), false);
  });
});

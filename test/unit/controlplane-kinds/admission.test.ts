import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { isForbiddenNodeLabel } from "../../../src/controlplane/admission/node-restriction.ts";
import type { JsonObject, UserInfo } from "../../../src/controlplane/types.ts";
import { context, createCluster } from "./harness.ts";

const node: UserInfo = { name: "system:node:n1", uid: "", groups: ["system:nodes"], extra: {} };

function mirrorPod(metadata: JsonObject = {}, spec: JsonObject = {}): JsonObject {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: "etcd-n1",
      namespace: "default",
      annotations: { "kubernetes.io/config.mirror": "abc" },
      ownerReferences: [
        { apiVersion: "v1", kind: "Node", name: "n1", uid: "node-1", controller: true },
      ],
      ...metadata,
    },
    spec: { nodeName: "n1", containers: [{ name: "c", image: "nginx" }], ...spec },
  };
}

function clusterWithNode(): ReturnType<typeof createCluster> {
  const cluster = createCluster();
  cluster.objects.put("nodes", { metadata: { name: "n1", uid: "node-1" } });
  return cluster;
}

describe("NodeRestriction", () => {
  test("a node may create its own mirror pod", () => {
    const created = clusterWithNode().create("pods", "default", mirrorPod(), context(node));
    assert.equal((created["spec"] as JsonObject)["serviceAccountName"], undefined);
  });

  const refused: readonly (readonly [string, JsonObject, RegExp])[] = [
    ["an ordinary pod", mirrorPod({ annotations: {} }), /node "n1" can only create mirror pods/],
    [
      "a mirror pod on another node",
      mirrorPod({}, { nodeName: "n2" }),
      /can only create pods with spec\.nodeName set to itself/,
    ],
    [
      "a mirror pod of nobody",
      mirrorPod({ ownerReferences: [] }),
      /can only create pods with an owner reference set to itself/,
    ],
    [
      "a mirror pod with a secret",
      mirrorPod({}, { volumes: [{ name: "s", secret: { secretName: "x" } }] }),
      /can not create pods that reference secrets/,
    ],
  ];
  for (const [title, pod, message] of refused) {
    test(`a node may not create ${title}`, () => {
      assert.throws(() => clusterWithNode().create("pods", "default", pod, context(node)), message);
    });
  }

  test("a node may change its own Node, not another and not its taints", () => {
    const cluster = clusterWithNode();
    const own = cluster.create("nodes", "", { metadata: { name: "n1" } }, context(node));
    assert.throws(
      () => cluster.create("nodes", "", { metadata: { name: "n2" } }, context(node)),
      /node "n1" is not allowed to modify node "n2"/,
    );
    assert.throws(
      () => cluster.update("nodes", own, { ...own, spec: {} }, { as: context(node) }),
      /node "n1" is not allowed to modify taints/,
    );
  });

  test("a node may not write the status of a pod that is not its own", () => {
    const cluster = clusterWithNode();
    const pod = cluster.create("pods", "default", {
      metadata: { name: "p" },
      spec: { nodeName: "n2", containers: [{ name: "c", image: "nginx" }] },
    });
    assert.throws(
      () => cluster.update("pods", pod, pod, { subresource: "status", as: context(node) }),
      /can only update pod status for pods with spec\.nodeName set to itself/,
    );
  });

  test("leases are its own, in the namespace for nodes", () => {
    const cluster = clusterWithNode();
    cluster.objects.put("namespaces", { metadata: { name: "kube-node-lease" } });
    const lease = (name: string): JsonObject => ({ metadata: { name }, spec: {} });
    const leases = "leases.coordination.k8s.io";
    cluster.create(leases, "kube-node-lease", lease("n1"), context(node));
    assert.throws(
      () => cluster.create(leases, "kube-node-lease", lease("n2"), context(node)),
      /can only access node lease with the same name/,
    );
    assert.throws(
      () => cluster.create(leases, "default", lease("n1"), context(node)),
      /can only access leases in the "kube-node-lease" system namespace/,
    );
  });

  test("labels: its own are free, the reserved ones are on a list", () => {
    const verdicts = {
      "example.com/role": false,
      plain: false,
      "kubernetes.io/hostname": false,
      "node.kubernetes.io/anything": false,
      "feature.node.kubernetes.io/x": false,
      "node-restriction.kubernetes.io/tier": true,
      "node-role.kubernetes.io/control-plane": true,
      "k8s.io/x": true,
    };
    for (const [key, forbidden] of Object.entries(verdicts)) {
      assert.equal(isForbiddenNodeLabel(key), forbidden, key);
    }
  });
});

describe("namespaces", () => {
  test("nothing new in one that is going", () => {
    const cluster = createCluster();
    cluster.objects.put("namespaces", {
      metadata: { name: "old", deletionTimestamp: "2026-11-21T11:00:00Z" },
    });
    assert.throws(
      () => cluster.create("configmaps", "old", { metadata: { name: "x" } }),
      /configmaps "x" is forbidden: unable to create new content in namespace old because it is being terminated/,
    );
  });
});

describe("priority", () => {
  const pod = (spec: JsonObject): JsonObject => ({
    metadata: { name: "p" },
    spec: { containers: [{ name: "c", image: "nginx" }], ...spec },
  });

  test("the global default class reaches pods without a class", () => {
    const cluster = createCluster();
    cluster.objects.put("priorityclasses.scheduling.k8s.io", {
      metadata: { name: "usual" },
      value: 7,
      globalDefault: true,
      preemptionPolicy: "Never",
    });
    const { spec } = cluster.create("pods", "default", pod({})) as { spec: JsonObject };
    assert.deepEqual(
      [spec["priorityClassName"], spec["priority"], spec["preemptionPolicy"]],
      ["usual", 7, "Never"],
    );
  });

  test("a number that does not belong to the class is refused", () => {
    assert.throws(
      () => createCluster().create("pods", "default", pod({ priority: 9 })),
      /the integer value of priority \(9\) must not be provided in pod spec; priority admission controller computed 0/,
    );
  });
});

describe("RBAC escalation", () => {
  const rbac = "rbac.authorization.k8s.io";
  const jane: UserInfo = { name: "jane", uid: "", groups: ["devs"], extra: {} };
  const role = (name: string, verbs: readonly string[]): JsonObject => ({
    metadata: { name },
    rules: [{ apiGroups: [""], resources: ["pods"], verbs }],
  });
  const binding = (to: string): JsonObject => ({
    metadata: { name: "b" },
    roleRef: { apiGroup: rbac, kind: "ClusterRole", name: to },
    subjects: [{ kind: "User", name: "joe", apiGroup: rbac }],
  });

  function cluster(): ReturnType<typeof createCluster> {
    const created = createCluster();
    created.objects.put(`clusterroles.${rbac}`, role("reader", ["get", "list"]));
    created.objects.put(`clusterroles.${rbac}`, role("writer", ["*"]));
    created.objects.put(`clusterrolebindings.${rbac}`, {
      metadata: { name: "jane" },
      roleRef: { apiGroup: rbac, kind: "ClusterRole", name: "reader" },
      subjects: [{ kind: "User", name: "jane", apiGroup: rbac }],
    });
    return created;
  }

  test("what one holds may be passed on, by role and by binding", () => {
    cluster().create(`roles.${rbac}`, "default", role("r", ["get"]), context(jane));
    cluster().create(`rolebindings.${rbac}`, "default", binding("reader"), context(jane));
  });

  test("what one does not hold may not", () => {
    assert.throws(
      () => cluster().create(`roles.${rbac}`, "default", role("r", ["delete"]), context(jane)),
      /user "jane" \(groups=\["devs"\]\) is attempting to grant RBAC permissions not currently held:\n\{APIGroups:\[""\], Resources:\["pods"\], Verbs:\["delete"\]\}/,
    );
    assert.throws(
      () => cluster().create(`rolebindings.${rbac}`, "default", binding("writer"), context(jane)),
      /attempting to grant RBAC permissions not currently held/,
    );
  });

  test("superusers may do everything", () => {
    cluster().create(`roles.${rbac}`, "default", role("r", ["*"]));
  });
});

describe("RuntimeClass", () => {
  function cluster(): ReturnType<typeof createCluster> {
    const made = createCluster();
    made.objects.put("runtimeclasses.node.k8s.io", {
      metadata: { name: "slow" },
      handler: "runc",
      overhead: { podFixed: { cpu: "100m" } },
      scheduling: {
        nodeSelector: { disk: "ssd" },
        tolerations: [{ key: "slow", operator: "Exists" }],
      },
    });
    return made;
  }
  function pod(spec: JsonObject): JsonObject {
    return {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "p", namespace: "default" },
      spec: { containers: [{ name: "c", image: "nginx" }], ...spec },
    };
  }

  test("a pod gets the overhead and the scheduling of its class", () => {
    const created = cluster().create(
      "pods",
      "default",
      pod({ runtimeClassName: "slow" }),
      context(),
    );
    const spec = created["spec"] as JsonObject;
    assert.deepEqual(spec["overhead"], { cpu: "100m" });
    assert.deepEqual(spec["nodeSelector"], { disk: "ssd" });
    assert.ok((spec["tolerations"] as JsonObject[]).some(({ key }) => key === "slow"));
  });

  const refused: readonly (readonly [string, JsonObject, RegExp])[] = [
    [
      "of an unknown class",
      { runtimeClassName: "none" },
      /pod rejected: RuntimeClass "none" not found/,
    ],
    [
      "with an overhead of its own",
      { overhead: { cpu: "1" } },
      /Overhead set without corresponding RuntimeClass/,
    ],
    [
      "with another overhead than its class",
      { runtimeClassName: "slow", overhead: { cpu: "1" } },
      /Overhead doesn't match RuntimeClass's defined Overhead/,
    ],
    [
      "whose node selector contradicts its class",
      { runtimeClassName: "slow", nodeSelector: { disk: "hdd" } },
      /conflict: runtimeClass\.scheduling\.nodeSelector\[disk\] = ssd; pod\.spec\.nodeSelector\[disk\] = hdd/,
    ],
  ];
  for (const [title, spec, message] of refused) {
    test(`a pod ${title} is refused`, () => {
      assert.throws(() => cluster().create("pods", "default", pod(spec), context()), message);
    });
  }
});

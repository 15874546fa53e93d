import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { NodeAuthorizer } from "../../../src/controlplane/auth/node-authorizer.ts";
import { NodeGraph, type ObservedChange } from "../../../src/controlplane/auth/node-graph.ts";
import type { JsonObject, UserInfo } from "../../../src/controlplane/types.ts";
import { context, createCluster, FakeObjects } from "../controlplane-kinds/harness.ts";

const node = (name: string): UserInfo => ({
  name: `system:node:${name}`,
  uid: "",
  groups: ["system:nodes"],
  extra: {},
});

function pod(name: string, nodeName: string, volume: JsonObject): JsonObject {
  return {
    metadata: { name, namespace: "default" },
    spec: { nodeName, volumes: [{ name: "data", ...volume }] },
  };
}

function csiVolume(claim: string | undefined): JsonObject {
  const secret = (name: string): JsonObject => ({ namespace: "secrets", name });
  return {
    metadata: { name: "v" },
    spec: {
      ...(claim === undefined ? {} : { claimRef: { namespace: "default", name: claim } }),
      csi: {
        driver: "d",
        nodeStageSecretRef: secret("stage"),
        nodePublishSecretRef: secret("publish"),
        nodeExpandSecretRef: secret("expand"),
        controllerPublishSecretRef: secret("attach"),
      },
    },
  };
}

describe("a node may read, of storage", () => {
  const objects = new FakeObjects();
  const listeners: ((change: ObservedChange) => void)[] = [];
  const graph = new NodeGraph({
    objects,
    subscribe: (listener) => {
      listeners.push(listener);
      return () => undefined;
    },
  });
  const authorizer = new NodeAuthorizer(graph, []);
  const tell = (change: ObservedChange): void => listeners.forEach((listen) => listen(change));
  const may = (
    who: string,
    verb: string,
    resource: string,
    name: string,
    more: { readonly namespace?: string; readonly group?: string } = {},
  ): boolean => {
    const [plural = "", subresource = ""] = resource.split("/");
    const { namespace = "", group = "" } = more;
    return authorizer.authorize({
      user: node(who),
      verb,
      group,
      version: "v1",
      resource: plural,
      subresource,
      namespace,
      name,
      path: "",
      fieldSelector: "",
    }).allowed;
  };
  const secrets = { namespace: "secrets" };
  const storage = { group: "storage.k8s.io" };

  test("the volume behind its pod's claim, and the secrets of mounting, while they belong together", () => {
    const runs = pod("p", "n1", { persistentVolumeClaim: { claimName: "c" } });
    const [free, bound] = [csiVolume(undefined), csiVolume("c")];
    tell({ resource: "pods", type: "ADDED", object: runs, previous: undefined });
    tell({ resource: "persistentvolumes", type: "ADDED", object: free, previous: undefined });
    assert.equal(may("n1", "get", "persistentvolumes", "v"), false);
    tell({ resource: "persistentvolumes", type: "MODIFIED", object: bound, previous: free });
    assert.equal(may("n1", "get", "persistentvolumes", "v"), true);
    assert.equal(may("n2", "get", "persistentvolumes", "v"), false);
    assert.equal(may("n1", "list", "persistentvolumes", "v"), false);
    assert.equal(may("n1", "get", "persistentvolumes/status", "v"), false);
    for (const secret of ["stage", "publish", "expand"])
      assert.equal(may("n1", "get", "secrets", secret, secrets), true, secret);
    assert.equal(may("n1", "get", "secrets", "attach", secrets), false);
    assert.equal(may("n2", "get", "secrets", "stage", secrets), false);
    tell({ resource: "persistentvolumes", type: "MODIFIED", object: free, previous: bound });
    assert.equal(may("n1", "get", "secrets", "stage", secrets), false);
    tell({ resource: "persistentvolumes", type: "MODIFIED", object: bound, previous: free });
    tell({ resource: "pods", type: "DELETED", object: runs, previous: runs });
    assert.equal(may("n1", "get", "persistentvolumes", "v"), false);
    assert.equal(may("n1", "get", "secrets", "stage", secrets), false);
  });

  test("the claim of a generic ephemeral volume, and its status", () => {
    const runs = pod("e", "n1", { ephemeral: {} });
    tell({ resource: "pods", type: "ADDED", object: runs, previous: undefined });
    const inDefault = { namespace: "default" };
    assert.equal(may("n1", "get", "persistentvolumeclaims", "e-data", inDefault), true);
    assert.equal(may("n1", "patch", "persistentvolumeclaims/status", "e-data", inDefault), true);
    assert.equal(may("n1", "update", "persistentvolumeclaims", "e-data", inDefault), false);
    assert.equal(may("n2", "get", "persistentvolumeclaims", "e-data", inDefault), false);
  });

  test("attachments to itself", () => {
    const attachment = { metadata: { name: "a" }, spec: { nodeName: "n1" } };
    const resource = "volumeattachments.storage.k8s.io";
    tell({ resource, type: "ADDED", object: attachment, previous: undefined });
    assert.equal(may("n1", "get", "volumeattachments", "a", storage), true);
    assert.equal(may("n2", "get", "volumeattachments", "a", storage), false);
    assert.equal(may("n1", "list", "volumeattachments", "", storage), false);
    tell({ resource, type: "DELETED", object: attachment, previous: attachment });
    assert.equal(may("n1", "get", "volumeattachments", "a", storage), false);
  });
});

describe("a node may write, of storage", () => {
  const claims = "persistentvolumeclaims";
  const volumes = "persistentvolumes";
  const as = context(node("n1"));

  test("how large a claim has become, and nothing else of it", () => {
    const cluster = createCluster();
    const claim: JsonObject = {
      metadata: { name: "c", namespace: "default", resourceVersion: "1" },
      spec: {
        accessModes: ["ReadWriteOnce"],
        resources: { requests: { storage: "1Gi" } },
        volumeMode: "Filesystem",
      },
      status: { phase: "Bound", capacity: { storage: "1Gi" } },
    };
    const write = (change: JsonObject, subresource?: string) => () =>
      cluster.update(
        claims,
        claim,
        { ...structuredClone(claim), ...change },
        subresource === undefined ? { as } : { as, subresource },
      );
    write(
      {
        status: {
          phase: "Bound",
          capacity: { storage: "2Gi" },
          conditions: [{ type: "FileSystemResizePending", status: "True" }],
          allocatedResources: { storage: "2Gi" },
        },
      },
      "status",
    )();
    assert.throws(
      write({ status: { phase: "Lost" } }, "status"),
      /node "n1" is not allowed to update fields other than status\.quantity and status\.conditions/,
    );
    assert.throws(
      write({ metadata: { ...(claim["metadata"] as JsonObject), finalizers: [] } }),
      /may only update PVC status/,
    );
  });

  const local = (hostname: string, metadata: JsonObject = {}): JsonObject => ({
    metadata: {
      name: "v",
      uid: "u",
      resourceVersion: "1",
      annotations: { "pv.kubernetes.io/provisioned-by": "remora.io/local" },
      deletionTimestamp: "2026-11-21T11:00:00Z",
      finalizers: ["kubernetes.io/pv-protection", "remora.io/local-data"],
      ...metadata,
    },
    spec: {
      capacity: { storage: "1Gi" },
      accessModes: ["ReadWriteOnce"],
      local: { path: "/data" },
      persistentVolumeReclaimPolicy: "Delete",
      volumeMode: "Filesystem",
      nodeAffinity: {
        required: {
          nodeSelectorTerms: [
            {
              matchExpressions: [
                { key: "kubernetes.io/hostname", operator: "In", values: [hostname] },
              ],
            },
          ],
        },
      },
    },
    status: { phase: "Released" },
  });
  const write =
    (before: JsonObject, metadata: JsonObject, more: JsonObject = {}) =>
    () => {
      const cluster = createCluster();
      cluster.objects.put("nodes", {
        metadata: { name: "n1", labels: { "kubernetes.io/hostname": "n1" } },
      });
      const after = { ...structuredClone(before), ...more };
      after["metadata"] = { ...(before["metadata"] as JsonObject), ...metadata };
      return cluster.update(volumes, before, after, { as });
    };
  const released = { finalizers: ["kubernetes.io/pv-protection"] };

  test("that the data of its own volume is gone", () => {
    write(local("n1"), released)();
  });

  const refused: readonly (readonly [string, () => JsonObject])[] = [
    ["of a volume of another node", write(local("n2"), released)],
    [
      "of a volume that is not to go",
      write(local("n1", { deletionTimestamp: undefined }), released),
    ],
    ["of a volume that is somebody else's", write(local("n1", { annotations: {} }), released)],
    ["with the other finalizer too", write(local("n1"), { finalizers: [] })],
    ["with a label", write(local("n1"), { ...released, labels: { a: "b" } })],
    [
      "with another policy",
      write(local("n1"), released, {
        spec: {
          ...(local("n1")["spec"] as JsonObject),
          persistentVolumeReclaimPolicy: "Retain",
        },
      }),
    ],
  ];
  for (const [title, act] of refused) {
    test(`not ${title}`, () =>
      assert.throws(
        act,
        /node "n1" may only remove the finalizer remora\.io\/local-data of a volume of its own that is being deleted/,
      ));
  }

  test("tokens for what the CSI drivers of its pods ask for", () => {
    const cluster = createCluster();
    const { objects } = cluster;
    objects.put("nodes", { metadata: { name: "n1", uid: "n" } });
    objects.put("csidrivers.storage.k8s.io", {
      metadata: { name: "d" },
      spec: { tokenRequests: [{ audience: "vault" }] },
    });
    objects.put(claims, {
      metadata: { name: "c", namespace: "default" },
      spec: { volumeName: "v" },
    });
    objects.put(volumes, { metadata: { name: "v" }, spec: { csi: { driver: "d" } } });
    const owner = pod("p", "n1", { persistentVolumeClaim: { claimName: "c" } });
    (owner["metadata"] as JsonObject)["uid"] = "p-1";
    objects.put("pods", owner);
    const plugin = cluster.kind("serviceaccounts");
    const ask = (audience: string) => () =>
      cluster.admit({
        operation: "CREATE",
        kind: plugin,
        subresource: "token",
        namespace: "default",
        name: "default",
        object: {
          spec: {
            audiences: [audience],
            boundObjectRef: { apiVersion: "v1", kind: "Pod", name: "p", uid: "p-1" },
          },
        },
        oldObject: undefined,
        context: as,
        objects,
      });
    ask("vault")();
    assert.throws(ask("other"), /audience "other" not found in pod spec volume/);
  });
});

describe("a new claim", () => {
  const classes = "storageclasses.storage.k8s.io";
  const marked = (name: string, creationTimestamp: string, value = "true"): JsonObject => ({
    metadata: {
      name,
      creationTimestamp,
      annotations: { "storageclass.kubernetes.io/is-default-class": value },
    },
  });
  const classOfNew = (existing: readonly JsonObject[], claim: JsonObject = {}): unknown => {
    const cluster = createCluster();
    for (const one of existing) cluster.objects.put(classes, one);
    const created = cluster.create("persistentvolumeclaims", "default", {
      metadata: { name: "c", ...(claim["metadata"] as JsonObject | undefined) },
      spec: {
        accessModes: ["ReadWriteOnce"],
        resources: { requests: { storage: "1Gi" } },
        ...(claim["spec"] as JsonObject | undefined),
      },
    });
    return (created["spec"] as JsonObject)["storageClassName"];
  };
  const [old, young] = ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"];

  test("gets the newest default class, the first by name of two", () => {
    const three = [marked("a", old), marked("c", young), marked("b", young)];
    assert.equal(classOfNew(three), "b");
    assert.equal(classOfNew([marked("a", old), marked("z", young, "false")]), "a");
    assert.equal(classOfNew([marked("z", young, "false")]), undefined);
  });

  test("keeps what it says of its class, also when it says none", () => {
    const one = [marked("a", old)];
    assert.equal(classOfNew(one, { spec: { storageClassName: "" } }), "");
    const annotations = { "volume.beta.kubernetes.io/storage-class": "b" };
    assert.equal(classOfNew(one, { metadata: { annotations } }), undefined);
  });
});

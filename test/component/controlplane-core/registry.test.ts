import assert from "node:assert/strict";
import { test } from "node:test";

import { StatusError } from "../../../src/controlplane/status-error.ts";
import type { AdmissionPlugin, DeleteOptions } from "../../../src/controlplane/types.ts";
import { at, contextAt, pod, record, world } from "./test-kinds.ts";

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5);
const context = contextAt(NOW);
const web = { namespace: "default", name: "web" };

const noOptions: DeleteOptions = {
  gracePeriodSeconds: undefined,
  propagationPolicy: undefined,
  uid: undefined,
  resourceVersion: undefined,
};

function refused(status: number, message: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof StatusError, String(error));
    assert.equal(error.status, status, error.message);
    assert.match(error.message, message);
    return true;
  };
}

function running(name: string) {
  return pod(name, { spec: { nodeName: "n1", containers: [{ name: "c" }] } });
}

test("create fills identity, runs the strategy and stores", () => {
  const { registry } = world();
  const created = registry.create("pods", "default", pod("web"), context, "kubectl-create");
  assert.equal(at(created, "metadata.namespace"), "default");
  assert.equal(at(created, "metadata.creationTimestamp"), "2026-01-02T03:04:05Z");
  assert.match(String(at(created, "metadata.uid")), /^[0-9a-f-]{36}$/);
  assert.equal(at(created, "status.phase"), "Pending");
  assert.equal(registry.get("pods", "default", "web"), created);
  assert.throws(
    () => registry.create("pods", "default", pod("web"), context),
    refused(409, /^pods "web" already exists$/),
  );
});

test("create refuses bad metadata and what the strategy refuses, together, with the API's text", () => {
  const { registry } = world();
  assert.throws(
    () => registry.create("configmaps", "default", { metadata: {} }, context),
    refused(
      422,
      /^ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required$/,
    ),
  );
  const bad = { metadata: { name: "x", labels: { "a b": "c" } }, spec: {} };
  assert.throws(
    () => registry.create("pods", "default", bad, context),
    refused(
      422,
      /^Pod "x" is invalid: \[metadata.labels: Invalid value: "a b": name part must.*, spec.containers: Required value\]$/s,
    ),
  );
  const versioned = { metadata: { name: "x", resourceVersion: "5" } };
  assert.throws(
    () => registry.create("configmaps", "default", versioned, context),
    refused(500, /^resourceVersion should not be set on objects to be created$/),
  );
});

test("generated names have five letters and are tried again when taken", () => {
  let calls = 0;
  // The first two names come out equal.
  const { registry } = world({ random: () => (calls++ < 10 ? 0 : 0.5) });
  const make = () =>
    registry.create("configmaps", "default", { metadata: { generateName: "x-" } }, context);
  assert.equal(at(make(), "metadata.name"), "x-bbbbb");
  assert.match(String(at(make(), "metadata.name")), /^x-[bcdfghjklmnpqrstvwxz2456789]{5}$/);
  assert.equal([...registry.list("configmaps")].length, 2);
});

test("an update that changes nothing does not move the resourceVersion", () => {
  const { registry, store } = world();
  const created = registry.create("pods", "default", pod("web"), context, "m");
  const before = store.currentRevision;
  const same = registry.update("pods", web, (one) => one, { context, fieldManager: "m" });
  assert.equal(at(same, "metadata.resourceVersion"), at(created, "metadata.resourceVersion"));
  assert.equal(store.currentRevision, before);
});

test("an update with another resourceVersion is a conflict; metadata that cannot change is refused", () => {
  const { registry } = world();
  registry.create("pods", "default", pod("web"), context);
  const update = (metadata: Record<string, unknown>) => () =>
    registry.update(
      "pods",
      web,
      (one) => ({ ...one, metadata: { ...record(one["metadata"]), ...metadata } }),
      { context },
    );
  assert.throws(
    update({ resourceVersion: "1" }),
    refused(
      409,
      /^Operation cannot be fulfilled on pods "web": the object has been modified; please apply/,
    ),
  );
  assert.throws(
    update({ uid: "other" }),
    refused(409, /Precondition failed: UID in precondition: other/),
  );
  assert.throws(
    update({ name: "other" }),
    refused(422, /metadata.name: Invalid value: "other": field is immutable/),
  );
});

test("status and spec are written through their own endpoints only", () => {
  const { registry } = world();
  registry.create("pods", "default", pod("web"), context);
  const change = (one: Record<string, unknown>) => ({
    ...one,
    spec: { containers: [{ name: "other" }] },
    status: { phase: "Running" },
  });
  const status = registry.update("pods", web, change, { context, subresource: "status" });
  assert.equal(at(status, "status.phase"), "Running");
  assert.equal(at(status, "spec.containers.0.name"), "c");
  const spec = registry.update("pods", web, (one) => ({ ...change(one), status: {} }), { context });
  assert.equal(at(spec, "status.phase"), "Running");
  assert.equal(at(spec, "spec.containers.0.name"), "other");
});

test("a dry run answers as if and stores nothing", () => {
  const { registry, store } = world();
  const dry = contextAt(NOW, true);
  const before = store.currentRevision;
  assert.equal(at(registry.create("pods", "default", pod("web"), dry), "status.phase"), "Pending");
  assert.equal(registry.get("pods", "default", "web"), undefined);
  assert.equal(store.currentRevision, before);
  registry.create("pods", "default", pod("web"), context);
  registry.delete("pods", web, noOptions, dry);
  assert.ok(registry.get("pods", "default", "web") !== undefined);
});

test("admission mutates before validation and may refuse", () => {
  const order: string[] = [];
  const plugin: AdmissionPlugin = {
    name: "test",
    mutate: ({ object, operation }) => {
      order.push(`mutate ${operation}`);
      if (object !== undefined) object["data"] = { added: "1" };
    },
    validate: ({ name }) => {
      order.push("validate");
      if (name === "no") throw new StatusError(403, "Forbidden", "refused by test");
    },
  };
  const { registry } = world({ admission: [plugin] });
  const created = registry.create("configmaps", "default", { metadata: { name: "a" } }, context);
  assert.equal(at(created, "data.added"), "1");
  assert.deepEqual(order, ["mutate CREATE", "validate"]);
  assert.throws(
    () => registry.create("configmaps", "default", { metadata: { name: "no" } }, context),
    refused(403, /refused by test/),
  );
  assert.equal(registry.get("configmaps", "default", "no"), undefined);
});

test("graceful deletion: marked first, shortened only, gone with grace 0", () => {
  const { registry } = world();
  registry.create("pods", "default", running("web"), context);
  const marked = registry.delete("pods", web, noOptions, context);
  assert.equal(at(marked, "metadata.deletionTimestamp"), "2026-01-02T03:04:35Z");
  assert.equal(at(marked, "metadata.deletionGracePeriodSeconds"), 30);
  const longer = registry.delete("pods", web, { ...noOptions, gracePeriodSeconds: 60 }, context);
  assert.equal(at(longer, "metadata.resourceVersion"), at(marked, "metadata.resourceVersion"));
  const shorter = registry.delete("pods", web, { ...noOptions, gracePeriodSeconds: 5 }, context);
  assert.equal(at(shorter, "metadata.deletionTimestamp"), "2026-01-02T03:04:10Z");
  assert.equal(at(shorter, "metadata.deletionGracePeriodSeconds"), 5);
  registry.delete("pods", web, { ...noOptions, gracePeriodSeconds: 0 }, context);
  assert.equal(registry.get("pods", "default", "web"), undefined);
});

test("a pod that no node runs goes at once; other kinds answer with a Status", () => {
  const { registry } = world();
  registry.create("pods", "default", pod("web"), context);
  assert.equal(registry.delete("pods", web, noOptions, context)["kind"], "Pod");
  const created = registry.create("configmaps", "default", { metadata: { name: "web" } }, context);
  assert.deepEqual(registry.delete("configmaps", web, noOptions, context), {
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Success",
    details: { name: "web", kind: "configmaps", uid: at(created, "metadata.uid") },
  });
});

test("preconditions guard a delete", () => {
  const { registry } = world();
  registry.create("configmaps", "default", { metadata: { name: "web" } }, context);
  assert.throws(
    () => registry.delete("configmaps", web, { ...noOptions, uid: "x" }, context),
    refused(
      409,
      /^Operation cannot be fulfilled on ConfigMap "web": the UID in the precondition \(x\) does not match/,
    ),
  );
  assert.throws(
    () => registry.delete("configmaps", web, { ...noOptions, resourceVersion: "1" }, context),
    refused(409, /the ResourceVersion in the precondition \(1\) does not match/),
  );
  assert.throws(
    () => registry.delete("configmaps", { ...web, name: "no" }, noOptions, context),
    refused(404, /^configmaps "no" not found$/),
  );
});

test("finalizers hold an object until the last of them goes; none may come then", () => {
  const { registry } = world();
  const metadata = { name: "web", finalizers: ["a.example/x"] };
  registry.create("configmaps", "default", { metadata }, context);
  const marked = registry.delete("configmaps", web, noOptions, context);
  assert.equal(at(marked, "metadata.deletionTimestamp"), "2026-01-02T03:04:05Z");
  const set = (finalizers: readonly string[]) =>
    registry.update(
      "configmaps",
      web,
      (one) => ({ ...one, metadata: { ...record(one["metadata"]), finalizers } }),
      { context },
    );
  assert.throws(
    () => set(["a.example/x", "b.example/y"]),
    refused(422, /no new finalizers can be added if the object is being deleted/),
  );
  set([]);
  assert.equal(registry.get("configmaps", "default", "web"), undefined);
});

test("the propagation policy becomes a finalizer", () => {
  for (const [policy, finalizer] of [
    ["Foreground", "foregroundDeletion"],
    ["Orphan", "orphan"],
  ] as const) {
    const { registry } = world();
    registry.create("configmaps", "default", { metadata: { name: "web" } }, context);
    registry.delete("configmaps", web, { ...noOptions, propagationPolicy: policy }, context);
    const left = registry.get("configmaps", "default", "web");
    assert.deepEqual(at(left, "metadata.finalizers"), [finalizer]);
    registry.delete("configmaps", web, { ...noOptions, propagationPolicy: "Background" }, context);
    assert.equal(registry.get("configmaps", "default", "web"), undefined);
  }
});

test("managedFields name who wrote what, and a field changes hands with its value", () => {
  const { registry } = world();
  const labelled = { ...pod("web"), metadata: { name: "web", labels: { a: "1", b: "1" } } };
  registry.create("pods", "default", labelled, context, "creator");
  const updated = registry.update(
    "pods",
    web,
    (one) => ({ ...one, metadata: { ...record(one["metadata"]), labels: { a: "2", c: "1" } } }),
    { context, fieldManager: "changer" },
  );
  const entries = at(updated, "metadata.managedFields");
  assert.ok(Array.isArray(entries));
  const fieldsOf = (manager: string): unknown =>
    at(
      entries.find((one) => at(one, "manager") === manager),
      "fieldsV1",
    );
  const labelsOf = (manager: string): unknown => at(fieldsOf(manager), "f:metadata.f:labels");
  // Owned without a child left: the map itself.
  assert.deepEqual(labelsOf("creator"), {});
  assert.deepEqual(labelsOf("changer"), { "f:a": {}, "f:c": {} });
  assert.deepEqual(at(fieldsOf("creator"), "f:spec"), {
    "f:containers": { 'k:{"name":"c"}': { ".": {}, "f:image": {}, "f:name": {} } },
  });
});

test("events vanish when their time is over", () => {
  const { registry, store } = world();
  registry.create("events", "default", { metadata: { name: "e" } }, context);
  registry.create("configmaps", "default", { metadata: { name: "c" } }, context);
  assert.equal(registry.expire(), 0);
  assert.equal(store.writtenBefore("events", Date.now() + 1).length, 1);
});
